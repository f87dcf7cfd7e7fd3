//! The database of a test, and what tests see and change behind the store's back, in SQL that both understand. For the
//! tests of the store and those in process.

#![allow(dead_code, reason = "each of them uses a part")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::config::{Config, Database};

/// A database that goes away with its test, or a connection to that of a service.
pub struct TestDatabase {
    setting: Database,
    /// Empty beside a service that has its own.
    url: String,
    kind: Kind,
}

enum Kind {
    /// A file, in a directory that goes away.
    Sqlite(PathBuf, Option<TempDir>),
    /// A schema that goes away, or another one's.
    Postgres(Session, Option<String>),
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
        let path = directory.path().join("todos.db");
        let url = format!("sqlite:{}", path.display());
        Self { setting: Database::File(path.clone()), url, kind: Kind::Sqlite(path, Some(directory)) }
    }

    /// Of the Postgres that TEST_POSTGRES names; there is nothing in it.
    pub fn postgres_of_tests() -> Self {
        Self::postgres(&std::env::var("TEST_POSTGRES").expect("bash tests/stack/with_postgres.sh -- cargo test …"))
    }

    fn postgres(url: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let schema = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let url = format!("{url}?options=-csearch_path%3D{schema}");
        let setting = Config::from_variables([("DATABASE_URL".to_owned(), url.clone())]).unwrap().database;
        let session = Session::open(&setting);
        session.run(session.client.batch_execute(&format!("CREATE SCHEMA {schema}")));
        Self { setting, url, kind: Kind::Postgres(session, Some(schema)) }
    }

    /// Beside a service with this setting, whose file is at `path`, if it has one.
    pub fn of_service(setting: &Database, path: Option<&Path>) -> Self {
        let kind = match path {
            Some(path) => Kind::Sqlite(path.to_owned(), None),
            None => Kind::Postgres(Session::open(setting), None),
        };
        Self { setting: setting.clone(), url: String::new(), kind }
    }

    /// `DATABASE_URL` of services on it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same as a setting.
    pub fn setting(&self) -> &Database {
        &self.setting
    }

    /// The file, if it is one.
    pub fn path(&self) -> PathBuf {
        match &self.kind {
            Kind::Sqlite(path, _) => path.clone(),
            Kind::Postgres(..) => panic!("this test is about a file"),
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
            Kind::Sqlite(..) => self.connection().execute_batch(sql).unwrap(),
            Kind::Postgres(session, _) => session.run(session.client.batch_execute(sql)),
        }
    }

    /// Values as text.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        match &self.kind {
            Kind::Sqlite(..) => {
                let connection = self.connection();
                let mut statement = connection.prepare(sql).unwrap();
                let columns = statement.column_count();
                let rows =
                    statement.query_map([], |row| (0..columns).map(|column| row.get(column).map(text)).collect());
                rows.unwrap().map(Result::unwrap).collect()
            }
            Kind::Postgres(session, _) => {
                // U+0000 and what it is written with (src/store/postgres/rows.rs).
                let read = |text: &str| text.replace("\u{ffff}0", "\0").replace("\u{ffff}1", "\u{ffff}");
                let row = |message| match message {
                    SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(read)).collect()),
                    _ => None,
                };
                session.run(session.client.simple_query(sql)).into_iter().filter_map(row).collect()
            }
        }
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.rows(sql)[0][0].as_ref().unwrap().parse().unwrap()
    }

    pub fn numbers(&self, sql: &str) -> Vec<i64> {
        self.rows(sql).iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect()
    }

    /// The delivery states of all changes, in commit order.
    pub fn states(&self) -> Vec<i64> {
        self.numbers(match &self.kind {
            Kind::Sqlite(..) => "SELECT state FROM changes ORDER BY seq",
            Kind::Postgres(..) => "SELECT coalesce(state, 1) FROM changes LEFT JOIN outbox USING (seq) ORDER BY seq",
        })
    }

    /// All changes in commit order: place, todo, version, owner, revision and delivery state.
    pub fn log(&self) -> Vec<[i64; 6]> {
        let rows = self.rows(match &self.kind {
            Kind::Sqlite(..) => "SELECT seq, todo_id, version, owner_id, revision, state FROM changes ORDER BY seq",
            Kind::Postgres(..) => {
                "SELECT seq, c.todo_id, c.version, c.owner_id, c.revision, coalesce(o.state, 1)
                 FROM changes AS c LEFT JOIN outbox AS o USING (seq) ORDER BY seq"
            }
        });
        let number = |value: Option<String>| value.unwrap().parse().unwrap();
        rows.into_iter().map(|row| <[_; 6]>::try_from(row).unwrap().map(number)).collect()
    }

    /// Gives changes a delivery state, also one that no version knows.
    pub fn set_state(&self, state: i64, which: &str) {
        match &self.kind {
            Kind::Sqlite(..) => self.execute(&format!("UPDATE changes SET state = {state} WHERE {which}")),
            Kind::Postgres(..) => {
                self.execute(&format!("DELETE FROM outbox WHERE {which}"));
                if state != 1 {
                    self.execute(&format!(
                        "INSERT INTO outbox (seq, todo_id, version, owner_id, revision, state)
                         SELECT seq, todo_id, version, owner_id, revision, {state} FROM changes WHERE {which}"
                    ));
                }
            }
        }
    }

    /// The next start is so much later, by the clock of retention.
    pub fn let_time_pass(&self, time: Duration) {
        let seconds = time.as_secs();
        self.execute(&match &self.kind {
            Kind::Sqlite(..) => format!("UPDATE meta SET uptime = uptime + {seconds}"),
            Kind::Postgres(..) => format!(
                "UPDATE meta SET uptime = greatest(uptime, extract(epoch FROM clock_timestamp())::bigint) + {seconds}"
            ),
        });
    }

    /// From now on, `action` (INSERT, UPDATE, DELETE) fails on a table, for rows that are so.
    pub fn break_table(&self, table: &str, action: &str, when: &str) {
        self.execute(&match &self.kind {
            Kind::Sqlite(..) => format!(
                "CREATE TRIGGER broken_{table}_{action} BEFORE {action} ON {table} WHEN {when}
                 BEGIN SELECT raise(ABORT, 'no'); END"
            ),
            Kind::Postgres(..) => format!(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'no'; END $$;
                 CREATE TRIGGER broken_{table}_{action} BEFORE {action} ON {table} FOR EACH ROW WHEN ({when})
                     EXECUTE FUNCTION refuse()"
            ),
        });
    }

    pub fn mend_table(&self, table: &str, action: &str) {
        let on = if matches!(self.kind, Kind::Sqlite(..)) { String::new() } else { format!(" ON {table}") };
        self.execute(&format!("DROP TRIGGER broken_{table}_{action}{on}"));
    }

    /// Keeps everybody else from writing, and nobody from reading.
    pub fn lock(&self) -> WriteLock<'_> {
        let connection = match &self.kind {
            Kind::Sqlite(..) => {
                let connection = self.connection();
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                Some(connection)
            }
            Kind::Postgres(..) => {
                // Whoever writes locks its row first.
                self.execute("BEGIN; LOCK TABLE meta IN EXCLUSIVE MODE");
                None
            }
        };
        WriteLock { database: self, _connection: connection }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.kind, Kind::Sqlite(..))
    }

    /// What is in its tables, as text.
    pub fn dump(&self) -> String {
        let tables: &[&str] = match &self.kind {
            Kind::Sqlite(..) => {
                &["* FROM users", "* FROM todos", "* FROM changes", "* FROM idempotency", "* FROM sqlite_sequence"]
            }
            Kind::Postgres(..) => &[
                "* FROM users",
                "* FROM todos",
                "* FROM changes ORDER BY seq",
                "* FROM outbox ORDER BY seq",
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
        if let Kind::Postgres(session, Some(schema)) = &self.kind {
            // Whatever is left goes with the server.
            let _ = session.try_run(session.client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")));
        }
    }
}

/// Keeps everybody else from writing until it is dropped.
pub struct WriteLock<'a> {
    database: &'a TestDatabase,
    /// It ends its transaction itself.
    _connection: Option<Connection>,
}

impl Drop for WriteLock<'_> {
    fn drop(&mut self) {
        if let Kind::Postgres(session, _) = &self.database.kind {
            let _ = session.try_run(session.client.batch_execute("ROLLBACK"));
        }
    }
}

/// A connection to Postgres. It works on other threads than the test's: a thread of an asynchronous runtime can't wait for
/// another one.
struct Session {
    runtime: Option<Runtime>,
    client: Client,
}

impl Session {
    fn open(setting: &Database) -> Self {
        let Database::Postgres(settings) = setting else { panic!("{setting:?} is no Postgres") };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = on_another_thread(&runtime, async {
            let (client, connection) = settings.connection().connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("SET client_min_messages = warning").await.unwrap();
            client
        });
        Self { runtime: Some(runtime), client }
    }

    fn try_run<T: Send, E: Send>(&self, work: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
        on_another_thread(self.runtime.as_ref().unwrap(), work)
    }

    fn run<T: Send, E: Send + std::fmt::Debug>(&self, work: impl Future<Output = Result<T, E>> + Send) -> T {
        self.try_run(work).unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn on_another_thread<T: Send>(runtime: &Runtime, work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join().unwrap())
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
