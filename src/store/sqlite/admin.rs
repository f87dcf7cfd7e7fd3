//! Operators' commands about events.

use rusqlite::{Connection, params};

use super::commit::{CommitError, in_transaction};
use super::jobs::Operation;
use super::rows::{CHANGE_COLUMNS, change};
use super::writer::{Writer, abort_unflushed, resolved};
use crate::domain::account::AccountState;
use crate::domain::change::{Change, DeliveryState, Epoch, Place, Revision};
use crate::store::OutboxCommand;
use crate::store::decide::{Group, Refusal};
use crate::store::error::StoreError;

/// Changes in one part, at most.
const MAX_PART: usize = 1000;

impl Writer {
    /// Runs the next part of a command; the last one answers it and makes the relay start over.
    pub(super) fn run_admin_command(&mut self, mut operation: Operation) {
        // Uncommitted marks would undo what the command does.
        self.tick();
        let outcome = self.run_next_part(&mut operation);
        if outcome == Ok(true) {
            self.operations.push_front(operation);
            return;
        }
        if operation.has_begun() {
            self.shared.outbox.reload();
        }
        let done = operation.done;
        operation.end(match outcome {
            Ok(_) => Ok(done),
            Err(StoreError::Refused(refusal)) => Err(StoreError::Refused(refusal)),
            // Earlier parts are committed.
            Err(_) if done > 0 => Err(StoreError::Unknown),
            Err(error) => Err(error),
        });
    }

    /// What was so when the command came may have ended meanwhile, or between two of its parts.
    fn refuse_part(&self, operation: &Operation) -> Result<(), Refusal> {
        if let Some(authority) = operation.authority {
            Group::new(&self.state(), self.facts()).still_valid(authority)?;
        }
        let users = self.shared.users.read();
        match operation.command {
            // Content that was taken back must not be published.
            OutboxCommand::Republish { owner, .. }
                if users.stored(owner).is_some_and(|user| user.state == AccountState::Deleted) =>
            {
                Err(Refusal::AccountDeleted)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether more parts may follow.
    fn run_next_part(&mut self, operation: &mut Operation) -> Result<bool, StoreError> {
        let command = operation.command;
        self.refuse_part(operation).map_err(StoreError::Refused)?;
        let affected = read_affected(&self.connection, &command, operation.below, MAX_PART);
        let affected = affected.map_err(|error| {
            log::error!("the change log can't be read: {error}");
            StoreError::NotApplied
        })?;
        let (places, revisions): (Vec<Place>, Vec<Revision>) = affected.into_iter().unzip();
        let (Some(&last), Some(&below)) = (places.last(), revisions.last()) else { return Ok(false) };
        let outcome = match set_states(&mut self.connection, &command, &places) {
            Ok(()) => Ok(places.len() == MAX_PART),
            Err(CommitError::NotApplied(error)) => {
                self.report_failure(&error, "nothing of it was stored");
                return Err(StoreError::NotApplied);
            }
            Err(CommitError::Unknown(error)) => {
                self.report_failure(&error, "it may have been stored");
                if !resolved(is_done(&self.connection, &command, last)) {
                    return Err(StoreError::Unknown);
                }
                Err(StoreError::Unknown)
            }
            Err(CommitError::Fsync(error)) => abort_unflushed(&error),
        };
        operation.done += places.len();
        operation.below = below;
        if !matches!(command, OutboxCommand::Skip { .. }) {
            self.shared.outbox.pending_again(places.len());
        }
        outcome
    }
}

/// The changes that a command affects and their revisions, the latest first: at most `limit`, all below `below`.
fn read_affected(
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

/// The delivery state that a command gives a change.
fn state_after(command: &OutboxCommand) -> DeliveryState {
    match command {
        OutboxCommand::Retry { .. } | OutboxCommand::Republish { .. } => DeliveryState::Pending,
        OutboxCommand::Skip { .. } => DeliveryState::Skipped,
    }
}

/// Gives changes the state that the command asks for.
fn set_states(connection: &mut Connection, command: &OutboxCommand, places: &[Place]) -> Result<(), CommitError> {
    in_transaction(connection, |transaction| {
        let mut statement = transaction.prepare_cached("UPDATE changes SET state = ?2 WHERE seq = ?1")?;
        places.iter().try_for_each(|place| statement.execute(params![place, state_after(command)]).map(drop))
    })
}

/// Whether a change has the state that the command asks for.
fn is_done(connection: &Connection, command: &OutboxCommand, place: Place) -> rusqlite::Result<bool> {
    let state: DeliveryState =
        connection.query_row("SELECT state FROM changes WHERE seq = ?1", [place], |row| row.get(0))?;
    Ok(state == state_after(command))
}

/// Parked changes, oldest first.
pub fn read_parked(connection: &Connection, epoch: Epoch, limit: usize) -> rusqlite::Result<Vec<Change>> {
    let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE state = 2 ORDER BY seq LIMIT ?1");
    connection.prepare_cached(&sql)?.query_map([limit], |row| change(row, epoch))?.collect()
}
