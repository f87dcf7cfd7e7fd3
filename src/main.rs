//! `todo-backend`: settings, logging, build, run.

use std::net::TcpListener;
use std::process::ExitCode;

use todo_backend::app::App;
use todo_backend::config::Config;
use todo_backend::logging;

#[actix_web::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("todo-backend: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    match dotenvy::dotenv() {
        Err(problem) if !problem.not_found() => return Err(format!(".env can't be read: {problem}").into()),
        _ => {}
    }
    let config = Config::from_env()?;
    logging::init(&config);
    let listener = TcpListener::bind((config.host.as_str(), config.port)).map_err(|problem| {
        format!("cannot listen on {}:{}: {problem}; set HOST and PORT to a free address", config.host, config.port)
    })?;
    Ok(App::build(config, listener)?.run().await?)
}
