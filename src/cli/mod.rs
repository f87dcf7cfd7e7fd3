//! The command line: `todo-backend [serve]`, and commands for operators and containers.

mod healthcheck;
mod import;
mod migrate;
mod users;

use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use thiserror::Error;

use crate::api::docs;
use crate::app::{App, StartError};
use crate::config::env_file::EnvFile;
use crate::config::{Config, Database, authority};
use crate::store::error::DatabaseError;
use crate::store::postgres::error::PostgresError;
use crate::store::{self, DemoUsers, Options, Store, check_postgres, maintenance};
use crate::telemetry::logging;
use crate::telemetry::metrics::Metrics;

/// A Todo backend whose every change reaches Kafka through Dapr. Settings come from the environment and .env.
#[derive(Parser)]
#[command(name = "todo-backend", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service; the default without a command
    Serve,
    /// Ask the running service with the same settings whether it is ready; for a container's HEALTHCHECK
    Healthcheck,
    /// Print the OpenAPI document
    Openapi,
    /// Check the database and the rules of its log; works while the service runs
    Check,
    /// Copy the database, as of one moment, to FILE; works while the service runs
    Backup {
        /// The file to create
        file: PathBuf,
    },
    /// Replace the database with a backup, under a new epoch; the service must not be running
    RestoreBackup {
        /// The backup to restore
        file: PathBuf,
    },
    /// Renew the epoch of a Postgres database that was restored to what it was before; the service must not be running
    RenewEpoch,
    /// Copy an SQLite database to an empty Postgres database, or the other way round; the service must not be running
    MigrateTo(migrate::Arguments),
    /// Create an account's todos from a file: an export, or a JSON array of todos; the service must not be running
    Import(import::Arguments),
    /// Create, list and change accounts; the service must not be running
    User {
        #[command(subcommand)]
        command: users::Command,
    },
}

/// Standard output can't be written, so the result of a command is lost.
#[derive(Debug, Error)]
#[error("standard output can't be written: {0}")]
struct OutputError(#[source] io::Error);

/// Runs the command of the command line, and returns the exit status. An error is one line that says what to do.
pub async fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    match Arguments::try_parse() {
        Ok(arguments) => dispatch(arguments).await?,
        Err(usage) if usage.use_stderr() => {
            // If this can't be written, the exit status still says it.
            let _ = usage.print();
            return Ok(ExitCode::from(2));
        }
        // --help and --version.
        Err(help) => ignore_closed_pipe(help.print())?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn dispatch(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(settings()?).await,
        Command::Healthcheck => Ok(healthcheck::check(&settings()?).await?),
        Command::Check => check(&database_settings()?.database),
        Command::Backup { file } => backup(database_file(&database_settings()?, WITH_PG_DUMP)?, &file),
        Command::RestoreBackup { file } => restore(database_file(&database_settings()?, WITH_PG_RESTORE)?, &file),
        Command::RenewEpoch => renew_epoch(&database_settings()?.database),
        Command::MigrateTo(arguments) => migrate::run(&arguments),
        Command::Import(arguments) => import::run(&arguments, &database_settings()?).await,
        Command::User { command } => users::run(command, &database_settings()?).await,
        Command::Openapi => Ok(print(&docs::openapi::json()?)?),
    }
}

/// The environment, and `.env` in the working directory. Only there: a file further up belongs to something else.
fn settings() -> Result<Config, Box<dyn std::error::Error>> {
    Ok(Config::from_env(EnvFile::read(Path::new(".env"))?)?)
}

/// The same for commands that only work on the database.
fn database_settings() -> Result<Config, Box<dyn std::error::Error>> {
    Ok(Config::of_database(EnvFile::read(Path::new(".env"))?)?)
}

/// The same with another `DATABASE_URL`.
fn database_settings_with(url: &str) -> Result<Config, Box<dyn std::error::Error>> {
    Ok(Config::of_database_at(url, EnvFile::read(Path::new(".env"))?)?)
}

/// Writes a line to standard output.
fn print(line: &str) -> Result<(), OutputError> {
    ignore_closed_pipe(writeln!(io::stdout(), "{line}"))
}

/// Flushes standard output after a write. A reader that closes the pipe (`| head`) has seen enough: that is no failure.
fn ignore_closed_pipe(written: io::Result<()>) -> Result<(), OutputError> {
    match written.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(OutputError(error)),
        _ => Ok(()),
    }
}

