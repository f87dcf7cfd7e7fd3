//! Sidecar and broker absent, killed and frozen under 200 writes a second: no API call notices.

use std::time::{Duration, Instant};

use super::length;
use super::load::{Account, Ledger, Load, quantiles, state_from, state_of};
use crate::order::versions_in_order;
use crate::stack::Stack;

const CLIENTS: usize = 10;
/// 10 clients, 20 requests a second each.
const PACE: Duration = Duration::from_millis(50);

/// A time in which something was wrong, or nothing.
struct Phase {
    name: &'static str,
    from: Instant,
    until: Instant,
}

/// Keeps the load on for a while.
async fn phase(phases: &mut Vec<Phase>, name: &'static str, seconds: u64) {
    let from = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    phases.push(Phase { name, from, until: Instant::now() });
}

/// Median and 99th percentile of the answers to requests that began in a phase, in milliseconds, and their number.
fn latency(ledger: &Ledger, phase: &Phase) -> (f64, f64, usize) {
    let within = ledger.answers.iter().filter(|(at, _)| *at >= phase.from && *at < phase.until);
    quantiles(within.map(|(_, took)| *took))
}

#[actix_web::test]
async fn no_request_notices_that_sidecar_or_broker_are_away_or_frozen() {
    let calm = length(6, 30);
    let fault = length(8, 40);
    let mut stack = Stack::started();
    let client = stack.client("admin", "admin123").await;
    let load = Load::start(&client, CLIENTS, 1, Some(PACE));
    let mut phases = Vec::new();
    phase(&mut phases, "warm-up", 2).await;
    phase(&mut phases, "calm", calm).await;

    stack.sidecar().kill();
    phase(&mut phases, "sidecar killed", fault).await;
    stack.start_sidecar_meanwhile().await;
    stack.sidecar().signal("STOP");
    // Longer than the 15 s after which a publish is given up.
    phase(&mut phases, "sidecar frozen", fault.max(17)).await;
    stack.sidecar().signal("CONT");
    phase(&mut phases, "sidecar back", 2).await;
    stack.kafka().kill();
    phase(&mut phases, "broker killed", fault).await;
    stack.start_kafka_meanwhile().await;
    phase(&mut phases, "broker back", 2).await;
    stack.kafka().signal("STOP");
    phase(&mut phases, "broker frozen", fault).await;
    stack.kafka().signal("CONT");

    let ledger = load.stop().await;
    assert_eq!(ledger.failures, Vec::<String>::new(), "an API call failed");
    let (calm_median, ..) = latency(&ledger, &phases[1]);
    for phase in &phases[1..] {
        let (median, p99, count) = latency(&ledger, phase);
        println!("outages: {:15} {count:5} requests, p50 {median:6.2} ms, p99 {p99:6.2} ms", phase.name);
        if phase.name.ends_with("back") {
            // The backlog is published as fast as this machine can: that takes its cores, it does not make anybody
            // wait.
            continue;
        }
        // Half a millisecond apart is noise.
        assert!(median <= 2.0 * calm_median + 0.5, "{}: p50 {median} ms, calm {calm_median} ms", phase.name);
        assert!(p99 < 250.0, "{}: p99 {p99} ms", phase.name);
    }
    let drained = Instant::now();
    stack.wait_until_published().await;
    println!("outages: everything was published {:.1} s after the last outage", drained.elapsed().as_secs_f64());
    let state = state_of(&client).await;
    let events = stack.events_until(|events| state_from(events) == state).await;
    versions_in_order(&events);
    let account = Account::of(&ledger, &events);
    println!("outages: {account:?}");
    assert_eq!((account.lost, account.phantom), (0, 0));
}
