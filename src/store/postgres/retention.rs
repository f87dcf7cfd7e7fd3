//! Prunes the log.

use deadpool_postgres::ClientWrapper;

use super::error::PostgresError;
use super::rows::get;
use crate::domain::account::UserId;
use crate::domain::change::Revision;
use crate::store::backend::{Pruned, Rule};
use crate::store::decide::Head;

/// Removes what retention no longer keeps of each owner: a prefix of its changes, never past an unpublished one. At most about
/// `limit` changes in all: each owner has the same share. Where an owner's changes begin is read here: another process may have
/// removed some since this one last did.
pub async fn prune(
    client: &ClientWrapper,
    owners: &[(UserId, Head)],
    rule: Rule,
    limit: usize,
) -> Result<Vec<Pruned>, PostgresError> {
    // The times of an owner's changes don't go backwards, so what is not kept is a prefix. It ends before the first change whose
    // event is pending or parked, or has a state that this version doesn't know.
    let sql = "SELECT owner, floor,
             (SELECT max(revision) FROM (
                 SELECT revision, uptime FROM changes AS c
                 WHERE owner_id = owner AND revision > floor ORDER BY revision LIMIT $6
             ) AS first WHERE uptime < $4 OR revision <= far_too_many OR revision <= too_many AND uptime < $5) AS through,
             (SELECT min(revision) FROM outbox WHERE owner_id = owner AND revision > floor AND state <> 3) AS unsettled
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o (owner, too_many, far_too_many)
             JOIN users ON users.id = owner";
    let share = limit.div_ceil(owners.len().max(1));
    let column =
        |value: fn(Rule, Head) -> Revision| owners.iter().map(|(_, head)| value(rule, *head)).collect::<Vec<_>>();
    let ids: Vec<UserId> = owners.iter().map(|(owner, _)| *owner).collect();
    let too_many = column(|rule, head| rule.too_many_through(head.revision));
    let far_too_many = column(|rule, head| rule.far_too_many_through(head.revision));
    let most = i64::try_from(share).unwrap_or(i64::MAX);
    let statement = client.prepare_cached(sql).await?;
    let rows = client
        .query(&statement, &[&ids, &too_many, &far_too_many, &rule.keep_from, &rule.keep_any_from, &most])
        .await?;
    let mut pruned = Vec::new();
    for row in &rows {
        let (owner, before): (UserId, Revision) = (get(row, 0)?, get(row, 1)?);
        let Some(old): Option<Revision> = get(row, 2)? else { continue };
        let settled = get::<Option<Revision>>(row, 3)?.map_or(Revision::MAX, Revision::previous);
        let through = old.min(settled);
        if through > before {
            let more = settled > old && (old.0 - before.0).unsigned_abs() >= share as u64;
            let count = usize::try_from(through.0 - before.0).unwrap_or_default();
            pruned.push((Pruned { owner, through, count, more }, before));
        }
    }
    if !pruned.is_empty() {
        let owners: Vec<UserId> = pruned.iter().map(|(it, _)| it.owner).collect();
        let through: Vec<Revision> = pruned.iter().map(|(it, _)| it.through).collect();
        let before: Vec<Revision> = pruned.iter().map(|(_, before)| *before).collect();
        for sql in [
            "DELETE FROM changes USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS done (owner, through, above)
             WHERE owner_id = owner AND revision > above AND revision <= through",
            // Those that were given up.
            "DELETE FROM outbox USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS done (owner, through, above)
             WHERE owner_id = owner AND revision > above AND revision <= through",
            "UPDATE users SET floor = through FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])
                 AS done (owner, through, above) WHERE id = owner AND floor = above",
        ] {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, &[&owners, &through, &before]).await?;
        }
    }
    Ok(pruned.into_iter().map(|(pruned, _)| pruned).collect())
}
