//! Clients that take their time: what they may, and what happens then.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::app::{TestApp, with_settings};
use crate::client::{parse, read_answer};

const SECOND: Duration = Duration::from_secs(1);
/// How much later than a timeout something may happen, on a busy machine.
const SLACK: Duration = Duration::from_secs(4);
const TIMEOUTS: [(&str, &str); 3] =
    [("CLIENT_HEAD_TIMEOUT", "2"), ("CLIENT_BODY_TIMEOUT", "2"), ("CLIENT_IDLE_TIMEOUT", "3")];

/// Lets `talk` use a connection, and returns what it does, and how long it took.
async fn talk<T: Send + 'static>(
    app: &TestApp,
    talk: impl FnOnce(&mut TcpStream) -> T + Send + 'static,
) -> (T, Duration) {
    let mut stream = app.connect();
    let talk = actix_web::rt::task::spawn_blocking(move || {
        let begun = Instant::now();
        (talk(&mut stream), begun.elapsed())
    });
    talk.await.unwrap()
}

/// Sends `bytes` one after the other, with pauses, until the other side closes; returns what it answered.
fn trickle(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut answer = Vec::new();
    for byte in bytes {
        let _ = stream.write_all(&[*byte]);
        match stream.read_to_end(&mut answer) {
            Ok(_) => return String::from_utf8(answer).unwrap(),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    panic!("it took all of {} bytes", bytes.len());
}

/// A request that is answered at once.
fn get(stream: &mut TcpStream) {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(read_answer(stream).status, 200);
}

/// A head without an end.
fn long_head() -> Vec<u8> {
    format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Padding: {}", "x".repeat(1000)).into()
}

#[track_caller]
fn assert_took(took: Duration, limit: Duration) {
    // The client's clock starts a moment after the service's.
    let limit = limit - Duration::from_millis(100);
    assert!((limit..limit + SLACK).contains(&took), "after {took:?} of {limit:?}");
}

#[actix_web::test]
async fn a_slow_head_is_answered_408_and_the_connection_closed() {
    with_settings(&TIMEOUTS, async |app| {
        let (answer, took) = talk(app, |stream| trickle(stream, &long_head())).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
        assert_took(took, 2 * SECOND);
    })
    .await;
}

#[actix_web::test]
async fn the_head_of_a_later_request_has_the_same_limit() {
    with_settings(&TIMEOUTS, async |app| {
        let (took, _) = talk(app, |stream| {
            for _ in 0..2 {
                get(stream);
                sleep(SECOND);
            }
            let begun = Instant::now();
            assert_eq!(trickle(stream, &long_head()), "", "it was not a request yet");
            begun.elapsed()
        })
        .await;
        assert_took(took, 2 * SECOND);
    })
    .await;
}

#[actix_web::test]
async fn empty_lines_neither_keep_an_idle_connection_nor_end_a_busy_one() {
    with_settings(&TIMEOUTS, async |app| {
        let (took, _) = talk(app, |stream| {
            get(stream);
            let begun = Instant::now();
            assert_eq!(trickle(stream, &b"\r\n".repeat(500)), "");
            begun.elapsed()
        })
        .await;
        assert_took(took, 3 * SECOND);
        // An empty line in two pieces, and later a head in two pieces: neither took long.
        let (status, _) = talk(app, |stream| {
            get(stream);
            for piece in [&b"\r"[..], b"\n"] {
                stream.write_all(piece).unwrap();
                sleep(SECOND / 10);
            }
            sleep(2 * SECOND);
            for piece in [&b"GET /health HTTP/1.1\r\n"[..], b"Host: x\r\n\r\n"] {
                stream.write_all(piece).unwrap();
                sleep(SECOND / 10);
            }
            read_answer(stream).status
        })
        .await;
        assert_eq!(status, 200);
    })
    .await;
}

fn post(token: &str, length: usize) -> String {
    format!(
        "POST /todos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

#[actix_web::test]
async fn a_slow_body_is_answered_408_on_every_request_of_a_connection() {
    with_settings(&TIMEOUTS, async |app| {
        let token = app.token("demo");
        for requests_before in [0, 1] {
            let head = match requests_before {
                0 => post(&token, 1000),
                _ => post(&token, 0).replace("Content-Length: 0", "Transfer-Encoding: chunked") + "3e8\r\n",
            };
            let (answer, took) = talk(app, move |stream| {
                for _ in 0..requests_before {
                    get(stream);
                }
                stream.write_all(head.as_bytes()).unwrap();
                trickle(stream, &b" ".repeat(500))
            })
            .await;
            let answer = parse(answer.as_bytes()).expect("an answer");
            answer.assert_refused(408, "The request body came too slowly");
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(answer.header("x-request-id").is_some());
            assert_took(took, 2 * SECOND);
        }
        assert_eq!(app.store().todo_count(), 0);
    })
    .await;
}

#[actix_web::test]
async fn a_body_that_comes_steadily_may_take_longer() {
    with_settings(&TIMEOUTS, async |app| {
        let (token, body) = (app.token("demo"), format!("{{\"title\":\"x\"{}}}", " ".repeat(3000)));
        let (answer, took) = talk(app, move |stream| {
            stream.write_all(post(&token, body.len()).as_bytes()).unwrap();
            for piece in body.as_bytes().chunks(300) {
                stream.write_all(piece).unwrap();
                sleep(SECOND * 2 / 5);
            }
            read_answer(stream)
        })
        .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(took >= 4 * SECOND, "longer than the limit without what has come: {took:?}");
    })
    .await;
}

#[actix_web::test]
async fn an_idle_connection_is_closed_without_an_answer() {
    with_settings(&TIMEOUTS, async |app| {
        let (took, _) = talk(app, |stream| {
            get(stream);
            let (begun, mut rest) = (Instant::now(), String::new());
            stream.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "");
            begun.elapsed()
        })
        .await;
        assert_took(took, 3 * SECOND);
    })
    .await;
}
