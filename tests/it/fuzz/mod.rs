//! Inputs that nobody would think of: those of a kept corpus, and what becomes of them when they are cut, doubled, mixed
//! and damaged. The service answers all of them, never with a 5xx, and is in order afterwards.
//!
//! The corpus has one input a line, with `\xNN`, `\n`, `\r`, `\t`, `\\`, `\'` and `\"` for what can't be in a line. An
//! input that was found to be a fault is added to it. `FUZZ_INPUTS` says how many are tried for each kind.

mod mutate;

use serde_json::{Value, json};
use url::form_urlencoded::byte_serialize;

use crate::app::{TestApp, with_app, with_settings};
use crate::client::{Answer, RequestExt};
use mutate::{Mutator, inputs};

const TODOS: &str = include_str!("corpus/todos.txt");
const NAMES: &str = include_str!("corpus/names.txt");
const TOKENS: &str = include_str!("corpus/tokens.txt");
const QUERIES: &str = include_str!("corpus/queries.txt");
const EVENTS: &str = include_str!("corpus/events.txt");
const FORMS: &str = include_str!("corpus/forms.txt");
const BATCHES: &str = include_str!("corpus/batches.txt");
const HEADERS: &str = include_str!("corpus/headers.txt");
const IMPORTS: &str = include_str!("corpus/imports.txt");

/// Asserts that an answer is one of these, and explains itself if it is an error.
#[track_caller]
fn assert_status(answer: &Answer, statuses: &[u16], input: &[u8]) {
    let shown = input.escape_ascii();
    assert!(statuses.contains(&answer.status), "{}: {} to the input\n{shown}", answer.status, answer.body);
    if answer.status >= 400 && answer.header("content-type") == Some("application/json") {
        let detail = &answer.json()["detail"];
        let is_explained = match detail {
            Value::String(text) => !text.is_empty(),
            Value::Array(errors) => !errors.is_empty() && errors.iter().all(|error| error["msg"].is_string()),
            _ => false,
        };
        assert!(is_explained, "{} to the input\n{shown}", answer.body);
    }
}

#[actix_web::test]
async fn bodies_of_todos() {
    // As many requests as one account never sends.
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let token = app.token("demo");
        let first = app.create(&token, json!({"title": "first"})).await;
        let mut stored = 1;
        for input in inputs(TODOS, 1) {
            let answer = app.post("/todos").bearer_auth(&token).json_bytes(input.clone()).answer().await;
            assert_status(&answer, &[201, 400, 422], &input);
            if answer.status == 201 {
                stored += 1;
                let todo = answer.json();
                let read = app.get(&format!("/todos/{}", todo["id"])).bearer_auth(&token).answer().await;
                assert_eq!(read.json(), todo, "what was answered is what is stored");
                // A byte order mark is allowed, as it was by the original.
                let sent = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&input);
                let sent: Value = serde_json::from_slice(sent).unwrap();
                assert_eq!(todo["title"], sent["title"], "{}", input.escape_ascii());
            }
            let path = format!("/todos/{first}");
            for method in ["PUT", "PATCH"] {
                let answer = app.request(method, &path).bearer_auth(&token).json_bytes(input.clone()).answer().await;
                assert_status(&answer, &[200, 400, 422], &input);
                if answer.status == 200 {
                    let read = app.get(&path).bearer_auth(&token).answer().await;
                    assert_eq!((&read.body, read.header("etag")), (&answer.body, answer.header("etag")));
                }
            }
        }
        assert_eq!(app.todos("demo").len(), stored);
        app.published().await;
    })
    .await;
}

#[actix_web::test]
async fn batches() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "first"})).await;
        for input in inputs(BATCHES, 7) {
            let answer = app.post("/batch").bearer_auth(&token).json_bytes(input.clone()).answer().await;
            assert_status(&answer, &[200, 400, 404, 409, 412, 422], &input);
        }
        app.published().await;
    })
    .await;
}

#[actix_web::test]
async fn imports() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let (token, mut stored) = (app.token("demo"), 0);
        for input in inputs(IMPORTS, 9) {
            let call = app.post("/import").bearer_auth(&token).header("Content-Type", "application/x-ndjson");
            let answer = call.body(input.clone()).answer().await;
            assert_status(&answer, &[200, 400, 422], &input);
            stored += if answer.status == 200 { answer.json()["imported"].as_u64().unwrap() } else { 0 };
        }
        assert!(stored > 20);
        assert_eq!(app.todos("demo").len() as u64, stored);
        app.published().await;
    })
    .await;
}

#[actix_web::test]
async fn headers_of_changes() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "first"})).await;
        for input in inputs(HEADERS, 8) {
            let Ok(value) = reqwest::header::HeaderValue::from_bytes(&input) else { continue };
            for name in ["If-Match", "If-None-Match", "Idempotency-Key", "Prefer"] {
                for method in ["GET", "PUT", "PATCH"] {
                    let call = app.request(method, "/todos/1").bearer_auth(&token).header(name, value.clone());
                    let call = if name == "Prefer" { call.header("If-Match", value.clone()) } else { call };
                    let answer = call.send_json(json!({"completed": true})).await;
                    assert_status(&answer, &[200, 304, 412, 422], &input);
                }
                let answer = app.get("/todos").bearer_auth(&token).header(name, value.clone()).answer().await;
                assert_status(&answer, &[200, 304, 412], &input);
            }
        }
        app.published().await;
    })
    .await;
}

