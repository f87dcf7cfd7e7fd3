//! Start, restart and stop: what is durable, and what a start refuses.

use std::io::Read;
use std::time::Instant;

use serde_json::json;

use crate::app::{eventually, start_error, with_app, with_settings, without_sidecar};
use crate::client::RequestExt;
use crate::database::TestDatabase;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const PRODUCTION: [(&str, &str); 3] = [("DEBUG", "False"), ("SECRET_KEY", SECRET), ("APP_API_TOKEN", "app-token")];

/// Why the service does not start with this database.
async fn refusal(url: &str) -> String {
    let line = start_error(&[("DATABASE_URL", url)]).await;
    assert!(!line.contains('\n'), "{line}");
    line
}

#[actix_web::test]
async fn what_was_answered_is_there_after_a_restart() {
    let database = TestDatabase::new();
    let settings = [("DATABASE_URL", database.url())];
    let (token, list, epoch) = without_sidecar(&settings, async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "a\u{0}b 😀", "description": "kept\n"})).await;
        app.create(&token, json!({"title": "deleted"})).await;
        app.create(&app.token("user"), json!({"title": "of another"})).await;
        app.put("/todos/1").bearer_auth(&token).send_json(json!({"completed": true})).await;
        app.delete("/todos/2").bearer_auth(&token).answer().await;
        let list = app.get("/todos").bearer_auth(&token).answer().await;
        (token, list, app.store().epoch())
    })
    .await;

    without_sidecar(&settings, async |app| {
        assert_eq!(app.get("/todos").bearer_auth(&token).answer().await.body, list.body);
        assert_eq!((app.store().epoch(), app.store().todo_count()), (epoch, 2));
        assert_eq!(app.store().outbox().pending(), 5, "nothing was published");
    })
    .await;

    with_settings(&settings, async |app| {
        let (events, owner) = (app.published().await, app.user_id("demo"));
        assert_eq!(events.len(), 5, "what waited is published");
        let own = events.iter().filter(|event| event.data.owner == owner);
        assert!(own.map(|event| event.data.revision).eq(1..=4));
    })
    .await;
}

#[actix_web::test]
async fn ids_versions_and_revisions_go_on_after_a_restart() {
    let database = TestDatabase::new();
    let settings = [("DATABASE_URL", database.url())];
    let token = without_sidecar(&settings, async |app| {
        let token = app.token("demo");
        for _ in 1..=3 {
            app.create(&token, json!({"title": "x"})).await;
        }
        for id in [1, 3] {
            assert_eq!(app.delete(&format!("/todos/{id}")).bearer_auth(&token).answer().await.status, 204);
        }
        token
    })
    .await;

    with_settings(&settings, async |app| {
        assert_eq!(app.create(&token, json!({"title": "x"})).await, 4, "3 was deleted and is not used again");
        app.put("/todos/2").bearer_auth(&token).send_json(json!({"completed": true})).await;
        let events = app.published().await;
        assert!(events.iter().map(|event| event.data.revision).eq(1..=7));
        assert_eq!(events.last().unwrap().id, "2-2");
        for id in [1, 3] {
            app.get(&format!("/todos/{id}")).bearer_auth(&token).answer().await.assert_refused(404, "Todo not found");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_second_service_on_the_same_file_is_refused() {
    let database = TestDatabase::sqlite();
    with_settings(&[("DATABASE_URL", database.url())], async |app| {
        let location = app.store().location();
        let line = format!("another todo-backend uses {location}; stop it, or set DATABASE_URL to another file");
        assert_eq!(refusal(database.url()).await, line);
        let token = app.token("demo");
        app.create(&token, json!({"title": "the first goes on"})).await;
    })
    .await;
    with_settings(&[("DATABASE_URL", database.url())], async |app| {
        assert_eq!(app.store().todo_count(), 1);
    })
    .await;
}

#[actix_web::test]
async fn a_database_of_a_newer_version_is_refused() {
    let database = TestDatabase::new();
    with_settings(&[("DATABASE_URL", database.url())], async |_| ()).await;
    database.execute(if database.is_sqlite() { "PRAGMA user_version = 99" } else { "UPDATE meta SET version = 99" });
    let line = refusal(database.url()).await;
    assert!(line.contains("was written by a newer todo-backend (schema 99, "), "{line}");
}

#[actix_web::test]
async fn production_has_no_demo_users() {
    with_settings(&PRODUCTION, async |app| {
        for (username, password) in [("admin", "admin123"), ("user", "user123"), ("demo", "demo123")] {
            assert!(app.account(username).is_none());
            let login = app.post(&format!("/auth/login?username={username}&password={password}")).answer().await;
            login.assert_refused(401, "Invalid username or password");
            let form = format!("grant_type=password&username={username}&password={password}");
            let grant = app.post("/auth/token").send_form(&form).await;
            assert_eq!((grant.status, &grant.json()["error"]), (400, &json!("invalid_grant")));
        }
    })
    .await;
}

#[actix_web::test]
async fn production_refuses_the_demo_users_and_tokens_of_an_earlier_development() {
    let database = TestDatabase::new();
    let development = [("DATABASE_URL", database.url()), ("SECRET_KEY", SECRET)];
    let token = with_settings(&development, async |app| {
        let token = app.token("admin");
        app.create(&token, json!({"title": "made in development"})).await;
        token
    })
    .await;

    with_settings(&[&PRODUCTION[..], &[("DATABASE_URL", database.url())]].concat(), async |app| {
        let login = app.post("/auth/login?username=admin&password=admin123").answer().await;
        login.assert_refused(401, "Invalid username or password");
        for prefix in ["", "/v1"] {
            let answer = app.get(&format!("{prefix}/todos")).bearer_auth(&token).answer().await;
            answer.assert_refused(401, "Invalid or expired token");
        }
        let answer = app.post("/todos").bearer_auth(&token).send_json(json!({"title": "x"})).await;
        answer.assert_refused(401, "Invalid or expired token");
    })
    .await;

    // Back in development, everything is as it was.
    with_settings(&development, async |app| {
        assert_eq!(app.get("/todos").bearer_auth(&token).answer().await.json()[0]["title"], "made in development");
    })
    .await;
}

#[actix_web::test]
async fn a_removed_accounts_token_and_todos_are_not_inherited_by_its_name() {
    let database = TestDatabase::new();
    let (old, old_id) = with_settings(&[("DATABASE_URL", database.url())], async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "of the first demo"})).await;
        (token, app.user_id("demo"))
    })
    .await;
    let foreign_keys = if database.is_sqlite() { "PRAGMA foreign_keys = OFF;" } else { "" };
    database.execute(&format!("{foreign_keys} DELETE FROM users WHERE username = 'demo'"));

    // The start makes the demo user that is missing: the same name, another account.
    with_settings(&[("DATABASE_URL", database.url())], async |app| {
        let left_over: &[_] = if database.is_sqlite() {
            &["a row of changes refers to a row that is not there", "a row of todos refers to a row that is not there"]
        } else {
            &["not so: what is in the log or waits is that of an account: owner 3"]
        };
        app.expect_problems(left_over);
        assert_ne!(app.user_id("demo"), old_id);
        app.get("/todos").bearer_auth(&old).answer().await.assert_refused(401, "Invalid or expired token");
        let login = app.post("/auth/login?username=demo&password=demo123").answer().await.json();
        let new = login["access_token"].as_str().unwrap();
        assert_eq!(app.get("/todos").bearer_auth(new).answer().await.body, "[]");
        app.get("/todos/1").bearer_auth(new).answer().await.assert_refused(404, "Todo not found");
    })
    .await;
}

