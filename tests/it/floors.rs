//! Dependencies point downwards: the two tables in src/lib.rs say who may use whom, and the sources keep to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A source file of a floor.
pub struct Source {
    floor: String,
    /// Modules between the floor's own and this file's.
    depth: usize,
    path: PathBuf,
    text: String,
}

impl Source {
    /// As `module_path!()` says it.
    pub fn module(&self) -> String {
        let inside = self.path.strip_prefix(root()).unwrap().with_extension("");
        let modules = inside.iter().filter(|part| *part != "mod").map(|part| part.to_str().unwrap());
        ["todo_backend"].into_iter().chain(modules).collect::<Vec<_>>().join("::")
    }

    /// Lines of code with their numbers; comments are left out.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All sources but lib.rs, which only names the floors.
pub fn sources() -> Vec<Source> {
    fn read(directory: &Path, sources: &mut Vec<Source>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("src/lib.rs") {
                let inside = path.strip_prefix(root()).unwrap().with_extension("");
                let modules: Vec<_> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                let depth = modules.len() - 1 - usize::from(modules.last().unwrap() == "mod");
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push(Source { floor: modules[0].clone(), depth, path, text });
            }
        }
    }
    let mut sources = Vec::new();
    read(&root(), &mut sources);
    sources
}

/// The rows of the `number`th table in src/lib.rs: a name and the words after it.
fn table(number: usize) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("lib.rs")).unwrap();
    let (_, rules) = text.split_once("//! # Floors").expect("lib.rs has the rules");
    let table = rules.split("//! ```").nth(2 * number + 1).expect("a table");
    let rows = table.lines().skip(1).filter_map(|row| {
        let mut words = row.trim_start_matches("//!").split_whitespace().map(str::to_owned);
        Some((words.next()?, words.collect()))
    });
    rows.collect()
}

/// From the ground up, so that a greater index is above.
fn floors() -> Vec<String> {
    table(0).into_iter().rev().map(|(floor, _)| floor).collect()
}

/// The modules of this crate that code names, with the offsets of `this_crate`: of `crate::a::…`, and of each item of
/// `crate::{a, b::{…}}`, on however many lines. `*` stands for all modules.
fn named<'a>(code: &'a str, this_crate: &str) -> Vec<(usize, &'a str)> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices(this_crate).filter(|(at, _)| !code[..*at].ends_with(is_word)) {
        let rest = &code[at + this_crate.len()..];
        let (mut depth, mut is_name) = (0, true);
        for (offset, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    is_name = false;
                }
                ',' if depth == 1 => is_name = true,
                _ if is_name && depth <= 1 && !character.is_whitespace() => {
                    let name = &rest[offset..];
                    let end = name.find(|c| !is_word(c)).unwrap_or(name.len());
                    named.push((at, &name[..end.max(1)]));
                    is_name = false;
                }
                _ => {}
            }
            if depth == 0 && !is_name {
                break;
            }
        }
    }
    named
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Imports that run upwards, as `file:line: rule`.
fn upward(sources: &[Source], floors: &[String]) -> Vec<String> {
    let height = |floor: &str| floors.iter().position(|known| known == floor);
    let mut found = Vec::new();
    for source in sources {
        let at = |line: usize| format!("{}:{line}", source.path.strip_prefix(root()).unwrap().display());
        let Some(own) = height(&source.floor) else {
            found.push(format!("{}: src/lib.rs has no floor {}", at(1), source.floor));
            continue;
        };
        // `main` is a crate of its own.
        let this_crate = if source.floor == "main" { "todo_backend::" } else { "crate::" };
        let lines: Vec<(usize, &str)> = source.lines().collect();
        let code: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        for (offset, name) in named(&code, this_crate) {
            let (number, _) = lines[code[..offset].matches('\n').count()];
            match height(name) {
                Some(other) if other <= own => {}
                Some(_) => found.push(format!("{}: {} uses {name}, which is above it", at(number), source.floor)),
                None => found.push(format!("{}: {name} is no floor of src/lib.rs", at(number))),
            }
        }
        let mut inline = 0;
        for (number, line) in lines {
            inline += usize::from(line.ends_with('{') && line.split_whitespace().any(|word| word == "mod"));
            let climbs = |chain: &str| chain.matches("super::").count();
            if line.split(|c| !is_word(c) && c != ':').map(climbs).any(|climbs| climbs > source.depth + inline) {
                found.push(format!("{}: leaves {} by `super`: write `crate::`", at(number), source.floor));
            }
        }
    }
    found
}

