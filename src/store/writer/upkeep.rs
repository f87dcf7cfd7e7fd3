//! What the writer does by itself once a minute: removes sessions and tokens that are over, saves when personal access
//! tokens were used and from where people have logged in, and forgets what is kept for searches.

use std::time::{Duration, Instant};

use super::Writer;
use crate::domain::clock::Timestamp;
use crate::store::backend::{CommitError, UsedElsewhere};
use crate::store::decide::Decided;

/// How often.
pub(super) const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Sessions, tokens or networks that are written or removed in one commit, at most.
const MAX_REMOVED: usize = 5_000;
/// How far back is read what other processes have saved, in milliseconds: more than the time between two readings and what
/// clocks differ by.
const USED_OVERLAP: i64 = 10 * 60 * 1000;
/// Networks that are looked at each time: some milliseconds' work.
const MAX_SEARCHED: usize = 50_000;

impl Writer {
    /// Does what is due. What fails is done the next time.
    pub(super) fn upkeep(&mut self) {
        self.upkeep_due = Instant::now() + UPKEEP_INTERVAL;
        if self.keeps_house {
            self.remove_expired();
            if let Err(CommitError::NotApplied(error) | CommitError::Unknown(error)) = self.backend.forget_records() {
                log::debug!("what all processes have heard of is forgotten later: {error}");
            }
        }
        self.save_used();
        self.read_used();
        self.shared.todos.read().forget_texts();
        self.backend.tidy();
    }

    fn remove_expired(&mut self) {
        if self.expired().is_empty() || self.begin().is_err() {
            return;
        }
        // As it is now: a session may have been renewed meanwhile. It is logged if that fails.
        let _ = self.commit(self.expired(), 0);
    }

    fn expired(&self) -> Decided {
        let now = self.clock.now();
        let (sessions, tokens) = (self.shared.sessions.read(), self.shared.personal_tokens.read());
        let sessions = sessions.all().filter(|session| session.is_expired(now)).take(MAX_REMOVED);
        let tokens = tokens.all().filter(|token| token.is_expired(now)).take(MAX_REMOVED);
        let mut decided = Decided::nothing(self.log.next);
        decided.sessions = sessions.map(|session| (session.id, None)).collect();
        decided.personal_tokens = tokens.map(|token| ((token.user, token.id), None)).collect();
        decided
    }

    /// Hears from other processes when tokens and networks were used.
    fn read_used(&mut self) {
        let since = Timestamp(self.clock.now().0 - USED_OVERLAP);
        match self.backend.used_since(since) {
            Ok(UsedElsewhere { tokens, networks }) => {
                let mut used = self.shared.used.lock();
                tokens.into_iter().for_each(|(id, at)| used.heard(id, at));
                let mut known = self.shared.login_networks.lock();
                networks.into_iter().for_each(|(network, at)| known.heard(network, at));
            }
            Err(error) => log::debug!("when tokens and networks were used elsewhere is read later: {error}"),
        }
    }

    /// Saves when tokens and networks were used, and removes networks that are not known any more.
    fn save_used(&mut self) {
        let networks = {
            let mut networks = self.shared.login_networks.lock();
            networks.expire(MAX_SEARCHED, self.clock.now());
            networks.take_unsaved(MAX_REMOVED)
        };
        let tokens = std::mem::take(&mut self.shared.used.lock().unsaved);
        if tokens.is_empty() && networks.used.is_empty() && networks.forgotten.is_empty() {
            return;
        }
        match self.backend.save_used(&tokens, &networks) {
            Ok(()) => {}
            Err(CommitError::NotApplied(error) | CommitError::Unknown(error)) => {
                log::debug!("when tokens and networks were used is saved later: {error}");
                let mut used = self.shared.used.lock();
                for (id, at) in tokens {
                    used.unsaved.entry(id).or_insert(at);
                }
                self.shared.login_networks.lock().still_unsaved(networks);
            }
        }
    }
}
