//! From SQLite to Postgres.
//!
//! A copy that is broken off leaves a mark ([`schema::UNFINISHED`]) with which no service starts, and is taken up where it was.

use std::path::Path;

use rusqlite::Connection;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::cell::Cell;
use super::file::{File, next};
use super::tables::{NUMBERED, TABLES, Table};
use super::{Counts, Pair, Progress, sum};
use crate::domain::change::Epoch;
use crate::store::error::DatabaseError;
use crate::store::postgres::backend::Session;
use crate::store::postgres::connection::Connector;
use crate::store::postgres::database::runtime;
use crate::store::postgres::error::PostgresError;
use crate::store::postgres::maintenance::{find_violations, set_epoch};
use crate::store::postgres::rows::get;
use crate::store::postgres::schema;
use crate::store::sqlite::database_file::DatabaseLock;
use crate::store::sqlite::load::{next as next_number, uptime};
use crate::store::sqlite::maintenance::{mark_moved, refuse_moved, whole};

/// Rows that are stored at once, but for those that belong together. Tests have few.
const BATCH: usize = if cfg!(test) { 3 } else { 5_000 };
/// What they take in memory, at most, in bytes, but for the last of them.
const BATCH_BYTES: usize = 8 << 20;

/// Copies the database at `path`, which no service uses, into an empty one, or goes on with that. In the end the file is marked, so
/// that no service goes on with it; a backup is not, but the copy of one has a new epoch, as after a restore.
pub fn to_postgres(
    path: &Path,
    is_backup: bool,
    connector: &Connector,
    progress: &mut dyn FnMut(Progress),
) -> Result<Counts, DatabaseError> {
    if !path.is_file() {
        return Err(DatabaseError::Missing { path: path.to_owned() });
    }
    let lock = DatabaseLock::take_if_there(path)?;
    let connection = whole(lock.path())?;
    let file = File { connection: &connection, path: lock.path() };
    let location = connector.location();
    runtime()?.block_on(async {
        let session = Session::alone(connector).await.map_err(DatabaseError::postgres(&location))?;
        let mut copy = Pair { file, client: &session.client, location: &location, shift: 0 };
        copy.shift = copy.begin(is_backup).await?;
        let counts = copy.fill(progress).await?;
        if is_backup {
            // What is later than the backup is gone, and sessions may have been ended by it.
            let renew = set_epoch(Epoch(rand::random()));
            copy.execute(&format!("BEGIN; {renew}; {}; COMMIT", schema::FINISHED)).await?;
        } else {
            mark_moved(lock.path(), &location)?;
            copy.execute(schema::FINISHED).await?;
        }
        Ok(counts)
    })
}

/// What tells a database from others, and from what it was before.
fn identity(connection: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT epoch || ' ' || uptime || coalesce((SELECT group_concat(' ' || name || ' ' || seq, '')
         FROM (SELECT * FROM sqlite_sequence ORDER BY name)), '') FROM meta";
    connection.query_row(sql, [], |row| row.get(0))
}

