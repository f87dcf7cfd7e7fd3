//! The answers that are kept of requests that can be repeated.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::rows::invalid;
use crate::domain::account::UserId;
use crate::store::decide::KeptAnswers;
use crate::store::idempotency::{Kept, KeptAnswer};

/// The answer to a request, if it is kept.
pub fn read(connection: &Connection, owner: UserId, request: &str) -> rusqlite::Result<Option<Kept>> {
    let sql = "SELECT fingerprint, status, headers, body FROM idempotency WHERE owner_id = ?1 AND request = ?2";
    connection.prepare_cached(sql)?.query_row(params![owner, request], kept).optional()
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let headers: String = row.get("headers")?;
    let answer = KeptAnswer {
        status: row.get("status")?,
        headers: serde_json::from_str(&headers).map_err(|_| invalid("idempotency.headers"))?,
        body: row.get("body")?,
    };
    Ok(Kept { fingerprint: row.get("fingerprint")?, answer: Arc::new(answer) })
}

/// Keeps answers.
pub fn write(transaction: &Transaction<'_>, answers: &KeptAnswers, uptime: i64) -> rusqlite::Result<()> {
    let mut keep = transaction.prepare_cached(
        "INSERT INTO idempotency (owner_id, request, fingerprint, status, headers, body, uptime)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for ((owner, request), Kept { fingerprint, answer }) in answers {
        let headers = serde_json::to_string(&answer.headers).map_err(|error| {
            // It can't fail: it is a list of strings.
            rusqlite::Error::ToSqlConversionFailure(error.into())
        })?;
        keep.execute(params![owner, request, fingerprint, answer.status, headers, answer.body, uptime])?;
    }
    Ok(())
}
