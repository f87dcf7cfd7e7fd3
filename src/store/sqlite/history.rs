//! What a user's own changes were: read for those who undo some, and for those who want all.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{CHANGE_COLUMNS, change};
use crate::domain::account::UserId;
use crate::domain::change::{Before, Change, Epoch, Kind, Revision};
use crate::domain::todo::TodoId;
use crate::store::decide::Undone;

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
    let mut undone: Vec<Undone> = Vec::new();
    let mut places: HashMap<TodoId, usize> = HashMap::new();
    for (change, before) in changes {
        let before = before.or_else(|| (change.kind == Kind::Created).then(Before::creation));
        let Some(before) = before else { return Ok(Vec::new()) };
        let place = *places.entry(change.todo.id).or_insert(undone.len());
        match undone.get_mut(place) {
            Some(of_todo) => of_todo.changes.push((change, before)),
            None => undone.push(Undone { changes: vec![(change, before)] }),
        }
    }
    Ok(undone)
}

/// Changes of an owner after a revision, up to another one; at most `limit`.
pub fn page(
    connection: &Connection,
    epoch: Epoch,
    owner: UserId,
    after: Revision,
    through: Revision,
    limit: usize,
) -> rusqlite::Result<Vec<Change>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {CHANGE_COLUMNS} FROM changes
         WHERE owner_id = ?1 AND revision > ?2 AND revision <= ?3 ORDER BY revision LIMIT ?4"
    ))?;
    let rows = statement.query_map(params![owner, after, through, limit], |row| change(row, epoch))?;
    rows.collect()
}
