//! Admins list, make, change and delete accounts.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, eventually, with_app, with_settings};
use crate::client::{Answer, RequestExt, read_answer};

const PASSWORD: &str = "a long and private sentence";
/// Of "correct horse", made by Python's bcrypt 5.0.0.
const BCRYPT: &str = "$2b$12$WTZWKG7g63Bw9Wa14NG1NeqajGfyYqNb47.kj0WrthF6OZKWSlK9.";

impl TestApp {
    async fn make(&self, body: Value) -> Answer {
        self.post("/admin/users").bearer_auth(self.token("admin")).send_json(body).await
    }

    async fn change(&self, username: &str, body: Value) -> Answer {
        let path = format!("/admin/users/{}", self.user_id(username));
        self.patch(&path).bearer_auth(self.token("admin")).send_json(body).await
    }

    async fn list(&self, query: &str) -> Answer {
        self.get(&format!("/admin/users{query}")).bearer_auth(self.token("admin")).answer().await
    }

    async fn logs_in(&self, username: &str, password: &str) -> bool {
        let answer = self.post("/auth/login").send_json(json!({"username": username, "password": password})).await;
        assert!([200, 401].contains(&answer.status), "{answer:?}");
        answer.status == 200
    }
}

#[actix_web::test]
async fn an_admin_makes_accounts_that_log_in_also_while_registration_is_closed() {
    with_settings(&[("REGISTRATION", "closed")], async |app| {
        let answer = app.make(json!({"username": "alice", "password": PASSWORD})).await;
        let account = answer.json();
        assert_eq!((answer.status, &account["role"], &account["state"]), (201, &json!("user"), &json!("active")));
        let path = answer.location_from("/admin/users");
        for prefix in PREFIXES {
            let read = app.get(&format!("{prefix}{path}")).bearer_auth(app.token("admin")).answer().await;
            assert_eq!((read.status, read.json()), (200, account.clone()));
        }
        assert!(app.logs_in("alice", PASSWORD).await);
        app.make(json!({"username": "ALICE", "password": PASSWORD})).await.assert_refused(409, "Username is taken");
        let boss = app.make(json!({"username": "boss", "password": PASSWORD, "role": "admin"})).await.json();
        assert_eq!(boss["role"], "admin");
        let listed = app.get("/admin/users").bearer_auth(app.token("boss")).answer().await;
        assert_eq!(listed.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn an_imported_hash_works_and_is_replaced_at_the_first_login() {
    with_app(async |app| {
        let answer = app.make(json!({"username": "old", "password_hash": BCRYPT})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(!app.logs_in("old", "Correct horse").await);
        assert_eq!(&*app.account("old").unwrap().password_hash, BCRYPT);
        let token = app.token("old");
        // By the other way to log in, too.
        let form = "grant_type=password&username=old&password=correct+horse";
        assert_eq!(app.post("/auth/token").send_form(form).await.status, 200);
        let hash = app.account("old").unwrap().password_hash.clone();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(app.logs_in("old", "correct horse").await);
        assert_eq!(app.get("/todos").bearer_auth(token).answer().await.status, 200, "a new hash ends no token");
        // While nothing can be stored, the old hash still works.
        assert_eq!(app.make(json!({"username": "older", "password_hash": BCRYPT})).await.status, 201);
        app.database().break_table("users", "UPDATE", "true");
        assert!(app.logs_in("older", "correct horse").await);
        app.database().mend_table("users", "UPDATE");
        assert_eq!(&*app.account("older").unwrap().password_hash, BCRYPT);
    })
    .await;
}

#[actix_web::test]
async fn what_is_wrong_with_a_new_account_is_named() {
    with_app(async |app| {
        let invalid = |answer: Answer| {
            let errors = answer.json()["detail"].as_array().unwrap().clone();
            assert!(errors.iter().all(|error| error["input"].is_null()), "{answer:?}");
            answer.problems()
        };
        for (body, errors) in [
            (json!({}), &["missing username", "missing password"][..]),
            (json!({"username": "a"}), &["missing password"]),
            (json!({"username": "a", "password": PASSWORD, "password_hash": BCRYPT}), &["value_error password_hash"]),
            (json!({"username": "a", "password_hash": "plain"}), &["value_error password_hash"]),
            (json!({"username": "a", "password_hash": BCRYPT.replace("$12$", "$15$")}), &["value_error password_hash"]),
            (json!({"username": "a", "password": "short"}), &["value_error password"]),
            (json!({"username": "a b", "password": PASSWORD}), &["string_pattern_mismatch username"]),
            (json!({"username": "a", "password": PASSWORD, "role": "root"}), &["enum role"]),
            (json!({"username": "a", "password": PASSWORD, "role": null}), &["string_type role"]),
        ] {
            assert_eq!(invalid(app.make(body.clone()).await), errors, "{body}");
        }
        for (body, errors) in [
            (json!({"role": "root"}), &["enum role"][..]),
            // A field in the wrong spelling must not look like a success.
            (json!({"status": "disabled"}), &["missing body"]),
            (json!({}), &["missing body"]),
            (json!({"state": "deleted"}), &["enum state"]),
            (json!({"state": true, "password": "demo-2026"}), &["string_type state", "value_error password"]),
        ] {
            assert_eq!(invalid(app.change("demo", body.clone()).await), errors, "{body}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_disabled_account_is_out_at_once_and_comes_back_without_its_old_tokens() {
    with_app(async |app| {
        let old = app.token("demo");
        let todo = app.create(&old, json!({"title": "kept"})).await;
        let answer = app.change("demo", json!({"state": "disabled"})).await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("disabled")));
        for token in [old.clone(), app.token("demo")] {
            app.get("/todos").bearer_auth(token).answer().await.assert_refused(401, "Invalid or expired token");
        }
        assert!(!app.logs_in("demo", "demo123").await);
        app.change("demo", json!({"state": "active"})).await;
        app.get("/todos").bearer_auth(old).answer().await.assert_refused(401, "Invalid or expired token");
        assert!(app.logs_in("demo", "demo123").await);
        assert!(app.todo("demo", todo).is_some());
    })
    .await;
}

#[actix_web::test]
async fn disabled_deleted_and_unknown_users_get_the_same_answer() {
    with_app(async |app| {
        for name in ["disabled", "deleted"] {
            app.make(json!({"username": name, "password": PASSWORD})).await;
        }
        app.change("disabled", json!({"state": "disabled"})).await;
        let path = format!("/admin/users/{}", app.user_id("deleted"));
        app.delete(&path).bearer_auth(app.token("admin")).answer().await;
        let mut answers = Vec::new();
        for (name, password) in [
            ("nobody", PASSWORD),
            ("disabled", PASSWORD),
            ("disabled", "wrong"),
            ("deleted", PASSWORD),
            ("demo", "wrong"),
        ] {
            let login = json!({"username": name, "password": password});
            let form = format!("grant_type=password&username={name}&password={}", password.replace(' ', "+"));
            let answer = app.post("/auth/login").send_json(login).await;
            answer.assert_refused(401, "Invalid username or password");
            let names: BTreeSet<String> = answer.headers.keys().map(|name| name.to_string()).collect();
            answers.push((names, app.post("/auth/token").send_form(&form).await.body));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    })
    .await;
}

#[actix_web::test]
async fn another_role_or_password_ends_tokens_and_a_change_of_nothing_does_not() {
    with_app(async |app| {
        let token = app.token("user");
        assert_eq!(app.change("user", json!({"role": "user", "state": "active"})).await.status, 200);
        let status = async |token: &str| app.get("/admin/users").bearer_auth(token).answer().await.status;
        assert_eq!(status(&token).await, 403);
        app.change("user", json!({"role": "admin"})).await;
        assert_eq!(status(&token).await, 401);
        let token = app.token("user");
        assert_eq!(status(&token).await, 200);
        app.change("user", json!({"password": PASSWORD})).await;
        assert_eq!(status(&token).await, 401);
        assert!(app.logs_in("user", PASSWORD).await && !app.logs_in("user", "user123").await);
    })
    .await;
}

#[actix_web::test]
async fn an_admin_who_was_disabled_meanwhile_changes_nothing_any_more() {
    with_app(async |app| {
        app.change("user", json!({"role": "admin"})).await;
        let (token, path) = (app.token("user"), format!("/admin/users/{}", app.user_id("demo")));
        let body = json!({"username": "accomplice", "password": PASSWORD, "role": "admin"}).to_string();
        let head = |method: &str, path: &str, length: usize| {
            format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            )
        };
        let (mut create, mut change, mut republish) = (app.connect(), app.connect(), app.connect());
        // The heads, which the token allows, and the beginnings of the bodies.
        create.write_all(format!("{}{{", head("POST", "/admin/users", body.len())).as_bytes()).unwrap();
        let role = json!({"role": "admin"}).to_string();
        change.write_all(format!("{}{{", head("PATCH", &path, role.len())).as_bytes()).unwrap();
        let events = json!({"username": "demo", "from_revision": 1}).to_string();
        republish.write_all(format!("{}{{", head("POST", "/admin/events/republish", events.len())).as_bytes()).unwrap();
        // Whatever was sent before is read before what is sent later is answered.
        app.get("/todos").bearer_auth(&token).answer().await;
        assert_eq!(app.change("user", json!({"state": "disabled"})).await.status, 200);
        for (mut stream, rest) in [(create, body), (change, role), (republish, events)] {
            let rest = rest[1..].to_owned();
            let answer = actix_web::rt::task::spawn_blocking(move || {
                stream.write_all(rest.as_bytes()).unwrap();
                read_answer(&mut stream)
            });
            answer.await.unwrap().assert_refused(401, "Invalid or expired token");
        }
        assert!(app.account("accomplice").is_none());
    })
    .await;
}

#[actix_web::test]
async fn the_last_active_admin_stays_one() {
    with_app(async |app| {
        let refused = "This is the last active admin: make another account an admin first";
        for change in [json!({"role": "user"}), json!({"state": "disabled"})] {
            app.change("admin", change).await.assert_refused(409, refused);
        }
        let path = format!("/admin/users/{}", app.user_id("admin"));
        app.delete(&path).bearer_auth(app.token("admin")).answer().await.assert_refused(409, refused);
        // Two admins who demote each other at the same time.
        app.change("user", json!({"role": "admin"})).await;
        let demote = async |by: &str, whom: &str| {
            let path = format!("/admin/users/{}", app.user_id(whom));
            app.patch(&path).bearer_auth(app.token(by)).send_json(json!({"role": "user"})).await.status
        };
        let (first, second) = futures_util::join!(demote("admin", "user"), demote("user", "admin"));
        // The one that comes second is no admin any more by then, or would be the last.
        assert!(first == 200 || second == 200, "{first} {second}");
        assert!([401, 403, 409].contains(&first) || [401, 403, 409].contains(&second), "{first} {second}");
    })
    .await;
}

#[actix_web::test]
async fn a_deleted_account_is_listed_and_cannot_be_changed() {
    with_app(async |app| {
        app.make(json!({"username": "alice", "password": PASSWORD})).await;
        let path = format!("/admin/users/{}", app.user_id("alice"));
        let delete = || app.delete(&path).bearer_auth(app.token("admin"));
        assert_eq!(delete().answer().await.status, 204);
        delete().answer().await.assert_refused(409, "The account is deleted");
        app.change("alice", json!({"state": "active"})).await.assert_refused(409, "The account is deleted");
        let listed = app.list("").await.json();
        let alice = listed.as_array().unwrap().last().unwrap().clone();
        assert_eq!((&alice["username"], &alice["state"]), (&json!("alice"), &json!("deleted")));
        eventually("it is erased", async || app.todos("alice").is_empty()).await;
    })
    .await;
}

#[actix_web::test]
async fn ids_that_no_account_has_are_404_and_others_422() {
    with_app(async |app| {
        for id in ["0", "-1", "99", "9223372036854775807", "99999999999999999999"] {
            for method in ["GET", "PATCH", "DELETE"] {
                let call = app.request(method, &format!("/admin/users/{id}")).bearer_auth(app.token("admin"));
                call.send_json(json!({})).await.assert_refused(404, "User not found");
            }
        }
        let answer = app.get("/admin/users/x").bearer_auth(app.token("admin")).answer().await;
        assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!("int_parsing")));
    })
    .await;
}

#[actix_web::test]
async fn pages_follow_each_other_and_show_every_account_once() {
    with_app(async |app| {
        for n in 0..4 {
            app.make(json!({"username": format!("user{n}"), "password_hash": BCRYPT})).await;
        }
        let all = app.list("").await;
        assert_eq!((all.header("x-total-count"), all.header("link")), (Some("7"), None));
        let all = all.json();
        for limit in [1, 3, 7, 1000] {
            let (mut seen, mut path) = (Vec::new(), Some(format!("/v1/admin/users?limit={limit}")));
            while let Some(at) = path {
                let page = app.get(&at).bearer_auth(app.token("admin")).answer().await;
                let users = page.json().as_array().unwrap().clone();
                assert!(users.len() <= limit && page.header("x-total-count") == Some("7"));
                seen.extend(users);
                path = page.header("link").map(|link| {
                    let (target, relation) = link.split_once('>').unwrap();
                    assert_eq!(relation, "; rel=\"next\"");
                    let base = reqwest::Url::parse(&format!("http://service{at}")).unwrap();
                    let next = base.join(&target[1..]).unwrap();
                    format!("{}?{}", next.path(), next.query().unwrap())
                });
            }
            assert_eq!(Value::from(seen), all, "{limit}");
        }
        for (query, errors) in [
            ("?limit=0", &["greater_than_equal limit"][..]),
            ("?limit=1001", &["less_than_equal limit"]),
            ("?limit=x&after=-1", &["int_parsing limit", "greater_than_equal after"]),
            ("?limit=", &["int_parsing limit"]),
        ] {
            assert_eq!(app.list(query).await.problems(), errors, "{query}");
        }
    })
    .await;
}
