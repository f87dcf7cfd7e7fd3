//! An SQLite database that is copied, or a copy.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Rows, Statement};

use super::Counts;
use super::cell::Cell;
use super::tables::{TABLES, TEXTS, Table, UPTIMES};
use crate::store::error::DatabaseError;
use crate::store::postgres::rows::escaped;

/// The database.
#[derive(Clone, Copy)]
pub struct File<'a> {
    pub connection: &'a Connection,
    pub path: &'a Path,
}

impl<'a> File<'a> {
    /// How many rows there are in each table.
    pub fn count(&self) -> Result<Counts, DatabaseError> {
        let count = |table: &Table| {
            let sql = format!("SELECT count(*) FROM {}", table.source);
            Ok((table.name, self.connection.query_row(&sql, [], |row| row.get(0))?))
        };
        TABLES.iter().map(count).collect::<rusqlite::Result<_>>().map_err(self.failed())
    }

    /// A statement for the rows of a table after a key, as Postgres has them.
    pub fn rows(&self, table: &Table, shift: i64) -> Result<Statement<'a>, DatabaseError> {
        let columns: Vec<String> = table
            .names()
            .map(|name| if UPTIMES.contains(&name) { format!("{name} + {shift}") } else { name.to_owned() })
            .collect();
        let Table { source, key, .. } = table;
        let then = table.then.map(|column| format!(", {column}")).unwrap_or_default();
        let sql = format!("SELECT {} FROM {source} WHERE {key} > ?1 ORDER BY {key}{then}", columns.join(", "));
        self.connection.prepare(&sql).map_err(self.failed())
    }

    pub fn epoch(&self) -> Result<String, DatabaseError> {
        self.connection.query_row("SELECT epoch FROM meta", [], |row| row.get(0)).map_err(self.failed())
    }

    /// For `map_err`: an error with this database.
    pub fn failed(&self) -> impl Fn(rusqlite::Error) -> DatabaseError + use<> {
        DatabaseError::sqlite(self.path.to_owned())
    }
}

/// The next row, as Postgres has it.
pub fn next(rows: &mut Rows<'_>, table: &Table) -> rusqlite::Result<Option<Vec<Cell>>> {
    let cell = |row: &Row<'_>, index: usize, name| {
        row.get(index).map(|value| match value {
            Value::Text(text) if TEXTS.contains(&name) => Cell(Value::Text(escaped(&text).into_owned())),
            value => Cell(value),
        })
    };
    let Some(row) = rows.next()? else { return Ok(None) };
    table.names().enumerate().map(|(index, name)| cell(row, index, name)).collect::<rusqlite::Result<_>>().map(Some)
}
