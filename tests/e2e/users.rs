//! `todo-backend user`, and the first admin that a start makes.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::stack::{PATIENCE, SERVICE, Stack};

pub const PASSWORD: &str = "a long and private sentence";
/// Of "correct horse", made by Python's bcrypt 5.0.0.
const BCRYPT: &str = "$2b$12$WTZWKG7g63Bw9Wa14NG1NeqajGfyYqNb47.kj0WrthF6OZKWSlK9.";

/// Of the same, made by Python's argon2-cffi 25.1.0.
const ARGON2: &str =
    "$argon2id$v=19$m=65536,t=3,p=4$OBB550KiEt7yzpgHOW4vuA$eZyd0NCe09mWw1hCV3kOiP5dUa6wzIQDqLO4Kg8Gck4";

/// A stack with the settings of production.
fn production() -> Stack {
    let mut stack = Stack::new();
    stack.service_env = vec![
        ("DEBUG", "False".into()),
        ("SECRET_KEY", "0123456789abcdef0123456789abcdef".into()),
        ("APP_API_TOKEN", "the-sidecars-token".into()),
    ];
    stack
}

/// Runs `todo-backend user ARGUMENTS` with this standard input; returns whether it worked, and what it wrote.
fn user(stack: &Stack, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = stack.service_command();
    command.arg("user").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing has ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.success(), stderr.is_empty(), "{text}");
    assert!(!text.contains(PASSWORD) && !text.contains("panicked"), "{text}");
    (status.success(), text.trim_end().to_owned())
}

/// The same, for what has to work; returns what it wrote.
#[track_caller]
pub fn done(stack: &Stack, arguments: &[&str], input: &str) -> String {
    let (succeeded, text) = user(stack, arguments, input);
    assert!(succeeded, "{arguments:?}: {text}");
    text
}

#[track_caller]
fn refused(stack: &Stack, arguments: &[&str], input: &str, why: &str) {
    let (succeeded, text) = user(stack, arguments, input);
    assert!(!succeeded && text.lines().count() == 1, "{arguments:?}: {text}");
    assert!(text.starts_with(&format!("todo-backend: {why}")), "{arguments:?}: {text}");
}

