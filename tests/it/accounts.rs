//! People make accounts, change their passwords and delete themselves.

use serde_json::{Value, json};
use todo_backend::domain::account::{AccountState, Role};

use crate::app::{PREFIXES, TestApp, eventually, with_app, with_settings, without_sidecar};
use crate::client::{Answer, RequestExt};

const PASSWORD: &str = "a long and private sentence";
const NEXT: &str = "another long and private sentence";
const INVALID: &str = "Invalid or expired token";
const LAST_ADMIN: &str = "This is the last active admin: make another account an admin first";

impl TestApp {
    async fn register(&self, username: &str) -> Answer {
        self.post("/auth/register").send_json(json!({"username": username, "password": PASSWORD})).await
    }

    /// A token for a name and a password, as a client gets it.
    async fn log_in(&self, username: &str, password: &str) -> Option<String> {
        let answer = self.post("/auth/login").send_json(json!({"username": username, "password": password})).await;
        (answer.status == 200).then(|| answer.json()["access_token"].as_str().unwrap().to_owned())
    }

    async fn change_password(&self, token: &str, current: &str, new: &str) -> Answer {
        let body = json!({"current_password": current, "new_password": new});
        self.post("/auth/password").bearer_auth(token).send_json(body).await
    }

    async fn status(&self, token: &str) -> u16 {
        self.get("/todos").bearer_auth(token).answer().await.status
    }
}

