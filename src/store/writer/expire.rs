//! Expiry: removes what has had its time, a little at a time: deleted todos that can't be restored any more, and answers
//! that are not repeated any more.

use std::time::{Duration, Instant};

use super::retention::KEEP_ANY;
use super::{TICK_INTERVAL, Writer};
use crate::domain::account::UserId;
use crate::store::backend::{Answers, CommitError};
use crate::store::decide::Decided;
use crate::store::map::trash::TrashRule;

/// The pause when nothing is left to remove; after a step that removed something, it is as long as the step took.
const ROUND_PAUSE: Duration = Duration::from_secs(60);
/// Todos that are removed in one step, at most.
const MAX_TODOS: usize = 500;
/// How long an answer is kept, in seconds.
const KEEP_ANSWERS: i64 = 24 * 60 * 60;

impl Writer {
    /// Removes the next part of what has had its time. Takes at most half of the time.
    pub(super) fn expire(&mut self) {
        let started = Instant::now();
        if !self.keeps_house {
            self.log.kept.clear();
            self.expire_due = started + ROUND_PAUSE;
            return;
        }
        let pause = match (self.expire_trash(), self.expire_answers()) {
            (Some(0), Some(0)) => ROUND_PAUSE,
            (Some(_), Some(_)) => started.elapsed().max(Duration::from_millis(1)),
            _ => TICK_INTERVAL,
        };
        self.expire_due = Instant::now() + pause;
        self.backend.tidy();
    }

    /// How many were removed; `None`: it failed, which was logged.
    fn expire_trash(&mut self) -> Option<usize> {
        let keep = i64::try_from(self.retention.trash.as_secs()).unwrap_or(i64::MAX);
        let rule = TrashRule {
            keep_from: self.uptime().saturating_sub(keep),
            keep_any_from: self.uptime().saturating_sub(KEEP_ANY),
            most: self.max_todos,
        };
        if self.shared.todos.read().expired_trash(rule, 1).is_empty() {
            return Some(0);
        }
        // Some may have been restored meanwhile.
        self.begin().ok()?;
        let expired = self.shared.todos.read().expired_trash(rule, MAX_TODOS);
        let count = expired.len();
        self.commit(Decided::only_purged(expired.into_iter().collect(), self.log.next), 0).ok()?;
        Some(count)
    }

    /// The same for answers that are more than their user may have, and for those that are old.
    fn expire_answers(&mut self) -> Option<usize> {
        match self.backend.answers_sizes() {
            Ok(Some(sizes)) => self.log.kept.replace(sizes),
            Ok(None) => {}
            Err(error) => log::debug!("what is kept of answers is not counted: {error}"),
        }
        let old = self.remove_answers(Answers::Before(self.uptime().saturating_sub(KEEP_ANSWERS)), None)?;
        let Some((owner, bytes)) = self.log.kept.excess() else { return Some(old) };
        Some(old + self.remove_answers(Answers::Of(owner, bytes), Some(owner))?)
    }

    fn remove_answers(&mut self, which: Answers, of: Option<UserId>) -> Option<usize> {
        match self.backend.remove_answers(which) {
            Ok(removed) => {
                self.log.kept.removed(&removed);
                Some(removed.len())
            }
            Err(CommitError::NotApplied(error) | CommitError::Unknown(error)) => {
                log::warn!("removing old answers failed and is tried again later: {error}");
                if let Some(owner) = of {
                    self.log.kept.set(owner, self.backend.answers_size(owner).ok()?);
                }
                None
            }
        }
    }
}
