//! `todo-backend migrate-to`: the way from SQLite to Postgres or back, on the database of a service that is stopped.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;

use super::{bar, database_settings, database_settings_with, report};
use crate::config::{Config, Database};
use crate::store::error::DatabaseError;
use crate::store::moving::{Counts, Progress};
use crate::store::{copy_to_postgres, copy_to_sqlite};

/// What is copied where.
#[derive(Args)]
pub struct Arguments {
    /// The database to copy to, as in DATABASE_URL: an empty postgres://user@host:5432/name, whose password can be in PGPASSWORD or
    /// DATABASE_PASSWORD_FILE, or, to copy back from Postgres, a new file: sqlite:PATH
    url: String,
    /// Copy this backup, and not the database of DATABASE_URL: it gets a new epoch, as if it was restored, and everybody has to log
    /// in again
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Copies the database, or goes on with a copy that was broken off. An error is one line that says what to do.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Config { database: target, .. } = database_settings_with(&arguments.url)?;
    let source = match &arguments.from {
        Some(file) => Database::File(file.clone()),
        None => database_settings()?.database,
    };
    let (from, to, counts) = match (&source, &target) {
        (Database::File(path), Database::Postgres(postgres)) => {
            let counts = watched("; the same command goes on from there", |it| {
                copy_to_postgres(path, arguments.from.is_some(), postgres, it)
            })?;
            (path.display().to_string(), postgres.location(), counts)
        }
        (Database::Postgres(postgres), Database::File(path)) => {
            let counts = watched("; nothing was copied", |it| copy_to_sqlite(postgres, path, it))?;
            (postgres.location(), path.display().to_string(), counts)
        }
        (Database::Temporary, _) | (_, Database::Temporary) => {
            return Err("a temporary database (sqlite::memory:) is not copied, and nothing is copied to one".into());
        }
        (Database::File(_), Database::File(_)) => {
            return Err("both are files, and migrate-to copies from SQLite to Postgres or back: to copy a file, use \
                        `todo-backend backup`"
                .into());
        }
        (Database::Postgres(_), Database::Postgres(_)) => {
            return Err(
                "both are on Postgres, and migrate-to copies from SQLite to Postgres or back: use pg_dump, or name a \
                        file with --from"
                    .into(),
            );
        }
    };
    let then = match arguments.from {
        Some(_) => "it has a new epoch, and everybody has to log in again",
        None => "what it was copied from is as it was, but no service starts on that any more",
    };
    let rows = |of: &str| counts.iter().find(|(table, _)| *table == of).map_or(0, |(_, rows)| *rows);
    let [accounts, todos, changes, events] = ["users", "todos", "changes", "outbox"].map(rows);
    report(&format!(
        "{from} is copied to {to}, and compared: {accounts} accounts, {todos} todos, {changes} changes, {events} events that wait; \
         start the service with the copy as DATABASE_URL; {then}"
    ))
}

/// Shows how far it is. `broken_off`: what there is to be said of a copy that has begun when Postgres fails.
fn watched(
    broken_off: &str,
    copy: impl FnOnce(&mut (dyn FnMut(Progress) + Send)) -> Result<Counts, DatabaseError>,
) -> Result<Counts, Box<dyn Error>> {
    let (copying, comparing) = (
        bar(0, "copying   {bar:40} {human_pos}/{human_len} rows, {eta} left"),
        bar(0, "comparing {bar:40} {human_pos}/{human_len} rows, {eta} left"),
    );
    let show = |bar: &ProgressBar, done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let mut has_begun = false;
    let counts = copy(&mut |progress| {
        has_begun = true;
        match progress {
            Progress::Copied(done, all) => show(&copying, done, all),
            Progress::Compared(done, all) => {
                copying.finish_and_clear();
                show(&comparing, done, all);
            }
        }
    });
    copying.finish_and_clear();
    comparing.finish_and_clear();
    counts.map_err(|error| match error {
        DatabaseError::Postgres { ref source, .. } if has_begun && source.is_passing() => {
            format!("{error}{broken_off}").into()
        }
        DatabaseError::Locked { path } => format!("the service is running on {}; stop it first", path.display()).into(),
        other => other.into(),
    })
}
