//! Prunes the log.

use rusqlite::{Connection, Transaction, params};

use super::commit::in_transaction;
use crate::domain::account::UserId;
use crate::domain::change::Revision;
use crate::store::backend::{CommitError, Pruned, Rule};
use crate::store::decide::Head;

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
            if !is_settled || !rule.removes(head.revision, revision, uptime) {
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
            let count = usize::try_from(through.0 - head.pruned_through.0).unwrap_or_default();
            pruned.push(Pruned { owner, through, count, more });
        }
    }
    Ok(pruned)
}