#[actix_web::test]
async fn whoever_registers_logs_in_in_any_case_and_has_todos_of_their_own() {
    with_app(async |app| {
        for prefix in PREFIXES {
            let name = format!("Alice{}", prefix.len());
            let body = json!({"username": name, "password": PASSWORD, "role": "admin"});
            let answer = app.post(&format!("{prefix}/auth/register")).send_json(body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
            let account = answer.json();
            let now = app.now().to_string();
            assert_eq!((&account["username"], &account["role"]), (&json!(name), &json!("user")), "nobody makes admins");
            assert!(account["created_at"].as_str().unwrap() <= now.as_str());
            assert_eq!(account.as_object().unwrap().len(), 4);
            for spelled in [name.clone(), name.to_lowercase(), name.to_uppercase()] {
                let token = app.log_in(&spelled, PASSWORD).await.unwrap();
                let me = app.get(&format!("{prefix}/auth/me")).bearer_auth(&token).answer().await;
                assert_eq!(
                    (me.status, me.json(), me.header("cache-control")),
                    (200, account.clone(), Some("no-store"))
                );
            }
            let token = app.log_in(&name, PASSWORD).await.unwrap();
            app.create(&token, json!({"title": "mine"})).await;
            assert_eq!(app.todos(&name).len(), 1);
            let event = app.published().await.pop().unwrap();
            assert_eq!((event.data.created_by, json!(event.data.owner)), (name, account["id"].clone()));
        }
    })
    .await;
}

#[actix_web::test]
async fn a_taken_name_is_409_whatever_its_case_also_for_many_at_once() {
    with_app(async |app| {
        for taken in ["demo", "DEMO", "Admin"] {
            app.register(taken).await.assert_refused(409, "Username is taken");
        }
        let names = ["carol", "CAROL", "Carol", "cArol"];
        let answers = futures_util::future::join_all(names.map(|name| app.register(name))).await;
        let made = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(made, 1, "{answers:?}");
        assert!(answers.iter().all(|answer| [201, 409, 503].contains(&answer.status)), "{answers:?}");
    })
    .await;
}

#[actix_web::test]
async fn what_is_wrong_with_a_registration_is_named_and_never_shown() {
    with_app(async |app| {
        let pattern = "^[A-Za-z0-9._@+-]{1,64}$";
        let bad_name = json!({
            "type": "string_pattern_mismatch", "loc": ["body", "username"], "input": null,
            "msg": format!("String should match pattern '{pattern}'"), "ctx": {"pattern": pattern},
        });
        let weak = |msg: &str, reason: &str| {
            let ctx = json!({"reason": reason});
            json!({"type": "value_error", "loc": ["body", "password"], "msg": msg, "input": null, "ctx": ctx})
        };
        let missing =
            |name: &str| json!({"type": "missing", "loc": ["body", name], "msg": "Field required", "input": null});
        let short = weak("Password is too short: use at least 8 characters", "too_short");
        let long = weak("Password is too long: use at most 256 bytes in UTF-8", "too_long");
        let common = weak("Password is one of the most common ones: choose another", "common");
        for (body, errors) in [
            (json!({}), json!([missing("username"), missing("password")])),
            (json!({"username": "a b", "password": "s3cret-s3cret"}), json!([bad_name])),
            (json!({"username": "", "password": "x"}), json!([bad_name, short])),
            (json!({"username": "x".repeat(65), "password": "x".repeat(257)}), json!([bad_name, long])),
            (json!({"username": "ädmin", "password": "password1"}), json!([bad_name, common])),
            (json!({"username": "alice", "password": "Password1"}), json!([common])),
        ] {
            app.post("/auth/register").send_json(body).await.assert_refused(422, errors);
        }
        for body in
            [r#"{"username":"a b","password":["s3cret"]}"#, r#"["s3cret"]"#, r#"{"password":"s3cret"#, r#""s3cret""#]
        {
            let answer = app.post("/auth/register").json_bytes(body).answer().await;
            assert!(answer.status == 422 && !answer.body.contains("s3cret"), "{answer:?}");
        }
        let large = json!({"username": "a", "password": "x".repeat(17_000)});
        app.post("/auth/register")
            .send_json(large)
            .await
            .assert_refused(413, "Request body is larger than 16384 bytes");
    })
    .await;
}

#[actix_web::test]
async fn a_password_is_used_whole() {
    with_app(async |app| {
        let long = "éa".repeat(85);
        let body = json!({"username": "long", "password": long});
        assert_eq!(app.post("/auth/register").send_json(body).await.status, 201);
        assert!(app.log_in("long", &long).await.is_some());
        assert!(app.log_in("long", &long[..long.len() - 1]).await.is_none());
        assert!(app.log_in("long", &format!("{long}a")).await.is_none());
    })
    .await;
}

#[actix_web::test]
async fn a_closed_registration_is_403_before_anything_else() {
    with_settings(&[("REGISTRATION", "closed")], async |app| {
        for answer in [app.register("alice").await, app.post("/auth/register").json_bytes("{").answer().await] {
            answer.assert_refused(403, "Registration is closed: ask an admin for an account");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_new_password_ends_all_tokens_and_gives_one() {
    with_app(async |app| {
        app.register("alice").await;
        let old = [app.log_in("alice", PASSWORD).await.unwrap(), app.token("alice")];
        app.change_password(&old[0], "wrong", NEXT).await.assert_refused(403, "Wrong password");
        let answer = app.change_password(&old[0], PASSWORD, NEXT).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        let body = answer.json();
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("bearer"), &json!(1800)));
        for token in &old {
            app.get("/todos").bearer_auth(token).answer().await.assert_refused(401, INVALID);
        }
        assert_eq!(app.status(body["access_token"].as_str().unwrap()).await, 200);
        assert_eq!(app.log_in("alice", PASSWORD).await, None);
        assert!(app.log_in("alice", NEXT).await.is_some());
    })
    .await;
}

#[actix_web::test]
async fn of_two_password_changes_at_once_one_is_too_late() {
    with_app(async |app| {
        app.register("alice").await;
        let token = app.token("alice");
        let changes = [NEXT, "yet another private sentence"].map(|new| app.change_password(&token, PASSWORD, new));
        let answers = futures_util::future::join_all(changes).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        // The second one finds the token ended, or the password.
        assert!(statuses[0] == 200 && [401, 403].contains(&statuses[1]), "{answers:?}");
    })
    .await;
}

#[actix_web::test]
async fn a_weak_new_password_is_refused_before_the_present_one_is_checked() {
    with_app(async |app| {
        let answer = app.change_password(&app.token("demo"), "wrong", "demo-2026").await;
        let error = &answer.json()["detail"][0];
        assert_eq!(
            (answer.status, &error["loc"], &error["ctx"]["reason"]),
            (422, &json!(["body", "new_password"]), &json!("context"))
        );
    })
    .await;
}

#[actix_web::test]
async fn a_deleted_account_is_gone_and_its_events_say_so_without_content() {
    with_app(async |app| {
        app.register("alice").await;
        let token = app.token("alice");
        let secret = json!({"title": "private", "description": "private too"});
        let todos = [app.create(&token, secret.clone()).await, app.create(&token, secret).await];
        let others = app.create(&app.token("demo"), json!({"title": "stays"})).await;
        let call = |body: Value| app.delete("/auth/me").bearer_auth(&token).send_json(body);
        call(json!({"password": "wrong"})).await.assert_refused(403, "Wrong password");
        assert_eq!(call(json!({})).await.status, 422);
        let answer = call(json!({"password": PASSWORD})).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        app.get("/todos").bearer_auth(&token).answer().await.assert_refused(401, INVALID);
        assert_eq!(app.log_in("alice", PASSWORD).await, None);
        app.register("ALICE").await.assert_refused(409, "Username is taken");

        eventually("its todos are deleted", async || app.todos("alice").is_empty()).await;
        let events = app.published().await;
        let (deleted, created): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.kind == "todo.deleted");
        assert_eq!(deleted.iter().map(|event| event.data.id).collect::<Vec<_>>(), todos);
        for event in deleted {
            let data = &event.data;
            assert_eq!((data.title.as_str(), &data.description, data.scrubbed), ("[deleted]", &None, true));
            assert_eq!((data.created_by.as_str(), data.actor.as_str()), ("alice", "alice"));
        }
        assert!(created.iter().all(|event| event.data.title != "[deleted]" && !event.data.scrubbed));
        assert!(created.iter().any(|event| event.data.id == others));
        eventually("nothing that was private is in the log", async || app.rows_with("private") == 0).await;
    })
    .await;
}

#[actix_web::test]
async fn what_a_deleted_account_published_cannot_be_published_again() {
    with_app(async |app| {
        app.register("alice").await;
        app.create(&app.token("alice"), json!({"title": "private"})).await;
        let (token, id) = (app.token("admin"), app.user_id("alice"));
        assert_eq!(app.delete(&format!("/admin/users/{id}")).bearer_auth(&token).answer().await.status, 204);
        let body = json!({"username": "alice", "from_revision": 1});
        let answer = app.post("/admin/events/republish").bearer_auth(&token).send_json(body).await;
        answer.assert_refused(409, "The account is deleted");
        eventually("its todos are deleted", async || app.todos("alice").is_empty()).await;
        let event = app.published().await.pop().unwrap();
        assert_eq!((event.data.created_by.as_str(), event.data.actor.as_str()), ("alice", "admin"));
    })
    .await;
}

#[actix_web::test]
async fn parked_events_of_a_deleted_account_are_given_up() {
    without_sidecar(&[], async |app| {
        app.register("alice").await;
        let todo = app.create(&app.token("alice"), json!({"title": "private"})).await;
        app.park(todo, 1);
        let path = format!("/admin/users/{}", app.user_id("alice"));
        assert_eq!(app.delete(&path).bearer_auth(app.token("admin")).answer().await.status, 204);
        eventually("nothing that was private is in the log", async || app.rows_with("private") == 0).await;
        let parked = app.get("/admin/events/parked").bearer_auth(app.token("admin")).answer().await;
        assert_eq!(parked.json(), json!([]));
    })
    .await;
}

#[actix_web::test]
async fn the_last_admin_cannot_delete_themselves() {
    with_app(async |app| {
        let delete = || app.delete("/auth/me").bearer_auth(app.token("admin"));
        let body = json!({"password": "admin123"});
        delete().send_json(body.clone()).await.assert_refused(409, LAST_ADMIN);
        let role = json!({"role": "admin"});
        let path = format!("/admin/users/{}", app.user_id("demo"));
        app.patch(&path).bearer_auth(app.token("admin")).send_json(role).await;
        assert_eq!(app.account("demo").unwrap().role, Role::Admin);
        assert_eq!(delete().send_json(body).await.status, 204);
        assert_eq!(app.account("admin").unwrap().state, AccountState::Deleted);
    })
    .await;
}

#[actix_web::test]
async fn accounts_cannot_be_changed_while_nothing_can_be_stored() {
    without_sidecar(&[], async |app| {
        app.database().break_table("users", "INSERT", "true");
        let answer = app.register("alice").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
        app.database().mend_table("users", "INSERT");
        assert!(app.account("alice").is_none());
        eventually("a registration works again", async || app.register("alice").await.status == 201).await;
    })
    .await;
}
