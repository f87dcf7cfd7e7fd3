//! What the writer does by itself once a minute: removes sessions and tokens that are over, saves when personal access
//! tokens were used and from where people have logged in, and forgets what is kept for searches.

use std::time::{Duration, Instant};

use rusqlite::params;

use super::commit::{CommitError, in_transaction};
use super::writer::{Writer, abort_unflushed};
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
        self.checkpoint();
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
            // It is logged if the disk fails.
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
        let saved = in_transaction(&mut self.connection, |transaction| {
            let mut save = transaction.prepare_cached("UPDATE personal_tokens SET used_at = ?2 WHERE id = ?1")?;
            tokens.iter().try_for_each(|(id, at)| save.execute(params![id, at.0]).map(drop))?;
            let mut save = transaction.prepare_cached(
                "INSERT INTO login_networks (user_id, network, used_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (user_id, network) DO UPDATE SET used_at = excluded.used_at",
            )?;
            for ((user, network), at) in &networks.used {
                save.execute(params![user, network, at.0])?;
            }
            let mut forget =
                transaction.prepare_cached("DELETE FROM login_networks WHERE user_id = ?1 AND network = ?2")?;
            networks.forgotten.iter().try_for_each(|(user, network)| forget.execute(params![user, network]).map(drop))
        });
        match saved {
            Ok(()) => {}
            Err(CommitError::Fsync(error)) => abort_unflushed(&error),
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
