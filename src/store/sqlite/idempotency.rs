//! The answers that are kept of requests that can be repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, params};

use super::rows::invalid;
use crate::domain::account::UserId;
use crate::store::decide::KeptAnswers;
use crate::store::idempotency::{Idempotency, Kept, KeptAnswer, Known};

/// Answers of one user, in bytes, at most; of more, the oldest are removed before their time.
const MAX_KEPT: u64 = 64 << 20;
/// What an answer takes besides its texts, in bytes: its row and its places in three indexes.
const ROW: u64 = 150;
/// Answers that are removed in one commit, at most: more than a group can add.
const MAX_PART: usize = 1000;
/// The same in bytes, but for the last one: freeing a large answer is work, too.
const MAX_PART_BYTES: u64 = 4 << 20;

/// How much of the disk an answer takes, about: the request is in an index, too.
fn size(request: &str, answer: &KeptAnswer) -> u64 {
    let headers: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    (answer.body.len() + headers + 2 * request.len()) as u64 + ROW
}

/// How much is kept of each user's answers, in bytes.
#[derive(Debug, Default)]
pub struct KeptSizes {
    of: HashMap<UserId, u64>,
    /// Of all users, for the metrics.
    total: Arc<AtomicU64>,
}

impl KeptSizes {
    /// What the database has.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut sizes = Self::default();
        let mut statement = connection.prepare("SELECT owner_id, sum(size) FROM idempotency GROUP BY owner_id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            sizes.add(row.get(0)?, row.get(1)?);
        }
        drop(rows);
        Ok(sizes)
    }

    /// The size of all, kept up to date.
    pub fn total(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.total)
    }

    /// Answers are kept from now on; whether that is more of a user than may be.
    pub fn added(&mut self, answers: &KeptAnswers) -> bool {
        answers.iter().fold(false, |excess, ((owner, request), kept)| {
            self.add(*owner, size(request, &kept.answer)) > MAX_KEPT || excess
        })
    }

    fn add(&mut self, owner: UserId, bytes: u64) -> u64 {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        let of = self.of.entry(owner).or_default();
        *of += bytes;
        *of
    }

    /// Answers were removed.
    pub fn removed(&mut self, removed: &[(UserId, u64)]) {
        for &(owner, bytes) in removed {
            if let Some(of) = self.of.get_mut(&owner) {
                let bytes = bytes.min(*of);
                *of -= bytes;
                self.total.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
        self.of.retain(|_, bytes| *bytes > 0);
    }

    /// Counts again what is kept of this user: a commit whose outcome is not known may have changed it.
    pub fn recount(&mut self, connection: &Connection, owner: UserId) -> rusqlite::Result<()> {
        let sql = "SELECT coalesce(sum(size), 0) FROM idempotency WHERE owner_id = ?1";
        let bytes = connection.query_row(sql, [owner], |row| row.get(0))?;
        self.total.fetch_sub(self.of.remove(&owner).unwrap_or_default(), Ordering::Relaxed);
        if bytes > 0 {
            self.add(owner, bytes);
        }
        Ok(())
    }

    /// A user of whom more is kept than may be, and how much more.
    pub fn excess(&self) -> Option<(UserId, u64)> {
        self.of.iter().find(|(_, bytes)| **bytes > MAX_KEPT).map(|(owner, bytes)| (*owner, bytes - MAX_KEPT))
    }
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

/// Removes some of the answers from before `uptime`; returns whose they were, and their sizes.
pub fn remove_older(transaction: &Transaction<'_>, uptime: i64) -> rusqlite::Result<Vec<(UserId, u64)>> {
    remove_part(transaction, "uptime < ?1 ORDER BY uptime", [uptime], MAX_PART_BYTES)
}

/// Removes some of the answers of a user, the oldest first; more than usual if so much is too much.
pub fn remove_oldest(
    transaction: &Transaction<'_>,
    owner: UserId,
    excess: u64,
) -> rusqlite::Result<Vec<(UserId, u64)>> {
    remove_part(transaction, "owner_id = ?1 ORDER BY id", [owner], excess.max(MAX_PART_BYTES))
}

fn remove_part(
    transaction: &Transaction<'_>,
    which: &str,
    of: impl Params,
    enough: u64,
) -> rusqlite::Result<Vec<(UserId, u64)>> {
    let sql = format!("SELECT id, owner_id, size FROM idempotency WHERE {which} LIMIT {MAX_PART}");
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
