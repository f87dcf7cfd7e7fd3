//! `todo-backend import`: an account's todos from a file, on the database of a service that is stopped.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ring::digest::{self, Digest, SHA256, digest};

use super::{bar, missing, missing_file, no_account, open, print, report};
use crate::config::Config;
use crate::domain::account::User;
use crate::domain::todo::import::Import;
use crate::domain::trace::TraceParent;
use crate::domain::validation::{Location, ValidationError};
use crate::store::decide::Refusal;
use crate::store::error::StoreError;
use crate::store::idempotency::{Answered, Fingerprint, Idempotency, KeptAnswer};
use crate::store::{Command, Commands, Context, Store};

/// How much of the file is read at once, in bytes.
const PIECE: usize = 64 << 10;

/// What is imported, and for whom.
#[derive(Args)]
pub struct Arguments {
    /// The file: one JSON object a line, or an array of them
    file: PathBuf,
    /// The account's name
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Import the same file once more, although that was done within 24 hours
    #[arg(long)]
    again: bool,
}

/// What a file has.
struct Contents {
    /// The number of todos.
    todos: usize,
    /// The number of items of an export that are no live todos.
    skipped: usize,
    /// The SHA-256 of the file.
    hash: Fingerprint,
}

/// Imports a file, or nothing of it if it has an error. What is wrong with it is printed; an error is one line that says
/// what to do.
pub async fn run(arguments: &Arguments, config: &Config) -> Result<(), Box<dyn Error>> {
    if let Some(path) = missing_file(config)? {
        return Err(missing(path).into());
    }
    let contents = look_at(&arguments.file)?;
    let store = open(config, "POST /import")?;
    let done = import(&store, arguments, &contents).await;
    store.close();
    report(&done?)
}

/// Reads the whole file, and refuses it if there is anything wrong with it.
fn look_at(path: &Path) -> Result<Contents, Box<dyn Error>> {
    let file = std::fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    // It is read twice.
    if !file.is_file() {
        return Err(format!("{} is no regular file", path.display()).into());
    }
    if file.len() == 0 {
        return Err(format!("{} is empty", path.display()).into());
    }
    let (mut reader, mut todos) = (Reader::open(path)?, 0);
    let progress = bar(file.len(), "checking  {bar:40} {bytes}/{total_bytes}");
    let refused = loop {
        match reader.read() {
            Ok(Some(length)) => progress.inc(length as u64),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
        todos += reader.import.todos.drain(..).count();
    };
    progress.finish_and_clear();
    if let Some(Unreadable(why, errors)) = refused {
        errors.iter().try_for_each(|error| print(&said(error)))?;
        return Err(why.into());
    }
    todos += reader.import.todos.len();
    Ok(Contents { todos, skipped: reader.import.skipped, hash: reader.hash() })
}

/// Creates the todos, a group at a time. The groups of an earlier run that was interrupted are not made again.
async fn import(store: &Store, arguments: &Arguments, contents: &Contents) -> Result<String, Box<dyn Error>> {
    let Arguments { file, user: name, again } = arguments;
    let account = store.account_named(name).await?.ok_or_else(|| no_account(name))?;
    if !account.is_active() {
        return Err(format!("the account {name} is disabled or deleted").into());
    }
    let run = if *again { rand::random() } else { contents.hash };
    let mut reader = Reader::open(file)?;
    let progress = bar(contents.todos as u64, "importing {bar:40} {human_pos}/{human_len}, {eta} left");
    let changed = |done: usize| {
        progress.finish_and_clear();
        format!("{} was changed while it was read: {done} todos are imported", file.display())
    };
    let (mut part, mut done, mut before, mut is_end) = (0, 0, 0, false);
    while !is_end {
        // It could be read before.
        is_end = reader.read().map_err(|_| changed(done))?.is_none();
        while let Some(todos) = reader.import.group(is_end) {
            let count = todos.len();
            let commands = Commands {
                commands: todos.into_iter().map(Command::Create).collect(),
                room: contents.todos.saturating_sub(done),
                idempotency: Some(idempotency(&run, part, done..done + count)),
                ..Commands::default()
            };
            let answered = store.apply(context(&account), commands).await.map_err(|error| {
                progress.finish_and_clear();
                why(error, done, contents.todos, *again)
            })?;
            before += if matches!(answered, Answered::Repeated(_)) { count } else { 0 };
            (done, part) = (done + count, part + 1);
            progress.inc(count as u64);
        }
    }
    progress.finish_and_clear();
    if reader.hash() != contents.hash {
        return Err(changed(done).into());
    }
    let mut report = format!("imported {} todos for {}", done - before, account.username);
    if before > 0 {
        report += &format!("; {before} of this file were imported before, and with --again they are once more");
    }
    if contents.skipped > 0 {
        report += &format!("; skipped {} lines about the trash and about changes", contents.skipped);
    }
    Ok(report)
}

/// Why the import has ended after so many todos.
fn why(error: StoreError, done: usize, total: usize, again: bool) -> String {
    match error {
        StoreError::Refused(Refusal::TooManyTodos { limit }) if done == 0 => format!(
            "nothing is imported: with {total} todos more, the account would have more than {limit}; delete some, or set \
             MAX_TODOS_PER_USER"
        ),
        StoreError::Refused(Refusal::KeyReused) => format!(
            "another version of todo-backend has begun to import this file: {done} of {total} todos are there, and perhaps \
             more; --again imports all of them"
        ),
        other => {
            let next = if again { "with --again, it would begin anew" } else { "the same command goes on from there" };
            format!("{done} of {total} todos are imported, and then: {other}; {next}")
        }
    }
}

fn context(account: &User) -> Context {
    let actor = Arc::clone(&account.username);
    Context { owner: account.id, actor, authority: None, trace: TraceParent::random() }
}

/// Makes a part of an import, these todos of it, one that is made once.
fn idempotency(run: &Fingerprint, part: usize, todos: Range<usize>) -> Idempotency {
    let hex: String = run.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = |_: &_| Ok(KeptAnswer { status: 200, headers: Vec::new(), body: Vec::new() });
    Idempotency {
        request: format!("import {hex} {part}").into(),
        key: format!("import {hex}").into(),
        // A version that makes other parts must not take this one for its own.
        fingerprint: fingerprint(&digest(&SHA256, format!("{hex} {todos:?}").as_bytes())),
        answer: Box::new(answer),
    }
}

fn fingerprint(digest: &Digest) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(digest.as_ref());
    fingerprint
}

