//! Scrubs what the log says of deleted accounts.

use rusqlite::{Connection, Transaction, params};

use super::commit::in_transaction;
use crate::domain::change::{DeliveryState, Revision, SCRUBBED_TITLE};
use crate::store::backend::{CommitError, Scrub, Scrubbed};

/// Scrubs the next changes of an account that are published. Parked events are skipped.
pub fn scrub(connection: &mut Connection, next: Scrub, limit: usize) -> Result<Scrubbed, CommitError> {
    in_transaction(connection, |transaction| scrub_part(transaction, next, limit))
}

fn scrub_part(transaction: &Transaction<'_>, next: Scrub, limit: usize) -> rusqlite::Result<Scrubbed> {
    // Any other state, also one that this version doesn't know, has to be waited for.
    let mut read = transaction.prepare_cached(
        "SELECT revision, scrubbed, state IN (1, 3), state = 2 FROM changes WHERE owner_id = ?1 AND revision > ?2
         ORDER BY revision LIMIT ?3",
    )?;
    let mut scrub = transaction.prepare_cached(
        "UPDATE changes SET title = ?3, description = NULL, due_at = NULL, priority = NULL, tags = NULL, sort_order = NULL,
             op = NULL, before = NULL, scrubbed = 1 WHERE owner_id = ?1 AND revision = ?2",
    )?;
    let mut skip = transaction.prepare_cached("UPDATE changes SET state = ?3 WHERE owner_id = ?1 AND revision = ?2")?;
    let owner = next.owner;
    let mut scrubbed = Scrubbed { more_after: None, unpublished: next.unpublished, skipped: 0 };
    let mut seen = 0;
    let mut rows = read.query(params![owner, next.after, limit])?;
    while let Some(row) = rows.next()? {
        let (revision, is_scrubbed): (Revision, bool) = (row.get(0)?, row.get(1)?);
        let (is_settled, is_parked): (bool, bool) = (row.get(2)?, row.get(3)?);
        seen += 1;
        scrubbed.more_after = (seen == limit).then_some(revision);
        // Rows without content, which are those of the deletions, stay whatever becomes of their events.
        if is_scrubbed {
            continue;
        }
        if !is_settled && !is_parked {
            scrubbed.unpublished.get_or_insert(revision);
            continue;
        }
        if is_parked {
            skip.execute(params![owner, revision, DeliveryState::Skipped])?;
            scrubbed.skipped += 1;
        }
        scrub.execute(params![owner, revision, SCRUBBED_TITLE])?;
    }
    if scrubbed.is_all() {
        transaction.prepare_cached("UPDATE users SET erased = 1 WHERE id = ?1")?.execute([owner])?;
    }
    Ok(scrubbed)
}
