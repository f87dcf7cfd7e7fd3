//! `todo-backend import`: what it says.

use serde_json::json;

use crate::stack::{SERVICE, Stack};

/// Runs the import of a file with these contents; returns whether it worked, and the lines that it wrote.
fn import(stack: &Stack, contents: &[u8], arguments: &[&str]) -> (bool, Vec<String>) {
    std::fs::write(stack.directory.path().join("todos.json"), contents).unwrap();
    run(stack, &[&["todos.json", "--user"], arguments].concat())
}

fn run(stack: &Stack, arguments: &[&str]) -> (bool, Vec<String>) {
    let output = stack.service_command().arg("import").args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("panicked"), "{text}");
    assert_eq!(output.status.success(), output.stderr.is_empty(), "{text}");
    (output.status.success(), text.lines().map(|line| line.replace("todo-backend: ", "")).collect())
}

#[actix_web::test]
async fn a_file_is_imported_while_the_service_is_stopped() {
    let mut stack = Stack::new();
    let why = |(worked, lines): (bool, Vec<String>)| {
        assert!(!worked && lines.len() == 1, "{lines:?}");
        lines[0].clone()
    };
    let refused = why(import(&stack, b"[]", &["demo"]));
    assert!(refused.starts_with("there is no database at data/todos.db; check DATABASE_URL"), "{refused}");
    stack.start_service();
    let refused = why(import(&stack, b"[]", &["demo"]));
    assert!(refused.ends_with("data/todos.db; stop it, or use POST /import"), "{refused}");
    let client = stack.client("demo", "demo123").await;
    let id = client.create("first").await;
    client.send("DELETE", &format!("/todos/{id}"), None).await;
    client.create("second").await;
    let export = client.respond("GET", "/export", None, &[]).await.unwrap().bytes().await.unwrap();
    stack.service().kill();

    for (contents, arguments, lines) in [
        (&b"[]"[..], &["Demo"][..], vec!["imported 0 todos for demo"]),
        (&export, &["demo"], vec!["imported 1 todos for demo; skipped 4 lines about the trash and about changes"]),
        (
            &export,
            &["demo"],
            vec![
                "imported 0 todos for demo; 1 of this file were imported before, and with --again they are once more; \
                 skipped 4 lines about the trash and about changes",
            ],
        ),
        (
            &export,
            &["demo", "--again"],
            vec!["imported 1 todos for demo; skipped 4 lines about the trash and about changes"],
        ),
    ] {
        assert_eq!(import(&stack, contents, arguments), (true, lines.into_iter().map(str::to_owned).collect()));
    }
    for (contents, lines) in [
        (&b""[..], vec!["todos.json is empty"]),
        (
            b"[{\"title\":\"a\"},\n{\"title\":7,\"priority\":9},{}]",
            vec![
                "line 2, item 2, title: Input should be a valid string",
                "line 2, item 2, priority: Input should be less than or equal to 4",
                "line 2, item 3, title: Field required",
                "todos.json was not imported; above is what is wrong, up to 100 errors",
            ],
        ),
        (
            b"{\"title\":\"a\"}\n\n{\"title\":}",
            vec![
                "line 3: JSON decode error: expected value",
                "todos.json was not imported; above is what is wrong, up to 100 errors",
            ],
        ),
    ] {
        assert_eq!(import(&stack, contents, &["demo"]), (false, lines.into_iter().map(str::to_owned).collect()));
    }
    let refused = why(import(&stack, &export, &["nobody"]));
    assert_eq!(refused, "there is no account nobody; `todo-backend user list` shows all");
    for (file, what) in [
        ("none.json", "cannot read none.json: "),
        ("data", "data is no regular file"),
        ("/dev/stdin", "/dev/stdin is no regular file"),
    ] {
        let refused = why(run(&stack, &[file, "--user", "demo"]));
        assert!(refused.starts_with(what), "{refused}");
    }
    stack.service_env.push(("MAX_TODOS_PER_USER", "4".into()));
    let two = json!([{"title": "a"}, {"title": "b"}]).to_string();
    let refused = why(import(&stack, two.as_bytes(), &["demo"]));
    let expected = "nothing is imported: with 2 todos more, the account would have more than 4; delete some, or set MAX_TODOS_PER_USER";
    assert_eq!(refused, expected);
    assert!(stack.run_service(&["check"]).contains("is good"));
    // On a terminal, it shows how far it is.
    let mut command = stack.command("script");
    let line = format!("{SERVICE} import todos.json --user user");
    command.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
    let shown = command.output().expect("util-linux's script is there").stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("importing ") && shown.contains("imported 2 todos for user"), "{shown}");

    stack.start_service();
    let client = stack.client("demo", "demo123").await;
    let titles: Vec<_> = client.send("GET", "/todos", None).await.1.as_array().unwrap().clone();
    assert_eq!(titles.iter().map(|todo| todo["title"].clone()).collect::<Vec<_>>(), ["second", "second", "second"]);
}
