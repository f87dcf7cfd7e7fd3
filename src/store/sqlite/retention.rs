//! Retention: prunes the log, a prefix of each owner's changes at a time.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, params};

use super::commit::{CommitError, in_transaction};
use super::writer::{TICK_INTERVAL, Writer, abort_unflushed};
use crate::domain::account::UserId;
use crate::domain::change::Revision;
use crate::store::decide::Head;

/// The pause after a round over all owners; after a step, the pause is as long as the step took.
const ROUND_PAUSE: Duration = Duration::from_secs(60);
/// Owners per step.
const STEP_OWNERS: usize = 200;
/// Changes removed per step, at most: about as many as a group adds.
const STEP_CHANGES: usize = 500;
/// What is not older, in seconds, is kept although it is much: what was done today can be undone.
pub(super) const KEEP_ANY: i64 = 24 * 3600;
/// So many times as many changes as otherwise are kept then.
const MUCH: i64 = 10;

impl Writer {
    /// Prunes the next owners' changes: a little at a time, so that requests don't wait for it, and at most half of the
    /// time, which is enough to keep up with them.
    pub(super) fn prune(&mut self) {
        let started = Instant::now();
        if self.prune_next.is_empty() {
            let grown = self.log.heads.iter().filter(|(_, head)| head.revision > head.pruned_through);
            self.prune_next = grown.map(|(owner, _)| *owner).collect();
        }
        let step = self.prune_next.len().min(STEP_OWNERS);
        let owners: Vec<(UserId, Head)> =
            self.prune_next.drain(..step).filter_map(|owner| Some((owner, *self.log.heads.get(&owner)?))).collect();
        let keep = i64::try_from(self.retention.keep.as_secs()).unwrap_or(i64::MAX);
        let rule = Rule {
            keep_from: self.uptime().saturating_sub(keep),
            keep_any_from: self.uptime().saturating_sub(KEEP_ANY),
            per_owner: self.retention.per_owner,
        };
        let pruned = prune(&mut self.connection, &owners, rule, STEP_CHANGES);
        let mut pause = started.elapsed();
        match pruned {
            Ok(pruned) => {
                for Pruned { owner, through, more } in pruned {
                    if let Some(head) = self.log.heads.get_mut(&owner) {
                        self.shared
                            .metrics
                            .pruned(usize::try_from(through.0 - head.pruned_through.0).unwrap_or_default());
                        head.pruned_through = through;
                    }
                    if more {
                        self.prune_next.push_back(owner);
                    }
                }
            }
            Err(CommitError::Fsync(error)) => abort_unflushed(&error),
            // The outcome doesn't matter: the next round looks at what is there.
            Err(CommitError::NotApplied(error) | CommitError::Unknown(error)) => {
                log::warn!("pruning the log failed and is tried again later: {error}");
                pause = TICK_INTERVAL;
            }
        }
        self.prune_due = Instant::now() + if self.prune_next.is_empty() { ROUND_PAUSE } else { pause };
        self.checkpoint();
    }
}

/// What was pruned of an owner's changes.
pub struct Pruned {
    pub owner: UserId,
    /// The last pruned revision.
    pub through: Revision,
    /// There may be more to prune: the owner's share of this step was used up.
    pub more: bool,
}

/// What is kept; uptimes are in seconds that the service had been running.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Older changes are removed.
    pub keep_from: i64,
    /// Older changes are removed if they are too many; younger ones, if they are far too many.
    pub keep_any_from: i64,
    /// Changes of one owner, at most.
    pub per_owner: i64,
}

/// Removes what retention no longer keeps of each owner: a prefix of its changes, never past an unpublished one. At
/// most `limit` changes in all, fairly shared between the owners.
pub fn prune(
    connection: &mut Connection,
    owners: &[(UserId, Head)],
    rule: Rule,
    limit: usize,
) -> Result<Vec<Pruned>, CommitError> {
    in_transaction(connection, |transaction| delete_prefixes(transaction, owners, rule, limit))
}

fn delete_prefixes(
    transaction: &Transaction<'_>,
    owners: &[(UserId, Head)],
    rule: Rule,
    limit: usize,
) -> rusqlite::Result<Vec<Pruned>> {
    // Published or skipped. Any other state, also one that this version doesn't know, ends the prefix.
    let mut read = transaction.prepare_cached(
        "SELECT revision, uptime, state IN (1, 3) FROM changes WHERE owner_id = ?1 AND revision > ?2 ORDER BY revision",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM changes WHERE owner_id = ?1 AND revision <= ?2")?;
    let mut set_floor = transaction.prepare_cached("UPDATE users SET floor = ?2 WHERE id = ?1")?;
    let (mut pruned, mut left) = (Vec::new(), limit);
    for (index, &(owner, head)) in owners.iter().enumerate() {
        let mut share = left.div_ceil(owners.len() - index);
        let (mut through, mut more) = (head.pruned_through, false);
        let mut rows = read.query(params![owner, head.pruned_through])?;
        while let Some(row) = rows.next()? {
            let (revision, uptime, is_settled): (Revision, i64, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let is_beyond = |most: i64| revision.0 <= head.revision.0.saturating_sub(most);
            let is_too_much = is_beyond(rule.per_owner) && uptime < rule.keep_any_from
                || is_beyond(rule.per_owner.saturating_mul(MUCH));
            if !is_settled || !(is_too_much || uptime < rule.keep_from) {
                break;
            }
            if share == 0 {
                more = true;
                break;
            }
            through = revision;
            share -= 1;
            left -= 1;
        }
        drop(rows);
        if through > head.pruned_through {
            delete.execute(params![owner, through])?;
            set_floor.execute(params![owner, through])?;
            pruned.push(Pruned { owner, through, more });
        }
    }
    Ok(pruned)
}
