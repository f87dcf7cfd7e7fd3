//! What the relay and the metrics read from the log.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::rows::{CHANGE_COLUMNS, change};
use crate::domain::change::{Cursor, DeliveryState, Epoch, Place};
use crate::domain::clock::Timestamp;
use crate::domain::todo::TodoId;
use crate::store::change_log::LogSamples;
use crate::store::outbox::{Discovered, Discovery, Fed, Found, MAX_DISCOVERY, Marks, Wanted};

/// Samples the log. The search for the oldest pending change starts at `from`.
pub fn sample_log(connection: &Connection, from: Place) -> rusqlite::Result<LogSamples> {
    let sql = "SELECT seq, at FROM changes WHERE state = 0 AND seq >= ?1
         AND todo_id NOT IN (SELECT todo_id FROM changes WHERE state = 2) ORDER BY seq LIMIT 1";
    // Read first: what is committed meanwhile comes after it.
    let end = end(connection)?.place();
    let oldest = |row: &Row<'_>| Ok((row.get(0)?, Timestamp(row.get(1)?)));
    let oldest = connection.prepare_cached(sql)?.query_row([from], oldest).optional()?;
    Ok(LogSamples {
        oldest_pending: oldest.map(|(_, at)| at),
        oldest_from: oldest.map_or(end, |(place, _)| place),
        pending: None,
        parked: connection.query_row("SELECT count(*) FROM changes WHERE state = 2", [], |row| row.get(0))?,
        changes: connection.query_row("SELECT coalesce(sum(revision - floor), 0) FROM users", [], |row| row.get(0))?,
        database_bytes: 0,
        wal_bytes: 0,
    })
}

/// The end of the log.
fn end(connection: &Connection) -> rusqlite::Result<Cursor> {
    let last = connection.query_row("SELECT coalesce(max(seq), 0) FROM changes", [], |row| row.get(0));
    last.map(Cursor::up_to)
}

/// See [`crate::store::Store::read_outbox`].
pub fn read_outbox(connection: &Connection, epoch: Epoch, wanted: &Wanted, marked: &Marks) -> rusqlite::Result<Found> {
    let snapshot = connection.unchecked_transaction()?;
    let mut found = Found::default();
    let mut pending = snapshot.prepare_cached(&format!(
        "SELECT {CHANGE_COLUMNS} FROM changes INDEXED BY changes_by_todo
         WHERE todo_id = ?1 AND version > ?2 AND seq <= ?3 AND state = 0 ORDER BY version"
    ))?;
    let mut room = wanted.room;
    for want in &wanted.wants {
        if room == 0 {
            break;
        }
        let limit = want.limit.min(room);
        let (mut changes, mut more) = (Vec::new(), false);
        let mut rows = pending.query(params![want.todo, want.above, wanted.announced_through.place()])?;
        while let Some(row) = rows.next()? {
            let change = change(row, epoch)?;
            if marked.contains_key(&change.place) {
                continue;
            }
            if changes.len() == limit {
                more = true;
                break;
            }
            changes.push(Arc::new(change));
        }
        room -= changes.len();
        found.fed.push(Fed { todo: want.todo, changes, more, parked: false });
    }
    if wanted.discover > 0 {
        found.discovered = Some(discover(&snapshot, wanted, marked)?);
    }
    Ok(found)
}

/// Finds todos with pending changes beyond what was read. Looks at a bounded number of changes, at each only once.
fn discover(snapshot: &Transaction<'_>, wanted: &Wanted, marked: &Marks) -> rusqlite::Result<Discovered> {
    let mut parked = HashSet::new();
    if wanted.read_through == Cursor::START {
        let mut statement = snapshot.prepare_cached("SELECT DISTINCT todo_id FROM changes WHERE state = 2")?;
        parked = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        // If such a mark is committed before a later discovery gets that far, neither of them would see it.
        let mut todo_of = snapshot.prepare_cached("SELECT todo_id FROM changes WHERE seq = ?1")?;
        for (place, _) in marked.iter().filter(|(_, state)| **state == DeliveryState::Parked) {
            parked.extend(todo_of.query_row([place], |row| row.get::<_, TodoId>(0)).optional()?);
        }
    }
    let end = end(snapshot)?;
    // Answered by the partial index alone.
    let mut index = snapshot.prepare_cached(
        "SELECT seq, todo_id, version FROM changes WHERE state = 0 AND seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = index.query(params![wanted.read_through.place(), MAX_DISCOVERY])?;
    let mut discovery = Discovery::new(wanted, marked, parked);
    while let Some(row) = rows.next()? {
        if !discovery.look_at(row.get(0)?, row.get(1)?, row.get(2)?) {
            break;
        }
    }
    Ok(discovery.finish(end))
}
