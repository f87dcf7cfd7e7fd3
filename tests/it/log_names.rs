//! The names of loggers, which operators' filters refer to, are the ones that docs/operations.md lists.

use std::collections::BTreeSet;

use todo_backend::telemetry::logging::names::logger;

use crate::floors::sources;

/// The loggers of all modules that log.
fn loggers() -> BTreeSet<String> {
    let logs =
        |line: &str| ["error", "warn", "info", "debug", "log"].iter().any(|l| line.contains(&format!("log::{l}!")));
    let modules = sources().into_iter().filter(|source| source.lines().any(|(_, line)| logs(line)));
    modules.map(|source| logger(&source.module()).into_owned()).collect()
}

#[test]
fn every_logger_is_listed_for_operators() {
    let text = include_str!("../../docs/operations.md");
    let (_, list) = text.split_once("Loggers: ").expect("docs/operations.md lists the loggers");
    let (list, _) = list.split_once("\n\n").unwrap();
    let listed: BTreeSet<String> = list
        .split(';')
        .next()
        .unwrap()
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| format!("todo_backend::{name}"))
        .collect();
    assert_eq!(loggers(), listed);
}
