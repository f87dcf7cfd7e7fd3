//! Who may do what: every route with every kind of token, in one table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::app::{Keys, TestApp, config, with_settings};
use crate::client::{Answer, RequestExt};
use crate::document::{documented, registered_paths};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Access {
    /// Anybody; a token changes nothing.
    Anybody,
    /// Every account, for what is its own.
    Account,
    /// Accounts of the role admin.
    Admin,
    /// The sidecar, with its own token in its own header: a bearer token is not that.
    Sidecar,
}

use Access::{Account, Admin, Anybody, Sidecar};

/// A route that is missing here fails the test.
const ROUTES: [(&str, &str, Access); 32] = [
    ("GET", "/", Anybody),
    ("GET", "/health", Anybody),
    ("GET", "/health/live", Anybody),
    ("GET", "/health/ready", Anybody),
    ("POST", "/auth/login", Anybody),
    ("POST", "/auth/token", Anybody),
    ("POST", "/auth/register", Anybody),
    ("GET", "/auth/me", Account),
    ("DELETE", "/auth/me", Account),
    ("POST", "/auth/password", Account),
    ("GET", "/todos", Account),
    ("POST", "/todos", Account),
    ("GET", "/todos/{id}", Account),
    ("PUT", "/todos/{id}", Account),
    ("DELETE", "/todos/{id}", Account),
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
    User,
    Admin,
}

const DAPR_TOKEN: &str = "the-sidecars-token";

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
    let ours = Keys::new(&config(&[]));
    let theirs = Keys::new(&config(&[("SECRET_KEY", "another service's key, as long as ours is")]));
    dead.extend([
        ("garbage", Some("garbage".to_owned())),
        ("expired", Some(ours.issue(&demo, seconds - 2 * 1800).unwrap())),
        ("not valid yet", Some(ours.issue(&demo, seconds + 1800).unwrap())),
        ("another key's", Some(theirs.issue(&demo, seconds).unwrap())),
        ("the sidecar's", Some(DAPR_TOKEN.to_owned())),
    ]);
    let dead = dead.into_iter().map(|(what, token)| (what, token, Holder::Invalid));
    let alive = [
        ("none", None, Holder::Nobody),
        ("a user's", Some(app.token("demo")), Holder::User),
        ("another user's", Some(app.token("user")), Holder::User),
        ("an admin's", Some(admin), Holder::Admin),
    ];
    dead.chain(alive).collect()
}

async fn call(app: &TestApp, method: &str, path: &str, token: Option<&str>) -> Answer {
    // A body that no route accepts, and ids that nothing has: nobody's token changes anything.
    let request = app.request(method, &path.replace("{id}", "987654"));
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
                    let answer = call(app, method, &format!("{prefix}{path}"), token.as_deref()).await;
                    let context = format!("{method} {prefix}{path} with a token: {what}: {answer:?}");
                    match (access, holder) {
                        (Sidecar, _) => assert_eq!(answer.status, 401, "{context}"),
                        (Anybody, _) => _ = anybody.insert(answer.status, context),
                        (_, Holder::Nobody) => answer.assert_refused(401, "Not authenticated"),
                        (_, Holder::Invalid) => answer.assert_refused(401, "Invalid or expired token"),
                        (Admin, Holder::User) => answer.assert_refused(403, "Not enough permissions"),
                        (Account | Admin, _) => assert!(![401, 403].contains(&answer.status), "{context}"),
                    }
                    assert!(answer.status < 500 || path == "/health/ready", "{answer:?}");
                }
            }
            assert!(anybody.len() <= 1, "{anybody:?}");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_user_cannot_tell_another_users_todo_from_none() {
    with_settings(&[], async |app| {
        let id = app.create(&app.token("demo"), json!({"title": "mine"})).await;
        for (method, body) in [("GET", json!(null)), ("PUT", json!({"title": "yours"})), ("DELETE", json!(null))] {
            for username in ["user", "admin"] {
                let call = app.request(method, &format!("/todos/{id}")).bearer_auth(app.token(username));
                call.send_json(body.clone()).await.assert_refused(404, "Todo not found");
            }
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
