//! The command line: `todo-backend [serve]`, and commands for operators and containers.

mod healthcheck;
mod import;
mod users;

use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use thiserror::Error;

use crate::api::docs;
use crate::app::{App, StartError};
use crate::config::env_file::EnvFile;
use crate::config::{Config, Database, authority};
use crate::store::error::DatabaseError;
use crate::store::{DemoUsers, Options, Store, maintenance};
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
    /// Check the database file and the rules of its log; works while the service runs
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
        Command::Check => check(database(&database_settings()?)?),
        Command::Backup { file } => backup(database(&database_settings()?)?, &file),
        Command::RestoreBackup { file } => restore(database(&database_settings()?)?, &file),
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

fn database(config: &Config) -> Result<&Path, String> {
    match &config.database {
        Database::File(path) => Ok(path),
        Database::Temporary => Err("DATABASE_URL names a temporary database: there is no file to work with".to_owned()),
        Database::Postgres(_) => {
            Err("DATABASE_URL names a Postgres database: there is no file to work with".to_owned())
        }
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

fn check(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let problems = maintenance::check(path)?;
    for problem in &problems {
        print(problem)?;
    }
    if problems.is_empty() {
        Ok(print(&format!("{} is good", path.display()))?)
    } else {
        Err(format!("{} has {} problems", path.display(), problems.len()).into())
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
