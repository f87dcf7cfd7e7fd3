//! What clients can take from the process: memory.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::process::Process;
use crate::stack::{PATIENCE, Stack};

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

#[actix_web::test]
async fn events_of_others_are_neither_remembered_nor_logged_in_full() {
    let mut stack = Stack::new();
    stack.start_service();
    let url = format!("http://127.0.0.1:{}/events/todos", stack.service_port());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let long = "x".repeat(1_000_000);
    let ours = |n: u32| json!({"source": "/todo-backend/000000000000001f", "subject": format!("todos/{n}")});
    let send = async |names: Value, n: u32| {
        let mut event = json!({"id": format!("{n}-1"), "type": "todo.created", "data": {"version": 1}});
        event.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
        let request = http.post(&url).header("content-type", "application/cloudevents+json").body(event.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    // What the first ones leave in buffers is no growth.
    send(json!({"source": &long, "subject": "todos/0"}), 0).await;
    let before = resident(stack.service());
    for n in 1..=40 {
        send(json!({"source": format!("{long}{n}"), "subject": "todos/1"}), n).await;
        send(json!({"source": "/todo-backend/000000000000001f", "subject": format!("{long}{n}")}), n).await;
        // Long elsewhere.
        send(json!({"source": "test", "type": &long}), n).await;
        let mut event = ours(n);
        event["data"] = json!({"version": 1, "filler": &long});
        send(event, n).await;
    }
    let request = http.post(&url).header("content-type", "application/json").body(json!(&long).to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
    let grown = resident(stack.service()).saturating_sub(before);
    println!("160 events of a megabyte: {before} KiB, then {grown} KiB more");
    assert!(grown <= MARGIN, "{grown} KiB more");
    stack
        .service()
        .wait_for("an event was dropped: it is no CloudEvent of this service: invalid type: string", PATIENCE);
    let lines = stack.service().lines();
    assert!(lines.iter().all(|line| line.len() < 70_000), "{:?}", lines.iter().map(String::len).max());
}
