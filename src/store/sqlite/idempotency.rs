//! The answers that are kept of requests that can be repeated.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, params};

use super::commit::in_transaction;
use super::rows::invalid;
use crate::domain::account::UserId;
use crate::store::backend::{Answers, CommitError, MAX_ANSWERS};
use crate::store::decide::KeptAnswers;
use crate::store::idempotency::{Idempotency, Kept, KeptAnswer, Known};
use crate::store::writer::kept_sizes::size;

/// How much is kept of each user's answers, in bytes.
pub fn sizes(connection: &Connection) -> rusqlite::Result<Vec<(UserId, u64)>> {
    let mut statement = connection.prepare("SELECT owner_id, sum(size) FROM idempotency GROUP BY owner_id")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// How much is kept of the answers of a user, in bytes.
pub fn size_of(connection: &Connection, owner: UserId) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(sum(size), 0) FROM idempotency WHERE owner_id = ?1";
    connection.query_row(sql, [owner], |row| row.get(0))
}

/// What the database has of a request that can be repeated. Reads the body only if it is to be repeated.
pub fn find(connection: &Connection, owner: UserId, request: &Idempotency) -> rusqlite::Result<Option<Known>> {
    let sql = "SELECT fingerprint = ?3, status, headers, CASE WHEN fingerprint = ?3 THEN body END
         FROM idempotency WHERE owner_id = ?1 AND request = ?2";
    let parameters = params![owner, request.request, request.fingerprint];
    connection.prepare_cached(sql)?.query_row(parameters, known).optional()
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    if !row.get(0)? {
        return Ok(Known::Other);
    }
    let headers: String = row.get(2)?;
    let headers = serde_json::from_str(&headers).map_err(|_| invalid("idempotency.headers"))?;
    Ok(Known::Answered(Arc::new(KeptAnswer { status: row.get(1)?, headers, body: row.get(3)? })))
}

/// Keeps answers.
pub fn write(transaction: &Transaction<'_>, answers: &KeptAnswers, uptime: i64) -> rusqlite::Result<()> {
    let mut keep = transaction.prepare_cached(
        "INSERT INTO idempotency (owner_id, request, fingerprint, status, headers, body, size, uptime)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for ((owner, request), Kept { fingerprint, answer }) in answers {
        let headers = serde_json::to_string(&answer.headers)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let size = size(request, answer);
        keep.execute(params![owner, request, fingerprint, answer.status, headers, answer.body, size, uptime])?;
    }
    Ok(())
}

/// Whether the answer to a request is kept.
pub fn is_kept(connection: &Connection, owner: UserId, request: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM idempotency WHERE owner_id = ?1 AND request = ?2)";
    connection.query_row(sql, params![owner, request], |row| row.get(0))
}

/// Removes some answers; returns whose they were, and their sizes.
pub fn remove(connection: &mut Connection, which: Answers) -> Result<Vec<(UserId, u64)>, CommitError> {
    let enough = which.enough();
    in_transaction(connection, |transaction| match which {
        Answers::Before(uptime) => remove_part(transaction, "uptime < ?1 ORDER BY uptime", [uptime], enough),
        Answers::Of(owner, _) => remove_part(transaction, "owner_id = ?1 ORDER BY id", [owner], enough),
    })
}

fn remove_part(
    transaction: &Transaction<'_>,
    which: &str,
    of: impl Params,
    enough: u64,
) -> rusqlite::Result<Vec<(UserId, u64)>> {
    let sql = format!("SELECT id, owner_id, size FROM idempotency WHERE {which} LIMIT {MAX_ANSWERS}");
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query(of)?;
    let (mut ids, mut removed, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(row) = rows.next()? {
        ids.push(row.get::<_, i64>(0)?);
        removed.push((row.get(1)?, row.get(2)?));
        bytes += row.get::<_, u64>(2)?;
        if bytes >= enough {
            break;
        }
    }
    drop(rows);
    let mut remove = transaction.prepare_cached("DELETE FROM idempotency WHERE id = ?1")?;
    ids.into_iter().try_for_each(|id| remove.execute([id]).map(drop))?;
    Ok(removed)
}
