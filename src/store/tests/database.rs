//! The database of a test, and what tests see and change behind the store's back, in SQL that both understand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::config::{Config, Database};

/// A database that goes away with its test.
pub struct TestDatabase {
    setting: Database,
    kind: Kind,
}

enum Kind {
    Sqlite(tempfile::TempDir),
    /// A schema of its own.
    Postgres {
        runtime: Runtime,
        client: Client,
        schema: String,
    },
}

impl TestDatabase {
    /// Of the Postgres that TEST_POSTGRES names, or of SQLite.
    pub fn new() -> Self {
        match std::env::var("TEST_POSTGRES") {
            Ok(url) => Self::postgres(&url),
            Err(_) => Self::sqlite(),
        }
    }

    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { setting: Database::File(directory.path().join("todos.db")), kind: Kind::Sqlite(directory) }
    }

    fn postgres(url: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let schema = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            let set_up =
                format!("CREATE SCHEMA {schema}; SET search_path = {schema}; SET client_min_messages = warning");
            client.batch_execute(&set_up).await.unwrap();
            client
        });
        let url = format!("{url}?options=-csearch_path%3D{schema}");
        let setting = Config::from_variables([("DATABASE_URL".to_owned(), url)]).unwrap().database;
        Self { setting, kind: Kind::Postgres { runtime, client, schema } }
    }

    /// As `DATABASE_URL` has it.
    pub fn setting(&self) -> &Database {
        &self.setting
    }

    /// The file, if it is one.
    pub fn path(&self) -> PathBuf {
        match &self.kind {
            Kind::Sqlite(directory) => directory.path().join("todos.db"),
            Kind::Postgres { .. } => panic!("this test is about a file"),
        }
    }

    /// A connection of the test's own to SQLite.
    pub fn connection(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }

    pub fn execute(&self, sql: &str) {
        match &self.kind {
            Kind::Sqlite(_) => self.connection().execute_batch(sql).unwrap(),
            Kind::Postgres { runtime, client, .. } => runtime.block_on(client.batch_execute(sql)).unwrap(),
        }
    }

    /// Values as text.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        match &self.kind {
            Kind::Sqlite(_) => {
                let connection = self.connection();
                let mut statement = connection.prepare(sql).unwrap();
                let columns = statement.column_count();
                let rows =
                    statement.query_map([], |row| (0..columns).map(|column| row.get(column).map(text)).collect());
                rows.unwrap().map(Result::unwrap).collect()
            }
            Kind::Postgres { runtime, client, .. } => {
                let messages = runtime.block_on(client.simple_query(sql)).unwrap();
                let row = |message| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
                    }
                    _ => None,
                };
                messages.into_iter().filter_map(row).collect()
            }
        }
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.rows(sql)[0][0].as_ref().unwrap().parse().unwrap()
    }

    pub fn numbers(&self, sql: &str) -> Vec<i64> {
        self.rows(sql).iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect()
    }

    /// The place before the first change since the last start; on SQLite before all.
    pub fn first_place(&self) -> i64 {
        match &self.kind {
            Kind::Sqlite(_) => 0,
            Kind::Postgres { .. } => self.number("SELECT max(id)::bigint << 40 FROM streams"),
        }
    }

    /// The delivery states of all changes, in commit order.
    pub fn states(&self) -> Vec<i64> {
        self.numbers(match &self.kind {
            Kind::Sqlite(_) => "SELECT state FROM changes ORDER BY seq",
            Kind::Postgres { .. } => {
                "SELECT coalesce(state, 1) FROM changes LEFT JOIN outbox USING (stream, pos) ORDER BY stream, pos"
            }
        })
    }

    /// Gives changes a delivery state, also one that no version knows.
    pub fn set_state(&self, state: i64, which: &str) {
        match &self.kind {
            Kind::Sqlite(_) => self.execute(&format!("UPDATE changes SET state = {state} WHERE {which}")),
            Kind::Postgres { .. } => {
                self.execute(&format!("DELETE FROM outbox WHERE {which}"));
                if state != 1 {
                    self.execute(&format!(
                        "INSERT INTO outbox (stream, pos, todo_id, version, owner_id, revision, state)
                         SELECT stream, pos, todo_id, version, owner_id, revision, {state} FROM changes WHERE {which}"
                    ));
                }
            }
        }
    }

    /// The next start is so much later, by the clock of retention.
    pub fn let_time_pass(&self, time: Duration) {
        let seconds = time.as_secs();
        self.execute(&match &self.kind {
            Kind::Sqlite(_) => format!("UPDATE meta SET uptime = uptime + {seconds}"),
            Kind::Postgres { .. } => format!(
                "UPDATE meta SET uptime = greatest(uptime, extract(epoch FROM clock_timestamp())::bigint) + {seconds}"
            ),
        });
    }

    /// From now on, `action` (INSERT, UPDATE, DELETE) fails on a table, for rows that are so.
    pub fn break_table(&self, table: &str, action: &str, when: &str) {
        self.execute(&match &self.kind {
            Kind::Sqlite(_) => format!(
                "CREATE TRIGGER broken_{table}_{action} BEFORE {action} ON {table} WHEN {when}
                 BEGIN SELECT raise(ABORT, 'no'); END"
            ),
            Kind::Postgres { .. } => format!(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'no'; END $$;
                 CREATE TRIGGER broken_{table}_{action} BEFORE {action} ON {table} FOR EACH ROW WHEN ({when})
                     EXECUTE FUNCTION refuse()"
            ),
        });
    }

    pub fn mend_table(&self, table: &str, action: &str) {
        let on = if matches!(self.kind, Kind::Sqlite(_)) { String::new() } else { format!(" ON {table}") };
        self.execute(&format!("DROP TRIGGER broken_{table}_{action}{on}"));
    }

    /// The column of `changes` that numbers them.
    pub fn pos(&self) -> &'static str {
        if matches!(self.kind, Kind::Sqlite(_)) { "seq" } else { "pos" }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.kind, Kind::Sqlite(_))
    }

    /// What is in its tables, as text.
    pub fn dump(&self) -> String {
        let tables: &[&str] = match &self.kind {
            Kind::Sqlite(_) => {
                &["* FROM users", "* FROM todos", "* FROM changes", "* FROM idempotency", "* FROM sqlite_sequence"]
            }
            Kind::Postgres { .. } => &[
                "* FROM users",
                "* FROM todos",
                "* FROM changes ORDER BY stream, pos",
                "* FROM outbox ORDER BY stream, pos",
                "* FROM idempotency",
                "next_user, next_todo, next_session, next_personal_token FROM meta",
            ],
        };
        let tables = tables.iter().map(|table| {
            let order = if table.contains("ORDER BY") { "" } else { " ORDER BY 1" };
            format!("{table}: {:#?}", self.rows(&format!("SELECT {table}{order}")))
        });
        tables.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Kind::Postgres { runtime, client, schema } = &self.kind {
            // Whatever is left goes with the server.
            let _ = runtime.block_on(client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")));
        }
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) => Some(text),
        Value::Blob(bytes) => Some(format!("{bytes:?}")),
    }
}
