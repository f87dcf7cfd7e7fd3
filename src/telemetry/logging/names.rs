//! Names of loggers. They are part of the service's contract (docs/operations.md lists them): operators' filters and
//! alerts refer to them, and readers of the original's log expect them. A module that moves keeps its logger's name
//! here.

use std::borrow::Cow;

/// Modules whose loggers are not named after their paths. Modules inside them follow.
const NAMES: [(&str, &str); 25] = [
    ("todo_backend::api::access_log", "todo_backend::access_log"),
    ("todo_backend::api::admin::events", "todo_backend::events::admin"),
    ("todo_backend::api::audit", "todo_backend::auth::audit"),
    ("todo_backend::api::client", "todo_backend::client"),
    ("todo_backend::api::dapr", "todo_backend::events::subscription"),
    ("todo_backend::api::docs", "todo_backend::docs"),
    ("todo_backend::api::error", "todo_backend::error"),
    ("todo_backend::api::metrics", "todo_backend::health"),
    ("todo_backend::api::sync", "todo_backend::sync"),
    ("todo_backend::api::todos", "todo_backend::todos::routes"),
    ("todo_backend::api::user", "todo_backend::auth::user"),
    ("todo_backend::app::first_admin", "todo_backend::auth::accounts"),
    ("todo_backend::store::abort", "todo_backend::store::writer"),
    ("todo_backend::store::postgres::backend", "todo_backend::store::writer"),
    ("todo_backend::store::postgres::connection", "todo_backend::store"),
    ("todo_backend::store::postgres::database", "todo_backend::store"),
    ("todo_backend::store::postgres::polls", "todo_backend::store"),
    ("todo_backend::store::sqlite::backend", "todo_backend::store::writer"),
    ("todo_backend::store::sqlite::database", "todo_backend::store"),
    ("todo_backend::store::writer::admin", "todo_backend::store::writer"),
    ("todo_backend::store::writer::erase", "todo_backend::store::writer"),
    ("todo_backend::store::writer::expire", "todo_backend::store::writer"),
    ("todo_backend::store::writer::retention", "todo_backend::store::writer"),
    ("todo_backend::store::writer::upkeep", "todo_backend::store::writer"),
    ("todo_backend::telemetry::logging", "todo_backend::logging"),
];

/// The logger that a module's lines belong to. `RUST_LOG` filters by it; lines show it without `todo_backend::`.
pub fn logger(module: &str) -> Cow<'_, str> {
    for (path, name) in NAMES {
        match module.strip_prefix(path) {
            Some("") => return Cow::Borrowed(name),
            Some(inside) if inside.starts_with("::") => return Cow::Owned(format!("{name}{inside}")),
            _ => {}
        }
    }
    Cow::Borrowed(module)
}

#[cfg(test)]
mod tests {
    use super::logger;

    #[test]
    fn a_module_that_moves_keeps_its_loggers_name() {
        for (module, name) in [
            ("todo_backend::api::todos", "todo_backend::todos::routes"),
            ("todo_backend::api::metrics", "todo_backend::health"),
            ("todo_backend::api::docs::openapi", "todo_backend::docs::openapi"),
            ("todo_backend::api::todos_of_others", "todo_backend::api::todos_of_others"),
            ("todo_backend::events::relay", "todo_backend::events::relay"),
            ("actix_server::worker", "actix_server::worker"),
        ] {
            assert_eq!(logger(module), name);
        }
    }
}
