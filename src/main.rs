//! `todo-backend`: see `cli` for what it can be asked to do.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use todo_backend::cli::{Arguments, run};
use todo_backend::logging;

#[actix_web::main]
async fn main() -> ExitCode {
    let ended = run(Arguments::parse()).await;
    logging::finish();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Where nobody can be told, the status says it.
            let _ = writeln!(std::io::stderr(), "todo-backend: {problem}");
            ExitCode::FAILURE
        }
    }
}
