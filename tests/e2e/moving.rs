//! `todo-backend migrate-to`: a service that has stored in a file goes on on Postgres.

use std::process::Output;
use std::time::Instant;

use serde_json::json;

use crate::postgres::{CUT, Postgres};
use crate::process::Process;
use crate::stack::{PATIENCE, SERVICE, Stack};

const TODOS: usize = 15_000;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[actix_web::test]
async fn a_service_goes_on_on_postgres_where_it_was_on_a_file() {
    let mut stack = Stack::new();
    stack.start_kafka();
    // Without a sidecar: its events wait.
    stack.start_service();
    let client = stack.client("demo", "demo123").await;
    let todo = |n| json!({"title": format!("todo {n}"), "tags": ["a", "b"]});
    for half in [0..TODOS / 2, TODOS / 2..TODOS] {
        let (status, answer) = client.send("POST", "/import", Some(half.map(todo).collect())).await;
        assert_eq!(status, 200, "{answer}");
    }
    let seen = client.respond("GET", "/todos?limit=1", None, &[]).await.unwrap();
    let sync_token = seen.headers()["sync-token"].to_str().unwrap().to_owned();
    let id = client.create("after that").await;
    let path = format!("/todos/{id}");
    let key = [("Idempotency-Key", "once")];
    let (_, edited) = client.try_send("PUT", &path, Some(json!({"completed": true})), &key).await.unwrap();

    let postgres = Postgres::started();
    let url = postgres.url();
    let copy = ["migrate-to", url.as_str()];
    let refused = stack.run_service(&copy);
    assert!(refused.contains("the service is running on data/todos.db; stop it first"), "{refused}");
    stack.service().kill();

    // It is killed, too, when it has copied a part.
    let mut copying = Process::start("migrate-to", stack.service_command().args(copy));
    let deadline = Instant::now() + PATIENCE;
    let count = |of: &str| {
        let counted = postgres.psql_command(&format!("SELECT count(*) FROM {of}")).output().unwrap();
        String::from_utf8_lossy(&counted.stdout).trim().parse::<usize>().unwrap_or(0)
    };
    while count("todos") == 0 {
        assert!(Instant::now() < deadline && copying.running(), "{:?}", copying.lines());
    }
    copying.kill();
    let (todos, outbox) = (count("todos"), count("outbox"));
    assert!(todos > 0 && outbox <= TODOS + 2, "{todos} {outbox}");
    for arguments in [&[][..], &["check"], &["user", "list"]] {
        let started = stack.service_command().args(arguments).env("DATABASE_URL", &url).output().unwrap();
        let said = text(&started);
        assert!(!started.status.success() && said.contains("was begun and is not finished"), "{arguments:?}: {said}");
    }

    // On a terminal, it shows how far it is.
    let mut command = stack.command("script");
    command.env("TERM", "xterm").args(["-qec", &format!("{SERVICE} migrate-to {url}"), "/dev/null"]);
    let shown = text(&command.output().expect("util-linux's script is there"));
    let changes = TODOS + 2;
    let done = format!(
        "3 accounts, {} todos, {changes} changes, {changes} events that wait; start the service with",
        TODOS + 1
    );
    assert!(shown.contains("copying ") && shown.contains("comparing ") && shown.contains(&done), "{shown}");
    let again = stack.run_service(&copy);
    assert!(again.contains("is a finished copy of this database: start the service with that"), "{again}");
    let on_file = stack.run_service(&["user", "list"]);
    assert!(on_file.contains("was moved to postgres://") && !on_file.contains("admin"), "{on_file}");

    stack.postgres = Some(postgres);
    stack.start_sidecar();
    stack.start_service();
    // Its connections are gone.
    let client = stack.client("demo", "demo123").await.with_token(client.token());
    // The client notices nothing more: its token, what it knows of the log, what it has asked for.
    assert_eq!(client.send("GET", &path, None).await, (200, edited.clone()));
    let missed = client.try_send("GET", &format!("/changes?since={sync_token}"), None, &[]).await.unwrap();
    assert_eq!((missed.0, missed.1["changes"].as_array().map(Vec::len)), (200, Some(2)), "{missed:?}");
    assert_eq!(client.try_send("PUT", &path, Some(json!({"completed": true})), &key).await.unwrap(), (200, edited));
    assert_eq!(client.create("on Postgres").await, id + 1);
    stack.wait_until_published().await;
    let events = stack.events_until(|events| events.len() > changes).await;
    assert_eq!(events.len(), changes + 1);
    assert!(stack.run_service(&["check"]).contains("is good"));

    // And back.
    let back = ["migrate-to", "sqlite:data/back.db"];
    assert!(stack.run_service(&back).contains("is running; stop all of them first"));
    stack.service().kill();
    let moved = stack.run_service(&back);
    assert!(moved.contains("todos, 15003 changes, 0 events that wait; start the service with the copy"), "{moved}");
    let again = stack.run_service(&back);
    assert!(again.contains("was moved to data/back.db"), "{again}");
    let on_postgres = stack.run_service(&["user", "list"]);
    assert!(on_postgres.contains("was moved to data/back.db") && !on_postgres.contains("admin"), "{on_postgres}");
    stack.service_env.push(("DATABASE_URL", "sqlite:data/back.db".to_owned()));
    stack.start_service();
    let client = stack.client("demo", "demo123").await.with_token(client.token());
    assert_eq!(client.create("in a file again").await, id + 2);
    let events = stack.events_until(|events| events.len() > changes + 1).await;
    assert_eq!(events.len(), changes + 2);
}

#[actix_web::test]
async fn only_what_is_copied_gets_into_a_copy() {
    let mut stack = Stack::new();
    stack.start_service();
    stack.client("demo", "demo123").await.create("in the file").await;
    stack.service().kill();
    // Somebody has tried a service on the database that is to get the copy, and has forgotten it: its connections are gone.
    let postgres = Postgres::started();
    let url = postgres.url();
    postgres.psql("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let refused = stack.run_service(&["migrate-to", &postgres.url_of("latin")]);
    assert!(refused.contains("its encoding is LATIN1; create one with the encoding UTF8"), "{refused}");
    let secrets =
        [("DEBUG", "False"), ("SECRET_KEY", "0123456789abcdef0123456789abcdef"), ("APP_API_TOKEN", "shared-with-dapr")];
    stack.start_service_as(stack.service_command().env("DATABASE_URL", &url).envs(secrets));
    stack.service().signal("STOP");
    postgres.psql(CUT);
    let moved = stack.run_service(&["migrate-to", &url]);
    assert!(
        moved.contains("3 accounts, 1 todos, 1 changes, 1 events that wait; start the service with the copy"),
        "{moved}"
    );
    stack.service().signal("CONT");
    assert!(!stack.service().wait(PATIENCE).success());
    stack.service().wait_for("has another epoch", PATIENCE);
    stack.postgres = Some(postgres);
    assert!(stack.run_service(&["check"]).contains("is good"));
    assert_eq!(
        stack.postgres().psql("SELECT string_agg(username, ' ' ORDER BY id) FROM users").trim(),
        "admin user demo"
    );
}
