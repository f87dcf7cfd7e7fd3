//! Who may do what: every route with every kind of token, in one table.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE;
use serde_json::{Value, json};

use todo_backend::domain::change::Epoch;
use todo_backend::domain::session::SessionId;

use crate::app::{Keys, TestApp, config, with_app, with_settings};
use crate::client::{Answer, RequestExt};
use crate::document::{documented, registered_paths};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Access {
    /// Anybody; a token changes nothing.
    Anybody,
    /// Every account, for its own todos.
    Todos,
    /// Every account that has logged in, for what is its own.
    Account,
    /// Accounts of the role admin.
    Admin,
    /// The sidecar, with its own token in its own header: a bearer token is not that.
    Sidecar,
}

use Access::{Account, Admin, Anybody, Sidecar, Todos};

/// A route that is missing here fails the test.
const ROUTES: [(&str, &str, Access); 54] = [
    ("GET", "/", Anybody),
    ("GET", "/health", Anybody),
    ("GET", "/health/live", Anybody),
    ("GET", "/health/ready", Anybody),
    ("POST", "/auth/login", Anybody),
    ("POST", "/auth/token", Anybody),
    ("POST", "/auth/register", Anybody),
    ("POST", "/auth/revoke", Anybody),
    ("POST", "/auth/logout-all", Account),
    ("GET", "/auth/sessions", Account),
    ("DELETE", "/auth/sessions/{id}", Account),
    ("GET", "/auth/tokens", Account),
    ("POST", "/auth/tokens", Account),
    ("DELETE", "/auth/tokens/{id}", Account),
    ("GET", "/auth/me", Account),
    ("DELETE", "/auth/me", Account),
    ("POST", "/auth/password", Account),
    ("GET", "/todos", Todos),
    ("POST", "/todos", Todos),
    ("GET", "/todos/{id}", Todos),
    ("PUT", "/todos/{id}", Todos),
    ("PATCH", "/todos/{id}", Todos),
    ("DELETE", "/todos/{id}", Todos),
    ("POST", "/todos/{id}/restore", Todos),
    ("GET", "/trash", Todos),
    ("DELETE", "/trash", Todos),
    ("DELETE", "/trash/{id}", Todos),
    ("DELETE", "/todos", Todos),
    ("POST", "/batch", Todos),
    ("POST", "/changes/{revision}/undo", Todos),
    ("GET", "/changes", Todos),
    ("GET", "/events", Todos),
    ("GET", "/todos/{id}/history", Todos),
    ("GET", "/export", Todos),
    ("POST", "/import", Todos),
    ("GET", "/admin/events/parked", Admin),
    ("POST", "/admin/events/republish", Admin),
    ("POST", "/admin/events/{id}/retry", Admin),
    ("POST", "/admin/events/{id}/skip", Admin),
    ("GET", "/admin/users", Admin),
    ("POST", "/admin/users", Admin),
    ("GET", "/admin/users/{id}", Admin),
    ("PATCH", "/admin/users/{id}", Admin),
    ("DELETE", "/admin/users/{id}", Admin),
    // Not in the document.
    ("GET", "/metrics", Anybody),
    ("GET", "/docs", Anybody),
    ("GET", "/docs/{file}", Anybody),
    ("GET", "/redoc", Anybody),
    ("GET", "/app", Anybody),
    ("GET", "/app/{file}", Anybody),
    ("GET", "/redoc/redoc.standalone.js", Anybody),
    ("GET", "/openapi.json", Anybody),
    ("GET", "/dapr/subscribe", Anybody),
    ("POST", "/events/todos", Sidecar),
];

/// What the service has to say about a token.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Holder {
    Nobody,
    Invalid,
    /// Personal access tokens.
    Reader,
    Writer,
    User,
    Admin,
}

/// Ends the tokens of whoever calls it.
const LOG_OUT: &str = "/auth/logout-all";
const DAPR_TOKEN: &str = "the-sidecars-token";