#[actix_web::test]
async fn names_of_accounts() {
    with_settings(&[("LOGIN_LIMITS", "False")], async |app| {
        for input in inputs(NAMES, 2) {
            let name = String::from_utf8_lossy(&input);
            let body = json!({"username": name, "password": "a long and private sentence"});
            let answer = app.post("/auth/register").send_json(body.clone()).await;
            assert_status(&answer, &[201, 409, 422], &input);
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
            let is_name = (1..=64).contains(&name.len()) && name.bytes().all(allowed);
            assert_eq!(answer.status != 422, is_name, "{}: {}", input.escape_ascii(), answer.body);
            if answer.status == 201 {
                assert_eq!(answer.json()["username"], *name);
                let taken = json!({"username": name.to_uppercase(), "password": "a long and private sentence"});
                app.post("/auth/register").send_json(taken).await.assert_refused(409, "Username is taken");
            }
            // Whoever types that into a login is told nothing else than others.
            let login = app.post("/auth/login").send_json(json!({"username": name, "password": "wrong"})).await;
            login.assert_refused(401, "Invalid username or password");
        }
    })
    .await;
}

/// Tokens of the corpus stand for real ones, by their first words.
async fn real_tokens(app: &TestApp) -> Vec<(&'static str, String)> {
    let access = app.token("demo");
    let form = "grant_type=password&username=demo&password=demo123";
    let refresh = app.post("/auth/token").send_form(form).await.json()["refresh_token"].as_str().unwrap().to_owned();
    let new = json!({"name": "fuzz", "scope": "write"});
    let personal = app.post("/auth/tokens").bearer_auth(&access).send_json(new).await;
    let personal = personal.json()["token"].as_str().unwrap().to_owned();
    vec![("ACCESS", access), ("REFRESH", refresh), ("PERSONAL", personal)]
}

#[actix_web::test]
async fn tokens() {
    with_settings(&[("RATE_LIMIT_USER", "0")], async |app| {
        let real = real_tokens(app).await;
        let mut corpus = TOKENS.to_owned();
        for (name, token) in &real {
            corpus = corpus.replace(name, token);
        }
        for input in inputs(&corpus, 3) {
            // What no client can send in a header.
            let Ok(header) = reqwest::header::HeaderValue::from_bytes(&[b"Bearer ", &input[..]].concat()) else {
                continue;
            };
            let answer = app.get("/todos").header("Authorization", header).answer().await;
            let is_real = |token: &str| String::from_utf8_lossy(&input).trim_matches(' ') == token;
            let opens = is_real(&real[0].1) || is_real(&real[2].1);
            assert_status(&answer, if opens { &[200] } else { &[401] }, &input);
            // What has the mark of a session counts as one of its tokens, and ends it if it is not the latest.
            let mark = &real[1].1[..real[1].1.len() - 64];
            if real.iter().any(|(_, token)| is_real(token)) || String::from_utf8_lossy(&input).contains(mark) {
                continue;
            }
            let text: String = byte_serialize(&input).collect();
            let form = format!("grant_type=refresh_token&refresh_token={text}");
            assert_status(&app.post("/auth/token").send_form(&form).await, &[400], &input);
            let answer = app.post("/auth/revoke").send_form(&format!("token={text}")).await;
            assert_status(&answer, &[200, 400], &input);
        }
        for (name, token) in &real[..2] {
            let form = format!("grant_type=refresh_token&refresh_token={token}");
            let works = match *name {
                "ACCESS" => app.get("/todos").bearer_auth(token).answer().await.status,
                _ => app.post("/auth/token").send_form(&form).await.status,
            };
            assert_eq!(works, 200, "none of that has ended the real one: {name}");
        }
    })
    .await;
}

#[actix_web::test]
async fn queries() {
    with_settings(&[("LOGIN_LIMITS", "False"), ("RATE_LIMIT_USER", "0")], async |app| {
        let admin = app.token("admin");
        for input in inputs(QUERIES, 4) {
            for (method, path) in [
                ("GET", "/todos"),
                ("GET", "/admin/users"),
                ("POST", "/auth/login"),
                ("DELETE", "/todos"),
                ("POST", "/changes/1/undo"),
            ] {
                let mut request = format!("{method} {path}?").into_bytes();
                request.extend_from_slice(&input);
                let rest = format!(
                    " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {admin}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                );
                request.extend_from_slice(rest.as_bytes());
                let answer = app.raw(request).await;
                assert_status(&answer, &[200, 307, 400, 401, 404, 405, 414, 422], &input);
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn forms() {
    with_settings(&[("LOGIN_LIMITS", "False"), ("RATE_LIMIT_USER", "0")], async |app| {
        let mutator = &mut Mutator::new(5);
        for input in inputs(FORMS, 5) {
            for path in ["/auth/token", "/auth/login", "/auth/revoke", "/auth/register", "/admin/users"] {
                let types = ["application/x-www-form-urlencoded", "application/json", "text/plain", ""];
                let call = app.post(path).header("Content-Type", *mutator.choose(&types));
                let call = call.bearer_auth(app.token("admin")).body(input.clone());
                assert_status(&call.answer().await, &[200, 201, 400, 401, 403, 409, 422], &input);
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn events() {
    with_app(async |app| {
        for input in inputs(EVENTS, 6) {
            let call = app.post("/events/todos").header("Content-Type", "application/cloudevents+json");
            let answer = call.body(input.clone()).answer().await;
            assert_status(&answer, &[200], &input);
            assert!(["SUCCESS", "DROP"].map(Value::from).contains(&answer.json()["status"]), "{}", answer.body);
        }
    })
    .await;
}
