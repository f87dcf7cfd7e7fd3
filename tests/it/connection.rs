//! One connection, several requests: each answer is framed by its own request, and the connection stays what it was.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::app::{App, TestApp, config, own_database, with_app};
use crate::client::RequestExt;

/// An answer as it is on the wire.
#[derive(Debug, PartialEq)]
struct Framed {
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: String,
}

impl Framed {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the answer to a request with `method`; `None` when the connection is closed instead.
fn read_answer(stream: &mut impl BufRead, method: &str) -> Option<Framed> {
    let mut line = String::new();
    if stream.read_line(&mut line).unwrap() == 0 {
        return None;
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut answer = Framed { status, headers, body: String::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    if method != "HEAD" {
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
    }
    Some(answer)
}

impl TestApp {
    /// Lets `talk` use a connection, off the service's own thread.
    async fn talk<T: Send + 'static>(&self, talk: impl FnOnce(&mut TcpStream) -> T + Send + 'static) -> T {
        let mut stream = self.connect();
        actix_web::rt::task::spawn_blocking(move || talk(&mut stream)).await.unwrap()
    }

    /// Sends `requests` in one piece and reads an answer for each; none may be left.
    async fn pipeline(&self, requests: Vec<String>) -> Vec<Framed> {
        self.talk(move |stream| {
            stream.write_all(requests.concat().as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut reader = BufReader::new(stream);
            let methods = requests.iter().map(|request| request.split(' ').next().unwrap());
            let answers = methods.map(|method| read_answer(&mut reader, method).expect("an answer")).collect();
            let mut rest = String::new();
            reader.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "");
            answers
        })
        .await
    }
}

fn post(token: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /todos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

fn bare(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// What Java's HttpClient sends by default; what nginx sends with its websocket snippet; what browsers send.
const OFFERS: [&str; 5] = [
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket\r\n",
];

#[actix_web::test]
async fn an_offer_to_change_the_protocol_is_ignored_and_the_connection_kept() {
    with_app(async |app| {
        let token = app.token("demo");
        for offer in OFFERS {
            let (token, get) = (token.clone(), format!("GET /health HTTP/1.1\r\nHost: x\r\n{offer}\r\n"));
            let login = format!(
                "POST /auth/login?username=demo&password=demo123 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
                 {offer}\r\n"
            );
            app.talk(move |stream| {
                let requests = [
                    (get.clone(), 200),
                    (post(&token, offer, &json!({"title": "x"})), 201),
                    (login, 200),
                    (bare("HEAD", "/health"), 200),
                    (get, 200),
                ];
                for (request, status) in requests {
                    stream.write_all(request.as_bytes()).unwrap();
                    let method = request.split(' ').next().unwrap();
                    let answer = read_answer(&mut BufReader::new(&mut *stream), method)
                        .unwrap_or_else(|| panic!("the connection was closed before {request}"));
                    assert_eq!(answer.status, status, "{request}\n{answer:?}");
                    assert_eq!((answer.header("connection"), answer.header("upgrade")), (None, None), "{request}");
                }
            })
            .await;
        }
        assert_eq!(app.published().await.len(), OFFERS.len());
    })
    .await;
}

#[actix_web::test]
async fn a_body_is_as_long_as_its_content_length_says_whatever_else_is_offered() {
    with_app(async |app| {
        let token = app.token("demo");
        let offer = "Upgrade: websocket\r\n";
        let answers = app
            .pipeline(vec![
                post(&token, offer, &json!({"title": "x"})),
                post(&token, offer, &json!({"title": "longer"})),
            ])
            .await;
        let titles: Vec<Value> = answers.iter().map(|answer| serde_json::from_str(&answer.body).unwrap()).collect();
        assert_eq!((&titles[0]["title"], &titles[1]["title"]), (&json!("x"), &json!("longer")));
    })
    .await;
}

#[actix_web::test]
async fn each_answer_is_framed_by_its_own_request() {
    with_app(async |app| {
        let token = app.token("demo");
        let auth = format!("Authorization: Bearer {token}\r\n");
        let http_1_0 = format!("GET /todos HTTP/1.0\r\n{auth}Connection: keep-alive\r\n\r\n");
        let chunked = format!(
            "POST /todos HTTP/1.1\r\nHost: x\r\n{auth}Content-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n\
             5\r\n{{\"tit\r\n8\r\nle\":\"x\"}}\r\n0\r\n\r\n"
        );
        let requests = vec![
            post(&token, "", &json!({"title": "first"})),
            bare("HEAD", "/health"),
            bare("GET", "/health"),
            chunked,
            bare("HEAD", "/nowhere"),
            post(&token, "", &json!({"title": 7})),
            http_1_0,
            bare("GET", "/health"),
            format!("DELETE /todos/1 HTTP/1.1\r\nHost: x\r\n{auth}\r\n"),
            format!("GET /todos HTTP/1.1\r\nHost: x\r\n{auth}Connection: close\r\n\r\n"),
        ];
        let answers = app.pipeline(requests).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [201, 200, 200, 201, 404, 422, 200, 200, 204, 200]);
        let lengths: Vec<_> = answers.iter().map(|answer| answer.body.len()).collect();
        for (n, answer) in answers.iter().enumerate() {
            let declared = answer.header("content-length").map(|length| length.parse().unwrap());
            match n {
                1 | 4 => assert_eq!((declared.is_some_and(|length: usize| length > 0), lengths[n]), (true, 0), "{n}"),
                8 => assert_eq!((declared, lengths[n]), (None, 0)),
                _ => assert_eq!(declared, Some(lengths[n]), "{n}"),
            }
        }
        let last: Value = serde_json::from_str(&answers[9].body).unwrap();
        assert_eq!((last.as_array().unwrap().len(), answers[9].header("connection")), (1, Some("close")));
    })
    .await;
}

#[actix_web::test]
async fn hundreds_of_requests_in_one_piece_are_answered_in_order() {
    with_app(async |app| {
        let token = app.token("demo");
        let requests = (0..300).map(|n| match n % 3 {
            0 => post(&token, "", &json!({"title": format!("todo {n}")})),
            1 => bare("HEAD", "/health"),
            _ => bare("GET", &format!("/nowhere/{n}")),
        });
        let answers = app.pipeline(requests.collect()).await;
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(answer.status, [201, 200, 404][n % 3], "{n}");
            assert!(n % 3 != 0 || answer.body.contains(&format!("\"todo {n}\"")), "{n}: {answer:?}");
        }
        assert_eq!(app.published().await.len(), 100);
    })
    .await;
}

#[actix_web::test]
async fn a_request_behind_one_whose_body_is_not_read_is_not_taken_for_that_body() {
    with_app(async |app| {
        let large = "x".repeat(300 << 10);
        let refused = format!("POST /todos HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{large}", large.len());
        app.talk(move |stream| {
            stream.write_all(format!("{refused}{}", bare("GET", "/health")).as_bytes()).unwrap();
            let mut reader = BufReader::new(stream);
            let answer = read_answer(&mut reader, "POST").unwrap();
            assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
            assert_eq!(read_answer(&mut reader, "GET"), None, "it was told that nothing follows");
        })
        .await;
    })
    .await;
}

#[actix_web::test]
async fn a_tunnel_is_refused_and_the_connection_ends() {
    with_app(async |app| {
        for body in ["\r\n", "Content-Length: 2\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
            app.talk(move |stream| {
                let connect = format!("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n{body}{}", bare("GET", "/health"));
                stream.write_all(connect.as_bytes()).unwrap();
                let mut reader = BufReader::new(stream);
                let answer = read_answer(&mut reader, "CONNECT").unwrap();
                assert!(
                    (400..500).contains(&answer.status) && answer.header("connection") == Some("close"),
                    "{answer:?}"
                );
                assert_eq!(read_answer(&mut reader, "GET"), None);
            })
            .await;
        }
    })
    .await;
}

#[actix_web::test]
async fn after_a_close_nothing_is_done_any_more_however_slowly_the_client_reads() {
    with_app(async |app| {
        let token = app.token("demo");
        // More than the sockets hold: the answers wait for the client.
        let large = bare("GET", "/redoc/redoc.standalone.js").repeat(15);
        for last in ["HTTP/1.1\r\nHost: x\r\nConnection: close", "HTTP/1.0"] {
            let last = format!("GET /redoc/redoc.standalone.js {last}\r\n\r\n");
            let requests =
                format!("{large}{last}{}{}", post(&token, "", &json!({"title": "x"})), bare("GET", "/health"));
            app.talk(move |stream| {
                stream.write_all(requests.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(300));
                let mut reader = BufReader::new(stream);
                for _ in 0..15 {
                    assert_eq!(read_answer(&mut reader, "GET").unwrap().header("connection"), None);
                }
                read_answer(&mut reader, "GET").unwrap();
                assert_eq!(read_answer(&mut reader, "POST"), None);
            })
            .await;
        }
        assert!(app.published().await.is_empty());
    })
    .await;
}

#[actix_web::test]
async fn what_was_answered_arrives_although_the_client_goes_on_sending_when_the_connection_ends() {
    with_app(async |app| {
        let (get, post) =
            ("GET /redoc/redoc.standalone.js HTTP/1.1\r\nHost: x\r\n", "POST /todos HTTP/1.1\r\nHost: x\r\n");
        let mut cases = vec![
            (1, format!("{post}Content-Length: 2\r\n\r\n{{}}"), 401),
            (1, format!("{post}Content-Length: 300000\r\n\r\n"), 401),
            (1, format!("{post}Transfer-Encoding: chunked\r\n\r\n40000\r\n"), 401),
            (1, format!("{post}Transfer-Encoding: chunked\r\n\r\nno chunk"), 401),
            (1, "GET /health HTTP/1.0\r\n\r\n".to_owned(), 200),
            (1, "no request at all\r\n\r\n".to_owned(), 400),
        ];
        // How many answers the sockets hold is the system's affair: one of these is on its way when its body turns bad.
        cases.extend((1..8).map(|before| (before, format!("{get}Transfer-Encoding: chunked\r\n\r\n"), 200)));
        let talks = cases.iter().flat_map(|case| [0, 100].map(|pause| (case.clone(), Duration::from_millis(pause))));
        let talks = talks.map(|((before, last, status), pause)| {
            let requests = format!("{}{last}", format!("{get}\r\n").repeat(before));
            app.talk(move |stream| {
                let mut sending = stream.try_clone().unwrap();
                let sent = std::thread::spawn(move || {
                    sending.write_all(requests.as_bytes())?;
                    std::thread::sleep(pause);
                    // More than is read ahead.
                    sending.write_all(&b"x\r\n".repeat(80_000))
                });
                std::thread::sleep(Duration::from_millis(300));
                let mut reader = BufReader::new(stream);
                for _ in 0..before {
                    // More than the client's socket holds.
                    assert!(read_answer(&mut reader, "GET").unwrap().body.len() > 500_000);
                }
                assert_eq!(read_answer(&mut reader, "POST").unwrap().status, status, "{before} {last} {pause:?}");
                sent.join().unwrap().expect("the server takes what the client sends");
            })
        });
        join_all(talks).await;
    })
    .await;
}

#[actix_web::test]
async fn a_refused_body_that_never_ends_is_not_waited_for() {
    with_app(async |app| {
        let chunked = "Transfer-Encoding: chunked\r\n\r\n";
        let bodies = ["Content-Length: 2\r\n\r\n{".to_owned(), chunked.to_owned(), format!("{chunked}2\r\n{{")];
        let talks = bodies.map(|body| {
            app.talk(move |stream| {
                let begun = Instant::now();
                stream.write_all(format!("POST /todos HTTP/1.1\r\nHost: x\r\n{body}").as_bytes()).unwrap();
                let mut reader = BufReader::new(&mut *stream);
                let answer = read_answer(&mut reader, "POST").unwrap();
                assert_eq!((answer.status, answer.header("connection")), (401, Some("close")), "{body}");
                assert_eq!(read_answer(&mut reader, "GET"), None);
                // A client that doesn't care is cut off.
                while stream.write_all(b"}").is_ok() {
                    assert!(begun.elapsed() < Duration::from_secs(15), "{body}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        });
        join_all(talks).await;
    })
    .await;
}

#[actix_web::test]
async fn a_body_that_can_be_read_in_two_ways_is_refused_and_the_connection_ends() {
    with_app(async |app| {
        for end in ["0\r\n\n\r\nG", "0\r\nX: y\n\r\nG", "zz\r\n", "2\r\nabc\r\n"] {
            app.talk(move |stream| {
                let head = "POST /auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(format!("{head}{end}{}", bare("GET", "/health")).as_bytes()).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).expect("the connection ends");
                assert!(text.starts_with("HTTP/1.1 400 "), "{end:?}: {text}");
                assert!(!text.contains("healthy"), "{end:?}: {text}");
            })
            .await;
        }
        // However long a size is written.
        let token = app.token("demo");
        let chunked = format!(
            "POST /todos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n00000000000000000000d;x=y\r\n{{\"title\":\"x\"}}\r\n0\r\nT: x\r\n\r\n"
        );
        let answers = app.pipeline(vec![chunked, bare("HEAD", "/health")]).await;
        assert!(answers[0].status == 201 && answers[0].body.contains("\"x\""), "{answers:?}");
    })
    .await;
}

#[actix_web::test]
async fn a_request_that_is_not_http_ends_the_connection_with_400() {
    with_app(async |app| {
        for bad in [
            "no request at all\r\n\r\n",
            "GET /health HTTP/1.1\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "POST /todos HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            "POST /todos HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST /todos HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            app.talk(move |stream| {
                stream
                    .write_all(format!("{}{bad}{}", bare("GET", "/health"), bare("GET", "/health")).as_bytes())
                    .unwrap();
                let mut reader = BufReader::new(stream);
                assert_eq!(read_answer(&mut reader, "GET").unwrap().status, 200);
                assert_eq!(read_answer(&mut reader, "GET").unwrap().status, 400, "{bad}");
                assert_eq!(read_answer(&mut reader, "GET"), None, "{bad}");
            })
            .await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_host_that_is_none_is_refused_and_the_connection_kept() {
    with_app(async |app| {
        app.talk(|stream| {
            for (host, status) in
                [("a b@c", 400), ("x", 200), ("me@x", 400), ("x:y", 400), ("", 200), ("[::1]:8000", 200)]
            {
                write!(stream, "GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
                let answer = read_answer(&mut BufReader::new(&mut *stream), "GET").unwrap();
                assert_eq!(answer.status, status, "{host:?}");
                if status == 400 {
                    assert_eq!(answer.body, r#"{"detail":"The Host header is not HOST or HOST:PORT"}"#);
                    assert!(answer.header("x-request-id").is_some());
                }
            }
        })
        .await;
    })
    .await;
}

#[actix_web::test]
async fn a_request_in_pieces_is_one_request() {
    with_app(async |app| {
        let request =
            post(&app.token("demo"), "Upgrade: h2c\r\nConnection: upgrade\r\n", &json!({"title": "in pieces"}));
        app.talk(move |stream| {
            for byte in request.as_bytes() {
                stream.write_all(&[*byte]).unwrap();
            }
            assert_eq!(read_answer(&mut BufReader::new(stream), "POST").unwrap().status, 201);
        })
        .await;
    })
    .await;
}

#[actix_web::test]
async fn a_client_that_goes_away_in_the_middle_disturbs_nobody() {
    with_app(async |app| {
        let token = app.token("demo");
        for _ in 0..20 {
            let request = post(&token, "", &json!({"title": "x"})) + &bare("GET", "/health") + "GET /heal";
            app.talk(move |stream| stream.write_all(request.as_bytes()).unwrap()).await;
        }
        let begun = Instant::now();
        assert_eq!(app.get("/health").answer().await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(5));
    })
    .await;
}

#[actix_web::test]
async fn clients_that_connect_at_the_same_moment_need_not_try_again() {
    // It is not run, so nobody accepts. Where there is no room, a client tries until its time is over.
    let mut config = config(&[]);
    let _database = own_database(&mut config);
    let app = App::build(config, TcpListener::bind("127.0.0.1:0").unwrap()).await.unwrap();
    let mut clients = Vec::new();
    for n in 0..600 {
        let client = TcpStream::connect_timeout(&app.address(), Duration::from_secs(5));
        clients.push(client.unwrap_or_else(|problem| panic!("client {n}: {problem}")));
    }
}