#[actix_web::test]
async fn accounts_are_made_listed_and_changed_while_the_service_is_stopped() {
    let mut stack = production();
    refused(
        &stack,
        &["list"],
        "",
        "there is no database at data/todos.db; check DATABASE_URL and the working directory",
    );
    let first = done(&stack, &["add", "root", "--admin"], &format!("{PASSWORD}\n"));
    let file = stack.directory.path().canonicalize().unwrap().join("data/todos.db").display().to_string();
    assert_eq!(first, format!("created the database {file}\ncreated root (admin) in {file}"));
    assert_eq!(done(&stack, &["add", "Alice"], PASSWORD), format!("created Alice (user) in {file}"));
    for (name, hash, input) in [("old", BCRYPT, ""), ("argon", "-", ARGON2)] {
        let imported = done(&stack, &["add", name, "--password-hash", hash], input);
        assert_eq!(imported, format!("created {name} (user) in {file}"));
    }
    let list = done(&stack, &["list"], "");
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    let shown: Vec<_> = rows.iter().map(|row| (row[1], row[2], row[4])).collect();
    let user = |name| ("user", "active", name);
    assert_eq!(shown, [("admin", "active", "root"), user("Alice"), user("old"), user("argon")]);

    refused(&stack, &["add", "aLICE"], PASSWORD, "the name aLICE is taken");
    refused(&stack, &["add", "a b"], PASSWORD, "\"a b\" is not a valid username");
    refused(&stack, &["add", "bob"], "", "Password is too short");
    refused(&stack, &["add", "bob"], "password1\n", "Password is one of the most common ones");
    refused(&stack, &["add", "bob"], "bob-bob-1\nbob", "Password is too easy to guess");
    refused(&stack, &["add", "bob", "--password-hash", "plain"], "", "--password-hash: Hash can't be used");
    refused(&stack, &["password", "bob"], PASSWORD, "there is no account bob");
    for (command, role) in [("disable", None), ("role", Some("user"))] {
        let arguments: Vec<&str> = [command, "root"].into_iter().chain(role).collect();
        refused(&stack, &arguments, "", "root is the last active admin; first make another account an admin");
    }

    stack.start_service();
    let root = stack.client("root", PASSWORD).await;
    stack.client("old", "correct horse").await;
    stack.client("argon", "correct horse").await;
    let alice = stack.client("alice", PASSWORD).await;
    refused(
        &stack,
        &["list"],
        "",
        "the service is running on data/todos.db; stop it, or use its routes under /admin/users",
    );
    let (status, made) =
        root.send("POST", "/admin/users", Some(json!({"username": "second", "password": PASSWORD}))).await;
    assert_eq!(status, 201, "{made}");
    stack.service().kill();

    // What was done through the API is there, and what is done now counts after the next start.
    assert!(done(&stack, &["list"], "").contains("second"));
    assert_eq!(done(&stack, &["role", "second", "admin"], ""), "second has the role admin");
    assert_eq!(done(&stack, &["disable", "root"], ""), "root is disabled");
    assert_eq!(done(&stack, &["password", "ALICE"], "another private sentence"), "Alice has a new password");
    stack.start_service();
    let second = stack.client("second", PASSWORD).await;
    assert_eq!(second.send("GET", "/admin/users", None).await.0, 200);
    for ended in [alice, root] {
        assert_eq!(second.with_token(ended.token()).send("GET", "/todos", None).await.0, 401);
    }
    stack.client("alice", "another private sentence").await;
    stack.service().kill();
    assert_eq!(done(&stack, &["enable", "root"], ""), "root is enabled");
    stack.start_service();
    stack.client("root", PASSWORD).await;
}

/// Whether the terminal that `script` has made for its command echoes.
fn shows_what_is_typed(script: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap();
    let terminal = format!("/proc/{}/fd/0", children.trim());
    let settings = Command::new("stty").args(["-a", "-F", &terminal]).output().expect("coreutils' stty is there");
    !String::from_utf8(settings.stdout).unwrap().contains(" -echo ")
}

