//! The log of what happens to accounts: a line for each event, with address and request id, and no secret in any.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::access_log::{capture, line_in, lines_with};
use crate::app::{TestApp, with_config, with_settings};
use crate::client::{Answer, RequestExt};
use crate::clock::with_clock;

const PASSWORD: &str = "swordfish of a long sentence";
const CLIENT: &str = "203.0.113.77";

/// Sends a request as a client behind a trusted proxy, with a body; form or JSON.
async fn call(app: &TestApp, request: (&str, &str), id: &str, token: Option<&str>, body: &str) -> Answer {
    let call = app.request(request.0, request.1).header("X-Request-Id", id).header("X-Forwarded-For", CLIENT);
    let call = if let Some(token) = token { call.bearer_auth(token) } else { call };
    if body.starts_with('{') { call.json_bytes(body.to_owned()).answer().await } else { call.send_form(body).await }
}

/// The audit line of a request, which has exactly one.
async fn line_of(id: &str) -> String {
    line_in("auth::audit", id).await
}

/// Asserts that a request left a line with this event, account and text.
async fn assert_recorded(id: &str, level: &str, event: &str, user: &str, text: &str) {
    let line = line_of(id).await;
    assert!(line.starts_with(&format!("todo_backend::auth::audit {level} {text}")), "{line}");
    for part in [
        format!("address={CLIENT} request_id={id} "),
        format!("[event={event}]"),
        format!("[user={user}]"),
        format!("[address={CLIENT}]"),
        format!("[request_id={id}]"),
    ] {
        assert!(line.contains(&part), "{part} is not in {line}");
    }
}