#[actix_web::test]
async fn a_renamed_accounts_token_is_refused() {
    let database = TestDatabase::new();
    let old = with_settings(&[("DATABASE_URL", database.url())], async |app| app.token("demo")).await;
    database.execute("UPDATE users SET username = 'renamed' WHERE username = 'demo'");
    with_settings(&[("DATABASE_URL", database.url())], async |app| {
        app.get("/todos").bearer_auth(&old).answer().await.assert_refused(401, "Invalid or expired token");
        assert_eq!(app.get("/todos").bearer_auth(app.token("renamed")).answer().await.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn a_stop_does_not_wait_for_idle_connections() {
    let (mut idle, begun) = with_app(async |app| (app.connect(), Instant::now())).await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[actix_web::test]
async fn a_stop_just_after_the_sidecar_came_is_quick() {
    let begun = with_app(async |app| {
        eventually("ready", async || app.get("/health/ready").answer().await.json()["sidecar"] == "ready").await;
        Instant::now()
    })
    .await;
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
}

/// Files.
mod on_sqlite {
    use std::path::Path;

    use super::*;

    fn url(file: &Path) -> String {
        format!("sqlite:{}", file.display())
    }

    #[actix_web::test]
    async fn a_temporary_database_is_gone_after_the_stop() {
        let temporary = [("DATABASE_URL", "sqlite::memory:")];
        let (path, epoch) = with_settings(&temporary, async |app| {
            app.create(&app.token("demo"), json!({"title": "x"})).await;
            let path = app.store().path().unwrap().to_owned();
            assert!(path.exists());
            (path, app.store().epoch())
        })
        .await;
        assert!(!path.exists());
        with_settings(&temporary, async |app| {
            assert_eq!(app.store().todo_count(), 0);
            assert_ne!(app.store().epoch(), epoch);
        })
        .await;
    }

    #[actix_web::test]
    async fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("todos.db");
        let text = "Not a database. ".repeat(100);
        std::fs::write(&file, &text).unwrap();
        assert!(refusal(&url(&file)).await.starts_with(&format!("cannot use the database {}: ", file.display())));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }

    #[actix_web::test]
    async fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let line = refusal(&url(&directory.path().join("file/todos.db"))).await;
        assert!(line.contains(&directory.path().join("file").display().to_string()), "{line}");
    }

    #[actix_web::test]
    async fn directories_that_are_missing_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("new/directory/todos.db");
        without_sidecar(&[("DATABASE_URL", &url(&file))], async |_| assert!(file.exists())).await;
    }
}
