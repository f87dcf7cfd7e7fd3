//! Refresh tokens, sessions, and personal access tokens.

use std::io::Write;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::app::{PREFIXES, TestApp, Timestamp, with_app, with_config};
use crate::client::{Answer, RequestExt};
use crate::clock::with_clock;

const INVALID: &str = "Invalid or expired token";

/// What `/auth/token` answers.
struct Tokens {
    access: String,
    refresh: String,
}

impl TestApp {
    /// Begins a session of a demo user.
    async fn begin(&self, username: &str) -> Tokens {
        let form = format!("grant_type=password&username={username}&password={username}123");
        tokens(&self.post("/auth/token").header("User-Agent", "the tests").send_form(&form).await)
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("/auth/token").send_form(&format!("grant_type=refresh_token&refresh_token={token}")).await
    }

    async fn revoke(&self, token: &str) {
        let answer = self.post("/auth/revoke").send_form(&format!("token={token}&token_type_hint=x")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{token}");
    }

    async fn is_valid(&self, access: &str) -> bool {
        match self.get("/todos").bearer_auth(access).answer().await {
            answer if answer.status == 200 => true,
            answer => {
                answer.assert_refused(401, INVALID);
                false
            }
        }
    }

    async fn sessions(&self, access: &str) -> Value {
        let answer = self.get("/auth/sessions").bearer_auth(access).answer().await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        answer.json()
    }

    async fn personal(&self, access: &str, body: Value) -> Answer {
        self.post("/auth/tokens").bearer_auth(access).send_json(body).await
    }
}

fn tokens(answer: &Answer) -> Tokens {
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("bearer"), &json!(1800)));
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    Tokens { access: text("access_token"), refresh: text("refresh_token") }
}

fn invalid_grant(answer: &Answer) {
    let body = answer.json();
    let texts = [&body["error"], &body["error_description"]];
    assert_eq!((answer.status, texts), (400, [&json!("invalid_grant"), &json!("Invalid or expired refresh token")]));
}

#[actix_web::test]
async fn a_refresh_token_gives_the_next_tokens() {
    with_app(async |app| {
        for prefix in PREFIXES {
            let path = format!("{prefix}/auth/token");
            let form = "grant_type=password&username=demo&password=demo123";
            let mut now = tokens(&app.post(&path).send_form(form).await);
            for _ in 0..3 {
                let form = format!("grant_type=refresh_token&refresh_token={}&scope=&client_id=x", now.refresh);
                let next = tokens(&app.post(&path).send_form(&form).await);
                assert!(
                    next.refresh != now.refresh && app.is_valid(&now.access).await && app.is_valid(&next.access).await
                );
                now = next;
            }
        }
        let login = app.post("/auth/login?username=demo&password=demo123").answer().await.json();
        assert_eq!(login.as_object().unwrap().keys().collect::<Vec<_>>(), ["access_token", "token_type"]);
    })
    .await;
}

#[actix_web::test]
async fn twenty_refreshes_at_once_are_one() {
    let (config, now) = with_clock(&[]);
    with_config(config, async |app| {
        let first = app.begin("demo").await;
        let answers = futures_util::future::join_all((0..20).map(|_| app.refresh(&first.refresh))).await;
        let next: Vec<Tokens> = answers.iter().map(tokens).collect();
        assert!(next.iter().all(|tokens| tokens.refresh == next[0].refresh), "the same successor");
        assert_eq!(app.sessions(&next[0].access).await.as_array().unwrap().len(), 1);
        let after = tokens(&app.refresh(&next[0].refresh).await);
        // A replay after the grace ends the session.
        now.fetch_add(60_000, Ordering::Relaxed);
        invalid_grant(&app.refresh(&first.refresh).await);
        invalid_grant(&app.refresh(&after.refresh).await);
        assert!(!app.is_valid(&after.access).await);
    })
    .await;
}

