//! `todo-backend`: the command line, settings, logging, build, run.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use todo_backend::app::App;
use todo_backend::config::{Config, Database};
use todo_backend::store::maintenance;
use todo_backend::{docs, healthcheck, logging};

/// A Todo backend whose every change reaches Kafka through Dapr. Settings come from the environment and .env.
#[derive(Parser)]
#[command(version)]
struct Arguments {
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

#[actix_web::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command.unwrap_or(Command::Serve)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("todo-backend: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match dotenvy::dotenv() {
        Err(problem) if !problem.not_found() => return Err(format!(".env can't be read: {problem}").into()),
        _ => {}
    }
    match command {
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
