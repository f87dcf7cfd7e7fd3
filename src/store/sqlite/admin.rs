//! What operators do about events.

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::commit::{CommitError, in_transaction};
use super::rows::{CHANGE_COLUMNS, change};
use super::writer::{Writer, abort_unflushed, resolved};
use crate::domain::change::{Change, DeliveryState, Epoch, Place, Revision};
use crate::store::OutboxCommand;
use crate::store::error::StoreError;

/// Changes in one part, at most.
const MAX_PART: usize = 1000;

/// An operator's command, done a part at a time.
pub struct Operation {
    command: OutboxCommand,
    /// The next part is below this revision. From the latest change down: what waits of a todo is always its end.
    below: Revision,
    done: usize,
    reply: oneshot::Sender<Result<usize, StoreError>>,
}

impl Operation {
    /// Nothing of it is done.
    pub fn new(command: OutboxCommand, reply: oneshot::Sender<Result<usize, StoreError>>) -> Self {
        Self { command, below: Revision::MAX, done: 0, reply }
    }

    /// Whether a part of it is stored.
    pub fn has_begun(&self) -> bool {
        self.done > 0
    }

    /// Answers it.
    pub fn end(self, outcome: Result<usize, StoreError>) {
        // The receiver is gone if the client disconnected.
        let _ = self.reply.send(outcome);
    }
}

impl Writer {
    /// Does the next part of what an operator asks, and answers with the last one. The relay begins anew only then.
    pub(super) fn run_admin_command(&mut self, mut operation: Operation) {
        // Marks that are not committed yet would undo what the command does.
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
            // Earlier parts were stored.
            Err(_) if done > 0 => Err(StoreError::Unknown),
            Err(failure) => Err(failure),
        });
    }

    /// Whether there may be more to do.
    fn run_next_part(&mut self, operation: &mut Operation) -> Result<bool, StoreError> {
        let command = operation.command;
        let affected = read_affected(&self.connection, &command, operation.below, MAX_PART);
        let affected = affected.map_err(|problem| {
            log::error!("the change log can't be read: {problem}");
            StoreError::NotApplied
        })?;
        let (places, revisions): (Vec<Place>, Vec<Revision>) = affected.into_iter().unzip();
        let (Some(&last), Some(&below)) = (places.last(), revisions.last()) else { return Ok(false) };
        let outcome = match set_states(&mut self.connection, &command, &places) {
            Ok(()) => Ok(places.len() == MAX_PART),
            Err(CommitError::NotApplied(problem)) => {
                self.report_failure(&problem, "nothing of it was stored");
                return Err(StoreError::NotApplied);
            }
            Err(CommitError::Unknown(problem)) => {
                self.report_failure(&problem, "it may have been stored");
                if !resolved(is_done(&self.connection, &command, last)) {
                    return Err(StoreError::Unknown);
                }
                Err(StoreError::Unknown)
            }
            Err(CommitError::Fsync(problem)) => abort_unflushed(&problem),
        };
        operation.done += places.len();
        operation.below = below;
        if !matches!(command, OutboxCommand::Skip { .. }) {
            self.shared.outbox.pending_again(places.len());
        }
        outcome
    }
}

/// The changes that a command is about, the latest first, at most `limit`: with their revisions, all below
/// `below`.
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

/// What a command makes of a change.
fn state_after(command: &OutboxCommand) -> DeliveryState {
    match command {
        OutboxCommand::Retry { .. } | OutboxCommand::Republish { .. } => DeliveryState::Pending,
        OutboxCommand::Skip { .. } => DeliveryState::Skipped,
    }
}

/// Does with changes what an operator asks.
fn set_states(connection: &mut Connection, command: &OutboxCommand, places: &[Place]) -> Result<(), CommitError> {
    in_transaction(connection, |transaction| {
        let mut statement = transaction.prepare_cached("UPDATE changes SET state = ?2 WHERE seq = ?1")?;
        places.iter().try_for_each(|place| statement.execute(params![place, state_after(command)]).map(drop))
    })
}

/// Whether a command was done with a change.
fn is_done(connection: &Connection, command: &OutboxCommand, place: Place) -> rusqlite::Result<bool> {
    let state: DeliveryState =
        connection.query_row("SELECT state FROM changes WHERE seq = ?1", [place], |row| row.get(0))?;
    Ok(state == state_after(command))
}

/// Changes that wait for an operator, oldest first.
pub fn read_parked(connection: &Connection, epoch: Epoch, limit: usize) -> rusqlite::Result<Vec<Change>> {
    let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE state = 2 ORDER BY seq LIMIT ?1");
    connection.prepare_cached(&sql)?.query_map([limit], |row| change(row, epoch))?.collect()
}
