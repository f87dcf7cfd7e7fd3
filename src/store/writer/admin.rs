//! Operators' commands about events.

use super::Writer;
use super::jobs::Operation;
use crate::domain::account::AccountState;
use crate::domain::change::{Place, Revision};
use crate::store::OutboxCommand;
use crate::store::backend::CommitError;
use crate::store::decide::{Group, Refusal};
use crate::store::error::StoreError;

/// Changes in one part, at most.
const MAX_PART: usize = 1000;

impl Writer {
    /// Runs the next part of a command; the last one answers it and makes the relay start over.
    pub(super) fn run_admin_command(&mut self, mut operation: Operation) {
        // Uncommitted marks would undo what the command does.
        self.tick();
        self.shared.outbox.storing(true);
        let outcome = self.run_next_part(&mut operation);
        self.shared.outbox.storing(false);
        if outcome == Ok(true) {
            self.operations.push_front(operation);
            return;
        }
        if operation.has_begun() {
            self.restart_relays();
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
            let (facts, state) = (self.facts(), self.state());
            Group::new(&state, facts).still_valid(authority)?;
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
        self.begin()?;
        let refused = self.refuse_part(operation);
        self.abandon();
        refused.map_err(StoreError::Refused)?;
        let affected = self.backend.affected(&command, operation.below, MAX_PART);
        let affected = affected.map_err(|error| {
            log::error!("the change log can't be read: {error}");
            StoreError::NotApplied
        })?;
        let (places, revisions): (Vec<Place>, Vec<Revision>) = affected.into_iter().unzip();
        let (Some(&last), Some(&below)) = (places.last(), revisions.last()) else { return Ok(false) };
        let mut affected = places.len();
        let outcome = match self.backend.set_states(&command, &places) {
            Ok(count) => {
                affected = count;
                Ok(places.len() == MAX_PART)
            }
            Err(CommitError::NotApplied(error)) => {
                self.report_failure(&error, "a commit failed, nothing of it was stored");
                return Err(StoreError::NotApplied);
            }
            Err(CommitError::Unknown(error)) => {
                self.report_failure(&error, "a commit failed, it may have been stored");
                if self.backend.is_done(&command, last).is_ok_and(|is_done| !is_done) {
                    return Err(StoreError::Unknown);
                }
                Err(StoreError::Unknown)
            }
        };
        operation.done += affected;
        operation.below = below;
        if !matches!(command, OutboxCommand::Skip { .. }) {
            self.shared.outbox.pending_again(affected);
        }
        outcome
    }
}
