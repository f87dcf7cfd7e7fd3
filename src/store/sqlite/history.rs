//! What a user's own changes were: read for those who undo some, and for those who want all.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{CHANGE_COLUMNS, change};
use crate::domain::account::UserId;
use crate::domain::change::{Change, Epoch, Kind, Revision};
use crate::domain::todo::TodoId;
use crate::store::decide::undo::Undone;

/// A change, or all that were made together with it, by todo, in the order of the first of each. Nothing if the log does
/// not have all of them.
pub fn undone(
    connection: &Connection,
    epoch: Epoch,
    owner: UserId,
    revision: Revision,
    whole_batch: bool,
) -> rusqlite::Result<Vec<Undone>> {
    // Any number that a client has sent: not every one has a previous one.
    let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE owner_id = ?1 AND revision = ?2");
    let found = connection.prepare_cached(&sql)?.query_row(params![owner, revision], |row| change(row, epoch));
    let mut changes: Vec<Change> = found.optional()?.into_iter().collect();
    if let Some(batch) = changes.first().filter(|_| whole_batch).and_then(|change| change.batch) {
        changes = batch_changes(connection, epoch, owner, batch)?;
        if changes.first().is_none_or(|first| first.revision != batch) {
            return Ok(Vec::new());
        }
    }
    let mut undone: Vec<Undone> = Vec::new();
    let mut places: HashMap<TodoId, usize> = HashMap::new();
    for change in changes {
        let place = *places.entry(change.todo.id).or_insert(undone.len());
        match undone.get_mut(place) {
            Some(of_todo) => of_todo.changes.push(change),
            None => undone.push(Undone { changes: vec![change], before: None, moved_since: false }),
        }
    }
    let columns = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE todo_id = ?1 AND version = ?2");
    let mut before = connection.prepare_cached(&columns)?;
    let mut moved = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM changes INDEXED BY changes_by_todo
         WHERE todo_id = ?1 AND version > ?2 AND kind IN (?3, ?4))",
    )?;
    for undone in &mut undone {
        if let Some(first) = undone.changes.first().filter(|_| undone.changes.iter().any(|it| it.kind == Kind::Updated))
        {
            let (todo, version) = (first.todo.id, first.todo.version.previous());
            let found = before.query_row(params![todo, version], |row| change(row, epoch)).optional()?;
            undone.before = found.map(|change| change.todo);
        }
        if let Some(last) = undone.changes.last().filter(|_| undone.changes.iter().any(|it| it.kind != Kind::Updated)) {
            let kinds = (Kind::Deleted as u8, Kind::Restored as u8);
            let of = params![last.todo.id, last.todo.version, kinds.0, kinds.1];
            undone.moved_since = moved.query_row(of, |row| row.get(0))?;
        }
    }
    Ok(undone)
}

/// All changes of a batch that the log has.
fn batch_changes(
    connection: &Connection,
    epoch: Epoch,
    owner: UserId,
    batch: Revision,
) -> rusqlite::Result<Vec<Change>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {CHANGE_COLUMNS} FROM changes WHERE owner_id = ?1 AND revision >= ?2 ORDER BY revision"
    ))?;
    let rows = statement.query_map(params![owner, batch], |row| change(row, epoch))?;
    // They follow each other.
    let is_of_batch = |row: &rusqlite::Result<Change>| row.as_ref().map_or(true, |change| change.batch == Some(batch));
    rows.take_while(is_of_batch).collect()
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