const WITH_PG_DUMP: &str = "back it up with pg_dump";
const WITH_PG_RESTORE: &str =
    "restore it with pg_restore while the service is stopped, then run `todo-backend renew-epoch`";
const NO_FILE: &str = "DATABASE_URL names a temporary database: there is no file to work with";

/// The database file. `instead`: what is to be done with a database that is none.
fn database_file<'a>(config: &'a Config, instead: &str) -> Result<&'a Path, String> {
    match &config.database {
        Database::File(path) => Ok(path),
        Database::Temporary => Err(NO_FILE.to_owned()),
        Database::Postgres(_) => Err(format!("DATABASE_URL names a Postgres database: {instead}")),
    }
}

/// The file of a database that is to be created, if there is none; an error if it would be gone at the end.
fn missing_file(config: &Config) -> Result<Option<&Path>, String> {
    match &config.database {
        Database::File(path) => Ok(Some(&**path).filter(|path| !path.exists())),
        Database::Temporary => Err(NO_FILE.to_owned()),
        Database::Postgres(_) => Ok(None),
    }
}

/// Opens the store as it is: demo users are not created, and an older database is not upgraded.
fn open(config: &Config, instead: &str) -> Result<Store, Box<dyn std::error::Error>> {
    let options = Options {
        database: &config.database,
        clock: config.clock.clone(),
        demo_users: if config.debug { DemoUsers::Existing } else { DemoUsers::None },
        may_upgrade: false,
        retention: config.retention,
        max_todos: config.max_todos_per_user,
        metrics: Arc::new(Metrics::new()),
    };
    Store::open(options).map_err(|error| match error {
        DatabaseError::Locked { path } => {
            format!("the service is running on {}; stop it, or use {instead}", path.display()).into()
        }
        DatabaseError::Postgres { location, source: PostgresError::Taken } => {
            format!("the service is running on {location}; stop it, or use {instead}").into()
        }
        other => other.into(),
    })
}

/// What there is to be said if there is no database.
fn missing(path: &Path) -> String {
    format!("{}; check DATABASE_URL and the working directory", DatabaseError::Missing { path: path.to_owned() })
}

fn no_account(name: &str) -> String {
    format!("there is no account {name}; `todo-backend user list` shows all")
}

fn check(database: &Database) -> Result<(), Box<dyn std::error::Error>> {
    let (location, problems) = match database {
        Database::File(path) => (path.display().to_string(), maintenance::check(path)?),
        Database::Postgres(settings) => (settings.location(), check_postgres(settings)?),
        Database::Temporary => return Err(NO_FILE.into()),
    };
    for problem in &problems {
        print(problem)?;
    }
    if problems.is_empty() {
        Ok(print(&format!("{location} is good"))?)
    } else {
        Err(format!("{location} has {} problems", problems.len()).into())
    }
}

fn renew_epoch(database: &Database) -> Result<(), Box<dyn std::error::Error>> {
    match database {
        Database::Postgres(settings) => {
            let epoch = store::renew_epoch(settings)?;
            report(&format!("{} has the new epoch {epoch}; everybody has to log in again", settings.location()))
        }
        Database::File(_) | Database::Temporary => {
            Err("DATABASE_URL names no Postgres database: `todo-backend restore-backup` renews the epoch of a file"
                .into())
        }
    }
}

fn backup(path: &Path, target: &Path) -> Result<(), Box<dyn std::error::Error>> {
    maintenance::backup(path, target)?;
    report(&format!("the backup is in {}", target.display()))
}

fn restore(path: &Path, backup: &Path) -> Result<(), Box<dyn std::error::Error>> {
    match maintenance::restore(path, backup)? {
        Some(replaced) => {
            report(&format!("{} is restored; what was there is kept as {}", path.display(), replaced.display()))
        }
        None => report(&format!("{} is restored", path.display())),
    }
}

/// Shows how far something is that takes long.
fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// Reports what was done; also in the error when that can't be written.
fn report(line: &str) -> Result<(), Box<dyn std::error::Error>> {
    Ok(print(line).map_err(|error| format!("{line}, but {error}"))?)
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    logging::init(&config);
    let listener = TcpListener::bind((config.host.as_str(), config.port)).map_err(|source| {
        let address = authority(&config.host, config.port);
        StartError::Bind { address, source }
    })?;
    Ok(App::build(config, listener).await?.run().await?)
}
