//! Where settings come from: the environment and the `.env` beside the working directory, and nothing else.

use std::net::TcpListener;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use todo_backend::auth::token::Keys;
use todo_backend::config::Config;
use todo_backend::domain::change::Epoch;

use crate::process::Process;
use crate::stack::{PATIENCE, Stack, free_port};

const LITERAL: &str = "abcdefghijklmnopqrstuvwxyz012345$ecretTail99";

/// A directory with this `.env` in it.
fn with_env_file(content: &str) -> Stack {
    let stack = Stack::new();
    std::fs::write(stack.directory.path().join(".env"), content).unwrap();
    stack
}

/// The epoch of the service's database.
fn epoch(stack: &Stack) -> Epoch {
    let connection = Connection::open(stack.directory.path().join("data/todos.db"));
    let connection =
        connection.or_else(|_| Connection::open(stack.directory.path().join("inner/data/todos.db"))).unwrap();
    let text: String = connection.query_row("SELECT epoch FROM meta", [], |row| row.get(0)).unwrap();
    Epoch(u64::from_str_radix(&text, 16).unwrap())
}

/// Whether the service signs with this key.
async fn signs_with(stack: &Stack, key: &str) -> bool {
    let client = stack.client("demo", "demo123").await;
    let config = Config::from_variables([("SECRET_KEY".to_owned(), key.to_owned())]).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Keys::new(&config, epoch(stack)).verify(client.token(), i64::try_from(now).unwrap()).is_ok()
}

#[actix_web::test]
async fn the_start_names_the_file_and_takes_its_secret_as_it_is_written() {
    let mut stack = with_env_file(&format!("DEBUG=True\nSECRET_KEY={LITERAL}\n"));
    // An empty variable is as good as none.
    stack.service_env = vec![("SECRET_KEY", String::new())];
    stack.start_service();
    let file = stack.directory.path().join(".env");
    stack.service().wait_for(&format!("settings: from {} and the environment", file.display()), PATIENCE);
    assert!(signs_with(&stack, LITERAL).await);
    assert!(!signs_with(&stack, LITERAL.split('$').next().unwrap()).await);
    stack.service().kill();
    stack.service_env = vec![("SECRET_KEY", "the environment's own, which wins".to_owned())];
    stack.start_service();
    assert!(signs_with(&stack, "the environment's own, which wins").await);
}

#[actix_web::test]
async fn a_parent_directorys_file_is_not_read() {
    let mut stack = with_env_file(&format!("SECRET_KEY={LITERAL}\nPORT=none\n"));
    let inner = stack.directory.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let mut command = stack.service_command();
    command.current_dir(&inner);
    stack.start_service_as(&mut command);
    stack.service().wait_for("settings: from the environment; there is no .env in the working directory", PATIENCE);
    assert!(!signs_with(&stack, LITERAL).await);
}

#[test]
fn a_file_that_cannot_be_used_is_one_line_without_its_values() {
    for (content, expected) in [
        ("DEBUG=True\nSECRET_KEY='it's-a-s3cret\nDAPR_API_TOKEN=s3cret-token\n", ", line 2, SECRET_KEY: begins with"),
        ("SECRET_KEY=\"s3cret of\ntwo lines\"\n", ", line 1, SECRET_KEY: begins with"),
        ("SECRET_KEY=s3cret # the key\n", ", line 1, SECRET_KEY: has ' #' in it"),
        ("PORT=8000\ns3cret\n", ", line 2: is not NAME=value"),
    ] {
        let stack = with_env_file(content);
        for command in [&[][..], &["healthcheck"], &["check"], &["backup", "x"]] {
            let output = stack.service_command().args(command).output().unwrap();
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{command:?}: {text}");
            let file = stack.directory.path().join(".env");
            assert!(text.starts_with(&format!("todo-backend: {}{expected}", file.display())), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
        // What needs no settings reads none.
        assert!(stack.service_command().arg("openapi").output().unwrap().status.success());
    }
}

#[actix_web::test]
async fn a_secret_with_spaces_is_a_secret() {
    let mut stack = with_env_file("SECRET_KEY=correct horse battery\n");
    stack.start_service();
    assert!(signs_with(&stack, "correct horse battery").await);
}

#[actix_web::test]
async fn variables_in_lower_case_are_somebody_elses() {
    let mut stack = Stack::new();
    stack.service_env = vec![("debug", "1".to_owned()), ("DEBUG", "True".to_owned()), ("port", "none".to_owned())];
    stack.start_service();
    stack.service().wait_for("demo users (DEBUG=True)", PATIENCE);
}

#[actix_web::test]
async fn ipv6_addresses_are_listened_on_and_called() {
    let sidecar = TcpListener::bind("[::1]:0").expect("this test needs IPv6 on the loopback interface");
    let sidecar_port = sidecar.local_addr().unwrap().port().to_string();
    let stack = Stack::new();
    for host in ["::1", "[::1]"] {
        let port = free_port();
        let settings = |command: &mut Command| {
            command.env("HOST", host).env("PORT", port.to_string());
            command.env("DAPR_HOST", host).env("DAPR_HTTP_PORT", &sidecar_port);
        };
        let mut command = stack.service_command();
        settings(&mut command);
        let mut service = Process::start("todo-backend", &mut command);
        service.wait_for(&format!("the API is at http://[::1]:{port}, "), PATIENCE);
        service.wait_for(&format!("the Dapr sidecar at http://[::1]:{sidecar_port}, "), PATIENCE);
        // It asks the sidecar how it is; nobody has to answer.
        drop(sidecar.accept().unwrap());
        let mut check = stack.service_command();
        settings(check.arg("healthcheck"));
        let output = check.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        service.signal("TERM");
        service.wait(PATIENCE);
    }
    let taken = sidecar.local_addr().unwrap().port().to_string();
    let output = stack.service_command().env("HOST", "::1").env("PORT", &taken).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("cannot listen on [::1]:{taken}: Address already in use")), "{text}");
}