/// Runs a command in a terminal, and types each answer when its question is there; returns all that was shown.
fn in_a_terminal(stack: &Stack, arguments: &str, answers: &[(&str, &str)]) -> (bool, String) {
    let mut command: Command = stack.command("script");
    command.env("TERM", "dumb").args(["-qec", &format!("{SERVICE} {arguments}"), "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux's script is there");
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    let mut read = |shown: &mut Vec<u8>| {
        let mut buffer = [0; 1024];
        let count = output.read(&mut buffer).unwrap_or(0);
        shown.extend_from_slice(&buffer[..count]);
        count > 0
    };
    for (question, answer) in answers {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&shown).contains(question) {
            assert!(read(&mut shown) && Instant::now() < deadline, "{}", String::from_utf8_lossy(&shown));
        }
        // The question is written before the terminal is told not to show what is typed.
        while shows_what_is_typed(child.id()) {
            assert!(Instant::now() < deadline, "the terminal would show the password");
        }
        input.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
    while read(&mut shown) {}
    (child.wait().unwrap().success(), String::from_utf8_lossy(&shown).into_owned())
}

#[actix_web::test]
async fn on_a_terminal_the_password_is_asked_for_twice_and_not_shown() {
    let mut stack = production();
    let first = "Password for root: ";
    let (succeeded, shown) = in_a_terminal(
        &stack,
        "user add root --admin",
        &[(first, PASSWORD), ("Repeat the password: ", "something else")],
    );
    assert!(!succeeded && shown.contains("the two passwords are different") && !shown.contains(PASSWORD), "{shown}");
    let (succeeded, shown) =
        in_a_terminal(&stack, "user add root --admin", &[(first, PASSWORD), ("Repeat the password: ", PASSWORD)]);
    assert!(succeeded && shown.contains("created root (admin)") && !shown.contains(PASSWORD), "{shown}");
    stack.start_service();
    stack.client("root", PASSWORD).await;
}

#[actix_web::test]
async fn commands_need_no_secrets_and_change_nothing_that_they_were_not_asked_to() {
    let mut stack = production();
    done(&stack, &["add", "root", "--admin"], PASSWORD);
    // In a shell without the service's settings: DEBUG is True by default, but the database knows better.
    stack.service_env.clear();
    assert_eq!(done(&stack, &["list"], "").lines().count(), 1);
    refused(&stack, &["disable", "root"], "", "root is the last active admin");
    let output = stack.service_command().output().unwrap();
    let line = String::from_utf8_lossy(&output.stderr);
    assert!(line.starts_with("todo-backend: DEBUG is True, but people have accounts in the database "), "{line}");
    stack.service_env = vec![("DEBUG", "False".into())];
    assert_eq!(done(&stack, &["list"], "").lines().count(), 1);
    assert!(stack.run_service(&["check"]).contains("is good"));
}

#[test]
fn a_command_reads_one_line_and_needs_the_database_only_then() {
    let stack = production();
    let mut command = stack.service_command();
    command.args(["user", "add", "root", "--admin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut waiting = command.spawn().unwrap();
    // It waits for the password, and others don't wait for it.
    done(&stack, &["add", "boss", "--admin"], PASSWORD);
    let mut input = waiting.stdin.take().unwrap();
    input.write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    let output = waiting.wait_with_output().unwrap();
    // Standard input is still open.
    drop(input);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(done(&stack, &["list"], "").lines().count(), 2);
}

#[actix_web::test]
async fn a_start_without_an_admin_says_how_to_make_one_and_can_make_the_first() {
    let mut stack = production();
    stack.start_service();
    stack.service().wait_for("there is no admin: create one with `todo-backend user add NAME --admin`", PATIENCE);
    stack.service().kill();

    let file = stack.directory.path().join("password");
    std::fs::write(&file, "password1\n").unwrap();
    let settings = stack.service_env.clone();
    stack.service_env.extend([("ADMIN_USERNAME", "root".into()), ("ADMIN_PASSWORD_FILE", file.display().to_string())]);
    let start = |stack: &Stack| {
        let output = stack.service_command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let line = start(&stack);
    assert!(line.contains("todo-backend: ADMIN_PASSWORD_FILE: Password is one of the most common ones"), "{line}");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    stack.start_service();
    stack
        .service()
        .wait_for("created the first admin, root; ADMIN_USERNAME and ADMIN_PASSWORD_FILE can be removed now", PATIENCE);
    let root = stack.client("root", PASSWORD).await;
    let change = json!({"current_password": PASSWORD, "new_password": "another private sentence"});
    assert_eq!(root.send("POST", "/auth/password", Some(change)).await.0, 200);
    stack.service().kill();

    // Once there is one, the settings are not looked at: neither whether the file is there, nor what they say.
    std::fs::remove_file(&file).unwrap();
    stack.start_service();
    stack.service().kill();
    stack.service_env.retain(|(name, _)| *name != "ADMIN_PASSWORD_FILE");
    stack.start_service();
    assert!(!stack.service().lines().iter().any(|line| line.contains("created the first admin")));
    stack.client("root", "another private sentence").await;
    stack.service().kill();

    // A name that somebody has who is no admin is nobody's to take.
    stack = production();
    stack.service_env = settings;
    done(&stack, &["add", "Root"], PASSWORD);
    stack.service_env.extend([("ADMIN_USERNAME", "root".into()), ("ADMIN_PASSWORD", PASSWORD.into())]);
    let line = start(&stack);
    assert!(line.contains("todo-backend: ADMIN_USERNAME: root exists and is not an active admin"), "{line}");
    done(&stack, &["role", "root", "admin"], "");
    stack.start_service();
    stack.client("root", PASSWORD).await;
}
