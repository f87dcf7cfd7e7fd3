//! What a user's own changes were: read for those who undo some, and for those who want all.

use std::pin::pin;

use deadpool_postgres::ClientWrapper;
use futures_util::StreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::rows::{CHANGE_COLUMNS, before, change, get};
use crate::domain::account::UserId;
use crate::domain::change::{Before, Change, Epoch, Revision};
use crate::domain::todo::{TodoId, Version};
use crate::store::decide::Undone;
use crate::store::history::{Limit, MAX_LOOKED_AT, Page, Past, Span, by_todo, size};

/// More changes than one request can make.
const MAX_BATCH: usize = 100_000;

/// A change, or all that were made together with it, by todo, in the order of the first of each. Nothing if the log does
/// not have all of them, or not what they have replaced.
pub async fn undone(
    client: &ClientWrapper,
    epoch: Epoch,
    owner: UserId,
    revision: Revision,
    whole_batch: bool,
) -> Result<Vec<Undone>, PostgresError> {
    let with_before = |row: &Row| Ok::<_, PostgresError>((change(row, epoch)?, before(row)?));
    let sql = format!("SELECT {CHANGE_COLUMNS}, before FROM changes AS c WHERE owner_id = $1 AND revision = $2");
    let statement = client.prepare_cached(&sql).await?;
    let found = client.query_opt(&statement, &[&owner, &revision]).await?;
    let mut changes: Vec<(Change, Option<Before>)> = found.iter().map(with_before).collect::<Result<_, _>>()?;
    if let Some(batch) = changes.first().filter(|_| whole_batch).and_then(|(change, _)| change.batch) {
        // They follow each other.
        let sql = format!(
            "SELECT {CHANGE_COLUMNS}, before FROM changes AS c
             WHERE owner_id = $1 AND revision >= $2 AND revision < $2 + {MAX_BATCH} AND batch = $2 ORDER BY revision"
        );
        let statement = client.prepare_cached(&sql).await?;
        let rows = client.query(&statement, &[&owner, &batch]).await?;
        changes = rows.iter().map(with_before).collect::<Result<_, _>>()?;
        if changes.first().is_none_or(|(first, _)| first.revision != batch) {
            return Ok(Vec::new());
        }
    }
    Ok(by_todo(changes).unwrap_or_default())
}

/// The next of some changes; `None` if the log does not have all of them any more.
pub async fn whole_page(client: &ClientWrapper, epoch: Epoch, span: &Span) -> Result<Option<Page>, PostgresError> {
    let page = page(client, epoch, span).await?;
    // Read afterwards: what was pruned before the page was read is below it.
    let statement = client.prepare_cached("SELECT floor FROM users WHERE id = $1").await?;
    let floor = client.query_opt(&statement, &[&span.owner]).await?;
    let floor: Option<Revision> = floor.map(|row| get(&row, 0)).transpose()?;
    Ok(if floor.is_some_and(|floor| span.after < floor) { None } else { Some(page) })
}

/// The next of some changes that the log has.
pub async fn page(client: &ClientWrapper, epoch: Epoch, span: &Span) -> Result<Page, PostgresError> {
    let (wanted, looked_through) = revisions(client, span).await?;
    let sql = format!(
        "SELECT {CHANGE_COLUMNS} FROM changes AS c WHERE owner_id = $1 AND revision = ANY($2) ORDER BY revision"
    );
    let statement = client.prepare_cached(&sql).await?;
    let parameters: [&(dyn ToSql + Sync); 2] = [&span.owner, &wanted];
    let mut rows = pin!(client.query_raw(&statement, parameters).await?);
    let mut page = Page { changes: Vec::new(), through: looked_through, more: false };
    let mut bytes = 0;
    while let Some(row) = rows.next().await {
        let change = change(&row?, epoch)?;
        bytes += size(&change);
        page.changes.push(change);
        if span.limit.is_reached(page.changes.len(), bytes) {
            break;
        }
    }
    if span.limit.is_reached(page.changes.len(), bytes) {
        page.through = page.changes.last().map_or(looked_through, |last| last.revision);
    }
    page.more = page.through < span.through;
    Ok(page)
}

/// The revisions of the next changes that are wanted, no more than a page can have; and up to where was looked for them. Without
/// the changes themselves: most of them can be superseded.
async fn revisions(client: &ClientWrapper, span: &Span) -> Result<(Vec<Revision>, Revision), PostgresError> {
    let sql = "SELECT revision, $4 AND EXISTS (
             SELECT 1 FROM changes AS later
             WHERE later.todo_id = c.todo_id AND later.version > c.version AND later.revision <= $3
         )
         FROM changes AS c WHERE owner_id = $1 AND revision > $2 AND revision <= $3 ORDER BY revision LIMIT $5";
    let statement = client.prepare_cached(sql).await?;
    // All that are superseded are looked at, too.
    let most = if span.only_last { MAX_LOOKED_AT } else { MAX_LOOKED_AT.min(span.limit.changes) };
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = client.query(&statement, &[&span.owner, &span.after, &span.through, &span.only_last, &limit]).await?;
    let (mut wanted, mut through) = (Vec::new(), span.through);
    for (index, row) in rows.iter().enumerate() {
        if !get::<bool>(row, 1)? {
            wanted.push(get(row, 0)?);
        }
        if index + 1 == most || wanted.len() >= span.limit.changes {
            through = get(row, 0)?;
            break;
        }
    }
    Ok((wanted, through))
}

/// The changes of a todo of `owner` after a version, and whether there are more; none of another's.
pub async fn of_todo(
    client: &ClientWrapper,
    epoch: Epoch,
    owner: UserId,
    todo: TodoId,
    after: Version,
    limit: Limit,
) -> Result<(Vec<Past>, bool), PostgresError> {
    let sql = format!(
        "SELECT {CHANGE_COLUMNS}, before FROM changes AS c WHERE todo_id = $1 AND version > $2 ORDER BY version LIMIT $3"
    );
    let statement = client.prepare_cached(&sql).await?;
    let most = i64::try_from(limit.changes).unwrap_or(i64::MAX).saturating_add(1);
    let parameters: [&(dyn ToSql + Sync); 3] = [&todo, &after, &most];
    let mut rows = pin!(client.query_raw(&statement, parameters).await?);
    let (mut pasts, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().await {
        let row = row?;
        if limit.is_reached(pasts.len(), bytes) {
            return Ok((pasts, true));
        }
        let change = change(&row, epoch)?;
        if change.todo.owner != owner {
            // So are all others: the time does not tell how many there are.
            return Ok((Vec::new(), false));
        }
        bytes += size(&change);
        // What a later version writes otherwise is not known here.
        pasts.push(Past { change, before: before(&row).unwrap_or(None) });
    }
    Ok((pasts, false))
}