#[actix_web::test]
async fn what_is_no_refresh_token_of_a_session_is_refused() {
    with_app(async |app| {
        let Tokens { access, refresh } = app.begin("demo").await;
        let digits = refresh.rsplit_once('_').unwrap().1;
        let guess = format!("tdr_1_{}", "0".repeat(96));
        for bad in ["x", &access, &format!("tdr_99_{digits}"), &guess, &refresh[1..]] {
            invalid_grant(&app.refresh(bad).await);
        }
        for form in ["grant_type=refresh_token", "grant_type=refresh_token&refresh_token="] {
            let answer = app.post("/auth/token").send_form(form).await;
            assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")));
        }
        for token in [&refresh, "tdr_1_x"] {
            app.get("/todos").bearer_auth(token).answer().await.assert_refused(401, INVALID);
        }
        tokens(&app.refresh(&refresh).await);
    })
    .await;
}

#[actix_web::test]
async fn sessions_are_listed_and_ended_one_by_one() {
    with_app(async |app| {
        let (first, second, other) = (app.begin("demo").await, app.begin("demo").await, app.begin("user").await);
        let listed = app.sessions(&second.access).await;
        let current: Vec<_> = listed.as_array().unwrap().iter().map(|session| &session["current"]).collect();
        assert_eq!(current, [false, true]);
        let session = &listed[0];
        assert_eq!((&session["user_agent"], &session["created_at"]), (&json!("the tests"), &session["used_at"]));
        assert_eq!(session.as_object().unwrap().len(), 5);
        let end = |access: &str, id: &Value| app.delete(&format!("/auth/sessions/{id}")).bearer_auth(access);
        for id in [json!(99), app.sessions(&other.access).await[0]["id"].clone()] {
            end(&second.access, &id).answer().await.assert_refused(404, "Session not found");
        }
        assert_eq!(end(&second.access, &session["id"]).answer().await.status, 204);
        assert!(!app.is_valid(&first.access).await);
        invalid_grant(&app.refresh(&first.refresh).await);
        assert!(app.is_valid(&second.access).await && app.is_valid(&other.access).await);
        assert_eq!(app.sessions(&second.access).await.as_array().unwrap().len(), 1);
        let answer = app.delete("/auth/sessions/x").bearer_auth(&second.access).answer().await;
        assert_eq!((answer.status, &answer.json()["detail"][0]["type"]), (422, &json!("int_parsing")));
    })
    .await;
}

#[actix_web::test]
async fn a_long_user_agent_is_cut() {
    with_app(async |app| {
        let form = "grant_type=password&username=demo&password=demo123";
        let call = app.post("/auth/token").header("User-Agent", "x".repeat(500));
        let access = tokens(&call.send_form(form).await).access;
        assert_eq!(app.sessions(&access).await[0]["user_agent"], "x".repeat(100));
    })
    .await;
}

#[actix_web::test]
async fn logging_out_everywhere_ends_all_but_personal_tokens() {
    with_app(async |app| {
        let (first, second) = (app.begin("demo").await, app.begin("demo").await);
        let login = app.token("demo");
        let personal = app.personal(&login, json!({"name": "script", "scope": "read"})).await.json();
        let answer = app.post("/auth/logout-all").bearer_auth(&first.access).answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        for access in [&first.access, &second.access, &login] {
            assert!(!app.is_valid(access).await);
        }
        for refresh in [&first.refresh, &second.refresh] {
            invalid_grant(&app.refresh(refresh).await);
        }
        assert!(app.is_valid(personal["token"].as_str().unwrap()).await);
    })
    .await;
}

#[actix_web::test]
async fn a_new_password_keeps_the_session_in_which_it_was_chosen() {
    with_app(async |app| {
        let (here, elsewhere) = (app.begin("demo").await, app.begin("demo").await);
        let body = json!({"current_password": "demo123", "new_password": "a long and private sentence"});
        let answer = app.post("/auth/password").bearer_auth(&here.access).send_json(body).await;
        let access = answer.json()["access_token"].as_str().unwrap().to_owned();
        assert!(
            app.is_valid(&access).await && !app.is_valid(&here.access).await && !app.is_valid(&elsewhere.access).await
        );
        assert_eq!(app.sessions(&access).await[0]["current"], true);
        invalid_grant(&app.refresh(&elsewhere.refresh).await);
        assert!(app.is_valid(&tokens(&app.refresh(&here.refresh).await).access).await);
    })
    .await;
}

