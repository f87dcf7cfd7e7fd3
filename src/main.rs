//! `todo-backend`: the command line, settings, logging, build, run.

use std::net::TcpListener;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use todo_backend::app::App;
use todo_backend::config::Config;
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
        Command::Openapi => {
            println!("{}", docs::openapi::json()?);
            Ok(())
        }
    }
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    logging::init(&config);
    let listener = TcpListener::bind((config.host.as_str(), config.port)).map_err(|problem| {
        format!("cannot listen on {}:{}: {problem}; set HOST and PORT to a free address", config.host, config.port)
    })?;
    Ok(App::build(config, listener)?.run().await?)
}
