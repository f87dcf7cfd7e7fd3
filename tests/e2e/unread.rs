//! Answers that nobody reads: what they hold in memory.

use std::io::{Read, Write};
use std::net::TcpStream;

use rusqlite::Connection;

use crate::stack::{PATIENCE, Stack};

/// Lists of several users, 20 MB each; as many as are sent at once.
const USERS: [&str; 3] = ["admin", "user", "demo"];
const LISTS: usize = 8;
/// What an answer may hold, in bytes.
const HELD: u64 = 512 << 10;

/// Asks and reads no more than the status.
fn ask(stack: &Stack, path: &str, header: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", stack.service_port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n").unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    (stream, String::from_utf8(head[9..].to_vec()).unwrap())
}

#[actix_web::test]
async fn files_that_nobody_reads_hold_little_memory() {
    let mut stack = Stack::new();
    stack.start_service();
    let paths = ["/redoc/redoc.standalone.js", "/docs/swagger-ui-bundle.js"];
    let unread = |count| paths.iter().cycle().take(count).map(|path| ask(&stack, path, "")).collect::<Vec<_>>();
    let process = stack.service.as_ref().unwrap();
    let _first = unread(2);
    let before = process.resident();
    let unread = unread(100);
    assert!(unread.iter().all(|(_, status)| status == "200"));
    let grown = process.resident().saturating_sub(before);
    println!("unread: 100 files of 1 MB hold {} KiB each", grown / 100 / 1024);
    assert!(grown < 100 * HELD, "{grown} bytes");
}

#[actix_web::test]
async fn lists_that_nobody_reads_hold_little_memory() {
    let mut stack = Stack::new();
    stack.start_service();
    stack.service().signal("TERM");
    stack.service().wait(PATIENCE);
    Connection::open(stack.directory.path().join("data/todos.db"))
        .unwrap()
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 59999)
             INSERT INTO todos (id, owner_id, version, title, description, completed, created_at, updated_at)
                 SELECT i + 1, 1 + i % 3, 1, 'a todo', printf('%.900c', 'x'), 0, 0, 0 FROM n;",
        )
        .unwrap();
    stack.start_service();
    let mut clients = Vec::new();
    for username in USERS {
        let client = stack.client(username, &format!("{username}123")).await;
        let list = client.send("GET", "/todos", None).await.1;
        assert_eq!(list.as_array().unwrap().len(), 20_000);
        clients.push(client);
    }
    let before = stack.service().resident();
    let asked = clients.iter().flat_map(|client| [client; LISTS + 1]);
    let unread: Vec<_> =
        asked.map(|client| ask(&stack, "/todos", &format!("Authorization: Bearer {}\r\n", client.token()))).collect();
    assert_eq!(unread.iter().filter(|(_, status)| status == "429").count(), USERS.len());
    let grown = stack.service().resident().saturating_sub(before);
    let lists = (LISTS * USERS.len()) as u64;
    println!("unread: {lists} lists of 20 MB hold {} KiB each", grown / lists / 1024);
    assert!(grown < lists * HELD, "{grown} bytes");
}
