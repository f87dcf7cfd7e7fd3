//! Retention: prunes the log, a prefix of each owner's changes at a time.

use std::time::{Duration, Instant};

use super::{TICK_INTERVAL, Writer};
use crate::domain::account::UserId;
use crate::store::backend::{CommitError, Pruned, Rule};
use crate::store::decide::Head;

/// The pause after a round over all owners; after a step, the pause is as long as the step took.
const ROUND_PAUSE: Duration = Duration::from_secs(60);
/// Owners per step.
const STEP_OWNERS: usize = 200;
/// Changes removed per step, at most: about as many as a group adds.
const STEP_CHANGES: usize = 500;
/// What is not older, in seconds, is kept although it is much: what was done today can be undone.
pub(super) const KEEP_ANY: i64 = 24 * 3600;

impl Writer {
    /// Prunes the next owners' changes: a little at a time, so that requests don't wait for it, and at most half of the
    /// time, which is enough to keep up with them.
    pub(super) fn prune(&mut self) {
        let started = Instant::now();
        if !self.keeps_house {
            self.prune_next.clear();
            self.prune_due = started + TICK_INTERVAL;
            return;
        }
        let owners: Vec<(UserId, Head)> = {
            let heads = &self.shared.applied.lock().heads;
            if self.prune_next.is_empty() {
                let grown = heads.iter().filter(|(_, head)| head.revision > head.pruned_through);
                self.prune_next = grown.map(|(owner, _)| *owner).collect();
            }
            let step = self.prune_next.len().min(STEP_OWNERS);
            self.prune_next.drain(..step).filter_map(|owner| Some((owner, *heads.get(&owner)?))).collect()
        };
        let keep = i64::try_from(self.retention.keep.as_secs()).unwrap_or(i64::MAX);
        let rule = Rule {
            keep_from: self.uptime().saturating_sub(keep),
            keep_any_from: self.uptime().saturating_sub(KEEP_ANY),
            per_owner: self.retention.per_owner,
        };
        let pruned = self.backend.prune(&owners, rule, STEP_CHANGES);
        let mut pause = started.elapsed();
        match pruned {
            Ok(pruned) => {
                for Pruned { owner, through, count, more } in pruned {
                    self.shared.metrics.pruned(count);
                    if let Some(head) = self.shared.applied.lock().heads.get_mut(&owner) {
                        head.pruned_through = through;
                    }
                    if more {
                        self.prune_next.push_back(owner);
                    }
                }
            }
            // The outcome doesn't matter: the next round looks at what is there.
            Err(CommitError::NotApplied(error) | CommitError::Unknown(error)) => {
                log::warn!("pruning the log failed and is tried again later: {error}");
                pause = TICK_INTERVAL;
            }
        }
        self.prune_due = Instant::now() + if self.prune_next.is_empty() { ROUND_PAUSE } else { pause };
        self.backend.tidy();
    }
}
