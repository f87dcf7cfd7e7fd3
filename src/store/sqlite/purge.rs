//! Purging: removes what has had its time, a little at a time: deleted todos that can't be restored any more, and answers
//! that are not repeated any more.

use std::time::{Duration, Instant};

use rusqlite::{Transaction, params};

use super::commit::{CommitError, in_transaction};
use super::writer::{TICK_INTERVAL, Writer, abort_unflushed};
use crate::domain::account::UserId;
use crate::store::decide::Decided;

/// The pause when nothing is left to remove; after a step that found more than it may, it is as long as the step took.
const ROUND_PAUSE: Duration = Duration::from_secs(60);
/// Todos, and answers, that are removed in one step, at most.
const MAX_PART: usize = 500;
/// How long an answer is kept, in seconds that the service runs.
const KEEP_ANSWERS: i64 = 24 * 60 * 60;

impl Writer {
    /// Removes the next part of what has had its time. Takes at most half of the time.
    pub(super) fn purge(&mut self) {
        let started = Instant::now();
        let todos = self.purge_trash();
        let answers = self.purge_answers();
        let pause = match (todos, answers) {
            (Some(todos), Some(answers)) if todos.max(answers) < MAX_PART => ROUND_PAUSE,
            (Some(_), Some(_)) => started.elapsed().max(Duration::from_millis(1)),
            _ => TICK_INTERVAL,
        };
        self.purge_due = Instant::now() + pause;
        self.checkpoint();
    }

    /// Returns how many were removed; `None`: it failed, which was logged.
    fn purge_trash(&mut self) -> Option<usize> {
        let keep = i64::try_from(self.retention.trash.as_secs()).unwrap_or(i64::MAX);
        let expired = self.shared.todos.read().expired_trash(self.uptime().saturating_sub(keep), MAX_PART);
        let count = expired.len();
        if count > 0 {
            let decided = Decided::only_purged(expired.into_iter().collect(), self.log.next);
            self.commit(decided, 0).ok()?;
        }
        Some(count)
    }

    fn purge_answers(&mut self) -> Option<usize> {
        let before = self.uptime().saturating_sub(KEEP_ANSWERS);
        let removed = in_transaction(&mut self.connection, |transaction| {
            let sql = "DELETE FROM idempotency WHERE id IN
                 (SELECT id FROM idempotency WHERE uptime < ?1 ORDER BY uptime LIMIT ?2)";
            transaction.prepare_cached(sql)?.execute(params![before, MAX_PART])
        });
        match removed {
            Ok(count) => Some(count),
            Err(CommitError::Fsync(error)) => abort_unflushed(&error),
            Err(CommitError::NotApplied(error) | CommitError::Unknown(error)) => {
                log::warn!("removing old answers failed and is tried again later: {error}");
                None
            }
        }
    }
}

/// Removes answers that are kept for this account, at most `limit`; returns how many.
pub fn remove_answers(transaction: &Transaction<'_>, owner: UserId, limit: usize) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency WHERE owner_id = ?1 LIMIT ?2)";
    transaction.prepare_cached(sql)?.execute(params![owner, limit])
}
