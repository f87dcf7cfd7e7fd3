//! The seam between the writer and the database that the log is in: rules and order of work are the writer's, and the same
//! for all; what is here is how that is read and stored.

use std::collections::HashMap;

use super::command::OutboxCommand;
use super::decide::{Decided, Head, Next, Prior};
use super::idempotency::Idempotency;
use super::map::login_networks::{LoginNetwork, Unsaved};
use super::outbox::Marks;
use super::postgres::error::PostgresError;
use crate::domain::account::UserId;
use crate::domain::change::{Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::session::PersonalTokenId;

/// A database, for the process's one writer. What writes does it in one transaction: all of it is stored, or nothing.
pub trait Backend: Send {
    /// Waits for this process's turn to write, if others write, too, and says what they have committed since `seen`. The turn
    /// ends with the next commit, or with [`Self::abandon`].
    fn begin(&mut self, _seen: Position) -> Result<Option<Turn>, Failure> {
        Ok(None)
    }

    /// Ends the turn without a commit.
    fn abandon(&mut self) {}

    /// What earlier groups have left that these requests are about, in their order. An error is that of the database; a
    /// value of one of them that can't be read is one of its own.
    fn prior(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Result<Prior, Failure>>, Failure>;

    /// Commits a group.
    fn commit(&mut self, group: &Commit<'_>) -> Result<(), CommitError>;

    /// Whether a group is stored whose commit is [`CommitError::Unknown`]. An error: it can't be found out yet.
    fn is_stored(&mut self, decided: &Decided) -> Result<bool, Failure>;

    /// Removes what retention no longer keeps of each owner: a prefix of its changes, never past an unpublished one. At
    /// most about `limit` changes in all, fairly shared between the owners.
    fn prune(&mut self, owners: &[(UserId, Head)], rule: Rule, limit: usize) -> Result<Vec<Pruned>, CommitError>;

    /// Removes some kept answers; returns whose they were, and their sizes in bytes.
    fn remove_answers(&mut self, which: Answers) -> Result<Vec<(UserId, u64)>, CommitError>;

    /// The size of all answers that are kept of a user, in bytes.
    fn answers_size(&mut self, owner: UserId) -> Result<u64, Failure>;

    /// Scrubs the next changes of a deleted account that are published, at most `limit`. Parked events are skipped.
    fn scrub(&mut self, next: Scrub, limit: usize) -> Result<Scrubbed, CommitError>;

    /// Saves when personal access tokens were used, and from where people have logged in.
    fn save_used(
        &mut self,
        tokens: &HashMap<PersonalTokenId, Timestamp>,
        networks: &Unsaved,
    ) -> Result<(), CommitError>;

    /// The changes that an operator's command affects and their revisions, the latest first: at most `limit`, all below
    /// `below`.
    fn affected(
        &mut self,
        command: &OutboxCommand,
        below: Revision,
        limit: usize,
    ) -> Result<Vec<(Place, Revision)>, Failure>;

    /// Gives changes the delivery state that the command asks for; returns how many. Not those that another process has given one
    /// since they were read.
    fn set_states(&mut self, command: &OutboxCommand, places: &[Place]) -> Result<usize, CommitError>;

    /// Whether a change has the delivery state that the command asks for.
    fn is_done(&mut self, command: &OutboxCommand, place: Place) -> Result<bool, Failure>;

    /// Whether other processes write, too.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether some of the marks of the last group were not stored, because it is another process's turn to publish those events.
    fn has_refused_marks(&self) -> bool {
        false
    }

    /// Forgets what all processes have heard of long ago; one that has not must start again.
    fn forget_records(&mut self) -> Result<(), CommitError> {
        Ok(())
    }

    /// What is due after commits, such as moving a log's pages into the database.
    fn tidy(&mut self) {}

    /// Called once a second, also if there is nothing to do: a database that is away is noticed, and one that was taken over.
    fn keep_connected(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether this process removes what has had its time: of several, one does.
    fn keeps_house(&mut self) -> bool {
        true
    }

    /// Deleted accounts that still have something, if others may have deleted any.
    fn erasing(&mut self) -> Result<Vec<UserId>, Failure> {
        Ok(Vec::new())
    }

    /// How much is kept of each user's answers, if others may have added any.
    fn answers_sizes(&mut self) -> Result<Option<Vec<(UserId, u64)>>, Failure> {
        Ok(None)
    }

    /// When personal access tokens were used last, and networks for a login, if others may have saved any: those since a time.
    fn used_since(&mut self, _since: Timestamp) -> Result<UsedElsewhere, Failure> {
        Ok(UsedElsewhere::default())
    }

    /// The clock that retention goes by, in seconds, if it is not the time for which the service has been running.
    fn clock(&mut self) -> Option<i64> {
        None
    }

    /// Ends the work with the database.
    fn close(&mut self) {}

    /// The connection to SQLite, which tests make fail.
    #[cfg(test)]
    fn sqlite(&mut self) -> &mut rusqlite::Connection;
}

/// How far the log is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The last change.
    pub change: Place,
    /// The number of the last record: of an account, session or token that is new or different, or of a todo that was removed
    /// from the trash. See [`Decided::records`].
    pub record: i64,
}

/// A turn to write.
#[derive(Debug)]
pub struct Turn {
    /// What others have committed meanwhile.
    pub missed: Option<Missed>,
    /// The unused numbers.
    pub next: Next,
}

/// What other processes have committed.
#[derive(Debug)]
pub struct Missed {
    /// The changes, and how accounts, sessions and tokens are now.
    pub decided: Decided,
    /// When each change was made, by the clock of retention, in seconds.
    pub uptimes: Vec<i64>,
    /// Up to here.
    pub through: Position,
}

/// What other processes have saved of tokens and networks.
#[derive(Debug, Default)]
pub struct UsedElsewhere {
    /// When personal access tokens were used last.
    pub tokens: Vec<(PersonalTokenId, Timestamp)>,
    /// When networks were used for a login last.
    pub networks: Vec<(LoginNetwork, Timestamp)>,
}

/// What has to be known before a request is decided.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Whose todos it is about.
    pub owner: UserId,
    /// Set if it can be repeated: the answer may be known.
    pub request: Option<&'a Idempotency>,
    /// The change that it undoes, and whether with all that were made together with it.
    pub undoes: Option<(Revision, bool)>,
}

/// What one transaction stores.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// What the group's requests have changed.
    pub decided: &'a Decided,
    /// What became of events.
    pub marks: &'a Marks,
    /// When, by the clock of retention, in seconds: stored with each change.
    pub uptime: i64,
    /// Whether it is also stored on its own.
    pub save_uptime: bool,
}

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// SQLite's.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Postgres'.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

/// Why a transaction was not committed, or not known to be.
#[derive(Debug)]
pub enum CommitError {
    /// Nothing of it is in the database.
    NotApplied(Failure),
    /// It may be in the database.
    Unknown(Failure),
}

/// Which answers to remove: some of them, the oldest first.
#[derive(Debug, Clone, Copy)]
pub enum Answers {
    /// Those from before this time, by the clock of retention, in seconds.
    Before(i64),
    /// Those of a user; more than usual if so many bytes are too much.
    Of(UserId, u64),
}

/// Answers that are removed in one commit, at most: more than a group can add.
pub const MAX_ANSWERS: usize = 1000;
/// The same in bytes, but for the last one: freeing a large answer is work, too.
pub const MAX_ANSWER_BYTES: u64 = 4 << 20;

impl Answers {
    /// After so many bytes it is enough for one commit.
    pub fn enough(self) -> u64 {
        match self {
            Self::Before(_) => MAX_ANSWER_BYTES,
            Self::Of(_, excess) => excess.max(MAX_ANSWER_BYTES),
        }
    }
}

/// What is kept; times are by the clock of retention, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Older changes are removed.
    pub keep_from: i64,
    /// Older changes are removed if they are too many; younger ones, if they are far too many.
    pub keep_any_from: i64,
    /// Changes of one owner, at most.
    pub per_owner: i64,
}

