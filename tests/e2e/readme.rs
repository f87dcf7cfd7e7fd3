//! The README's commands, run as they are written, in a copy of the project. They use the ports that they name: 8000,
//! 3500 and 9092.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cleanup::{LIMIT, Processes, take_ports, wait_until_free};
use crate::process::{Process, in_terminal};
use crate::stack::{PATIENCE, SERVICE, Stack, project, tool};

/// The blocks of a document in a language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(project().join(document)).unwrap();
    text.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// What a newcomer has after `git clone`, changes that are not committed yet included.
pub fn copy_of_the_project(target: &Path) -> PathBuf {
    let copy = target.join("todo-backend");
    std::fs::create_dir(&copy).unwrap();
    let script = "git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t \"$0\"";
    let copied = Command::new("bash").args(["-c", script]).arg(&copy).current_dir(project()).status().unwrap();
    assert!(copied.success());
    // The crates are built already.
    let target = Path::new(SERVICE).ancestors().nth(2).unwrap();
    std::os::unix::fs::symlink(target, copy.join("target")).unwrap();
    copy
}

/// Starts a command line as a terminal does; ctrl-c reaches all of it.
fn start(name: &'static str, line: &str, directory: &Path) -> Process {
    let home = std::env::var("HOME").unwrap();
    let path = std::env::var("PATH").unwrap();
    let dapr = Path::new(tool("DAPR")).parent().unwrap();
    let or = |variable: &str, default: &str| std::env::var(variable).unwrap_or(format!("{home}/{default}"));
    let mut command = in_terminal(line);
    command
        .current_dir(directory)
        .env_remove("CARGO_TARGET_DIR")
        // As if Dapr were installed: its CLI in the PATH, its runtime in the home directory.
        .env("PATH", format!("{}:{path}", dapr.display()))
        .env("XDG_CACHE_HOME", or("XDG_CACHE_HOME", ".cache"))
        .env("CARGO_HOME", or("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", or("RUSTUP_HOME", ".rustup"))
        .env("HOME", tool("DAPR_RUNTIME_PATH"));
    Process::start(name, &mut command)
}

/// Runs the walk-through and looks at every answer.
fn walk(script: &str) {
    let output = Command::new("bash").args(["-ec", &script.replace("curl -s", "curl -sS -w '\\n'")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<&str> = text.lines().collect();
    let expected = [r#"[{"id":1,"title":"Learn Dapr""#, r#"{"id":1,"#, r#""completed":true"#];
    for (answer, expected) in answers.iter().zip(expected) {
        assert!(answer.contains(expected), "{expected} is not in:\n{text}");
    }
    assert_eq!((answers.len(), answers[3]), (4, ""), "{text}");
}

/// Ends a command as a terminal does; nothing is left of it.
fn ctrl_c(mut process: Process, all: &Processes, ports: &[u16]) {
    let deadline = Instant::now() + LIMIT;
    process.signal_group("INT");
    process.wait(LIMIT);
    // make and cargo end at once, the service when it has finished.
    all.wait_until_gone(deadline);
    wait_until_free(ports, deadline);
}

#[actix_web::test]
async fn the_examples_about_todos_work_as_written() {
    let stack = Stack::started();
    let client = stack.client("demo", "demo123").await;
    let (curl, python) = (blocks("docs/todos.md", "bash"), blocks("docs/todos.md", "python"));
    let [search, page, conditions, retry, clear, undo, transfer] = &curl[..] else {
        panic!("it has other commands now: {curl:?}")
    };
    let [pages] = &python[..] else { panic!("it has other programs now: {python:?}") };
    let execute = |program: &str, flags: &str, script: &str| {
        let script = script.replace("localhost:8000", &format!("localhost:{}", stack.service_port()));
        let mut command = Command::new(program);
        let output = command.args([flags, &script]).env("TOKEN", client.token()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let run = |script: &str| execute("bash", "-ec", script);
    let answers = run(conditions);
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "412"], "{answers}");
    assert!(answers.contains(r#""current":{"id":1,"title":"Buy milk""#), "{answers}");
    assert_eq!(run(retry), run(retry));

    let found = client.create("Buy milk, and bread").await;
    assert!(run(search).starts_with(&format!("[{{\"id\":{found},\"title\":\"Buy milk, and bread\"")));
    assert!(run(page).contains("\nlink: <todos?limit=2&sort=title&cursor="));
    for n in 0..110 {
        client.create(&n.to_string()).await;
    }
    let all = format!("token = '{}'\n{pages}\nprint(len(todos), todos[-1]['title'])", client.token());
    assert_eq!(execute(tool("PYTHON"), "-c", &all), "113 once\n");

    let cleared = |answer: &str| answer.contains(r#""deleted":1,"has_more":false"#);
    assert!(cleared(&run(clear)));
    client.send("POST", "/todos", Some(json!({"title": "done", "completed": true}))).await;
    let undone = run(undo);
    assert!(undone.starts_with(r#"{"changes":[{"revision":118,"event":"restored","id":114,"etag":""#), "{undone}");
    let directory = tempfile::tempdir().unwrap();
    let transferred = run(&format!("cd {}\n{transfer}", directory.path().display()));
    assert_eq!(transferred, r#"{"imported":113,"skipped":119}"#);
}

#[actix_web::test]
async fn the_example_about_sync_works_as_written() {
    let mut stack = Stack::new();
    stack.start_service();
    let client = stack.client("demo", "demo123").await;
    for title in ["a", "b"] {
        client.create(title).await;
    }
    let [script] = &blocks("docs/sync.md", "bash")[..] else { panic!("it has other commands now") };
    let script = script.replace("localhost:8000", &format!("localhost:{}", stack.service_port()));
    let output = Command::new("bash").args(["-ec", &script]).env("TOKEN", client.token()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (made, changes) = text.split_once("}{").unwrap();
    let changes: Value = serde_json::from_str(&format!("{{{changes}")).unwrap();
    // It is what the page shows, but for the numbers and times.
    let [shown, _] = &blocks("docs/sync.md", "json")[..] else { panic!("it has other answers now") };
    let shown: Value = serde_json::from_str(shown).unwrap();
    assert!(made.contains(r#""title":"Buy milk""#), "{text}");
    let shape = |answer: &Value| {
        let (entry, todo) = (&answer["changes"][0], &answer["changes"][0]["todo"]);
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let values = [&entry["event"], &todo["title"], &answer["has_more"]].map(Value::clone);
        (names(answer), names(entry), names(todo), values)
    };
    assert_eq!(shape(&changes), shape(&shown));
    assert_eq!((changes["changes"].as_array().unwrap().len(), &changes["changes"][0]["revision"]), (1, &json!(3)));

    // The client that the page begins with, beside the example that it uses.
    let [program] = &blocks("docs/sync.md", "js")[..] else { panic!("it has other programs now") };
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(project().join("web/client/follow.mjs"), directory.path().join("follow.mjs")).unwrap();
    let program = program.replace("localhost:8000", &format!("localhost:{}", stack.service_port()));
    std::fs::write(directory.path().join("client.mjs"), program).unwrap();
    let mut command = Command::new("node");
    command.arg(directory.path().join("client.mjs")).env("TOKEN", client.token());
    let node = Process::start("node", &mut command);
    node.wait_for("title: 'Buy milk'", PATIENCE);
    client.create("Buy more milk").await;
    node.wait_for("title: 'Buy more milk'", PATIENCE);
}

#[test]
fn the_commands_work_as_written() {
    let _ports = take_ports();
    let blocks = blocks("README.md", "bash");
    let [make, cargo, dapr, walkthrough] = &blocks[..] else { panic!("the README has other commands now: {blocks:?}") };
    let build = Duration::from_secs(600);
    let directory = tempfile::tempdir().unwrap();
    let copy = copy_of_the_project(directory.path());
    let processes = Processes(directory.path().to_owned());
    let ctrl_c = |process, ports: &[u16]| {
        ctrl_c(process, &processes, ports);
        // The next command is the first one, too.
        std::fs::remove_dir_all(copy.join("data")).unwrap();
    };

    // `make run`, then `cargo run`: the service alone.
    let run = make.lines().find(|line| line.starts_with("make run")).unwrap();
    for line in [run, cargo] {
        let service = start("the service", line, &copy);
        service.wait_for("the API is at http://127.0.0.1:8000", build);
        service.wait_for("no Dapr sidecar at http://localhost:3500", PATIENCE);
        walk(walkthrough);
        ctrl_c(service, &[8000]);
    }

    // `make dapr`: everything.
    let everything = start("make dapr", "make dapr", &copy);
    everything.wait_for("You're up and running", build);
    walk(walkthrough);
    everything.wait_for("Event received from todos: todo.deleted 1-3", PATIENCE);
    ctrl_c(everything, &[8000, 3500, 9092]);

    // Plain Dapr, with a Kafka on localhost:9092.
    let mut stack = Stack::new();
    stack.use_kafka_port(9092);
    stack.start_kafka();
    let plain = start("dapr run", dapr, &copy);
    plain.wait_for("You're up and running", build);
    walk(walkthrough);
    plain.wait_for("Event received from todos: todo.deleted 1-3", PATIENCE);
    // The broker is not its own.
    ctrl_c(plain, &[8000, 3500]);
}
