//! Clients that mean harm, or are broken: floods of logins, connections that are held. Others hardly notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Client as Http;
use todo_backend::connection::Limit;
use todo_backend::events::dapr::http_client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::stack::{Client, Stack};

/// Memory for each hash at a time, and what the process may take besides, in bytes.
const PER_TURN: u64 = 19 << 20;
const MARGIN: u64 = 32 << 20;

/// Where the owner of the account is.
const HOME: &str = "198.51.100.7";

/// Logs in as a client at `address`; returns the status.
async fn login(http: &Http, port: u16, address: &str, username: &str, password: &str) -> u16 {
    let request = http.post(format!("http://127.0.0.1:{port}/auth/login")).header("X-Forwarded-For", address);
    let body = format!("username={username}&password={password}");
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    drop(response.bytes().await);
    status
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The median time of reading a todo.
async fn time_of_reads(client: &Client, count: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        assert_eq!(client.send("GET", "/todos/1", None).await.0, 200);
        times.push(begun.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    median(times)
}

/// A hundred clients that guess, each from an address of its own, until `stop`; returns what they were answered.
async fn flood(port: u16, stop: Arc<AtomicBool>) -> BTreeMap<u16, usize> {
    let guesser = |n: usize| {
        let stop = Arc::clone(&stop);
        async move {
            let (http, mut answers) = (http_client().build().unwrap(), BTreeMap::new());
            for guess in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let status = login(&http, port, &format!("203.0.113.{n}"), &format!("name{n}-{guess}"), "guess").await;
                *answers.entry(status).or_insert(0) += 1;
            }
            answers
        }
    };
    let mut all = BTreeMap::new();
    for answers in join_all((0..100).map(guesser)).await {
        answers.into_iter().for_each(|(status, count)| *all.entry(status).or_insert(0) += count);
    }
    all
}

#[actix_web::test]
async fn a_flood_of_logins_keeps_nobody_out_and_takes_bounded_memory() {
    let mut stack = Stack::new();
    stack.service_env =
        vec![("TRUSTED_PROXIES", "127.0.0.1".into()), ("RUST_LOG", "warn,todo_backend::auth=off".into())];
    stack.start_service();
    let (port, http) = (stack.service_port(), http_client().build().unwrap());
    let client = stack.client("demo", "demo123").await;
    client.create("x").await;
    assert_eq!(login(&http, port, HOME, "demo", "demo123").await, 200);
    let before = stack.service().resident();
    let is_good = |(calm, flooded, slowest): &(Duration, Duration, Duration)| {
        *flooded <= 3 * (*calm).max(Duration::from_millis(1)) && *slowest < Duration::from_secs(1)
    };
    // A busy machine can slow down either half of a try.
    let mut tries = Vec::new();
    for _ in 0..3 {
        let calm = time_of_reads(&client, 100).await;
        let stop = Arc::new(AtomicBool::new(false));
        let flooding = tokio::task::spawn_local(flood(port, Arc::clone(&stop)));
        sleep(Duration::from_millis(500)).await;
        let mut logins = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(login(&http, port, HOME, "demo", "demo123").await, 200, "a known device is let in");
            logins.push(begun.elapsed());
        }
        let slowest = logins.into_iter().max().unwrap();
        let flooded = time_of_reads(&client, 100).await;
        stop.store(true, Ordering::Relaxed);
        let answers = flooding.await.unwrap();
        println!("reads {calm:?}, flooded {flooded:?}; slowest login {slowest:?}; the flood was answered {answers:?}");
        assert!(answers.keys().all(|status| [401, 429, 503].contains(status)), "{answers:?}");
        assert!(answers.get(&401).is_some_and(|checked| *checked >= 10), "it was a flood: {answers:?}");
        tries.push((calm, flooded, slowest));
        if tries.last().is_some_and(is_good) {
            break;
        }
    }
    assert!(tries.last().is_some_and(is_good), "reads when calm and flooded, slowest login: {tries:?}");
    let turns = std::thread::available_parallelism().unwrap().get().saturating_sub(1).max(1) as u64;
    let grown = stack.service().resident().saturating_sub(before);
    println!("the service has grown by {} MiB", grown >> 20);
    // As many for strangers as for known devices.
    assert!(grown <= 2 * turns * PER_TURN + MARGIN, "{grown} bytes more");
}