/// So many times as many changes as otherwise are kept if they are young.
const MUCH: i64 = 10;

impl Rule {
    /// An owner's changes up to this revision are too many, if they are old enough.
    pub fn too_many_through(self, head: Revision) -> Revision {
        Revision(head.0.saturating_sub(self.per_owner))
    }

    /// An owner's changes up to this revision are far too many.
    pub fn far_too_many_through(self, head: Revision) -> Revision {
        Revision(head.0.saturating_sub(self.per_owner.saturating_mul(MUCH)))
    }

    /// Whether a change is not kept.
    pub fn removes(self, head: Revision, revision: Revision, uptime: i64) -> bool {
        uptime < self.keep_from
            || revision <= self.too_many_through(head) && uptime < self.keep_any_from
            || revision <= self.far_too_many_through(head)
    }
}

/// What was pruned of an owner's changes.
#[derive(Debug)]
pub struct Pruned {
    /// Whose.
    pub owner: UserId,
    /// The last pruned revision.
    pub through: Revision,
    /// How many were pruned just now.
    pub count: usize,
    /// There may be more to prune: the owner's share of this step was used up.
    pub more: bool,
}

/// Which changes of a deleted account to scrub next.
#[derive(Debug, Clone, Copy)]
pub struct Scrub {
    /// The account.
    pub owner: UserId,
    /// Those after this revision.
    pub after: Revision,
    /// The first one before that is not published yet.
    pub unpublished: Option<Revision>,
}

/// What one part of scrubbing did.
#[derive(Debug)]
pub struct Scrubbed {
    /// The last change that it looked at, if it looked at as many as it may: there may be more.
    pub more_after: Option<Revision>,
    /// The first change that is not published yet.
    pub unpublished: Option<Revision>,
    /// Parked events that were given up.
    pub skipped: usize,
}

impl Scrubbed {
    /// Nothing that the owner wrote is left.
    pub fn is_all(&self) -> bool {
        self.more_after.is_none() && self.unpublished.is_none()
    }
}
