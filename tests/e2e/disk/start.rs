//! What a start makes, and what it refuses.

use std::os::unix::fs::{PermissionsExt, symlink};

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
    assert!(line.contains("was written by a newer todo-backend (schema 99, this one knows 6); use that one"), "{line}");
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

#[actix_web::test]
async fn a_second_service_is_refused_under_every_name_of_the_database() {
    let mut stack = Stack::new();
    let directory = stack.directory.path().to_owned();
    // Made by the first start, through a link to where it is to be.
    std::fs::create_dir(directory.join("real")).unwrap();
    symlink("real/todos.db", directory.join("alias.db")).unwrap();
    stack.service_env = vec![("DATABASE_URL", "sqlite:alias.db".to_owned())];
    stack.start_service();
    assert!(directory.join("real/todos.db").is_file());
    symlink("alias.db", directory.join("second alias.db")).unwrap();
    symlink(directory.join("real"), directory.join("directory")).unwrap();
    std::fs::hard_link(directory.join("real/todos.db"), directory.join("hard.db")).unwrap();
    let absolute = directory.join("real/todos.db");
    let names = [
        "real/todos.db",
        "./alias.db",
        "second alias.db",
        "directory/todos.db",
        "real/../directory/../real//todos.db",
        "hard.db",
        absolute.to_str().unwrap(),
    ];
    let client = stack.client("demo", "demo123").await;
    let backup = directory.join("backup.db");
    let output = stack.service_command().arg("backup").arg(&backup).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let port = crate::stack::free_port().to_string();
    for name in names {
        let expected =
            format!("todo-backend: another todo-backend uses {name}; stop it, or set DATABASE_URL to another file\n");
        for arguments in [&[][..], &["restore-backup", backup.to_str().unwrap()]] {
            let mut second = stack.service_command();
            second.args(arguments).env("DATABASE_URL", format!("sqlite:{name}")).env("PORT", &port);
            let output = second.output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{name} {arguments:?}");
            assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
        }
        client.create("the first one goes on").await;
    }
    // After a crash, the log of the last changes lies beside the name that was used: they are not to be missed.
    stack.service().kill();
    stack.service_env = vec![("DATABASE_URL", "sqlite:hard.db".to_owned())];
    let line = refusal(&stack);
    assert!(line.contains("the database hard.db has another name (a hard link)"), "{line}");
    for arguments in [&["check"][..], &["backup", "stale.db"]] {
        let output = stack.service_command().args(arguments).output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), line.clone()));
    }
    assert!(!directory.join("stale.db").exists());
    stack.service_env = vec![("DATABASE_URL", "sqlite:directory/todos.db".to_owned())];
    stack.start_service();
    let todos = stack.client("demo", "demo123").await.send("GET", "/todos", None).await.1;
    assert_eq!(todos.as_array().unwrap().len(), names.len());
}

#[actix_web::test]
async fn names_that_sqlite_reads_as_something_else_are_refused() {
    let mut stack = Stack::new();
    for url in ["sqlite:file:todos.db", "sqlite:file::memory:?cache=shared", "sqlite:FILE:///tmp/x", "sqlite:x?mode=ro"]
    {
        stack.service_env = vec![("DATABASE_URL", url.to_owned())];
        let line = refusal(&stack);
        assert!(line.starts_with("todo-backend: DATABASE_URL: ") && line.contains("allowed are sqlite:PATH"), "{line}");
    }
    let left: Vec<_> =
        std::fs::read_dir(stack.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["components"]);
}
