//! What clients can take from the process: memory.

use futures_util::future::join_all;
use serde_json::Value;

use crate::process::Process;
use crate::stack::Stack;

/// Memory that the process may take besides: connections, threads, what the allocator keeps of small things. In KiB.
const MARGIN: u64 = 16 << 10;

/// The process's memory, in KiB.
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[actix_web::test]
async fn logins_take_no_more_memory_than_their_turns_have() {
    const PER_TURN: u64 = 19_456;
    let mut stack = Stack::new();
    stack.start_service();
    let url = format!("http://127.0.0.1:{}/auth/login?username=demo&password=wrong", stack.service_port());
    let before = resident(stack.service());
    let clients = (0..6).map(|_| async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut checked = 0;
        // One whose turn doesn't come in time is answered 503.
        while checked < 10 {
            let response = http.post(&url).send().await.unwrap();
            match response.status().as_u16() {
                401 => checked += 1,
                status => assert_eq!(status, 503),
            }
            let refused: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            assert!(refused["detail"].is_string(), "{refused}");
        }
    });
    join_all(clients).await;
    let turns = std::thread::available_parallelism().unwrap().get().saturating_sub(1).max(1) as u64;
    let grown = resident(stack.service()).saturating_sub(before);
    println!("60 wrong logins: {before} KiB, then {grown} KiB more");
    assert!(grown <= turns * PER_TURN + MARGIN, "{grown} KiB more for {turns} turns");
}