/// The same token with another audience, signed with the same key.
fn for_another_service(token: &str) -> String {
    let (head, claims) = token.rsplit_once('.').unwrap().0.split_once('.').unwrap();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE.decode(claims).unwrap()).unwrap();
    claims["aud"] = json!("another-service");
    let signed = format!("{head}.{}", URL_SAFE.encode(claims.to_string()));
    let keys = config(&[]).signing_keys;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, keys.first.expose());
    format!("{signed}.{}", URL_SAFE.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

/// Every kind of token, by what it is.
async fn tokens(app: &TestApp) -> Vec<(&'static str, Option<String>, Holder)> {
    let admin = app.token("admin");
    let mut dead = Vec::new();
    for (what, body) in [("disabled", Some(json!({"state": "disabled"}))), ("deleted", None)] {
        let made = json!({"username": what, "password": "a long and private sentence"});
        assert_eq!(app.post("/admin/users").bearer_auth(&admin).send_json(made).await.status, 201);
        let (token, path) = (app.token(what), format!("/admin/users/{}", app.user_id(what)));
        let answer = match body {
            Some(body) => app.patch(&path).bearer_auth(&admin).send_json(body).await,
            None => app.delete(&path).bearer_auth(&admin).answer().await,
        };
        assert!(answer.status < 300, "{answer:?}");
        // One from before, and one as it would be issued now.
        dead.extend([(what, Some(token)), (what, Some(app.token(what)))]);
    }
    let made = json!({"username": "changed", "password": "a long and private sentence"});
    app.post("/admin/users").bearer_auth(&admin).send_json(made).await;
    let old = app.token("changed");
    let change = json!({"current_password": "a long and private sentence", "new_password": "yet another sentence"});
    assert_eq!(app.post("/auth/password").bearer_auth(&old).send_json(change).await.status, 200);
    dead.push(("of an earlier epoch", Some(old)));
    let demo = app.account("demo").unwrap();
    let seconds = app.now().seconds();
    let ours = app.keys_with(&[]);
    let theirs = app.keys_with(&[("SECRET_KEY", "another service's key, as long as ours is")]);
    let restored = Keys::new(&config(&[]), Epoch(app.store().epoch().0 ^ 1));
    dead.extend([
        ("garbage", Some("garbage".to_owned())),
        ("expired", Some(ours.issue(&demo, None, seconds - 2 * 1800).unwrap())),
        ("not valid yet", Some(ours.issue(&demo, None, seconds + 1800).unwrap())),
        ("another key's", Some(theirs.issue(&demo, None, seconds).unwrap())),
        ("of the database before a restored backup", Some(restored.issue(&demo, None, seconds).unwrap())),
        ("for another service", Some(for_another_service(&app.token("demo")))),
        ("of a session that never was", Some(ours.issue(&demo, Some(SessionId(77)), seconds).unwrap())),
        ("the sidecar's", Some(DAPR_TOKEN.to_owned())),
    ]);
    // Sessions and personal access tokens: alive, and ended.
    let login = app.token("demo");
    let personal = async |scope: &str| {
        let body = json!({"name": "script", "scope": scope});
        app.post("/auth/tokens").bearer_auth(&login).send_json(body).await.json()["token"].as_str().unwrap().to_owned()
    };
    let (read, write, revoked) = (personal("read").await, personal("write").await, personal("write").await);
    let form = "grant_type=password&username=demo&password=demo123";
    let session = app.post("/auth/token").send_form(form).await.json();
    let ended = app.post("/auth/token").send_form(form).await.json();
    let text = |token: &serde_json::Value, name: &str| token[name].as_str().unwrap().to_owned();
    for token in [&revoked, &text(&ended, "refresh_token")] {
        assert_eq!(app.post("/auth/revoke").send_form(&format!("token={token}")).await.status, 200);
    }
    dead.extend([
        ("a revoked personal", Some(revoked)),
        ("an ended session's", Some(text(&ended, "access_token"))),
        ("a refresh", Some(text(&session, "refresh_token"))),
    ]);
    let dead = dead.into_iter().map(|(what, token)| (what, token, Holder::Invalid));
    let alive = [
        ("none", None, Holder::Nobody),
        ("a user's", Some(login), Holder::User),
        ("a session's", Some(text(&session, "access_token")), Holder::User),
        ("a personal that reads", Some(read), Holder::Reader),
        ("a personal that writes", Some(write), Holder::Writer),
        ("another user's", Some(app.token("user")), Holder::User),
        ("an admin's", Some(admin), Holder::Admin),
    ];
    dead.chain(alive).collect()
}

async fn call(app: &TestApp, method: &str, path: &str, token: Option<&str>) -> Answer {
    // A body and a token of changes that no route accepts, and ids that nothing has: nobody's token changes anything.
    let request = app.request(method, &path.replace("{id}", "987654").replace("{revision}", "987654"));
    let request = request.header("Last-Event-ID", "none");
    let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    request.json_bytes("[]").answer().await
}

#[actix_web::test]
async fn every_route_answers_every_token_as_the_table_says() {
    with_settings(&[("APP_API_TOKEN", DAPR_TOKEN)], async |app| {
        let tokens = tokens(app).await;
        for (method, path, access) in ROUTES {
            let mut anybody = BTreeMap::new();
            for prefix in
                ["", "/v1"].into_iter().filter(|prefix| prefix.is_empty() || ![Anybody, Sidecar].contains(&access))
            {
                for (what, token, holder) in &tokens {
                    if path == LOG_OUT && matches!(holder, Holder::User | Holder::Admin) {
                        // It would end the tokens that the rest of the table needs: see below.
                        continue;
                    }
                    let answer = call(app, method, &format!("{prefix}{path}"), token.as_deref()).await;
                    let context = format!("{method} {prefix}{path} with a token: {what}: {answer:?}");
                    match (access, holder) {
                        (Sidecar, _) => assert_eq!(answer.status, 401, "{context}"),
                        (Anybody, _) => _ = anybody.insert(answer.status, context),
                        (_, Holder::Nobody) => answer.assert_refused(401, "Not authenticated"),
                        (_, Holder::Invalid) => answer.assert_refused(401, "Invalid or expired token"),
                        (Todos, Holder::Reader) if method != "GET" => {
                            answer.assert_refused(403, "This token is read-only: create one with the scope write");
                        }
                        (Account | Admin, Holder::Reader | Holder::Writer) => {
                            answer.assert_refused(403, "Personal access tokens are only for todos: log in");
                        }
                        (Admin, Holder::User) => answer.assert_refused(403, "Not enough permissions"),
                        (Todos | Account | Admin, _) => assert!(![401, 403].contains(&answer.status), "{context}"),
                    }
                    assert!(answer.status < 500 || path == "/health/ready", "{answer:?}");
                }
            }
            assert!(anybody.len() <= 1, "{anybody:?}");
        }
        for (prefix, username) in [("", "demo"), ("/v1", "user"), ("", "admin")] {
            let answer = call(app, "POST", &format!("{prefix}{LOG_OUT}"), Some(&app.token(username))).await;
            assert_eq!(answer.status, 204, "{username}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_user_cannot_tell_another_users_todo_from_none() {
    with_app(async |app| {
        let id = app.create(&app.token("demo"), json!({"title": "mine"})).await;
        let deleted = app.create(&app.token("demo"), json!({"title": "mine too"})).await;
        app.delete(&format!("/todos/{deleted}")).bearer_auth(app.token("demo")).answer().await;
        let (todo, trashed) = (format!("/todos/{id}"), format!("/trash/{deleted}"));
        for (method, path, body) in [
            ("GET", &todo, json!(null)),
            ("GET", &format!("{todo}/history"), json!(null)),
            ("PUT", &todo, json!({"title": "yours"})),
            ("PATCH", &todo, json!({"title": "yours"})),
            ("DELETE", &todo, json!(null)),
            ("DELETE", &trashed, json!(null)),
            ("POST", &format!("/todos/{id}/restore"), json!(null)),
            ("POST", &format!("/todos/{deleted}/restore"), json!(null)),
        ] {
            for username in ["user", "admin"] {
                for condition in ["\"x\"", "*"] {
                    let call = app.request(method, path).bearer_auth(app.token(username)).header("If-Match", condition);
                    call.send_json(body.clone()).await.assert_refused(404, "Todo not found");
                }
            }
        }
        for username in ["user", "admin"] {
            let emptied = app.delete("/trash").bearer_auth(app.token(username)).answer().await;
            assert_eq!(emptied.json(), json!({"deleted": 0, "has_more": false}));
            let operations = json!([{"op": "delete", "id": id}]);
            let batch = app.post("/batch").bearer_auth(app.token(username));
            let refused = batch.send_json(json!({ "operations": operations })).await;
            assert_eq!((refused.status, refused.json()["detail"].clone()), (404, json!("Todo not found")));
            let all = app.delete("/todos?all=true").bearer_auth(app.token(username)).answer().await;
            assert_eq!(all.json(), json!({"deleted": 0, "has_more": false}));
            let undone = app.post("/changes/1/undo").bearer_auth(app.token(username)).answer().await;
            undone.assert_refused(404, "Change not found");
            let exported = app.get("/export").bearer_auth(app.token(username)).answer().await;
            assert_eq!((exported.status, exported.body.as_str()), (200, ""));
        }
    })
    .await;
}

#[test]
fn no_route_is_missing_from_the_table() {
    let listed: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    let documented = documented()
        .into_iter()
        .flat_map(|(path, methods)| methods.into_iter().map(move |method| (method, path.clone())).collect::<Vec<_>>());
    let not_documented = registered_paths().into_iter().filter(|path| !self::documented().contains_key(path));
    let not_documented = not_documented.map(|path| ("GET".to_owned(), path));
    // Its path has the topic in it, which is a setting.
    let sidecar = ("POST".to_owned(), "/events/todos".to_owned());
    let all: BTreeSet<_> = documented.chain(not_documented).chain([sidecar]).collect();
    assert_eq!(listed, all);
}
