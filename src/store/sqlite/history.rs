//! What a user's own changes were: read for those who undo some, and for those who want all.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{CHANGE_COLUMNS, change};
use crate::domain::account::UserId;
use crate::domain::change::{Before, Change, Epoch, Revision};
use crate::domain::todo::{TodoId, Version};
use crate::store::decide::Undone;
use crate::store::history::{Limit, MAX_LOOKED_AT, Page, Past, Span, by_todo, size};

/// A change, or all that were made together with it, by todo, in the order of the first of each. Nothing if the log does
/// not have all of them, or not what they have replaced.
pub fn undone(
    connection: &Connection,
    epoch: Epoch,
    owner: UserId,
    revision: Revision,
    whole_batch: bool,
) -> rusqlite::Result<Vec<Undone>> {
    let with_before = |row: &Row<'_>| Ok((change(row, epoch)?, row.get("before")?));
    let sql = format!("SELECT {CHANGE_COLUMNS}, before FROM changes WHERE owner_id = ?1 AND revision = ?2");
    let found = connection.prepare_cached(&sql)?.query_row(params![owner, revision], with_before).optional()?;
    let mut changes: Vec<(Change, Option<Before>)> = found.into_iter().collect();
    if let Some(batch) = changes.first().filter(|_| whole_batch).and_then(|(change, _)| change.batch) {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {CHANGE_COLUMNS}, before FROM changes WHERE owner_id = ?1 AND revision >= ?2 ORDER BY revision"
        ))?;
        let rows = statement.query_map(params![owner, batch], with_before)?;
        // They follow each other.
        let is_of_batch =
            |row: &rusqlite::Result<(Change, _)>| row.as_ref().map_or(true, |(it, _)| it.batch == Some(batch));
        changes = rows.take_while(is_of_batch).collect::<rusqlite::Result<_>>()?;
        if changes.first().is_none_or(|(first, _)| first.revision != batch) {
            return Ok(Vec::new());
        }
    }
    Ok(by_todo(changes).unwrap_or_default())
}

/// The next of some changes; `None` if the log does not have all of them any more.
pub fn whole_page(connection: &Connection, epoch: Epoch, span: &Span) -> rusqlite::Result<Option<Page>> {
    // What is pruned meanwhile is still there.
    let snapshot = connection.unchecked_transaction()?;
    let mut floor = snapshot.prepare_cached("SELECT floor FROM users WHERE id = ?1")?;
    let floor: Option<Revision> = floor.query_row([span.owner], |row| row.get(0)).optional()?;
    if floor.is_some_and(|floor| span.after < floor) { Ok(None) } else { page(&snapshot, epoch, span).map(Some) }
}

/// The next of some changes that the log has.
pub fn page(connection: &Connection, epoch: Epoch, span: &Span) -> rusqlite::Result<Page> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {CHANGE_COLUMNS}, ?4 AND EXISTS (
             SELECT 1 FROM changes AS later INDEXED BY changes_by_todo
             WHERE later.todo_id = changes.todo_id AND later.version > changes.version AND later.revision <= ?3
         ) AS is_superseded
         FROM changes WHERE owner_id = ?1 AND revision > ?2 AND revision <= ?3 ORDER BY revision"
    ))?;
    let mut rows = statement.query(params![span.owner, span.after, span.through, span.only_last])?;
    let mut page = Page { changes: Vec::new(), through: span.through, more: false };
    let (mut looked_at, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        looked_at += 1;
        if !row.get::<_, bool>("is_superseded")? {
            let change = change(row, epoch)?;
            bytes += size(&change);
            page.changes.push(change);
        }
        if looked_at == MAX_LOOKED_AT || span.limit.is_reached(page.changes.len(), bytes) {
            page.through = row.get("revision")?;
            page.more = page.through < span.through;
            break;
        }
    }
    Ok(page)
}

/// The changes of a todo of `owner` after a version, and whether there are more; none of another's.
pub fn of_todo(
    connection: &Connection,
    epoch: Epoch,
    owner: UserId,
    todo: TodoId,
    after: Version,
    limit: Limit,
) -> rusqlite::Result<(Vec<Past>, bool)> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {CHANGE_COLUMNS}, before FROM changes INDEXED BY changes_by_todo
         WHERE todo_id = ?1 AND version > ?2 ORDER BY version"
    ))?;
    let mut rows = statement.query(params![todo, after])?;
    let (mut pasts, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        if limit.is_reached(pasts.len(), bytes) {
            return Ok((pasts, true));
        }
        let change = change(row, epoch)?;
        if change.todo.owner != owner {
            // So are all others: the time does not tell how many there are.
            return Ok((Vec::new(), false));
        }
        bytes += size(&change);
        // What a later version writes otherwise is not known here.
        pasts.push(Past { change, before: row.get("before").unwrap_or(None) });
    }
    Ok((pasts, false))
}