/// Uses of other crates outside the floors that may, as `file:line: rule`.
fn foreign(sources: &[Source], homes: &[(String, Vec<String>)]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in source.lines() {
            for (name, _) in homes.iter().filter(|(_, homes)| !homes.contains(&source.floor)) {
                // A crate whose longer name has a row of its own is not this one.
                let other =
                    |part: &str| homes.iter().any(|(other, _)| other.len() > name.len() && part.starts_with(other));
                let uses = |part: &str| part.trim_start_matches(is_word).starts_with("::") && !other(part);
                let starts = line.match_indices(name.as_str()).filter(|(at, _)| {
                    let before = line[..*at].trim_start().trim_start_matches("pub ");
                    let before = before.strip_suffix("::").filter(|path| !path.ends_with(is_word)).unwrap_or(before);
                    !before.ends_with(|c: char| is_word(c) || c == '"' || c == ':')
                });
                if starts.map(|(at, _)| &line[at..]).any(uses) {
                    let path = source.path.strip_prefix(root()).unwrap().display();
                    found.push(format!("{path}:{number}: {name} has no place in {}", source.floor));
                }
            }
        }
    }
    found
}

#[test]
fn no_floor_uses_one_above_it() {
    let found = upward(&sources(), &floors());
    assert!(found.is_empty(), "imports run upwards (the rule is in src/lib.rs):\n{}", found.join("\n"));
}

#[test]
fn other_crates_stay_in_their_floors() {
    let found = foreign(&sources(), &table(1));
    assert!(
        found.is_empty(),
        "crates are used outside their floors (the rule is in src/lib.rs):\n{}",
        found.join("\n")
    );
}

#[test]
fn the_table_of_floors_is_the_list_of_modules() {
    let text = std::fs::read_to_string(root().join("lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let modules: BTreeSet<String> = modules.chain(["main"]).map(str::to_owned).collect();
    assert_eq!(modules, floors().into_iter().collect());
}

#[test]
fn an_import_that_runs_upwards_is_found_however_it_is_written() {
    let floors: Vec<String> = ["domain", "store", "api"].map(str::to_owned).to_vec();
    let at_depth = |depth: usize, line: &str| {
        let (path, text) = (root().join("store/sqlite/mod.rs"), format!("//! crate::api\n{line}\n"));
        vec![Source { floor: "store".to_owned(), depth, path, text }]
    };
    let source = |line: &str| at_depth(1, line);
    for allowed in [
        "use crate::domain::todo::Todo;",
        "use crate::store::Store;",
        "use crate::{domain::{self, api}, store};",
        "use crate::domain::{\n    api,\n};",
        "use super::Store;",
        "mod tests {\n    use super::super::Store;",
        "// crate::api",
    ] {
        assert_eq!(upward(&source(allowed), &floors), [""; 0], "{allowed}");
    }
    for (refused, rule) in [
        ("use crate::api::error::ApiError;", "store uses api, which is above it"),
        ("pub(crate) use crate::api;", "store uses api, which is above it"),
        ("use crate::{domain::todo, api::error};", "store uses api, which is above it"),
        (
            "use crate::{\n    domain::{clock, todo},\n    // above\n    api::error,\n};",
            "store uses api, which is above it",
        ),
        ("use crate::*;", "* is no floor of src/lib.rs"),
        ("    let error = crate::api::error::ApiError::Busy;", "store uses api, which is above it"),
        ("use crate::attic::Junk;", "attic is no floor of src/lib.rs"),
        ("use super::super::api::error;", "leaves store by `super`: write `crate::`"),
    ] {
        assert_eq!(upward(&source(refused), &floors), [format!("store/sqlite/mod.rs:2: {rule}")], "{refused}");
    }
    let left = ["store/sqlite/mod.rs:2: leaves store by `super`: write `crate::`"];
    assert_eq!(upward(&at_depth(0, "use super::api::error;"), &floors), left);
    let homes = [("actix".to_owned(), vec!["api".to_owned()]), ("rusqlite".to_owned(), vec!["store".to_owned()])];
    assert_eq!(foreign(&source("use rusqlite::Connection;"), &homes), [""; 0]);
    for refused in ["use actix_web::web;", "    fn f(r: &actix_web::HttpRequest) {}"] {
        assert_eq!(foreign(&source(refused), &homes), ["store/sqlite/mod.rs:2: actix has no place in store"]);
    }
}
