//! `todo-backend import`: an account's todos from a file, on the database of a service that is stopped.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use ring::digest::{Context as Digest, SHA256};

use super::{database, missing, no_account, open, report};
use crate::config::Config;
use crate::domain::account::User;
use crate::domain::todo::import::{GROUP, Import};
use crate::domain::trace::TraceParent;
use crate::domain::validation::{Location, ValidationError};
use crate::store::decide::Refusal;
use crate::store::error::StoreError;
use crate::store::idempotency::{Answered, Fingerprint, Idempotency, KeptAnswer};
use crate::store::{Command, Commands, Context, Store};

/// How much of the file is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// What a file has.
struct Contents {
    /// The number of todos.
    todos: usize,
    /// The number of items of an export that are no live todos.
    skipped: usize,
    /// The SHA-256 of the file.
    hash: Fingerprint,
}

/// Imports a file, or nothing of it if it has an error. An error is one line that says what to do.
pub async fn run(file: &Path, name: &str, config: &Config) -> Result<(), Box<dyn Error>> {
    let path = database(config)?;
    if !path.exists() {
        return Err(missing(path).into());
    }
    let contents = look_at(file)?;
    let store = open(config, "POST /import")?;
    let done = import(&store, file, name, &contents).await;
    store.close();
    report(&done?)
}

/// Reads the whole file, and refuses it if there is anything wrong with it.
fn look_at(file: &Path) -> Result<Contents, Box<dyn Error>> {
    let (mut reader, mut digest, mut todos) = (Reader::open(file)?, Digest::new(&SHA256), 0);
    let length = std::fs::metadata(file).map_or(0, |file| file.len());
    let progress = bar(length, "checking  {bar:40} {bytes}/{total_bytes}");
    loop {
        let piece = reader.read()?;
        digest.update(piece);
        progress.inc(piece.len() as u64);
        let is_end = piece.is_empty();
        todos += reader.import.todos.drain(..).count();
        if is_end {
            break;
        }
    }
    progress.finish_and_clear();
    let mut contents = Contents { todos, skipped: reader.import.skipped, hash: [0; 32] };
    contents.hash.copy_from_slice(digest.finish().as_ref());
    Ok(contents)
}

/// Creates the todos, a group at a time. The groups of an earlier run that was interrupted are not made again.
async fn import(store: &Store, file: &Path, name: &str, contents: &Contents) -> Result<String, Box<dyn Error>> {
    let account = store.account_named(name).await?.ok_or_else(|| no_account(name))?;
    if !account.is_active() {
        return Err(format!("the account {name} is disabled or deleted").into());
    }
    let mut reader = Reader::open(file)?;
    let progress = bar(contents.todos as u64, "importing {bar:40} {human_pos}/{human_len}, {eta} left");
    let (mut group, mut done, mut before, mut is_end) = (0, 0, 0, false);
    while !is_end {
        is_end = reader.read()?.is_empty();
        let todos = &mut reader.import.todos;
        while todos.len() >= GROUP || (is_end && !todos.is_empty()) {
            let commands: Vec<Command> = todos.drain(..GROUP.min(todos.len())).map(Command::Create).collect();
            let count = commands.len();
            let room = contents.todos.saturating_sub(done);
            let idempotency = Some(part(&contents.hash, group));
            let commands = Commands { commands, room, idempotency, ..Commands::default() };
            let answered = store.apply(context(&account), commands).await.map_err(|error| {
                progress.finish_and_clear();
                let why = why(error);
                format!("{done} of {} todos are imported, then: {why}; the same command goes on there", contents.todos)
            })?;
            before += if matches!(answered, Answered::Repeated(_)) { count } else { 0 };
            done += count;
            group += 1;
            progress.inc(count as u64);
        }
    }
    progress.finish_and_clear();
    let mut report = format!("imported {} todos for {}", done - before, account.username);
    if before > 0 {
        report += &format!("; {before} were there already, from the same file");
    }
    if contents.skipped > 0 {
        report += &format!("; skipped {} lines about the trash and about changes", contents.skipped);
    }
    Ok(report)
}

/// Why todos were not created.
fn why(error: StoreError) -> String {
    match error {
        StoreError::Refused(Refusal::TooManyTodos { limit }) => {
            format!("there would be more than {limit} (MAX_TODOS_PER_USER)")
        }
        StoreError::Refused(Refusal::KeyReused) => "another file has the same hash".to_owned(),
        other => other.to_string(),
    }
}

fn context(account: &User) -> Context {
    let actor = Arc::clone(&account.username);
    Context { owner: account.id, actor, authority: None, trace: TraceParent::random() }
}

/// Makes a group of a file one that is applied once.
fn part(hash: &Fingerprint, number: usize) -> Idempotency {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = |_: &_| Ok(KeptAnswer { status: 200, headers: Vec::new(), body: Vec::new() });
    Idempotency {
        request: format!("import {hex} {number}").into(),
        key: format!("import {hex}").into(),
        fingerprint: *hash,
        answer: Box::new(answer),
    }
}

/// Reads a file piece by piece.
struct Reader<'a> {
    path: &'a Path,
    file: File,
    import: Import,
    piece: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Self { path, file, import: Import::default(), piece: vec![0; PIECE] })
    }

    /// The next piece; empty at the end. Its todos are in `import`.
    fn read(&mut self) -> Result<&[u8], String> {
        let length = loop {
            match self.file.read(&mut self.piece) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot read {}: {error}", self.path.display())),
            }
        };
        let piece = self.piece.get(..length).unwrap_or_default();
        let read = self.import.read((length > 0).then_some(piece), |_| {});
        read.map_err(|errors| format!("{} was not imported: {}", self.path.display(), all(&errors)))?;
        Ok(piece)
    }
}

/// Says the first error, and how many more there are.
fn all(errors: &[ValidationError]) -> String {
    let first = errors.first().map(said).unwrap_or_default();
    match errors.len().saturating_sub(1) {
        0 => first,
        1 => format!("{first}, and one more error"),
        more => format!("{first}, and {more} more errors"),
    }
}

fn said(error: &ValidationError) -> String {
    let place = error.loc.iter().skip(1).map(|step| match step {
        Location::Name(name) => name.to_string(),
        Location::Number(number) if error.kind == "json_invalid" => format!("at character {}", number + 1),
        Location::Number(number) => format!("item {}", number + 1),
    });
    format!("{}: {}", place.collect::<Vec<_>>().join(", "), error.msg)
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
