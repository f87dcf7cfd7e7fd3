//! Where the binary writes, and what happens when nobody reads it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stack::{PATIENCE, SERVICE, Stack};

/// Runs a line of shell with the binary as `todo-backend`.
fn shell(stack: &Stack, line: &str) -> Output {
    let mut command = stack.command("bash");
    command.args(["-c", &format!("todo-backend() {{ \"$0\" \"$@\"; }}; {line}"), SERVICE]);
    command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap()
}

async fn with_database() -> Stack {
    let mut stack = Stack::new();
    stack.start_service();
    stack.client("demo", "demo123").await.create("stored").await;
    stack.service().kill();
    stack
}

#[actix_web::test]
async fn a_command_whose_output_nobody_reads_is_quiet() {
    let stack = with_database().await;
    for (n, command) in ["openapi", "check", "backup copy.db", "--help"].into_iter().enumerate() {
        // The reader is gone before anything is written.
        let output = shell(&stack, &format!("{{ sleep 0.2; todo-backend {command}; echo $? >status-{n}; }} | true"));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{command}");
        let status = std::fs::read_to_string(stack.directory.path().join(format!("status-{n}"))).unwrap();
        assert_eq!(status, "0\n", "{command}");
    }
}

#[actix_web::test]
async fn an_output_that_cannot_be_written_is_one_line_and_status_1() {
    const FULL: &str = "todo-backend: standard output can't be written: No space left on device (os error 28)\n";
    let stack = with_database().await;
    for (command, line) in [
        ("--help", FULL),
        ("--version", FULL),
        ("openapi", FULL),
        ("check", FULL),
        (
            "backup copy.db",
            "todo-backend: the backup is in copy.db, but standard output can't be written: \
             No space left on device (os error 28)\n",
        ),
    ] {
        let output = shell(&stack, &format!("todo-backend {command} >/dev/full"));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), line);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let output = shell(&stack, &format!("rm -f copy.db; todo-backend {command} >/dev/full 2>/dev/full"));
        assert_eq!(output.status.code(), Some(1), "{command}");
    }
    super::disk::assert_good(&stack.directory.path().join("copy.db"));
    let output = shell(&stack, "todo-backend --no-such-option");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--no-such-option"));
}

/// The service with its standard output in a pipe that nobody reads yet.
struct Unread {
    stack: Stack,
    child: Child,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Unread {
    fn start() -> Self {
        let stack = Stack::new();
        let mut command = stack.service_command();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", stack.service_port())).is_err() {
            assert!(Instant::now() < deadline, "the service does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { stack, child }
    }

    /// Lets it log `count` lines of 60 kB: an event that the sidecar delivers is logged with its data.
    fn log_long_lines(&self, count: usize) {
        for n in 0..count {
            let event = json!({
                "id": format!("{n}-1"), "source": "test", "type": "todo.created", "subject": format!("todos/{n}"),
                "data": {"filler": "x".repeat(60_000)},
            })
            .to_string();
            let mut stream = TcpStream::connect(("127.0.0.1", self.stack.service_port())).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            write!(
                stream,
                "POST /events/todos HTTP/1.1\r\nHost: x\r\nContent-Type: application/cloudevents+json\r\n\
                 Connection: close\r\nContent-Length: {}\r\n\r\n{event}",
                event.len()
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer, although nobody reads the log");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }

    fn terminate(&self) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Reads the output to its end.
    fn read(&mut self) -> Vec<String> {
        let output = BufReader::new(self.child.stdout.take().unwrap());
        output.lines().map(|line| line.unwrap()).collect()
    }
}

#[actix_web::test]
async fn requests_are_answered_although_nobody_reads_the_log_and_what_was_dropped_is_told() {
    let mut service = Unread::start();
    let client = service.stack.client("demo", "demo123").await;
    // The pipe and the queue are full long before that.
    let begun = Instant::now();
    service.log_long_lines(300);
    for _ in 0..20 {
        client.create("stored, although nobody reads the log").await;
    }
    println!("300 events of 60 kB and 20 creates took {:?} with a full log", begun.elapsed());
    let metrics = client.text("/metrics").await;
    let name = "todo_backend_log_lines_dropped_total ";
    let dropped: u64 = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap();
    assert!(dropped >= 100, "{dropped}");
    service.terminate();
    let lines = service.read();
    assert!(service.child.wait().unwrap().success());
    let told = |line: &String| -> Option<u64> {
        let count = line
            .split(" - logging - WARNING - ")
            .nth(1)?
            .strip_suffix(" log lines were dropped here: standard output is not read fast enough")?;
        count.parse().ok()
    };
    let counts: Vec<u64> = lines.iter().filter_map(told).collect();
    assert!(counts.iter().sum::<u64>() >= dropped, "{counts:?} of {dropped}");
    let events = lines.iter().filter(|line| line.contains(" - Event received from todos: ")).count();
    assert!((1..300).contains(&events), "{events}");
}

#[actix_web::test]
async fn a_clean_stop_writes_everything_that_is_queued() {
    let mut service = Unread::start();
    service.log_long_lines(50);
    service.terminate();
    // Whoever reads the log comes late.
    std::thread::sleep(Duration::from_secs(1));
    let lines = service.read();
    assert!(service.child.wait().unwrap().success());
    let received: Vec<&str> =
        lines.iter().filter_map(|line| line.split("todo.created ").nth(1)?.split(' ').next()).collect();
    assert_eq!(received, (0..50).map(|n| format!("{n}-1")).collect::<Vec<_>>());
    assert!(lines.last().unwrap().contains("stopped; at most 0 events"), "{:?}", lines.last());
}

#[actix_web::test]
async fn a_stop_does_not_wait_for_ever_for_whoever_reads_the_log() {
    let mut service = Unread::start();
    service.log_long_lines(50);
    let begun = Instant::now();
    service.terminate();
    assert!(service.child.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
