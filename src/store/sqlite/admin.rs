//! Operators' commands about events.

use rusqlite::{Connection, params};

use super::commit::in_transaction;
use super::rows::{CHANGE_COLUMNS, change};
use crate::domain::change::{Change, DeliveryState, Epoch, Place, Revision};
use crate::store::backend::CommitError;
use crate::store::command::OutboxCommand;

/// The changes that a command affects and their revisions, the latest first: at most `limit`, all below `below`.
pub fn read_affected(
    connection: &Connection,
    command: &OutboxCommand,
    below: Revision,
    limit: usize,
) -> rusqlite::Result<Vec<(Place, Revision)>> {
    let (sql, target): (&str, [i64; 2]) = match *command {
        OutboxCommand::Retry { todo, version } | OutboxCommand::Skip { todo, version } => {
            ("todo_id = ?1 AND version = ?2 AND state = 2", [todo.0, version.0])
        }
        OutboxCommand::Republish { owner, from_revision } => {
            ("owner_id = ?1 AND revision >= ?2 AND state = 1", [owner.0, from_revision.0])
        }
    };
    let sql =
        format!("SELECT seq, revision FROM changes WHERE {sql} AND revision < ?3 ORDER BY revision DESC LIMIT ?4");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![target[0], target[1], below, limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Gives changes the state that the command asks for.
pub fn set_states(connection: &mut Connection, command: &OutboxCommand, places: &[Place]) -> Result<(), CommitError> {
    in_transaction(connection, |transaction| {
        let mut statement = transaction.prepare_cached("UPDATE changes SET state = ?2 WHERE seq = ?1")?;
        places.iter().try_for_each(|place| statement.execute(params![place, command.state_after()]).map(drop))
    })
}

/// Whether a change has the state that the command asks for.
pub fn is_done(connection: &Connection, command: &OutboxCommand, place: Place) -> rusqlite::Result<bool> {
    let state: DeliveryState =
        connection.query_row("SELECT state FROM changes WHERE seq = ?1", [place], |row| row.get(0))?;
    Ok(state == command.state_after())
}

/// Parked changes, oldest first.
pub fn read_parked(connection: &Connection, epoch: Epoch, limit: usize) -> rusqlite::Result<Vec<Change>> {
    let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE state = 2 ORDER BY seq LIMIT ?1");
    connection.prepare_cached(&sql)?.query_map([limit], |row| change(row, epoch))?.collect()
}