impl Pair<'_> {
    /// Copies what is not there yet.
    async fn fill(&self, progress: &mut dyn FnMut(Progress)) -> Result<Counts, DatabaseError> {
        let counts = self.file.count()?;
        let (all, mut done) = (sum(&counts), 0);
        for table in &TABLES {
            self.copy(table, &mut |rows| {
                done += rows;
                progress(Progress::Copied(done, all));
            })
            .await?;
        }
        self.finish_meta().await?;
        if let Some(difference) = self.find_difference(&counts, progress).await? {
            return Err(self.differs(difference));
        }
        if let Some(violation) = find_violations(self.client, None).await.map_err(self.failed())?.into_iter().next() {
            return Err(self.differs(violation));
        }
        // Else the server would guess for a while how to read what it has never looked at.
        self.execute(&format!("ANALYZE {}", TABLES.map(|table| table.name).join(", "))).await?;
        Ok(counts)
    }

    async fn execute(&self, sql: &str) -> Result<(), DatabaseError> {
        self.client.batch_execute(sql).await.map_err(self.refused())
    }

    /// Creates the schema and the mark, or finds them; returns what is added to times of running.
    async fn begin(&self, is_backup: bool) -> Result<i64, DatabaseError> {
        let unlimited = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0";
        self.execute(unlimited).await?;
        let version = schema::version(self.client).await.map_err(self.failed())?;
        if version > schema::VERSION {
            let database = self.location.to_owned();
            return Err(DatabaseError::NewerSchema { database, found: version, known: schema::VERSION });
        }
        if version > 0 && schema::is_unfinished(self.client).await.map_err(self.failed())? {
            schema::migrate(self.client, version).await.map_err(self.failed())?;
            let row = self.client.query_one("SELECT source, shift FROM unfinished_copy", &[]).await;
            let row = row.map_err(self.refused())?;
            let source: String = get(&row, 0).map_err(self.failed())?;
            if source != identity(self.file.connection).map_err(self.file.failed())? {
                return Err(DatabaseError::OtherCopy { database: self.location.to_owned() });
            }
            return get(&row, 1).map_err(self.failed());
        }
        if version > 0 {
            let sql = "SELECT EXISTS (SELECT 1 FROM users) OR EXISTS (SELECT 1 FROM changes) OR next_user > 1, epoch FROM meta";
            let row = self.client.query_one(sql, &[]).await.map_err(self.refused())?;
            if get(&row, 0).map_err(self.failed())? {
                let database = self.location.to_owned();
                let epoch: String = get(&row, 1).map_err(self.failed())?;
                let is_copy = epoch == self.file.epoch()?;
                return Err(if is_copy {
                    DatabaseError::Copied { database }
                } else {
                    DatabaseError::NotEmpty { database }
                });
            }
        }
        if !is_backup {
            // A second copy would begin where the first one did, under the same epoch.
            refuse_moved(self.file.path)?;
        }
        schema::migrate(self.client, version).await.map_err(self.failed())?;
        // The schema may be there without the mark: then nothing was copied yet.
        // By the epoch, a service that only seems to be stopped sees that it was left behind.
        let renew = set_epoch(Epoch(rand::random()));
        self.execute(&format!("BEGIN; {}; {renew}", schema::UNFINISHED)).await?;
        let sql = "INSERT INTO unfinished_copy (source, shift)
             VALUES ($1, extract(epoch FROM clock_timestamp())::bigint - $2::bigint) RETURNING shift";
        let identity = identity(self.file.connection).map_err(self.file.failed())?;
        let uptime = uptime(self.file.connection).map_err(self.file.failed())?;
        let row = self.client.query_one(sql, &[&identity, &uptime]).await;
        let shift = get(&row.map_err(self.refused())?, 0).map_err(self.failed())?;
        self.execute("COMMIT").await?;
        Ok(shift)
    }

    /// Copies the rows of a table that are not there yet; says for each batch how many rows it has.
    async fn copy(&self, table: &Table, copied: &mut dyn FnMut(u64)) -> Result<(), DatabaseError> {
        let Table { name, key, columns, .. } = table;
        let sql = format!("SELECT count(*), max({key}) FROM {name}");
        let there = self.client.query_one(&sql, &[]).await.map_err(self.refused())?;
        let rows: i64 = get(&there, 0).map_err(self.failed())?;
        copied(rows.unsigned_abs());
        let last: Option<i64> = get(&there, 1).map_err(self.failed())?;
        let types = self.client.prepare(&format!("SELECT {columns} FROM {name}")).await.map_err(self.refused())?;
        let types: Vec<Type> = types.columns().iter().map(|column| column.type_().clone()).collect();
        let copy = format!("COPY {name} ({columns}) FROM STDIN BINARY");
        let mut statement = self.file.rows(table, self.shift)?;
        let mut rows = statement.query([last.unwrap_or(i64::MIN)]).map_err(self.file.failed())?;
        let (mut batch, mut bytes): (Vec<Vec<Cell>>, usize) = (Vec::new(), 0);
        loop {
            let row = next(&mut rows, table).map_err(self.file.failed())?;
            let is_whole = match (&row, batch.last()) {
                (Some(row), Some(last)) => {
                    (batch.len() >= BATCH || bytes >= BATCH_BYTES) && row.first() != last.first()
                }
                (Some(_), None) => false,
                (None, _) => true,
            };
            if is_whole && !batch.is_empty() {
                self.store(&copy, &types, &batch).await.map_err(self.failed())?;
                copied(batch.len() as u64);
                batch.clear();
                bytes = 0;
            }
            match row {
                Some(row) => {
                    bytes += row.iter().map(Cell::size).sum::<usize>();
                    batch.push(row);
                }
                None => return Ok(()),
            }
        }
    }

    /// Stores rows, all of them or none.
    async fn store(&self, copy: &str, types: &[Type], rows: &[Vec<Cell>]) -> Result<(), PostgresError> {
        let writer = BinaryCopyInWriter::new(self.client.copy_in(copy).await?, types);
        let mut writer = std::pin::pin!(writer);
        for row in rows {
            let cells: Vec<&(dyn ToSql + Sync)> = row.iter().map(|cell| cell as _).collect();
            writer.as_mut().write(&cells).await?;
        }
        writer.finish().await?;
        Ok(())
    }

    /// What is no row: the epoch, and the ids that are not used yet.
    async fn finish_meta(&self) -> Result<(), DatabaseError> {
        let read = || {
            let connection = self.file.connection;
            let (epoch, production): (String, bool) =
                connection.query_row("SELECT epoch, production FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let [user, todo, session, personal_token, change] = NUMBERED.map(|table| next_number(connection, table));
            Ok((epoch, production, [user?, todo?, session?, personal_token?, change?]))
        };
        let (epoch, production, [user, todo, session, personal_token, change]) = read().map_err(self.file.failed())?;
        let sql = "UPDATE meta SET epoch = $1, production = $2, next_user = $3, next_todo = $4, next_session = $5,
             next_personal_token = $6, head = $7::bigint - 1";
        let meta =
            self.client.execute(sql, &[&epoch, &production, &user, &todo, &session, &personal_token, &change]).await;
        meta.map_err(self.refused())?;
        // An identity column goes on after what was copied.
        let sql =
            "SELECT setval(pg_get_serial_sequence('idempotency', 'id'), max(id)) FROM idempotency HAVING max(id) > 0";
        self.client.execute(sql, &[]).await.map_err(self.refused()).map(drop)
    }

    fn differs(&self, violation: String) -> DatabaseError {
        DatabaseError::DifferentCopy { database: self.location.to_owned(), violation }
    }
}