/// Why a file can't be read, and what is wrong with its todos.
struct Unreadable(String, Vec<ValidationError>);

/// Reads a file piece by piece.
struct Reader<'a> {
    path: &'a Path,
    file: File,
    /// What its todos are read into.
    import: Import,
    digest: digest::Context,
    piece: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Self { path, file, import: Import::default(), digest: digest::Context::new(&SHA256), piece: vec![0; PIECE] })
    }

    /// Reads the next piece; its length, or none at the end.
    fn read(&mut self) -> Result<Option<usize>, Unreadable> {
        let length = loop {
            match self.file.read(&mut self.piece) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Unreadable(format!("cannot read {}: {error}", self.path.display()), Vec::new()));
                }
            }
        };
        let piece = self.piece.get(..length).filter(|piece| !piece.is_empty());
        self.digest.update(piece.unwrap_or_default());
        match self.import.read(piece, |_| {}) {
            Ok(()) => Ok(piece.map(<[u8]>::len)),
            Err(errors) => {
                let why = format!("{} was not imported; above is what is wrong, up to 100 errors", self.path.display());
                Err(Unreadable(why, errors))
            }
        }
    }

    /// The SHA-256 of what was read.
    fn hash(self) -> Fingerprint {
        fingerprint(&self.digest.finish())
    }
}

/// An error for people: where it is, and what it is.
fn said(error: &ValidationError) -> String {
    let number = |name: &str| error.ctx.as_ref().and_then(|ctx| ctx[name].as_u64());
    let line = number("line").map(|line| format!("line {line}"));
    let reason = error.ctx.as_ref().and_then(|ctx| ctx["error"].as_str()).map(|reason| format!(": {reason}"));
    let steps = error.loc.iter().skip(1).filter_map(|step| match step {
        Location::Name(name) => Some(name.to_string()),
        // Where in the text it is, the line says.
        Location::Number(_) if error.kind == "json_invalid" => None,
        Location::Number(index) => Some(format!("item {}", index + 1)),
    });
    let place: Vec<String> = line.into_iter().chain(steps).collect();
    format!("{}: {}{}", place.join(", "), error.msg, reason.unwrap_or_default())
}
