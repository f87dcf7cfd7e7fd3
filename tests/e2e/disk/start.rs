//! What a start makes, and what it refuses.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;

use super::full::Disk;
use super::{assert_good, database};
use crate::stack::{PATIENCE, Stack};

/// Starts the service, which must end with one line on standard error; returns it.
fn refusal(stack: &Stack) -> String {
    let output = stack.service_command().output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    line
}

#[actix_web::test]
async fn a_missing_directory_is_made() {
    let mut stack = Stack::new();
    let path = stack.directory.path().join("not/there yet/todos.db");
    stack.service_env = vec![("DATABASE_URL", format!("sqlite:{}", path.display()))];
    stack.start_service();
    stack.client("demo", "demo123").await.create("stored").await;
    stack.service().kill();
    assert_good(&path);
}

#[actix_web::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let mut stack = Stack::new();
    stack.start_service();
    stack.service().wait_for("the API is at", PATIENCE);
    stack.service().signal("TERM");
    stack.service().wait(PATIENCE);
    let connection = Connection::open(database(&stack)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let before = std::fs::read(database(&stack)).unwrap();
    let line = refusal(&stack);
    assert!(line.contains("was written by a newer todo-backend (schema 99, this one knows 1); use that one"), "{line}");
    assert_eq!(std::fs::read(database(&stack)).unwrap(), before);
}

/// Permissions don't bind root: for root the directory is on a disk that is mounted read-only.
#[actix_web::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let mut stack = Stack::new();
    let closed = stack.directory.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    let binds = std::fs::write(closed.join("probe"), "").is_err();
    let disk = if binds { None } else { Disk::mount("ro") };
    let directory = match &disk {
        Some(disk) => disk.path(),
        None if binds => &closed,
        None => return,
    };
    for file in ["todos.db", "sub/todos.db"] {
        let path = directory.join(file);
        stack.service_env = vec![("DATABASE_URL", format!("sqlite:{}", path.display()))];
        let line = refusal(&stack);
        assert!(line.contains(path.parent().unwrap().to_str().unwrap()), "{line}");
        assert!(line.contains("Read-only file system") || line.contains("Permission denied"), "{line}");
    }
}
