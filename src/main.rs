//! `todo-backend`: see `cli` for what it can be asked to do.

use std::process::ExitCode;

use clap::Parser;
use todo_backend::cli::{Arguments, run};

#[actix_web::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("todo-backend: {problem}");
            ExitCode::FAILURE
        }
    }
}
