//! Scrubs what the log says of deleted accounts.

use deadpool_postgres::ClientWrapper;

use super::error::PostgresError;
use super::rows::get;
use crate::domain::account::UserId;
use crate::domain::change::{DeliveryState, Revision, SCRUBBED_TITLE};
use crate::store::backend::{Scrub, Scrubbed};

/// Deleted accounts that still have something.
pub async fn accounts(client: &ClientWrapper) -> Result<Vec<UserId>, PostgresError> {
    let rows = client.query("SELECT id FROM users WHERE state = 2 AND NOT erased ORDER BY id", &[]).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Scrubs the next changes of an account that are published. Parked events are skipped.
pub async fn scrub(client: &ClientWrapper, next: Scrub, limit: usize) -> Result<Scrubbed, PostgresError> {
    let owner = next.owner;
    let sql = "SELECT c.revision, scrubbed, o.state FROM changes AS c
             LEFT JOIN outbox AS o ON o.seq = c.seq
         WHERE c.owner_id = $1 AND c.revision > $2 ORDER BY c.revision LIMIT $3";
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(sql, &[&owner, &next.after, &most]).await?;
    let mut scrubbed = Scrubbed { more_after: None, unpublished: next.unpublished, skipped: 0 };
    let (mut done, mut parked): (Vec<Revision>, Vec<Revision>) = (Vec::new(), Vec::new());
    for row in &rows {
        let (revision, is_scrubbed): (Revision, bool) = (get(row, 0)?, get(row, 1)?);
        let state = get::<Option<i16>>(row, 2)?;
        // Rows without content, which are those of the deletions, stay whatever becomes of their events.
        if is_scrubbed {
            continue;
        }
        match state {
            None => {}
            Some(state) if state == DeliveryState::Skipped as i16 => {}
            Some(state) if state == DeliveryState::Parked as i16 => parked.push(revision),
            // Any other state, also one that this version doesn't know, has to be waited for.
            Some(_) => {
                scrubbed.unpublished.get_or_insert(revision);
                continue;
            }
        }
        done.push(revision);
    }
    if rows.len() == limit {
        scrubbed.more_after = rows.last().map(|row| get(row, 0)).transpose()?;
    }
    scrubbed.skipped = parked.len();
    if !parked.is_empty() {
        let sql = "UPDATE outbox SET state = $3 WHERE owner_id = $1 AND revision = ANY($2) AND state = 2";
        client.execute(sql, &[&owner, &parked, &(DeliveryState::Skipped as i16)]).await?;
    }
    if !done.is_empty() {
        let sql = "UPDATE changes SET title = $3, description = NULL, due_at = NULL, priority = NULL, tags = NULL,
                 sort_order = NULL, op = NULL, before = NULL, scrubbed = true
             WHERE owner_id = $1 AND revision = ANY($2)";
        client.execute(sql, &[&owner, &done, &SCRUBBED_TITLE]).await?;
    }
    if scrubbed.is_all() {
        client.execute("UPDATE users SET erased = true WHERE id = $1", &[&owner]).await?;
    }
    Ok(scrubbed)
}
