//! Bodies at and over the limit. A client must get the 413, also one that reads only after it has sent everything.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use futures_util::future::join;
use serde_json::json;

use crate::app::{PREFIXES, TestApp, with_app, with_settings};
use crate::client::{Answer, RequestExt};

const LIMIT: usize = 256 << 10;
/// The same, of what has a name and a password.
const CREDENTIALS: usize = 16 << 10;
const TOO_LARGE: &str = "Request body is larger than 262144 bytes";

/// A todo in `size` bytes.
fn todo(size: usize) -> String {
    let mut body = r#"{"title":"x"}"#.to_owned();
    body.push_str(&" ".repeat(size - body.len()));
    body
}

fn head(start: &str, token: &str, length: &str) -> String {
    format!(
        "{start} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Connection: close\r\n{length}\r\n\r\n"
    )
}

fn chunk(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n", body.len())
}

/// Sends `head`, then `pieces` with a pause after each, and only then reads.
async fn send_slowly(app: &TestApp, head: String, pieces: Vec<String>, pause: Duration) -> Answer {
    let send = move |stream: &mut TcpStream| {
        stream.write_all(head.as_bytes()).unwrap();
        for piece in pieces {
            stream.write_all(piece.as_bytes()).expect("the server takes what the client sends");
            sleep(pause);
        }
    };
    app.converse(send).await
}

/// A body in `count` pieces.
fn split(body: &str, count: usize) -> Vec<String> {
    let pieces = body.as_bytes().chunks(body.len().div_ceil(count));
    pieces.map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
}

#[actix_web::test]
async fn a_body_of_exactly_the_limit_is_read() {
    with_app(async |app| {
        let token = app.token("demo");
        for prefix in PREFIXES {
            let path = format!("{prefix}/todos");
            assert_eq!(app.post(&path).bearer_auth(&token).json_bytes(todo(LIMIT)).answer().await.status, 201);
            let chunked = head(&format!("POST {path}"), &token, "Transfer-Encoding: chunked");
            let body = todo(LIMIT);
            let (first, second) = body.split_at(1000);
            let answer = app.raw(format!("{chunked}{}{}0\r\n\r\n", chunk(first), chunk(second))).await;
            assert_eq!(answer.status, 201);
        }
    })
    .await;
}

#[actix_web::test]
async fn one_byte_more_is_413_on_every_route_with_a_body() {
    with_app(async |app| {
        let token = app.token("demo");
        app.create(&token, json!({"title": "stays"})).await;
        for prefix in PREFIXES {
            for (method, path, limit) in [
                ("POST", "/todos", LIMIT),
                ("PUT", "/todos/1", LIMIT),
                ("PUT", "/todos/x", LIMIT),
                ("POST", "/auth/login", CREDENTIALS),
                ("POST", "/auth/token", CREDENTIALS),
            ] {
                let (path, too_large) =
                    (format!("{prefix}{path}"), format!("Request body is larger than {limit} bytes"));
                let body = todo(limit + 1);
                let answer = app.request(method, &path).bearer_auth(&token).json_bytes(body.clone()).answer().await;
                answer.assert_refused(413, too_large.as_str());
                let chunked = head(&format!("{method} {path}"), &token, "Transfer-Encoding: chunked");
                app.raw(format!("{chunked}{}0\r\n\r\n", chunk(&body))).await.assert_refused(413, too_large.as_str());
            }
        }
        assert_eq!((app.store().todo_count(), app.published().await.len()), (1, 1));
    })
    .await;
}

#[actix_web::test]
async fn credentials_of_exactly_their_limit_are_read() {
    with_app(async |app| {
        let mut body = r#"{"username":"demo","password":"demo123"}"#.to_owned();
        body.push_str(&" ".repeat(CREDENTIALS - body.len()));
        assert_eq!(app.post("/auth/login").json_bytes(body).answer().await.status, 200);
    })
    .await;
}

#[actix_web::test]
async fn the_bodies_of_strangers_are_not_read() {
    with_settings(&[("APP_API_TOKEN", "secret")], async |app| {
        for (start, detail) in
            [("POST /todos", "Invalid or expired token"), ("POST /events/todos", "Invalid or missing dapr-api-token")]
        {
            // The body never comes.
            let answer = app.raw(head(start, "bad", "Content-Length: 1000")).await;
            answer.assert_refused(401, detail);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_claimed_length_over_the_limit_is_refused_before_the_body_comes() {
    with_app(async |app| {
        let token = app.token("demo");
        for length in ["262145", "1000000000000"] {
            let answer = app.raw(head("POST /todos", &token, &format!("Content-Length: {length}"))).await;
            answer.assert_refused(413, TOO_LARGE);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_client_that_sends_slowly_still_gets_its_413() {
    with_app(async |app| {
        let token = app.token("demo");
        let body = todo(LIMIT + LIMIT / 2);
        let pieces = split(&body, 15);
        let pause = Duration::from_millis(150);
        let length = head("POST /todos", &token, &format!("Content-Length: {}", body.len()));
        let chunked = head("POST /todos", &token, "Transfer-Encoding: chunked");
        let chunks = pieces.iter().map(|piece| chunk(piece)).chain(["0\r\n\r\n".to_owned()]).collect();
        let answers = join(send_slowly(app, length, pieces, pause), send_slowly(app, chunked, chunks, pause)).await;
        answers.0.assert_refused(413, TOO_LARGE);
        answers.1.assert_refused(413, TOO_LARGE);
    })
    .await;
}

#[actix_web::test]
async fn a_client_that_sends_slowly_gets_other_errors_too() {
    with_app(async |app| {
        let body = todo(LIMIT);
        let length = format!("Content-Length: {}", body.len());
        for (start, status, detail) in [
            ("POST /todos", 401, "Invalid or expired token"),
            ("POST /nope", 404, "Not Found"),
            ("PATCH /todos", 405, "Method Not Allowed"),
        ] {
            let answer = send_slowly(app, head(start, "bad", &length), split(&body, 4), Duration::from_millis(5)).await;
            answer.assert_refused(status, detail);
        }
    })
    .await;
}

#[actix_web::test]
async fn a_body_that_breaks_off_changes_nothing() {
    with_app(async |app| {
        let token = app.token("demo");
        let head = head("POST /todos", &token, "Content-Length: 100");
        let send = move |stream: &mut TcpStream| {
            stream.write_all(format!("{head}{{\"title\":\"x\"}}").as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        };
        app.converse(send).await.assert_refused(400, "There was an error parsing the body");
        assert!(app.published().await.is_empty());
    })
    .await;
}
