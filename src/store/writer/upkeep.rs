//! What the writer does by itself once a minute: removes sessions and tokens that are over, saves when personal access
//! tokens were used and from where people have logged in, and forgets what is kept for searches.

use std::time::{Duration, Instant};

use super::Writer;
use crate::store::backend::CommitError;
use crate::store::decide::Decided;

/// How often.
pub(super) const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Sessions, tokens or networks that are written or removed in one commit, at most.
const MAX_REMOVED: usize = 5_000;
/// Networks that are looked at each time: some milliseconds' work.
const MAX_SEARCHED: usize = 50_000;

impl Writer {
    /// Does what is due. What fails is done the next time.
    pub(super) fn upkeep(&mut self) {
        self.upkeep_due = Instant::now() + UPKEEP_INTERVAL;
        self.remove_expired();
        self.save_used();
        self.shared.todos.read().forget_texts();
        self.backend.tidy();
    }

    fn remove_expired(&mut self) {
        let now = self.clock.now();
        let mut decided = Decided::nothing(self.log.next);
        {
            let (sessions, tokens) = (self.shared.sessions.read(), self.shared.personal_tokens.read());
            let sessions = sessions.all().filter(|session| session.is_expired(now)).take(MAX_REMOVED);
            decided.sessions = sessions.map(|session| (session.id, None)).collect();
            let tokens = tokens.all().filter(|token| token.is_expired(now)).take(MAX_REMOVED);
            decided.personal_tokens = tokens.map(|token| ((token.user, token.id), None)).collect();
        }
        if !decided.is_empty() {
            // It is logged if that fails.
            let _ = self.commit(decided, 0);
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
