//! The command line: `todo-backend [serve]`, and what operators and containers run.

use std::error::Error;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::app::App;
use crate::config::{Config, Database};
use crate::store::maintenance;
use crate::{docs, healthcheck, logging};

/// A Todo backend whose every change reaches Kafka through Dapr. Settings come from the environment and .env.
#[derive(Parser)]
#[command(name = "todo-backend", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service; what happens without a command
    Serve,
    /// Ask the service that runs with the same settings whether it is ready; for a container's HEALTHCHECK
    Healthcheck,
    /// Print the OpenAPI document
    Openapi,
    /// Check the database file and the rules of its log; works while the service runs
    Check,
    /// Copy the database, as it is at one moment, to FILE; works while the service runs
    Backup {
        /// The new file
        file: PathBuf,
    },
    /// Put a backup in the database's place, with a new epoch; the service must not run
    RestoreBackup {
        /// The backup
        file: PathBuf,
    },
}

/// Does what the command line asks. An error is one line that says what to do.
pub async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    match dotenvy::dotenv() {
        Err(problem) if !problem.not_found() => return Err(format!(".env can't be read: {problem}").into()),
        _ => {}
    }
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(Config::from_env()?).await,
        Command::Healthcheck => Ok(healthcheck::ask(&Config::from_env()?).await?),
        Command::Check => check(database(&Config::from_env()?)?),
        Command::Backup { file } => {
            maintenance::backup(database(&Config::from_env()?)?, &file)?;
            println!("the backup is in {}", file.display());
            Ok(())
        }
        Command::RestoreBackup { file } => restore(database(&Config::from_env()?)?, &file),
        Command::Openapi => {
            println!("{}", docs::openapi::json()?);
            Ok(())
        }
    }
}

fn database(config: &Config) -> Result<&Path, String> {
    match &config.database {
        Database::File(path) => Ok(path),
        Database::Temporary => Err("DATABASE_URL names a temporary database: there is no file to work on".to_owned()),
    }
}

fn check(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let problems = maintenance::check(path)?;
    for problem in &problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        println!("{} is good", path.display());
        Ok(())
    } else {
        Err(format!("{} has {} problems", path.display(), problems.len()).into())
    }
}

fn restore(path: &Path, backup: &Path) -> Result<(), Box<dyn std::error::Error>> {
    match maintenance::restore(path, backup)? {
        Some(replaced) => println!("{} is restored; what was there is kept as {}", path.display(), replaced.display()),
        None => println!("{} is restored", path.display()),
    }
    Ok(())
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    logging::init(&config);
    let listener = TcpListener::bind((config.host.as_str(), config.port)).map_err(|problem| {
        format!("cannot listen on {}:{}: {problem}; set HOST and PORT to a free address", config.host, config.port)
    })?;
    Ok(App::build(config, listener)?.run().await?)
}
