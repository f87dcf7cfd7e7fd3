//! From Postgres to SQLite: the way back. The new file has its name only when it is whole; what is broken off begins again.

use std::path::Path;

use deadpool_postgres::ClientWrapper;
use futures_util::TryStreamExt;
use rusqlite::types::Value;
use rusqlite::{Transaction, params, params_from_iter};

use super::cell::Cell;
use super::file::File;
use super::tables::{NUMBERED, TABLES, TEXTS, Table};
use super::{Counts, Pair, Progress, cells, counted, rows};
use crate::store::error::DatabaseError;
use crate::store::postgres::backend::Session;
use crate::store::postgres::connection::Connector;
use crate::store::postgres::database::runtime;
use crate::store::postgres::error::PostgresError;
use crate::store::postgres::maintenance::{refuse_bad, refuse_moved};
use crate::store::postgres::rows::{get, unescaped};
use crate::store::postgres::schema::mark_moved;
use crate::store::sqlite::maintenance::create;

/// Copies a Postgres database, which no service uses, to a new file. In the end the database is marked, so that no service goes on
/// with it.
pub fn to_sqlite(
    connector: &Connector,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Counts, DatabaseError> {
    let location = connector.location();
    let failed = DatabaseError::postgres(&location);
    let runtime = runtime()?;
    let session = runtime.block_on(async {
        let session = Session::alone(connector).await.map_err(&failed)?;
        refuse_moved(&session.client, &location).await?;
        refuse_bad(&session.client, &location).await?;
        Ok(session)
    })?;
    let client = &session.client;
    let counts = create(path, |connection, partial| {
        // Seconds since 1970 are as good as seconds of running: they go on from there.
        let copy = Pair { file: File { connection, path: partial }, client, location: &location, shift: 0 };
        runtime.block_on(copy.write(progress))
    })?;
    runtime.block_on(mark_moved(client, &path.display().to_string())).map_err(&failed)?;
    Ok(counts)
}

impl Pair<'_> {
    async fn write(&self, progress: &mut dyn FnMut(Progress)) -> Result<Counts, DatabaseError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0;
             SET LOCAL idle_in_transaction_session_timeout = 0";
        self.client.batch_execute(begin).await.map_err(self.refused())?;
        let counts = count(self.client).await.map_err(self.failed())?;
        let mut written = counted(&counts, |done, all| progress(Progress::Copied(done, all)));
        let transaction = self.file.connection.unchecked_transaction().map_err(self.file.failed())?;
        for table in &TABLES {
            self.write_table(table, &transaction, &mut written).await?;
        }
        drop(written);
        self.write_meta(&transaction).await?;
        transaction.commit().map_err(self.file.failed())?;
        let difference = self.find_difference(&counts, progress).await?;
        self.client.batch_execute("COMMIT").await.map_err(self.refused())?;
        match difference {
            Some(violation) => Err(DatabaseError::BadCopy { path: self.file.path.to_owned(), violation }),
            None => Ok(counts),
        }
    }

    async fn write_table(
        &self,
        table: &Table,
        transaction: &Transaction<'_>,
        written: &mut dyn FnMut(),
    ) -> Result<(), DatabaseError> {
        let places = vec!["?"; table.names().count()].join(", ");
        let Table { name, columns, .. } = table;
        let sql = match *name {
            "outbox" => {
                "UPDATE changes SET state = ?6 WHERE (seq, todo_id, version, owner_id, revision) = (?1, ?2, ?3, ?4, ?5)"
            }
            "changes" => &format!("INSERT INTO changes ({columns}, state) VALUES ({places}, 1)"),
            _ => &format!("INSERT INTO {name} ({columns}) VALUES ({places})"),
        };
        let mut statement = transaction.prepare(sql).map_err(self.file.failed())?;
        let rows = rows(self.client, table).await.map_err(self.failed())?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(self.refused())? {
            let row = cells(&row).map_err(self.failed())?;
            let row = table.names().zip(row).map(|(name, Cell(value))| match value {
                Value::Text(text) if TEXTS.contains(&name) => Value::Text(unescaped(&text).into_owned()),
                value => value,
            });
            statement.execute(params_from_iter(row)).map_err(self.file.failed())?;
            written();
        }
        Ok(())
    }

    /// What is no row: the epoch, the time, and the ids that were used.
    async fn write_meta(&self, transaction: &Transaction<'_>) -> Result<(), DatabaseError> {
        let sql = "SELECT epoch, production,
                 greatest(uptime, extract(epoch FROM clock_timestamp())::bigint, (SELECT max(uptime) FROM changes)),
                 next_user - 1, next_todo - 1, next_session - 1, next_personal_token - 1, head FROM meta";
        let meta = self.client.query_one(sql, &[]).await.map_err(self.refused())?;
        let meta = cells(&meta).map_err(self.failed())?;
        let [epoch, production, uptime, last @ ..] = &meta[..] else { return Ok(()) };
        let write = || {
            let sql = "UPDATE meta SET epoch = ?1, production = ?2, uptime = ?3";
            transaction.execute(sql, params![epoch.0, production.0, uptime.0])?;
            for (table, Cell(last)) in NUMBERED.iter().zip(last) {
                transaction.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [table])?;
                transaction.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![table, last])?;
            }
            Ok(())
        };
        write().map_err(self.file.failed())
    }
}

async fn count(client: &ClientWrapper) -> Result<Counts, PostgresError> {
    let mut counts = Vec::new();
    for Table { name, .. } in &TABLES {
        let row = client.query_one(&format!("SELECT count(*) FROM {name}"), &[]).await?;
        counts.push((*name, get::<i64>(&row, 0)?.unsigned_abs()));
    }
    Ok(counts)
}
