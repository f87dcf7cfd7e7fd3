//! Imports that are interrupted by SIGKILL, and sent again.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{length, seed};
use crate::order::versions_in_order;
use crate::stack::{Client, Stack};

const TODOS: usize = 6_000;

fn todos(round: usize) -> Vec<Value> {
    (0..TODOS).map(|n| json!({"title": format!("round {round} todo {n}"), "description": "d".repeat(300)})).collect()
}

/// How many todos are on disk.
fn stored(stack: &Stack) -> usize {
    let database = Connection::open(stack.directory.path().join("data/todos.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    database.query_row("SELECT count(*) FROM todos", [], |row| row.get(0)).unwrap()
}

/// Sends the import until it is answered; how often that was.
async fn insist(client: Client, round: usize) -> usize {
    let (key, body) = (format!("import {round}"), json!(todos(round)));
    for attempt in 1.. {
        match client.try_send("POST", "/import", Some(body.clone()), &[("Idempotency-Key", &key)]).await {
            Ok((200, answer)) => {
                assert_eq!(answer, json!({"imported": TODOS, "skipped": 0}));
                return attempt;
            }
            Ok((429 | 503, _)) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(other) => panic!("{other:?}"),
        }
    }
    unreachable!()
}

/// Each todo of these rounds is there once, and so is its event.
async fn compare(stack: &mut Stack, rounds: usize) {
    let client = stack.client("demo", "demo123").await;
    let mut found = BTreeMap::new();
    for todo in client.send("GET", "/todos", None).await.1.as_array().unwrap() {
        *found.entry(todo["title"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    let all = (0..rounds).flat_map(todos).map(|todo| (todo["title"].as_str().unwrap().to_owned(), 1));
    assert!(found == all.collect(), "{} of {} todos, or some twice", found.len(), rounds * TODOS);
    stack.wait_until_published().await;
    let events = stack.events_until(|events| versions_in_order(events).len() >= rounds * TODOS).await;
    assert_eq!(versions_in_order(&events).values().sum::<i64>(), i64::try_from(rounds * TODOS).unwrap());
    assert!(stack.run_service(&["check"]).contains("is good"));
}

#[actix_web::test]
async fn an_import_that_is_sent_until_it_is_answered_makes_each_todo_once() {
    let mut random = SmallRng::seed_from_u64(seed("imports"));
    let mut stack = Stack::started();
    let client = stack.client("demo", "demo123").await;
    let (rounds, mut attempts) = (length(5, 50), 0);
    for round in 0..rounds {
        let import = actix_web::rt::spawn(insist(client.clone(), round));
        let some = round * TODOS + random.random_range(1..TODOS / 2);
        while stored(&stack) < some && !import.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stack.service().kill();
        stack.start_service();
        attempts += import.await.unwrap();
    }
    println!("imports: {rounds} of {TODOS} todos, interrupted {} times", attempts - rounds);
    assert!(attempts > rounds, "no import was interrupted");
    compare(&mut stack, rounds).await;
}

#[actix_web::test]
async fn a_file_that_is_imported_until_that_succeeds_makes_each_todo_once() {
    let mut random = SmallRng::seed_from_u64(seed("files"));
    let mut stack = Stack::started();
    stack.service().signal("TERM");
    stack.service().wait(Duration::from_secs(30));
    let (rounds, mut interrupted) = (length(3, 30), 0);
    for round in 0..rounds {
        let lines: String = todos(round).iter().map(|todo| format!("{todo}\n")).collect();
        std::fs::write(stack.directory.path().join("todos.ndjson"), lines).unwrap();
        for attempt in 0.. {
            let mut command = stack.service_command();
            command.args(["import", "todos.ndjson", "--user", "demo"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // What an attempt makes is more than what an earlier one has.
            if attempt < 2 {
                let some = round * TODOS + (attempt * TODOS + random.random_range(1..TODOS)) / 3;
                while stored(&stack) < some && child.try_wait().unwrap().is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let _ = child.kill();
            }
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
            interrupted += 1;
        }
    }
    println!("files: {rounds} of {TODOS} todos, interrupted {interrupted} times");
    assert!(interrupted > 0, "no import was interrupted");
    stack.start_service();
    compare(&mut stack, rounds).await;
}
