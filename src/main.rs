//! The binary; its commands are in `cli`.

use std::io::Write;
use std::process::ExitCode;

use todo_backend::cli;
use todo_backend::telemetry::logging;

#[actix_web::main]
async fn main() -> ExitCode {
    let ended = cli::run().await;
    logging::finish();
    match ended {
        Ok(status) => status,
        Err(error) => {
            // If this can't be written, the exit status still says it.
            let _ = writeln!(std::io::stderr(), "todo-backend: {error}");
            ExitCode::FAILURE
        }
    }
}
