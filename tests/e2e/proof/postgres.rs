//! The same promises on Postgres: service and database are killed, restarted and frozen, and commits get lost on their way.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::kill::compare;
use super::load::Load;
use super::{length, seed};
use crate::stack::{Client, PATIENCE, Stack};

/// Longer than the service waits for an answer of the database.
const FREEZE: Duration = Duration::from_secs(8);

/// Waits until changes are stored again.
async fn stores(client: &Client) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client.try_send("PUT", "/todos/1", Some(json!({"title": "stored again"})), &[]).await;
        match answer {
            Ok((200, _)) => return,
            answer => assert!(Instant::now() < deadline, "{answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_web::test]
async fn faults_of_service_and_database_lose_nothing_on_postgres() {
    let seed = seed("postgres");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut faults: Vec<&str> = Vec::new();
    for (fault, count) in
        [("kill", (3, 50)), ("restart", (2, 10)), ("crash", (2, 10)), ("cut", (6, 100)), ("freeze", (1, 10))]
    {
        faults.extend(vec![fault; length(count.0, count.1)]);
    }
    // In any order.
    for last in (1..faults.len()).rev() {
        faults.swap(last, random.random_range(0..=last));
    }
    let mut stack = Stack::on_postgres();
    stack.start_kafka();
    stack.start_sidecar();
    stack.start_service();
    let load = Load::start(&stack.client("admin", "admin123").await, 16, seed, None);
    for fault in &faults {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..1500))).await;
        match *fault {
            "kill" => {
                stack.service().kill();
                stack.start_service();
            }
            "restart" => stack.postgres().restart(),
            "crash" => {
                stack.postgres().kill();
                stack.postgres().start();
            }
            "cut" => {
                _ = stack.postgres().psql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'todo-backend'",
                )
            }
            _ => {
                stack.postgres().freeze();
                tokio::time::sleep(FREEZE).await;
                stack.postgres().thaw();
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ledger = load.stop().await;
    assert!(stack.service().running(), "{:?}", stack.service().lines());
    assert!(ledger.acknowledged.len() > 20 * faults.len(), "only {} changes were made", ledger.acknowledged.len());
    compare(&mut stack, &ledger, &format!("postgres, {} faults", faults.len())).await;
}

#[actix_web::test]
async fn a_service_whose_database_another_one_has_taken_over_ends() {
    let mut stack = Stack::on_postgres();
    stack.start_service();
    let client = stack.client("admin", "admin123").await;
    client.create("of the first").await;
    // It is paused, its connections are cut, and another one starts in its place.
    let mut first = stack.service.take().unwrap();
    first.signal("STOP");
    stack
        .postgres()
        .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'todo-backend'");
    stack.use_service_port(crate::stack::free_port());
    stack.start_service();
    let second = stack.client("admin", "admin123").await;
    assert_eq!(second.create("of the second").await, 2);
    first.signal("CONT");
    // What it would store now is decided on what is not so any more.
    let answer = client.try_send("POST", "/todos", Some(json!({"title": "too late"})), &[]).await;
    assert!(!answer.as_ref().is_ok_and(|(status, _)| *status < 500), "{answer:?}");
    assert!(!first.wait(PATIENCE).success());
    first.wait_for("another todo-backend has taken over", PATIENCE);
    let (_, todos) = second.send("GET", "/todos", None).await;
    assert_eq!(todos.as_array().unwrap().len(), 2, "{todos}");
    let check = stack.run_service(&["check"]);
    assert!(check.contains("is good"), "{check}");
}

#[actix_web::test]
async fn a_service_whose_database_is_set_back_ends_and_a_new_epoch_is_a_new_beginning() {
    let mut stack = Stack::on_postgres();
    stack.start_service();
    let client = stack.client("admin", "admin123").await;
    client.create("kept").await;
    // The connection of an idle service is cut, and meanwhile the database becomes what it was before a commit.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'todo-backend'";
    stack.postgres().psql(&format!("BEGIN; UPDATE streams SET commits = commits - 1; {cut}; COMMIT"));
    assert!(!stack.service().wait(PATIENCE).success());
    stack.service().wait_for("is not as this process left it", PATIENCE);
    let renewed = stack.run_service(&["renew-epoch"]);
    assert!(renewed.contains("everybody has to log in again"), "{renewed}");
    stack.start_service();
    let again = stack.client("admin", "admin123").await;
    let old = again.with_token(client.token());
    assert_eq!(old.send("GET", "/todos", None).await.0, 401, "its token is of the old epoch");
    let (_, todos) = again.send("GET", "/todos", None).await;
    assert_eq!(todos.as_array().unwrap().len(), 1, "{todos}");
}

#[actix_web::test]
async fn a_commit_that_reaches_no_standby_is_not_acknowledged() {
    let mut stack = Stack::on_postgres();
    stack.start_service();
    let client = stack.client("admin", "admin123").await;
    assert_eq!(client.create("before").await, 1);
    let standby = |stack: &mut Stack, name: &str| {
        stack.postgres().psql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"));
        stack.postgres().psql("SELECT pg_reload_conf()");
    };
    // The standby that every commit has to reach is gone.
    standby(&mut stack, "nowhere");
    let (status, body) = client.try_send("PUT", "/todos/1", Some(json!({"title": "waits"})), &[]).await.unwrap();
    assert_eq!(status, 503, "{body}");
    let (_, ready) = client.send("GET", "/health/ready", None).await;
    assert_eq!(ready["store"], "failing");
    // Reads go on.
    assert_eq!(client.send("GET", "/todos/1", None).await.0, 200);
    standby(&mut stack, "");
    stores(&client).await;
    // An operator who cancels the wait leaves a commit that is stored here, and nowhere else.
    standby(&mut stack, "nowhere");
    let waits = client.clone();
    let waits =
        tokio::spawn(async move { waits.try_send("PUT", "/todos/1", Some(json!({"title": "cut"})), &[]).await });
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while stack.postgres().psql(cancel) == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, body) = waits.await.unwrap().unwrap();
    assert_eq!(status, 503, "{body}");
    standby(&mut stack, "");
    stores(&client).await;
    let (_, history) = client.send("GET", "/todos/1/history", None).await;
    assert!(history.to_string().contains("cut"), "it was stored: {history}");
    let check = stack.run_service(&["check"]);
    assert!(check.contains("is good"), "{check}");
}
