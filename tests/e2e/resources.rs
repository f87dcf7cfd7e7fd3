//! What clients can take from the process: memory and file descriptors. What logins take is in `abuse`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use todo_backend::events::dapr::http_client;

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use crate::stack::{PATIENCE, SERVICE, Stack};

/// Memory that the process may take besides: connections, threads, what the allocator keeps of small things. In bytes.
const MARGIN: u64 = 16 << 20;

#[actix_web::test]
async fn events_of_others_are_neither_remembered_nor_logged_in_full() {
    let mut stack = Stack::new();
    stack.start_service();
    let url = format!("http://127.0.0.1:{}/events/todos", stack.service_port());
    let http = http_client().build().unwrap();
    let long = "x".repeat(1_000_000);
    let ours = |n: u32| json!({"source": "/todo-backend/000000000000001f", "subject": format!("todos/{n}")});
    let send = async |names: Value, n: u32| {
        let mut event = json!({"id": format!("{n}-1"), "type": "todo.created", "data": {"version": 1}});
        event.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
        let request = http.post(&url).header("content-type", "application/cloudevents+json").body(event.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    // What the first ones leave in buffers is no growth.
    send(json!({"source": &long, "subject": "todos/0"}), 0).await;
    let before = stack.service().resident();
    for n in 1..=40 {
        send(json!({"source": format!("{long}{n}"), "subject": "todos/1"}), n).await;
        send(json!({"source": "/todo-backend/000000000000001f", "subject": format!("{long}{n}")}), n).await;
        // Long elsewhere.
        send(json!({"source": "test", "type": &long}), n).await;
        let mut event = ours(n);
        event["data"] = json!({"version": 1, "filler": &long});
        send(event, n).await;
    }
    let request = http.post(&url).header("content-type", "application/json").body(json!(&long).to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
    let grown = stack.service().resident().saturating_sub(before);
    println!("160 events of a megabyte: {before} bytes, then {grown} more");
    assert!(grown <= MARGIN, "{grown} bytes more");
    stack
        .service()
        .wait_for("an event was dropped: it is not a CloudEvent of this service: invalid type: string", PATIENCE);
    let lines = stack.service().lines();
    assert!(lines.iter().all(|line| line.len() < 70_000), "{:?}", lines.iter().map(String::len).max());
}

/// Starts the service as a shell does that has set its limits of open files.
fn start_with_limits(stack: &mut Stack, soft: u32, hard: u32) {
    let mut command = stack.command("bash");
    command.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\""), SERVICE]);
    stack.start_service_as(&mut command);
}

#[actix_web::test]
async fn as_many_files_may_be_open_as_the_hard_limit_allows() {
    let mut stack = Stack::new();
    start_with_limits(&mut stack, 200, 1900);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", stack.service().id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["1900", "1900", "files"]);
    stack.service().wait_for("connections at a time, with a limit of 1900 open files", PATIENCE);
    assert!(!stack.service().lines().iter().any(|line| line.contains("further clients wait")));
}

/// A client with a request of which the answer is not read yet.
fn ask(address: (&str, u16)) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client
}

fn assert_answered(client: &mut TcpStream) {
    let mut start = [0; 12];
    client.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[actix_web::test]
async fn idle_clients_leave_descriptors_for_the_sidecar_and_give_way_to_others() {
    let mut stack = Stack::new();
    start_with_limits(&mut stack, 512, 512);
    let announced = stack.service().wait_for("connections at a time, with a limit of 512 open files", PATIENCE);
    let connections: usize = announced.split("up to ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    stack.service().wait_for(&format!("only {connections} connections at a time, further clients wait"), PATIENCE);
    stack.client("demo", "demo123").await.create("to be published").await;

    let address = ("127.0.0.1", stack.service_port());
    // On another thread: this one has the connection of the client above to close.
    let filling = actix_web::rt::task::spawn_blocking(move || {
        let mut clients: Vec<TcpStream> = (0..600).map(|_| ask(address)).collect();
        clients[..connections].iter_mut().for_each(assert_answered);
        clients
    });
    let mut clients = filling.await.unwrap();

    // A sidecar that only publishes.
    let port = stack.sidecar_port();
    std::thread::spawn(move || {
        let stored = || async { HttpResponse::NoContent().finish() };
        let sidecar = HttpServer::new(move || App::new().default_service(web::to(stored)));
        let sidecar = sidecar.workers(1).disable_signals().bind(("127.0.0.1", port)).unwrap();
        actix_web::rt::System::new().block_on(sidecar.run())
    });
    stack.service().wait_for(" is ready", PATIENCE);
    stack.service().wait_for("Message published to todos", PATIENCE);

    let mut waiting = clients.split_off(connections);
    waiting[0].set_nonblocking(true).unwrap();
    assert_eq!(waiting[0].peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    waiting[0].set_nonblocking(false).unwrap();
    clients.truncate(connections - 20);
    waiting[..20].iter_mut().for_each(assert_answered);
}
