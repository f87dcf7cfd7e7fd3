//! What clients that follow take from the process: memory, time, and how long others wait.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::proof::length;
use crate::stack::{Client, PATIENCE, Stack};

/// Streams of a user, at most.
const OF_USER: usize = 32;

/// Accounts, and a client of each.
async fn clients(stack: &Stack, count: usize) -> Vec<Client> {
    let admin = stack.client("admin", "admin123").await;
    let mut clients = Vec::new();
    for n in 0..count {
        let body = json!({"username": format!("follower{n}"), "password": "a long and private sentence"});
        assert_eq!(admin.send("POST", "/admin/users", Some(body)).await.0, 201);
        clients.push(stack.client(&format!("follower{n}"), "a+long+and+private+sentence").await);
    }
    clients
}

/// Opens a stream, and reads until it is ready.
fn open(port: u16, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut read = Vec::new();
    while !read.windows(12).any(|it| it == b"event: ready") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..count]);
    }
    stream
}

async fn open_all(stack: &Stack, clients: &[Client], count: usize) -> Vec<TcpStream> {
    let (port, tokens) = (stack.service_port(), clients.iter().map(|client| client.token().to_owned()));
    let tokens: Vec<String> = tokens.collect();
    // On another thread: this one has the connections of the clients above to close.
    let opening = actix_web::rt::task::spawn_blocking(move || {
        (0..count).map(|n| open(port, &tokens[n / OF_USER])).collect::<Vec<_>>()
    });
    opening.await.unwrap()
}

/// How many streams are open, as the service says.
async fn are_open(client: &Client) -> usize {
    let metrics = client.text("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("todo_backend_event_streams "));
    line.unwrap().parse().unwrap()
}

async fn wait_until_open(client: &Client, count: usize) {
    let begun = Instant::now();
    while are_open(client).await != count {
        assert!(begun.elapsed() < PATIENCE, "{} streams are open, and not {count}", are_open(client).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Processor time that a process has used.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which ends with the last bracket: the 12th and the 13th, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

/// The median time of a change.
async fn time_of_a_change(client: &Client, id: i64) -> Duration {
    let mut times = Vec::new();
    for n in 0..200 {
        let begun = Instant::now();
        let (status, _) = client.send("PUT", &format!("/todos/{id}"), Some(json!({ "title": n.to_string() }))).await;
        assert_eq!(status, 200);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[100]
}

#[actix_web::test]
async fn idle_streams_cost_little() {
    let count: usize = length(500, 5000);
    let mut stack = Stack::new();
    stack.start_service();
    let (writer, clients) = (stack.client("demo", "demo123").await, clients(&stack, count.div_ceil(OF_USER)).await);
    let id = writer.create("busy").await;
    // What the first ones leave in buffers is no growth.
    drop(open_all(&stack, &clients, count / 10).await);
    wait_until_open(&writer, 0).await;
    let (before, pid) = (stack.service().resident(), stack.service().id());
    let (mut calm, mut busy, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        drop(streams);
        wait_until_open(&writer, 0).await;
        calm.push(time_of_a_change(&writer, id).await);
        streams = open_all(&stack, &clients, count).await;
        busy.push(time_of_a_change(&writer, id).await);
    }
    wait_until_open(&writer, count).await;
    // Those of one who is followed by as many as may.
    let followed = time_of_a_change(&clients[0], clients[0].create("followed").await).await;
    let each = stack.service().resident().saturating_sub(before) / count as u64;
    let begun = (Instant::now(), processor_time(pid));
    tokio::time::sleep(Duration::from_secs(16)).await;
    let share = (processor_time(pid) - begun.1).as_secs_f64() / begun.0.elapsed().as_secs_f64();
    calm.sort_unstable();
    busy.sort_unstable();
    let ratio = busy[1].as_secs_f64() / calm[1].as_secs_f64();
    println!(
        "{count} idle streams: {each} bytes each, {:.1} % of a processor; a change takes {:.1?} beside them, {ratio:.2} times as long, \
         and {:.2} times as long if {OF_USER} clients follow it",
        100.0 * share,
        busy[1],
        followed.as_secs_f64() / calm[1].as_secs_f64()
    );
    assert!(each < 64 << 10, "{each} bytes each");
    assert!(ratio < 2.0, "{ratio}");
    assert!(share < 0.5, "{share}");
    for mut stream in streams {
        stream.set_nonblocking(true).unwrap();
        let mut text = String::new();
        // It is still open.
        assert_eq!(stream.read_to_string(&mut text).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert!(text.contains("event: heartbeat"), "{text}");
    }
}

#[actix_web::test]
async fn clients_that_stop_reading_cost_little_and_are_cut() {
    const STALLED: usize = 8 * OF_USER;
    let mut stack = Stack::new();
    stack.start_service();
    let (clients, admin) = (clients(&stack, STALLED / OF_USER).await, stack.client("admin", "admin123").await);
    let description = "x".repeat(10_000);
    let mut ids = Vec::new();
    for client in &clients {
        ids.push(client.create("busy").await);
    }
    let change = async |rounds: usize, longest: Duration| {
        let begun = Instant::now();
        for _ in 0..rounds {
            if begun.elapsed() > longest {
                break;
            }
            for (client, id) in clients.iter().zip(&ids) {
                let body = json!({ "description": description });
                assert_eq!(client.send("PUT", &format!("/todos/{id}"), Some(body)).await.0, 200);
            }
        }
    };
    change(200, PATIENCE).await;
    let streams = open_all(&stack, &clients, STALLED).await;
    let before = stack.service().resident();
    // 10 MB for each, more than the sockets take; fewer where that takes so long that they would be cut meanwhile.
    let begun = Instant::now();
    change(1000, Duration::from_secs(15)).await;
    let took = begun.elapsed();
    assert_eq!(are_open(&admin).await, STALLED, "all of them have stalled, but not for long");
    let each = stack.service().resident().saturating_sub(before) / STALLED as u64;
    wait_until_open(&admin, 0).await;
    println!(
        "{STALLED} clients that stopped reading: {each} bytes each, besides their idle streams; {took:.1?} of changes, and all were cut after {:.1?}",
        begun.elapsed()
    );
    // One change of 10 KB that waits here, and one in actix's buffer, which doubles.
    assert!(each < 64 << 10, "{each} bytes each");
    drop(streams);
}
