//! Copies a database from SQLite to Postgres or back, row by row and as it is: ids, revisions and the epoch stay, so that
//! tokens, sessions and what clients know of the log go on being right, and what was not published yet will be.
//!
//! In the end every row is read from both and compared.

mod cell;
mod file;
pub(super) mod tables;
mod to_postgres;
mod to_sqlite;

use deadpool_postgres::ClientWrapper;
use futures_util::TryStreamExt;
use rusqlite::types::Value;
use tokio_postgres::RowStream;
use tokio_postgres::types::ToSql;

use self::cell::Cell;
use self::file::{File, next};
use self::tables::{TABLES, Table};
use super::error::DatabaseError;
use super::postgres::error::PostgresError;
use super::postgres::rows::get;
pub use to_postgres::to_postgres;
pub use to_sqlite::to_sqlite;

/// What is being done, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many rows of so many are copied.
    Copied(u64, u64),
    /// So many rows of so many are compared.
    Compared(u64, u64),
}

/// How many rows a copy has: the name of each table, and its rows.
pub type Counts = Vec<(&'static str, u64)>;

fn sum(counts: &Counts) -> u64 {
    counts.iter().map(|(_, rows)| rows).sum()
}

/// What is called for each row, and shows how far that is after every thousand and in the end.
fn counted(counts: &Counts, mut show: impl FnMut(u64, u64)) -> impl FnMut() {
    let (all, mut done) = (sum(counts), 0);
    move || {
        done += 1;
        if done % 1_000 == 0 || done == all {
            show(done, all);
        }
    }
}

/// Both databases.
struct Pair<'a> {
    file: File<'a>,
    client: &'a ClientWrapper,
    /// Where Postgres is, for people.
    location: &'a str,
    /// What is added to a time of running in the file.
    shift: i64,
}

impl Pair<'_> {
    /// Looks for the first row that is not the same in both.
    async fn find_difference(
        &self,
        counts: &Counts,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<String>, DatabaseError> {
        let mut compared = counted(counts, |done, all| progress(Progress::Compared(done, all)));
        for table in &TABLES {
            if let Some(difference) = self.find_difference_of(table, &mut compared).await? {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    }

    async fn find_difference_of(
        &self,
        table: &Table,
        compared: &mut dyn FnMut(),
    ) -> Result<Option<String>, DatabaseError> {
        let on_postgres = rows(self.client, table).await.map_err(self.failed())?;
        let mut on_postgres = std::pin::pin!(on_postgres);
        let mut in_file = self.file.rows(table, self.shift)?;
        let mut in_file = in_file.query([i64::MIN]).map_err(self.file.failed())?;
        loop {
            let here = next(&mut in_file, table).map_err(self.file.failed())?;
            let there = on_postgres.try_next().await.map_err(self.refused())?;
            let there = there.as_ref().map(cells).transpose().map_err(self.failed())?;
            match (here, there) {
                (None, None) => return Ok(None),
                (here, there) if here == there => compared(),
                (here, there) => {
                    let key = match here.or(there).as_deref() {
                        Some([Cell(Value::Integer(key)), ..]) => key.to_string(),
                        _ => "unknown".to_owned(),
                    };
                    let Table { name, key: column, .. } = table;
                    return Ok(Some(format!("the row of {name} whose {column} is {key}")));
                }
            }
        }
    }

    fn failed(&self) -> impl Fn(PostgresError) -> DatabaseError + use<> {
        DatabaseError::postgres(self.location)
    }

    fn refused(&self) -> impl Fn(tokio_postgres::Error) -> DatabaseError + use<> {
        let failed = self.failed();
        move |error| failed(error.into())
    }
}

/// All rows of a table on Postgres, in its order.
async fn rows(client: &ClientWrapper, table: &Table) -> Result<RowStream, PostgresError> {
    let Table { name, key, columns, .. } = table;
    let then = table.then.map(|column| format!(", {column} COLLATE \"C\"")).unwrap_or_default();
    let sql = format!("SELECT {columns} FROM {name} ORDER BY {key}{then}");
    Ok(client.query_raw(&sql, std::iter::empty::<&(dyn ToSql + Sync)>()).await?)
}

fn cells(row: &tokio_postgres::Row) -> Result<Vec<Cell>, PostgresError> {
    (0..row.len()).map(|index| get(row, index)).collect()
}
