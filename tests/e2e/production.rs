//! The README's production quick start, as it is written. Without Docker: the environment that it makes, passed on as
//! docker-compose.yml says, to the real sidecar with tokens on both sides, and the real Kafka.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::stack::{PATIENCE, Stack, project};

/// The blocks of the README's section on production.
fn blocks() -> Vec<String> {
    let readme = std::fs::read_to_string(project().join("README.md")).unwrap();
    let (_, section) = readme.split_once("### 4. Production\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    section.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// The settings in an environment file, of these names.
fn settings(file: &Path, names: &[String]) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).unwrap();
    let variables = text.lines().map(|line| line.split_once('=').unwrap());
    variables.filter(|(name, _)| names.iter().any(|n| n == name)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// The variables that docker-compose.yml passes on to a service from the environment.
fn passed_on(service: &str) -> Vec<String> {
    let compose = std::fs::read_to_string(project().join("docker-compose.yml")).unwrap();
    let (_, section) = compose.split_once(&format!("\n  {service}:\n")).unwrap();
    let section = section.split("\n\n").next().unwrap();
    section.lines().filter_map(|line| Some(line.trim().split_once(": ${")?.0.to_owned())).collect()
}

/// Runs a script in a directory; returns what it writes.
fn run(script: &str, directory: &Path) -> Vec<u8> {
    let output = Command::new("bash").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[actix_web::test]
async fn the_production_quick_start_works_as_written() {
    let [start, first_user] = &blocks()[..] else { panic!("the README has other commands now") };
    let (write_settings, compose) = start.rsplit_once('\n').unwrap();
    assert_eq!(compose, "docker compose --env-file production.env up --build --detach --wait");
    let directory = tempfile::tempdir().unwrap();
    run(write_settings, directory.path());
    let file = directory.path().join("production.env");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "nobody else reads it");
    let of_service = settings(&file, &passed_on("todo-backend"));
    assert_eq!(of_service.len(), std::fs::read_to_string(&file).unwrap().lines().count(), "all of it is passed on");
    let of_sidecar = settings(&file, &passed_on("dapr"));
    assert_eq!(of_sidecar.keys().collect::<Vec<_>>(), ["APP_API_TOKEN", "DAPR_API_TOKEN"]);

    let mut stack = Stack::new();
    let leak = |name: String| -> &'static str { name.leak() };
    stack.service_env = of_service.iter().map(|(name, value)| (leak(name.clone()), value.clone())).collect();
    stack.sidecar_env = of_sidecar.into_iter().map(|(name, value)| (leak(name), value)).collect();
    stack.start_kafka();
    stack.start_service();
    stack.start_sidecar();
    stack.service().wait_for("created the first admin, boss", PATIENCE);

    let script = first_user.replace("localhost:8000", &format!("127.0.0.1:{}", stack.service_port()));
    let alice: Value = serde_json::from_slice(&run(&script, directory.path())).unwrap();
    assert_eq!((&alice["username"], &alice["role"]), (&json!("alice"), &json!("user")));

    // End to end: she makes a todo, its event is in Kafka and comes back through the sidecar, which has the tokens.
    let client = stack.client("alice", "a sentence that only she knows").await;
    client.create("of a real user").await;
    let events = stack.events_until(|events| !events.is_empty()).await;
    assert_eq!(events[0].body["data"]["created_by"], "alice");
    stack.service().wait_for("Event received from todos: todo.created 1-1", PATIENCE);
    assert_eq!(client.send("GET", "/admin/users", None).await.0, 403);
    let registration = json!({"username": "mallory", "password": "another private sentence"});
    let (status, refused) = client.send("POST", "/auth/register", Some(registration)).await;
    assert_eq!((status, &refused["detail"]), (403, &json!("Registration is closed: ask an admin for an account")));

    // The second start, without the admin's password.
    stack.service().kill();
    stack.service_env.retain(|(name, _)| !name.starts_with("ADMIN_"));
    stack.start_service();
    stack.client("alice", "a sentence that only she knows").await;
    assert!(!stack.service().lines().iter().any(|line| line.contains("there is no admin")));
}