fn text(answer: &Answer, name: &str) -> String {
    answer.json()[name].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[actix_web::test]
async fn what_happens_to_an_account_leaves_a_line_with_address_and_request_id() {
    capture();
    with_settings(&[("TRUSTED_PROXIES", "127.0.0.1")], async |app| {
        let body = |fields: Value| fields.to_string();
        let credentials = body(json!({"username": "erin", "password": PASSWORD}));
        let login = format!("grant_type=password&username=erin&password={}", PASSWORD.replace(' ', "+"));
        assert_eq!(call(app, ("POST", "/auth/register"), "au-1", None, &credentials).await.status, 201);
        assert_recorded("au-1", "INFO", "registered", "erin", "User registered: erin").await;
        let answer = call(app, ("POST", "/auth/token"), "au-2", None, &login).await;
        assert_recorded("au-2", "INFO", "login_ok", "erin", "User logged in successfully: erin").await;
        let (access, refresh) = (text(&answer, "access_token"), text(&answer, "refresh_token"));
        call(app, ("POST", "/auth/login"), "au-3", None, "username=erin&password=swordfish-wrong").await;
        assert_recorded("au-3", "WARN", "login_failed", "erin", "Failed login attempt for user: erin").await;
        call(app, ("POST", "/auth/login"), "au-4", None, "username=swordfish-in-the-wrong-field&password=x").await;
        assert_recorded("au-4", "WARN", "login_failed", "(unknown)", "Failed login attempt for user: (unknown)").await;
        let wrong = body(json!({"current_password": "swordfish-wrong", "new_password": PASSWORD}));
        assert_eq!(call(app, ("POST", "/auth/password"), "au-5", Some(&access), &wrong).await.status, 403);
        assert_recorded("au-5", "WARN", "wrong_password", "erin", "Wrong password from user: erin").await;
        let right = body(json!({"current_password": PASSWORD, "new_password": format!("{PASSWORD} 2")}));
        let answer = call(app, ("POST", "/auth/password"), "au-6", Some(&access), &right).await;
        assert_recorded("au-6", "WARN", "password_changed", "erin", "Password changed by user: erin").await;
        let access = text(&answer, "access_token");
        let new = body(json!({"name": "swordfish-name", "scope": "read"}));
        let answer = call(app, ("POST", "/auth/tokens"), "au-7", Some(&access), &new).await;
        assert_recorded("au-7", "WARN", "token_created", "erin", "Personal access token 1 (read) created by user")
            .await;
        let personal = text(&answer, "token");
        call(app, ("POST", "/auth/revoke"), "au-8", None, &format!("token={personal}")).await;
        assert_recorded("au-8", "INFO", "revoked", "erin", "Personal access token 1 of user erin was revoked").await;
        call(app, ("POST", "/auth/tokens"), "au-9", Some(&access), &new).await;
        call(app, ("DELETE", "/auth/tokens/2"), "au-10", Some(&access), "").await;
        assert_recorded("au-10", "WARN", "token_revoked", "erin", "Personal access token 2 revoked by user").await;
        let form = |token: &str| format!("grant_type=refresh_token&refresh_token={token}");
        let next = text(&call(app, ("POST", "/auth/token"), "au-11", None, &form(&refresh)).await, "refresh_token");
        call(app, ("POST", "/auth/revoke"), "au-12", None, &format!("token={next}")).await;
        assert_recorded("au-12", "INFO", "revoked", "erin", "Session 1 of user erin was revoked").await;
        let access = app.token("erin");
        assert_eq!(call(app, ("POST", "/auth/logout-all"), "au-13", Some(&access), "").await.status, 204);
        assert_recorded("au-13", "WARN", "logged_out_everywhere", "erin", "Logged out everywhere: erin").await;
        let login = login.replace("sentence", "sentence+2");
        let answer = call(app, ("POST", "/auth/token"), "au-14", None, &login).await;
        let access = text(&answer, "access_token");
        call(app, ("DELETE", "/auth/sessions/2"), "au-15", Some(&access), "").await;
        assert_recorded("au-15", "INFO", "session_ended", "erin", "Session 2 ended by user: erin").await;
        let access = app.token("erin");
        let password = body(json!({"password": format!("{PASSWORD} 2")}));
        assert_eq!(call(app, ("DELETE", "/auth/me"), "au-16", Some(&access), &password).await.status, 204);
        assert_recorded("au-16", "WARN", "account_deleted", "erin", "Account deleted by user: erin").await;
    })
    .await;
    assert_no_secrets();
}

#[actix_web::test]
async fn what_admins_do_and_what_is_limited_is_recorded_too() {
    capture();
    with_settings(&[("TRUSTED_PROXIES", "127.0.0.1")], async |app| {
        let admin = app.token("admin");
        let new = json!({"username": "frank", "password": PASSWORD}).to_string();
        assert_eq!(call(app, ("POST", "/admin/users"), "aa-1", Some(&admin), &new).await.status, 201);
        let created = "User frank was created with the role user by user: admin";
        assert_recorded("aa-1", "WARN", "user_created", "frank", created).await;
        let path = format!("/admin/users/{}", app.user_id("frank"));
        let change = json!({"state": "disabled", "password": format!("{PASSWORD} 2")}).to_string();
        assert_eq!(call(app, ("PATCH", &path), "aa-2", Some(&admin), &change).await.status, 200);
        let changed = "User frank was changed (disabled, password) by user: admin";
        assert_recorded("aa-2", "WARN", "user_changed", "frank", changed).await;
        assert_eq!(call(app, ("DELETE", &path), "aa-3", Some(&admin), "").await.status, 204);
        assert_recorded("aa-3", "WARN", "user_deleted", "frank", "User frank was deleted by user: admin").await;
        assert!(line_of("aa-3").await.contains("[by=admin]"));
        for n in 0..20 {
            let id = format!("aa-try-{n}");
            let login = "username=user&password=swordfish-guess";
            let answer = call(app, ("POST", "/auth/login"), &id, None, login).await;
            assert_eq!(answer.status, 401);
        }
        for (id, name, user) in [("aa-4", "USER", "user"), ("aa-5", "swordfish-nobody", "-")] {
            let login = format!("username={name}&password=swordfish-guess");
            let mut answer = call(app, ("POST", "/auth/login"), id, None, &login).await;
            for n in 0..30 {
                if answer.status == 429 {
                    break;
                }
                answer = call(app, ("POST", "/auth/login"), &format!("{id}-{n}"), None, &login).await;
            }
            assert_eq!(answer.status, 429, "{name}");
            let lines = lines_with(&format!("request_id={id}"));
            let limited = lines.iter().find(|line| line.contains("[event=limited]"));
            let limited = limited.unwrap_or_else(|| panic!("{lines:?}"));
            assert!(limited.contains(&format!("[user={user}]")) && limited.contains("[limit=logins-"), "{limited}");
        }
    })
    .await;
    assert_no_secrets();
}

#[actix_web::test]
async fn what_becomes_of_hashes_and_refresh_tokens_is_recorded() {
    capture();
    let (config, now) = with_clock(&[("TRUSTED_PROXIES", "127.0.0.1")]);
    with_config(config, async |app| {
        // Of "correct horse", made by Python's bcrypt 5.0.0.
        let hash = "$2b$04$aTcaaH/EUrZPkXnSD7AiS.KfZGE1ZWd0KuOBXyQD/4a7Y4S8IJY.G";
        let new = json!({"username": "grace", "password_hash": hash}).to_string();
        assert_eq!(call(app, ("POST", "/admin/users"), "ah-1", Some(&app.token("admin")), &new).await.status, 201);
        let login = "grant_type=password&username=grace&password=correct+horse";
        app.database().break_table("users", "UPDATE", "true");
        call(app, ("POST", "/auth/login"), "ah-2", None, "username=grace&password=correct+horse").await;
        app.database().mend_table("users", "UPDATE");
        let answer = call(app, ("POST", "/auth/token"), "ah-3", None, login).await;
        for (id, level, event) in [("ah-2", "WARN", "not_rehashed"), ("ah-3", "INFO", "rehashed")] {
            let lines = lines_with(&format!("[request_id={id}]"));
            let line = lines.iter().find(|line| line.contains(&format!("[event={event}]")));
            let line = line.unwrap_or_else(|| panic!("{event} is not in {lines:?}"));
            let start = format!("todo_backend::auth::audit {level} The password of user grace ");
            assert!(line.starts_with(&start) && line.contains("[user=grace]"), "{line}");
        }
        let form = format!("grant_type=refresh_token&refresh_token={}", text(&answer, "refresh_token"));
        assert_eq!(call(app, ("POST", "/auth/token"), "ah-4", None, &form).await.status, 200);
        now.fetch_add(61_000, Ordering::Relaxed);
        let answer = call(app, ("POST", "/auth/token"), "ah-5", None, &form).await;
        let late = "A refresh token of user grace was used again after a minute, in session 1:";
        assert_recorded("ah-5", "WARN", "late_refresh", "grace", late).await;
        let next = format!("grant_type=refresh_token&refresh_token={}", text(&answer, "refresh_token"));
        assert_eq!(call(app, ("POST", "/auth/token"), "ah-6", None, &next).await.status, 200);
        now.fetch_add(61_000, Ordering::Relaxed);
        assert_eq!(call(app, ("POST", "/auth/token"), "ah-7", None, &form).await.status, 400);
        let reused = "A refresh token of user grace was used again after it was replaced";
        assert_recorded("ah-7", "WARN", "token_reused", "grace", reused).await;
    })
    .await;
    assert_no_secrets();
}

/// All that is secret here begins alike.
#[track_caller]
fn assert_no_secrets() {
    let ours = |line: &String| line.starts_with("todo_backend");
    let lines: Vec<String> = lines_with("swordfish").into_iter().filter(ours).collect();
    assert!(lines.is_empty(), "{lines:?}");
    for prefix in ["tdb_", "tdr_", "eyJ"] {
        let lines: Vec<String> = lines_with(prefix).into_iter().filter(ours).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
}
