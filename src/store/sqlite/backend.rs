//! SQLite as the writer's database.

use std::cell::Cell;
use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::{admin, commit, erase, history, idempotency, retention, used};
use crate::domain::account::UserId;
use crate::domain::change::{Epoch, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::session::PersonalTokenId;
use crate::store::abort::abort;
use crate::store::backend::{Answers, Asked, Backend, Commit, CommitError, Failure, Pruned, Rule, Scrub, Scrubbed};
use crate::store::command::OutboxCommand;
use crate::store::decide::{Decided, Head, Prior};
use crate::store::map::login_networks::Unsaved;

/// Size of the write-ahead log, in pages, at which it is checkpointed: SQLite's own default.
const CHECKPOINT_AFTER_PAGES: i32 = 1000;

thread_local! {
    /// Pages in the write-ahead log after this thread's last commit, as SQLite's hook reports.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// The connection that writes.
pub struct Sqlite {
    connection: Connection,
    epoch: Epoch,
}

impl Sqlite {
    /// Takes the connection that writes to a database of this epoch.
    pub fn new(mut connection: Connection, epoch: Epoch) -> Self {
        let hook = connection.wal_hook(Some(|_: &mut Wal, pages| {
            WAL_PAGES.set(pages);
            Ok(())
        }));
        if let Err(error) = hook {
            log::warn!("the log is only checkpointed at the end: {error}");
        }
        Self { connection, epoch }
    }

    fn prior_of(&self, asked: &Asked<'_>) -> rusqlite::Result<Prior> {
        if let Some(request) = asked.request
            && let Some(answer) = idempotency::find(&self.connection, asked.owner, request)?
        {
            return Ok(Prior { answer: Some(answer), undone: Vec::new() });
        }
        let Some((revision, whole_batch)) = asked.undoes else { return Ok(Prior::default()) };
        let undone = history::undone(&self.connection, self.epoch, asked.owner, revision, whole_batch)?;
        Ok(Prior { answer: None, undone })
    }
}

impl Backend for Sqlite {
    fn prior(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Result<Prior, Failure>>, Failure> {
        let prior = asked.iter().map(|asked| match self.prior_of(asked) {
            Err(error @ rusqlite::Error::SqliteFailure(..)) => Err(error.into()),
            found => Ok(found.map_err(Failure::from)),
        });
        prior.collect()
    }

    fn commit(&mut self, group: &Commit<'_>) -> Result<(), CommitError> {
        commit::commit(&mut self.connection, group)
    }

    fn is_stored(&mut self, decided: &Decided) -> Result<bool, Failure> {
        Ok(commit::is_stored(&self.connection, decided))
    }

    fn prune(&mut self, owners: &[(UserId, Head)], rule: Rule, limit: usize) -> Result<Vec<Pruned>, CommitError> {
        retention::prune(&mut self.connection, owners, rule, limit)
    }

    fn remove_answers(&mut self, which: Answers) -> Result<Vec<(UserId, u64)>, CommitError> {
        idempotency::remove(&mut self.connection, which)
    }

    fn answers_size(&mut self, owner: UserId) -> Result<u64, Failure> {
        Ok(idempotency::size_of(&self.connection, owner)?)
    }

    fn scrub(&mut self, next: Scrub, limit: usize) -> Result<Scrubbed, CommitError> {
        erase::scrub(&mut self.connection, next, limit)
    }

    fn save_used(
        &mut self,
        tokens: &HashMap<PersonalTokenId, Timestamp>,
        networks: &Unsaved,
    ) -> Result<(), CommitError> {
        used::save(&mut self.connection, tokens, networks)
    }

    fn affected(
        &mut self,
        command: &OutboxCommand,
        below: Revision,
        limit: usize,
    ) -> Result<Vec<(Place, Revision)>, Failure> {
        Ok(admin::read_affected(&self.connection, command, below, limit)?)
    }

    fn set_states(&mut self, command: &OutboxCommand, places: &[Place]) -> Result<usize, CommitError> {
        admin::set_states(&mut self.connection, command, places).map(|()| places.len())
    }

    fn is_done(&mut self, command: &OutboxCommand, place: Place) -> Result<bool, Failure> {
        match admin::is_done(&self.connection, command, place) {
            Ok(is_done) => Ok(is_done),
            Err(error) => {
                abort(format_args!("cannot find out what was stored: {error}; aborting, a restart reads it from disk"))
            }
        }
    }

    fn tidy(&mut self) {
        if WAL_PAGES.get() < CHECKPOINT_AFTER_PAGES {
            return;
        }
        WAL_PAGES.set(0);
        if let Err(error) = commit::checkpoint(&self.connection) {
            commit::abort_if_unflushed(&error);
            log::warn!("a checkpoint failed and is tried again later: {error}");
        }
    }

    fn close(&mut self) {
        if let Err(error) = commit::checkpoint(&self.connection) {
            log::warn!("the last checkpoint failed, the next start reads the log: {error}");
        }
    }

    #[cfg(test)]
    fn sqlite(&mut self) -> &mut Connection {
        &mut self.connection
    }
}
