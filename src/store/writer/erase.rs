//! Erases deleted accounts, a little at a time: first go the answers that were kept and the trash, then every todo is
//! deleted, which makes events, then what the log says of them is replaced, wherever it is published. What was committed
//! before a crash needs not be done again: everything that is left to do can be seen in the database.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{TICK_INTERVAL, Writer};
use crate::domain::account::{User, UserId};
use crate::domain::change::Revision;
use crate::domain::todo::TodoId;
use crate::domain::trace::TraceParent;
use crate::store::backend::{Answers, CommitError, Scrub, Scrubbed};
use crate::store::decide::{Decided, Group, Prior, Refusal};
use crate::store::error::StoreError;
use crate::store::{Command, Context};

/// Todos that are deleted in one commit, and changes that are scrubbed in one, at most.
const MAX_PART: usize = 500;

/// The deleted accounts that still have something, and whose turn it is.
pub struct Erasures {
    queue: VecDeque<Erasure>,
    /// How many of them, one after the other, only waited for the relay.
    waiting: usize,
    /// When the next part is due.
    due: Instant,
}

/// A deleted account that still has something.
struct Erasure {
    owner: UserId,
    /// No answers are kept any more: nothing can add any.
    without_answers: bool,
    /// The next part looks at the changes after this revision.
    after: Revision,
    /// The first change of this round that is not published yet: the next round begins with it.
    unpublished: Option<Revision>,
}

impl Erasure {
    fn new(owner: UserId) -> Self {
        Self { owner, without_answers: false, after: Revision::default(), unpublished: None }
    }

    /// A part of scrubbing is committed.
    fn end_part(&mut self, scrubbed: &Scrubbed) -> Left {
        self.unpublished = scrubbed.unpublished;
        if let Some(last) = scrubbed.more_after {
            self.after = last;
            return Left::More;
        }
        match self.unpublished.take() {
            Some(first) => {
                self.after = first.previous();
                Left::Unpublished
            }
            None => Left::Nothing,
        }
    }
}

impl Erasures {
    /// What an earlier run left to do.
    pub fn new(owners: Vec<UserId>) -> Self {
        Self { queue: owners.into_iter().map(Erasure::new).collect(), waiting: 0, due: Instant::now() }
    }

    /// Adds an account that was deleted just now: its todos go before the others' log.
    pub fn add(&mut self, owner: UserId) {
        self.queue.push_front(Erasure::new(owner));
        self.due = Instant::now();
    }

    /// When the next part is due; `None`: there is nothing to do.
    pub fn due(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.due)
    }
}

/// What is left of an account after a part.
enum Left {
    /// More that can be done at once.
    More,
    /// Changes that are not published yet.
    Unpublished,
    /// Nothing.
    Nothing,
}

impl Writer {
    /// Does the next part for the account whose turn it is. Takes at most half of the time.
    pub(super) fn erase(&mut self) {
        let Some(mut erasure) = self.erasures.queue.pop_front() else { return };
        let started = Instant::now();
        let left = self.erase_part(&mut erasure);
        self.abandon();
        self.backend.tidy();
        let mut pause = started.elapsed();
        let waited = std::mem::take(&mut self.erasures.waiting);
        match left {
            Ok(Left::More) => self.erasures.queue.push_front(erasure),
            Ok(Left::Nothing) => log::info!("the deleted account {} is erased", erasure.owner),
            Ok(Left::Unpublished) => {
                self.erasures.queue.push_back(erasure);
                self.erasures.waiting = waited + 1;
                if self.erasures.waiting >= self.erasures.queue.len() {
                    self.erasures.waiting = 0;
                    pause = TICK_INTERVAL;
                }
            }
            // Logged where it occurred.
            Err(_) => {
                self.erasures.queue.push_back(erasure);
                pause = TICK_INTERVAL;
            }
        }
        self.erasures.due = Instant::now() + pause.max(Duration::from_millis(1));
    }

    fn erase_part(&mut self, erasure: &mut Erasure) -> Result<Left, StoreError> {
        let owner = erasure.owner;
        if !erasure.without_answers {
            let removed = self.backend.remove_answers(Answers::Of(owner, 0)).map_err(|error| self.failed(error))?;
            self.log.kept.removed(&removed);
            if !removed.is_empty() {
                return Ok(Left::More);
            }
            // A removal that failed may have been stored.
            match self.backend.answers_size(owner) {
                Ok(bytes) => self.log.kept.set(owner, bytes),
                Err(error) => log::debug!("what is kept of account {owner} is not counted: {error}"),
            }
            erasure.without_answers = true;
        }
        self.begin()?;
        let trashed = self.shared.todos.read().first_trashed(owner, MAX_PART);
        if !trashed.is_empty() {
            let purged = trashed.into_iter().map(|id| (owner, id)).collect();
            self.commit(Decided::only_purged(purged, self.log.next), 0)?;
            return Ok(Left::More);
        }
        let todos = self.shared.todos.read().first(owner, MAX_PART);
        if !todos.is_empty() {
            self.delete_todos(owner, todos)?;
            return Ok(Left::More);
        }
        // Uncommitted marks would be lost on what is scrubbed.
        self.tick();
        self.abandon();
        let next = Scrub { owner, after: erasure.after, unpublished: erasure.unpublished };
        match self.backend.scrub(next, MAX_PART) {
            Ok(scrubbed) => {
                if scrubbed.skipped > 0 {
                    self.restart_relays();
                }
                Ok(erasure.end_part(&scrubbed))
            }
            Err(error) => {
                if matches!(error, CommitError::Unknown(_)) {
                    // The next attempt sees what is scrubbed, but not that an event was skipped by it.
                    self.restart_relays();
                }
                Err(self.failed(error))
            }
        }
    }

    fn failed(&self, error: CommitError) -> StoreError {
        match error {
            CommitError::NotApplied(error) => {
                self.report_failure(&error, "a commit failed, nothing of it was stored");
                StoreError::NotApplied
            }
            CommitError::Unknown(error) => {
                self.report_failure(&error, "a commit failed, it may have been stored");
                StoreError::Unknown
            }
        }
    }

    fn delete_todos(&mut self, owner: UserId, todos: Vec<TodoId>) -> Result<(), StoreError> {
        let operations = todos.len();
        let account = self.shared.users.read().stored(owner).cloned();
        // It is loaded with everything else.
        let account = account.ok_or(StoreError::Refused(Refusal::AccountNotFound))?;
        let commands: Vec<Command> = todos.into_iter().map(Command::Erase).collect();
        let decided = {
            let (facts, state) = (self.facts(), self.state());
            let mut group = Group::new(&state, facts);
            let decided = group.decide(&context(&account), commands.into(), Prior::default());
            decided.map(|_| group.finish()).map_err(|refused| StoreError::Refused(refused.refusal))?
        };
        self.commit(decided, operations)
    }
}

/// Whoever deleted the account also deletes its todos.
fn context(account: &User) -> Context {
    let actor = account.deleted_by.as_ref().unwrap_or(&account.username);
    Context { owner: account.id, actor: Arc::clone(actor), authority: None, trace: TraceParent::random() }
}
