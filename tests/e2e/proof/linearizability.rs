//! Reads and writes of shared todos under SIGKILL are linearizable: porcupine (tests/linearizability, Go) checks the
//! recorded history.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{length, seed};
use crate::stack::{Client, Stack, project};

const TODOS: usize = 4;
const CLIENTS: usize = 12;

/// One client's operations, as lines for the checker. Times are nanoseconds since `epoch`; no `end`: not answered.
async fn run(
    client: Client,
    process: u64,
    ids: Arc<Vec<i64>>,
    seed: u64,
    epoch: Instant,
    stop: Arc<AtomicBool>,
) -> Vec<Value> {
    static VALUES: AtomicU64 = AtomicU64::new(1);
    let mut random = SmallRng::seed_from_u64(seed ^ process);
    let mut history = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let todo = ids[random.random_range(0..ids.len())];
        let path = format!("/todos/{todo}");
        let write = random.random_bool(0.5).then(|| VALUES.fetch_add(1, Ordering::Relaxed).to_string());
        let start = epoch.elapsed().as_nanos() as u64;
        let answer = match &write {
            Some(value) => client.try_send("PUT", &path, Some(json!({ "title": value })), &[]).await,
            None => client.try_send("GET", &path, None, &[]).await,
        };
        let end = epoch.elapsed().as_nanos() as u64;
        match (answer, write) {
            (Ok((200, body)), write) => history.push(json!({
                "process": process, "todo": todo, "start": start, "end": end,
                "write": write, "title": body["title"],
            })),
            // A write that was not answered may take effect at any later time; a read tells nothing. Each of these doubles what the
            // checker has to look at.
            (_, Some(value)) => {
                history.push(json!({ "process": process, "todo": todo, "start": start, "write": value }));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (_, None) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    history
}

/// Has clients read and write while `faults` happen, and porcupine check what they saw.
pub async fn assert_linearizable(client: Client, seed: u64, faults: impl Future<Output = ()>) {
    let mut ids = Vec::new();
    for _ in 0..TODOS {
        ids.push(client.create("0").await);
    }
    let (ids, stop, epoch) = (Arc::new(ids), Arc::new(AtomicBool::new(false)), Instant::now());
    let clients: Vec<_> = (0..CLIENTS as u64)
        .map(|n| tokio::spawn(run(client.clone(), n, Arc::clone(&ids), seed, epoch, Arc::clone(&stop))))
        .collect();
    faults.await;
    stop.store(true, Ordering::Relaxed);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut operations = 0;
    for client in clients {
        for operation in client.await.unwrap() {
            writeln!(file, "{operation}").unwrap();
            operations += 1;
        }
    }
    println!("linearizability: {operations} operations on {TODOS} todos");
    let checked = Command::new("go")
        .args(["run", "."])
        .arg(file.path())
        .current_dir(project().join("tests/linearizability"))
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-buildvcs=false")
        .output()
        .expect("go is needed: https://go.dev/dl");
    let verdict = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    print!("{verdict}");
    assert!(checked.status.success(), "{verdict}");
}

#[actix_web::test]
async fn reads_and_writes_are_linearizable_also_when_the_service_is_killed() {
    let seed = seed("linearizability");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut stack = Stack::new();
    stack.start_service();
    let client = stack.client("admin", "admin123").await;
    assert_linearizable(client, seed, async {
        for _ in 0..length(5, 40) {
            tokio::time::sleep(Duration::from_millis(random.random_range(100..500))).await;
            stack.service().kill();
            stack.start_service();
        }
    })
    .await;
}
