//! The same promises on Postgres: service and database are killed, restarted and frozen, and commits get lost on their way.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::kill::compare;
use super::load::{Ledger, Load};
use super::{length, seed, shuffled};
use crate::postgres::CUT;
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
    let faults = [("kill", (3, 50)), ("restart", (2, 10)), ("crash", (2, 10)), ("cut", (6, 100)), ("freeze", (1, 10))];
    let faults = shuffled(&faults, &mut random);
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
            "cut" => _ = stack.postgres().psql(CUT),
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
async fn a_service_that_was_paused_while_another_one_wrote_knows_of_it() {
    let mut stack = Stack::on_postgres();
    stack.start_service();
    let first = stack.client("admin", "admin123").await;
    let old = first.create("of the first").await;
    // It is paused, its connections are cut, and another one writes meanwhile.
    stack.service().signal("STOP");
    stack.postgres().psql(CUT);
    let mut other = stack.beside();
    other.start_service();
    let second = other.client("admin", "admin123").await;
    let new = second.create("of the second").await;
    assert_eq!(second.send("PUT", &format!("/todos/{old}"), Some(json!({"title": "changed"}))).await.0, 200);
    stack.service().signal("CONT");
    // It may need a moment to connect again, and has to say so; never what was so before its sleep.
    let deadline = Instant::now() + PATIENCE;
    let todo = loop {
        match first.try_send("GET", &format!("/todos/{new}"), None, &[]).await {
            Ok((200, todo)) => break todo,
            Ok((503, _)) => assert!(Instant::now() < deadline, "it does not come back"),
            stale => panic!("{stale:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(todo["title"], "of the second");
    assert_eq!(first.send("GET", &format!("/todos/{old}"), None).await.1["title"], "changed");
    // Both go on, each on top of what the other one has stored.
    for (writes, reads) in [(&first, &second), (&second, &first)] {
        writes.create("after that").await;
        assert_eq!(writes.send("PUT", &format!("/todos/{old}"), Some(json!({"completed": true}))).await.0, 200);
        let (_, history) = reads.send("GET", &format!("/todos/{old}/history"), None).await;
        assert!(history.to_string().contains("of the first"), "{history}");
    }
    let todos = first.send("GET", "/todos", None).await;
    assert_eq!(todos, second.send("GET", "/todos", None).await);
    assert_eq!(todos.1.as_array().unwrap().len(), 4, "{todos:?}");
    assert!(stack.service().running() && other.service().running());
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
    stack.postgres().psql(&format!("BEGIN; UPDATE processes SET commits = commits - 1; {CUT}; COMMIT"));
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

/// With synchronous replication: the primary dies under load, and the standby is promoted, as whoever watches over both would do it.
#[actix_web::test]
async fn a_failover_to_the_standby_loses_nothing() {
    let seed = seed("failover");
    for _ in 0..length(1, 10) {
        let mut stack = Stack::on_postgres();
        let standby = stack.postgres().standby();
        let both = stack.postgres().url_with(&standby);
        stack.service_env.push(("DATABASE_URL", both));
        stack.start_kafka();
        stack.start_sidecar();
        stack.start_service();
        let mut other = stack.beside();
        other.start_sidecar();
        other.start_service();
        let loads = [&stack, &other].map(|replica| Stack::client_at(replica.service_port(), "admin", "admin123"));
        let mut clients = Vec::new();
        for client in loads {
            clients.push(client.await);
        }
        assert_eq!(clients[0].create("before").await, 1);
        let loads = [&clients[0], &clients[1]].map(|client| Load::start(client, 8, seed, None));
        tokio::time::sleep(Duration::from_secs(2)).await;
        stack.postgres().kill();
        let died = Instant::now();
        assert_eq!(standby.psql("SELECT pg_promote()"), "t");
        for client in &clients {
            stores(client).await;
        }
        println!("failover: changes are stored again after {:?}", died.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut ledger = Ledger::default();
        ledger.acknowledged.extend(["before".to_owned(), "stored again".to_owned()]);
        for load in loads {
            ledger.add(load.stop().await);
        }
        let after = ledger.answers.iter().filter(|(at, _)| *at > died).count();
        assert!(after > 50 && ledger.answers.len() > after + 50, "{after} of {} answers", ledger.answers.len());
        for replica in [&mut stack, &mut other] {
            assert!(replica.service().running(), "{:?}", replica.service().lines());
        }
        compare(&mut stack, &ledger, "failover").await;
    }
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
    // Reads go on, and nobody sees what the standby may never have.
    let (status, todo) = client.send("GET", "/todos/1", None).await;
    assert_eq!((status, &todo["title"]), (200, &json!("before")), "{todo}");
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
