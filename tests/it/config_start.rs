//! Start, restart and stop: what is durable, and what a start refuses.

use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use crate::app::{TestApp, config};
use crate::client::RequestExt;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const PRODUCTION: [(&str, &str); 3] = [("DEBUG", "False"), ("SECRET_KEY", SECRET), ("APP_API_TOKEN", "app-token")];

fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

/// Why the service does not start with this database.
fn refusal(file: &Path) -> String {
    let started = TestApp::try_start(config(&[("DATABASE_URL", &url(file))]));
    let line = started.err().expect("it starts").to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[actix_web::test]
async fn what_was_answered_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let database = url(&directory.path().join("new/directory/todos.db"));
    let app = TestApp::with(&[("DATABASE_URL", &database)]);
    let token = app.token("demo");
    app.create(&token, json!({"title": "a\u{0}b 😀", "description": "kept\n"})).await;
    app.create(&token, json!({"title": "deleted"})).await;
    app.create(&app.token("user"), json!({"title": "of another"})).await;
    app.put("/todos/1").bearer_auth(&token).send_json(json!({"completed": true})).await;
    app.delete("/todos/2").bearer_auth(&token).answer().await;
    let (list, epoch) = (app.get("/todos").bearer_auth(&token).answer().await, app.store().epoch());
    app.stop().await;

    let app = TestApp::with(&[("DATABASE_URL", &database)]);
    assert_eq!(app.get("/todos").bearer_auth(&token).answer().await.body, list.body);
    assert_eq!((app.store().epoch(), app.store().todo_count()), (epoch, 2));
    let log = app.log();
    assert_eq!((log.len(), app.store().outbox().pending()), (5, 5), "nothing was published");
    let owner = app.user_id("demo");
    assert!(log.iter().filter(|change| change.todo.owner == owner).map(|change| change.revision).eq(1..=4));
    app.stop().await;
}

#[actix_web::test]
async fn ids_versions_and_revisions_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let database = url(&directory.path().join("todos.db"));
    let app = TestApp::with(&[("DATABASE_URL", &database)]);
    let token = app.token("demo");
    for _ in 1..=3 {
        app.create(&token, json!({"title": "x"})).await;
    }
    for id in [1, 3] {
        assert_eq!(app.delete(&format!("/todos/{id}")).bearer_auth(&token).answer().await.status, 204);
    }
    app.stop().await;

    let app = TestApp::with(&[("DATABASE_URL", &database)]);
    assert_eq!(app.create(&token, json!({"title": "x"})).await, 4, "3 was deleted and is not used again");
    app.put("/todos/2").bearer_auth(&token).send_json(json!({"completed": true})).await;
    let log = app.log();
    assert!(log.iter().map(|change| change.revision).eq(1..=7));
    let last = log.last().unwrap();
    assert_eq!((last.todo.id, last.todo.version), (2, 2));
    for id in [1, 3] {
        app.get(&format!("/todos/{id}")).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");
    }
    app.stop().await;
}

#[actix_web::test]
async fn a_temporary_database_is_gone_after_the_stop() {
    let app = TestApp::start();
    app.create(&app.token("demo"), json!({"title": "x"})).await;
    let (path, epoch) = (app.store().path().to_owned(), app.store().epoch());
    assert!(path.exists());
    app.stop().await;
    assert!(!path.exists());
    let app = TestApp::start();
    assert_eq!(app.store().todo_count(), 0);
    assert_ne!(app.store().epoch(), epoch);
    app.stop().await;
}

#[actix_web::test]
async fn a_second_service_on_the_same_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("todos.db");
    let app = TestApp::with(&[("DATABASE_URL", &url(&file))]);
    assert_eq!(
        refusal(&file),
        format!("another todo-backend uses {}; stop it, or set DATABASE_URL to another file", file.display())
    );
    let token = app.token("demo");
    app.create(&token, json!({"title": "the first goes on"})).await;
    app.stop().await;
    let app = TestApp::with(&[("DATABASE_URL", &url(&file))]);
    assert_eq!(app.store().todo_count(), 1);
    app.stop().await;
}

#[actix_web::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("todos.db");
    let text = "Not a database. ".repeat(100);
    std::fs::write(&file, &text).unwrap();
    assert!(refusal(&file).starts_with(&format!("cannot use the database {}: ", file.display())));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[actix_web::test]
async fn a_database_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("todos.db");
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let line = refusal(&file);
    assert!(line.contains("was written by a newer todo-backend (schema 99, "), "{line}");
}

#[actix_web::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let line = refusal(&directory.path().join("file/todos.db"));
    assert!(line.contains(&directory.path().join("file").display().to_string()), "{line}");
}

