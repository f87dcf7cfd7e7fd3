//! The load: oha repeats one request on a number of connections, each of which sends the next when it has the answer.

use serde_json::Value;

use crate::contenders::{Contender, Request, Work};
use crate::machine;
use crate::report::Measured;

/// Fails when an answer is not 2xx: what is answered with an error may well be answered fast.
pub fn run(contender: &Contender, work: Work, connections: u32, seconds: u32) -> Measured {
    let Request { method, url, body, token } = contender.request(work);
    let mut oha = machine::oha();
    oha.args(["--no-tui", "--output-format", "json", "--wait-ongoing-requests-after-deadline"])
        .args(["-z", &format!("{seconds}s"), "-c", &connections.to_string(), "-m", method])
        .args(["-H", &format!("Authorization: Bearer {token}")]);
    if !body.is_empty() {
        oha.args(["-T", "application/json", "-d", body]);
    }
    let before = machine::cpu_seconds(contender.pid());
    let output = oha.arg(url).output().unwrap();
    let after = machine::cpu_seconds(contender.pid());

    assert!(output.status.success(), "oha failed: {}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let statuses = result["statusCodeDistribution"].as_object().unwrap();
    let failed = statuses.keys().any(|status| !status.starts_with('2'))
        || result["errorDistribution"] != Value::Object(Default::default());
    assert!(!failed, "{} {method} {url}: {statuses:?}, {}", contender.name, result["errorDistribution"]);
    let answers = statuses.values().filter_map(Value::as_f64).sum::<f64>();
    Measured {
        rate: answers / result["summary"]["total"].as_f64().unwrap(),
        p99: result["latencyPercentiles"]["p99"].as_f64().unwrap() * 1e3,
        cpu: before.zip(after).map(|(before, after)| (after - before) * 1e6 / answers),
    }
}
