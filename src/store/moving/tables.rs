//! What is copied: tables that have the same columns in both databases.

/// A table.
pub struct Table {
    /// Its name on Postgres.
    pub name: &'static str,
    /// What SQLite reads it from.
    pub source: &'static str,
    /// Rows come in its order. All rows with the same one are copied at once, so that a copy that was broken off goes on after
    /// the greatest one.
    pub key: &'static str,
    /// A text that orders rows with the same key.
    pub then: Option<&'static str>,
    /// All columns, separated by commas, in the order in which they are copied; the key is the first.
    pub columns: &'static str,
}

/// Columns with seconds that the service had run on SQLite; on Postgres they are seconds since 1970.
pub const UPTIMES: [&str; 2] = ["uptime", "deleted_uptime"];
/// Columns with texts of users, in which Postgres can't store everything.
pub const TEXTS: [&str; 3] = ["title", "description", "name"];

/// Tables whose rows have numbers that are never given twice.
pub const NUMBERED: [&str; 5] = ["users", "todos", "sessions", "personal_tokens", "changes"];

/// All tables but those about running processes, of which there are none.
pub const TABLES: [Table; 8] = [
    Table {
        name: "users",
        source: "users",
        key: "id",
        then: None,
        columns: "id, username, password_hash, role, demo, created_at, revision, last_at, floor, state, token_epoch, \
                  deleted_by, erased",
    },
    Table {
        name: "sessions",
        source: "sessions",
        key: "id",
        then: None,
        columns: "id, user_id, created_at, user_agent, key, latest, rotated_at, repeats",
    },
    Table {
        name: "personal_tokens",
        source: "personal_tokens",
        key: "id",
        then: None,
        columns: "id, user_id, name, scope, hash, created_at, expires_at, used_at",
    },
    Table {
        name: "login_networks",
        source: "login_networks",
        key: "user_id",
        then: Some("network"),
        columns: "user_id, network, used_at",
    },
    Table {
        name: "todos",
        source: "todos",
        key: "id",
        then: None,
        columns: "id, owner_id, version, title, description, completed, created_at, updated_at, due_at, priority, tags, \
                  sort_order, field_versions, deleted_uptime",
    },
    Table {
        name: "changes",
        source: "changes",
        key: "seq",
        then: None,
        columns: "seq, owner_id, revision, todo_id, version, kind, at, actor, changed, trace, title, description, \
                  completed, created_at, updated_at, due_at, priority, tags, sort_order, field_versions, uptime, \
                  scrubbed, batch, op, before",
    },
    Table {
        name: "outbox",
        // 1: published.
        source: "(SELECT * FROM changes WHERE state <> 1)",
        key: "seq",
        then: None,
        columns: "seq, todo_id, version, owner_id, revision, state",
    },
    Table {
        name: "idempotency",
        source: "idempotency",
        key: "id",
        then: None,
        columns: "id, owner_id, request, fingerprint, status, headers, body, size, uptime",
    },
];

impl Table {
    /// The names of the columns.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.columns.split(", ")
    }
}