#[actix_web::test]
async fn production_has_no_demo_users() {
    let app = TestApp::with(&PRODUCTION);
    for (username, password) in [("admin", "admin123"), ("user", "user123"), ("demo", "demo123")] {
        assert!(app.store().user_by_name(username).is_none());
        let login = app.post(&format!("/auth/login?username={username}&password={password}")).answer().await;
        login.assert_refused(401, "Invalid username or password");
        let form = format!("grant_type=password&username={username}&password={password}");
        let grant = app.post("/auth/token").send_form(&form).await;
        assert_eq!((grant.status, &grant.json()["error"]), (400, &json!("invalid_grant")));
    }
    app.stop().await;
}

#[actix_web::test]
async fn production_refuses_the_demo_users_and_tokens_of_an_earlier_development() {
    let directory = tempfile::tempdir().unwrap();
    let database = url(&directory.path().join("todos.db"));
    let development = [("DATABASE_URL", database.as_str()), ("SECRET_KEY", SECRET)];
    let app = TestApp::with(&development);
    let token = app.token("admin");
    app.create(&token, json!({"title": "made in development"})).await;
    app.stop().await;

    let app = TestApp::with(&[&PRODUCTION[..], &[("DATABASE_URL", database.as_str())]].concat());
    let login = app.post("/auth/login?username=admin&password=admin123").answer().await;
    login.assert_refused(401, "Invalid username or password");
    for prefix in ["", "/v1"] {
        let answer = app.get(&format!("{prefix}/todos")).bearer_auth(&token).answer().await;
        answer.assert_refused(401, "Invalid or expired token");
    }
    let answer = app.post("/todos").bearer_auth(&token).send_json(json!({"title": "x"})).await;
    answer.assert_refused(401, "Invalid or expired token");
    app.stop().await;

    // Back in development, everything is as it was.
    let app = TestApp::with(&development);
    assert_eq!(app.get("/todos").bearer_auth(&token).answer().await.json()[0]["title"], "made in development");
    app.stop().await;
}

#[actix_web::test]
async fn a_removed_accounts_token_and_todos_are_not_inherited_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("todos.db");
    let app = TestApp::with(&[("DATABASE_URL", &url(&file))]);
    let (old, old_id) = (app.token("demo"), app.user_id("demo"));
    app.create(&old, json!({"title": "of the first demo"})).await;
    app.stop().await;
    let connection = Connection::open(&file).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM users WHERE username = 'demo';").unwrap();
    drop(connection);

    // The start makes the demo user that is missing: the same name, another account.
    let app = TestApp::with(&[("DATABASE_URL", &url(&file))]);
    assert_ne!(app.user_id("demo"), old_id);
    app.get("/todos").bearer_auth(&old).answer().await.assert_refused(401, "Invalid or expired token");
    let login = app.post("/auth/login?username=demo&password=demo123").answer().await.json();
    let new = login["access_token"].as_str().unwrap();
    assert_eq!(app.get("/todos").bearer_auth(new).answer().await.body, "[]");
    app.get("/todos/1").bearer_auth(new).answer().await.assert_refused(404, "Todo not found");
    app.stop().await;
}

#[actix_web::test]
async fn a_renamed_accounts_token_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("todos.db");
    let app = TestApp::with(&[("DATABASE_URL", &url(&file))]);
    let old = app.token("demo");
    app.stop().await;
    let connection = Connection::open(&file).unwrap();
    connection.execute("UPDATE users SET username = 'renamed' WHERE username = 'demo'", []).unwrap();
    drop(connection);
    let app = TestApp::with(&[("DATABASE_URL", &url(&file))]);
    app.get("/todos").bearer_auth(&old).answer().await.assert_refused(401, "Invalid or expired token");
    assert_eq!(app.get("/todos").bearer_auth(app.token("renamed")).answer().await.status, 200);
    app.stop().await;
}

#[actix_web::test]
async fn a_stop_does_not_wait_for_idle_connections() {
    let app = TestApp::start();
    let mut idle = app.connect();
    let begun = std::time::Instant::now();
    app.stop().await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut idle, &mut rest).unwrap();
    assert!(rest.is_empty());
}

#[actix_web::test]
async fn a_stop_just_after_the_sidecar_came_is_quick() {
    let sidecar = actix_web::HttpServer::new(|| {
        actix_web::App::new()
            .default_service(actix_web::web::to(|| async { actix_web::HttpResponse::NoContent().finish() }))
    });
    let sidecar = sidecar.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", sidecar.addrs()[0]);
    let sidecar = sidecar.run();
    let handle = sidecar.handle();
    actix_web::rt::spawn(sidecar);
    let app = TestApp::with(&[("DAPR_HTTP_ENDPOINT", &url)]);
    while app.get("/health/ready").answer().await.json()["sidecar"] != "ready" {
        actix_web::rt::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let begun = std::time::Instant::now();
    app.stop().await;
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    handle.stop(false).await;
}