#[actix_web::test]
async fn another_role_is_in_the_next_token_of_the_session() {
    with_app(async |app| {
        let session = app.begin("demo").await;
        let path = format!("/admin/users/{}", app.user_id("demo"));
        app.patch(&path).bearer_auth(app.token("admin")).send_json(json!({"role": "admin"})).await;
        assert!(!app.is_valid(&session.access).await);
        let access = tokens(&app.refresh(&session.refresh).await).access;
        assert_eq!(app.get("/admin/users").bearer_auth(access).answer().await.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn whoever_has_a_token_can_revoke_it() {
    with_app(async |app| {
        let [by_refresh, by_used, by_access] =
            [app.begin("demo").await, app.begin("demo").await, app.begin("demo").await];
        let next = tokens(&app.refresh(&by_used.refresh).await);
        let personal = app.personal(&app.token("demo"), json!({"name": "script", "scope": "write"})).await.json();
        let personal = personal["token"].as_str().unwrap();
        let login = app.token("demo");
        for token in [&by_refresh.refresh, &by_used.refresh, &by_access.access, personal, "nonsense", &login[1..]] {
            app.revoke(token).await;
            app.revoke(token).await;
        }
        for access in [&by_refresh.access, &next.access, &by_access.access, personal] {
            assert!(!app.is_valid(access).await);
        }
        let answer = app.post("/auth/revoke").send_form(&format!("token={login}")).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("unsupported_token_type")));
        assert!(app.is_valid(&login).await, "it belongs to no session, and ends by itself");
        // A token that has ended has no say over what was kept.
        let kept = app.begin("demo").await;
        let body = json!({"current_password": "demo123", "new_password": "a long and private sentence"});
        let answer = app.post("/auth/password").bearer_auth(&kept.access).send_json(body).await;
        app.revoke(&kept.access).await;
        assert!(app.is_valid(answer.json()["access_token"].as_str().unwrap()).await);
        for form in ["", "token=", "token=a&token=b"] {
            let answer = app.post("/auth/revoke").send_form(form).await;
            assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")), "{form}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_personal_token_is_shown_once_and_works_for_todos_as_its_scope_says() {
    with_app(async |app| {
        let login = app.token("demo");
        let mut secrets = Vec::new();
        for scope in ["read", "write"] {
            let answer = app.personal(&login, json!({"name": scope, "scope": scope})).await;
            let token = answer.json();
            assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")));
            assert_eq!(answer.location_from("/auth/tokens"), format!("/auth/tokens/{}", token["id"]));
            assert_eq!(
                (&token["name"], &token["scope"], &token["expires_at"]),
                (&json!(scope), &json!(scope), &json!(null))
            );
            secrets.push(token["token"].as_str().unwrap().to_owned());
        }
        let [read, write] = &secrets[..] else { panic!() };
        assert!(read.starts_with("tdb_") && read.len() == 68);
        let todo = app.create(write, json!({"title": "by a script"})).await;
        let path = format!("/todos/{todo}");
        for (method, status) in [("GET", 200), ("HEAD", 200), ("PUT", 403), ("DELETE", 403)] {
            let answer = app.request(method, &path).bearer_auth(read).send_json(json!({"title": "x"})).await;
            assert_eq!(answer.status, status, "{method}");
        }
        let refused = app.post("/todos").bearer_auth(read).send_json(json!({"title": "x"})).await;
        refused.assert_refused(403, "This token is read-only: create one with the scope write");
        assert_eq!(refused.header("www-authenticate"), Some(r#"Bearer error="insufficient_scope", scope="write""#));
        for (method, path) in [("GET", "/auth/me"), ("POST", "/auth/tokens"), ("POST", "/auth/logout-all")] {
            let answer = app.request(method, path).bearer_auth(write).answer().await;
            answer.assert_refused(403, "Personal access tokens are only for todos: log in");
        }
        let listed = app.get("/auth/tokens").bearer_auth(&login).answer().await;
        assert!(!listed.body.contains("tdb_"));
        let listed = listed.json();
        assert!(
            listed[0]["used_at"].is_string() && listed[1]["used_at"].is_string() && listed[0].get("token").is_none()
        );
        let revoke = |id: &Value| app.delete(&format!("/auth/tokens/{id}")).bearer_auth(&login);
        assert_eq!(revoke(&listed[0]["id"]).answer().await.status, 204);
        revoke(&listed[0]["id"]).answer().await.assert_refused(404, "Token not found");
        assert!(!app.is_valid(read).await && app.is_valid(write).await);
    })
    .await;
}

#[actix_web::test]
async fn personal_tokens_outlive_a_password_and_not_their_time_or_a_disabled_account() {
    let (config, now) = with_clock(&[]);
    with_config(config, async |app| {
        let login = app.token("demo");
        let at = Timestamp(now.load(Ordering::Relaxed) + 60_000).to_string();
        let short = app.personal(&login, json!({"name": "short", "scope": "read", "expires_at": at})).await.json();
        let long = app.personal(&login, json!({"name": "long", "scope": "read", "expires_at": null})).await.json();
        let [short, long] = [short, long].map(|token| token["token"].as_str().unwrap().to_owned());
        let body = json!({"current_password": "demo123", "new_password": "a long and private sentence"});
        assert_eq!(app.post("/auth/password").bearer_auth(&login).send_json(body).await.status, 200);
        assert!(app.is_valid(&short).await && app.is_valid(&long).await);
        now.fetch_add(60_000, Ordering::Relaxed);
        assert!(!app.is_valid(&short).await && app.is_valid(&long).await);
        let path = format!("/admin/users/{}", app.user_id("demo"));
        for state in ["disabled", "active"] {
            app.patch(&path).bearer_auth(app.token("admin")).send_json(json!({"state": state})).await;
            assert!(!app.is_valid(&long).await, "{state}");
        }
    })
    .await;
}

#[actix_web::test]
async fn what_is_wrong_with_a_new_token_is_named() {
    with_app(async |app| {
        let login = app.token("demo");
        for (body, errors) in [
            (json!({}), &["missing name", "missing scope"][..]),
            (json!({"name": "", "scope": "all"}), &["string_too_short name", "enum scope"]),
            (json!({"name": "x".repeat(101), "scope": "read"}), &["string_too_long name"]),
            (json!({"name": " ", "scope": "read"}), &["value_error name"]),
            (json!({"name": "x", "scope": "read", "expires_at": "tomorrow"}), &["datetime_parsing expires_at"]),
            (
                json!({"name": "x", "scope": "read", "expires_at": "2020-01-01T00:00:00Z"}),
                &["datetime_future expires_at"],
            ),
            (json!({"name": "x", "scope": "read", "expires_at": 5}), &["string_type expires_at"]),
        ] {
            let answer = app.personal(&login, body.clone()).await;
            let found: Vec<String> = answer.json()["detail"]
                .as_array()
                .unwrap()
                .iter()
                .map(|error| format!("{} {}", error["type"].as_str().unwrap(), error["loc"][1].as_str().unwrap()))
                .collect();
            assert_eq!(
                (answer.status, found.iter().map(String::as_str).collect::<Vec<_>>()),
                (422, errors.to_vec()),
                "{body}"
            );
        }
    })
    .await;
}

#[actix_web::test]
async fn a_token_that_ends_while_its_request_arrives_tries_no_password() {
    with_app(async |app| {
        let session = app.begin("demo").await;
        let body = r#"{"password": "guess"}"#;
        let head = format!(
            "DELETE /auth/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n",
            session.access,
            body.len()
        );
        let (ended, go_on) = std::sync::mpsc::channel::<()>();
        let late = app.converse(move |stream| {
            stream.write_all(head.as_bytes()).unwrap();
            go_on.recv().unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        });
        let end = async {
            app.revoke(&session.refresh).await;
            ended.send(()).unwrap();
        };
        let (answer, ()) = futures_util::future::join(late, end).await;
        answer.assert_refused(401, INVALID);
        assert!(app.is_valid(&app.token("demo")).await);
    })
    .await;
}

#[actix_web::test]
async fn a_session_ends_by_itself() {
    let (config, now) = with_clock(&[]);
    with_config(config, async |app| {
        let session = app.begin("demo").await;
        now.fetch_add(30 * 86_400_000, Ordering::Relaxed);
        invalid_grant(&app.refresh(&session.refresh).await);
        assert_eq!(app.sessions(&app.token("demo")).await, json!([]));
        assert!(!app.is_valid(&session.access).await);
    })
    .await;
}