#[actix_web::test]
async fn how_long_a_login_takes_does_not_tell_whether_the_account_exists() {
    let mut stack = Stack::new();
    stack.service_env = vec![("LOGIN_LIMITS", "False".into())];
    stack.start_service();
    let (port, http) = (stack.service_port(), http_client().build().unwrap());
    let admin = stack.client("admin", "admin123").await;
    for name in ["disabled", "deleted"] {
        let account = serde_json::json!({"username": name, "password": "a long and private sentence"});
        let (_, account) = admin.send("POST", "/admin/users", Some(account)).await;
        let path = format!("/admin/users/{}", account["id"]);
        let change = serde_json::json!({"state": "disabled"});
        match name {
            "disabled" => assert_eq!(admin.send("PATCH", &path, Some(change)).await.0, 200),
            _ => assert_eq!(admin.send("DELETE", &path, None).await.0, 204),
        }
    }
    let names = ["demo", "nobody", "disabled", "deleted"];
    let mut tries = Vec::new();
    for _ in 0..3 {
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..15 {
            for (name, times) in names.iter().zip(&mut times) {
                let begun = Instant::now();
                assert_eq!(login(&http, port, HOME, name, "wrong").await, 401);
                times.push(begun.elapsed());
            }
        }
        let medians = times.map(median);
        let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
        println!("{names:?}: {medians:?}");
        if *most <= least.mul_f64(1.15) {
            return;
        }
        tries.push(medians);
    }
    panic!("medians of {names:?} differ by more than 15 %: {tries:?}");
}

/// What a client holds a connection with.
#[derive(Clone, Copy)]
enum Held {
    Nothing,
    HalfAHead,
    HalfABody,
    /// One request was answered, and nothing more comes.
    Idle,
}

/// Holds a connection until the other side closes it; returns how long that took since the last byte was sent.
async fn hold(port: u16, held: Held, open: Arc<AtomicUsize>) -> Duration {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = match held {
        Held::Nothing => "",
        Held::HalfAHead => "GET /health/live HTTP/1.1\r\nHost: x\r\nX-Half: ",
        Held::HalfABody => "POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"username\":",
        Held::Idle => "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    };
    stream.write_all(request.as_bytes()).await.unwrap();
    let begun = Instant::now();
    open.fetch_add(1, Ordering::Relaxed);
    let mut answer = Vec::new();
    // A reset is as good as an end here.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    match held {
        Held::Idle => assert!(answer.starts_with("HTTP/1.1 200"), "{answer}"),
        Held::Nothing | Held::HalfAHead | Held::HalfABody => {
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
    }
    begun.elapsed()
}

#[actix_web::test]
async fn two_thousand_connections_that_are_held_are_closed_in_time_and_cost_others_nothing() {
    const COUNT: usize = 2000;
    const LIMIT: Duration = Duration::from_secs(5);
    // For the clients: the service raises its own limit.
    let limit = Limit::raised(None);
    assert!(limit.open_files >= 3 * COUNT, "ulimit -Hn is {}: this test needs {}", limit.open_files, 3 * COUNT);
    let mut stack = Stack::new();
    stack.service_env = ["CLIENT_HEAD_TIMEOUT", "CLIENT_BODY_TIMEOUT", "CLIENT_IDLE_TIMEOUT"]
        .map(|name| (name, LIMIT.as_secs().to_string()))
        .to_vec();
    stack.start_service();
    let port = stack.service_port();
    let client = stack.client("demo", "demo123").await;
    let open = Arc::new(AtomicUsize::new(0));
    let kinds = [Held::Nothing, Held::HalfAHead, Held::HalfABody, Held::Idle];
    let holding = (0..COUNT).map(|n| tokio::task::spawn_local(hold(port, kinds[n % 4], Arc::clone(&open))));
    let holding: Vec<_> = holding.collect();
    while open.load(Ordering::Relaxed) < COUNT {
        sleep(Duration::from_millis(10)).await;
    }
    let mut slowest = Duration::ZERO;
    for n in 0..50 {
        let begun = Instant::now();
        client.create(&format!("todo {n}")).await;
        slowest = slowest.max(begun.elapsed());
    }
    println!("slowest of 50 creations beside {COUNT} held connections: {slowest:?}");
    assert!(slowest < Duration::from_secs(2));
    let held = timeout(4 * LIMIT, join_all(holding)).await.expect("all of them are closed");
    let longest = held.into_iter().map(|time| time.unwrap()).max().unwrap();
    println!("the last one was closed after {longest:?}");
    assert!(longest < LIMIT + Duration::from_secs(5), "{longest:?}");
    assert_eq!(client.send("GET", "/todos", None).await.0, 200);
}
