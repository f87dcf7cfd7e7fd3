//! The single writer: a thread that takes what queued up during the last commit, decides it, commits it as one group,
//! and only then publishes it to readers and answers.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::commit::{self, CommitError};
use super::erase::Erasures;
use super::history;
use super::idempotency::{self, KeptSizes};
use super::jobs::{Decision, Job, Operation, Request};
use crate::config::Retention;
use crate::domain::account::{AccountState, User, UserId};
use crate::domain::change::Revision;
use crate::domain::clock::Clock;
use crate::domain::session::{PersonalToken, PersonalTokenId, Session, SessionId};
use crate::domain::todo::{Todo, TodoId};
use crate::store::decide::todos::Refused;
use crate::store::decide::{Decided, Facts, Group, Head, Next, Prior, Refusal, State};
use crate::store::error::StoreError;
use crate::store::idempotency::Known;
use crate::store::map::TodoMap;
use crate::store::map::sessions::{PersonalTokens, Sessions};
use crate::store::map::users::Users;
use crate::store::outbox::Marks;
use crate::store::{Commands, Context, Shared};

/// Operations in one commit, at most; one request may have more.
const MAX_GROUP_OPERATIONS: usize = 512;

/// How often marks are committed when there is nothing else to write, and how often a failed disk is retried.
pub(super) const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the uptime is saved while no change carries it.
const SAVE_UPTIME_INTERVAL: Duration = Duration::from_secs(3600);

/// Size of the write-ahead log, in pages, at which the writer checkpoints: SQLite's own default.
const CHECKPOINT_AFTER_PAGES: i32 = 1000;

/// What the writer keeps in memory of the log.
pub struct Log {
    pub heads: HashMap<UserId, Head>,
    pub next: Next,
    /// Seconds that the service had been running on this database at start.
    pub uptime: i64,
    /// Deleted accounts that still have something.
    pub erasing: Vec<UserId>,
    /// How much is kept of the users' answers.
    pub kept: KeptSizes,
}

thread_local! {
    /// Pages in the write-ahead log after this thread's last commit, as SQLite's hook reports.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// The state of the writer thread.
pub struct Writer {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) retention: Retention,
    /// See [`Facts::max_todos`].
    pub(super) max_todos: usize,
    pub(super) log: Log,
    pub(super) started: Instant,
    pub(super) marks_due: Instant,
    pub(super) uptime_due: Instant,
    pub(super) prune_due: Instant,
    pub(super) upkeep_due: Instant,
    pub(super) expire_due: Instant,
    /// Owners that this round of pruning has yet to visit.
    pub(super) prune_next: VecDeque<UserId>,
    /// Deleted accounts that still have something.
    pub(super) erasures: Erasures,
    /// Unfinished commands of operators, oldest first.
    pub(super) operations: VecDeque<Operation>,
}

/// What the writer decides on: all of it is in memory.
pub(super) struct Committed<'a> {
    heads: &'a HashMap<UserId, Head>,
    todos: &'a RwLock<TodoMap>,
    users: &'a RwLock<Users>,
    sessions: &'a RwLock<Sessions>,
    personal_tokens: &'a RwLock<PersonalTokens>,
}

impl State for Committed<'_> {
    fn head(&self, owner: UserId) -> Head {
        self.heads.get(&owner).copied().unwrap_or_default()
    }

    fn todo(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>> {
        self.todos.read().get(owner, id).cloned()
    }

    fn trashed(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>> {
        self.todos.read().trash(owner)?.get(id).cloned()
    }

    fn todo_count(&self, owner: UserId) -> usize {
        self.todos.read().count_of(owner)
    }

    fn account(&self, id: UserId) -> Option<Arc<User>> {
        self.users.read().stored(id).cloned()
    }

    fn account_named(&self, username: &str) -> Option<Arc<User>> {
        self.users.read().stored_named(username).cloned()
    }

    fn active_admins(&self) -> Vec<Arc<User>> {
        self.users.read().all().filter(|user| user.is_active_admin()).cloned().collect()
    }

    fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.read().get(id).cloned()
    }

    fn sessions(&self, user: UserId) -> Vec<Arc<Session>> {
        self.sessions.read().of(user).cloned().collect()
    }

    fn personal_token(&self, user: UserId, id: PersonalTokenId) -> Option<Arc<PersonalToken>> {
        self.personal_tokens.read().one_of(user, id).cloned()
    }

    fn personal_tokens(&self, user: UserId) -> Vec<Arc<PersonalToken>> {
        self.personal_tokens.read().of(user).cloned().collect()
    }
}

impl Writer {
    pub fn new(
        connection: Connection,
        shared: Arc<Shared>,
        clock: Clock,
        retention: Retention,
        max_todos: usize,
        mut log: Log,
    ) -> Self {
        let (now, erasures) = (Instant::now(), Erasures::new(std::mem::take(&mut log.erasing)));
        Self {
            connection,
            shared,
            clock,
            retention,
            max_todos,
            log,
            started: now,
            marks_due: now + TICK_INTERVAL,
            uptime_due: now + SAVE_UPTIME_INTERVAL,
            prune_due: now + TICK_INTERVAL,
            upkeep_due: now + TICK_INTERVAL,
            expire_due: now + TICK_INTERVAL,
            prune_next: VecDeque::new(),
            erasures,
            operations: VecDeque::new(),
        }
    }

    /// Runs until [`Job::Close`]. A panic would leave memory and disk out of step, so it ends the process.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.work(jobs)));
        if ended.is_err() {
            abort(format_args!("the writer panicked; aborting, so that a restart begins from what is on disk"));
        }
    }

    fn work(&mut self, jobs: &Receiver<Job>) {
        let hook = self.connection.wal_hook(Some(|_: &mut Wal, pages| {
            WAL_PAGES.set(pages);
            Ok(())
        }));
        if let Err(error) = hook {
            log::warn!("the log is only checkpointed at the end: {error}");
        }
        let mut next = None;
        loop {
            let due = if self.operations.is_empty() {
                let due = self.marks_due.min(self.prune_due).min(self.upkeep_due).min(self.expire_due);
                self.erasures.due().map_or(due, |erase| erase.min(due))
            } else {
                self.started
            };
            let wait = due.saturating_duration_since(Instant::now());
            match next.take().map_or_else(|| jobs.recv_timeout(wait), Ok) {
                Ok(Job::Apply(request)) => {
                    let mut operations = request.operations();
                    let mut group = vec![request];
                    while operations < MAX_GROUP_OPERATIONS {
                        match jobs.try_recv() {
                            // What is undone has to be in the log, and a group has an end.
                            Ok(Job::Apply(request))
                                if request.undoes().is_none()
                                    && operations.saturating_add(request.operations()) <= MAX_GROUP_OPERATIONS =>
                            {
                                operations += request.operations();
                                group.push(request);
                            }
                            other => {
                                next = other.ok();
                                break;
                            }
                        }
                    }
                    self.shared.queued.fetch_sub(group.len(), Ordering::Relaxed);
                    self.apply(group, operations);
                }
                Ok(Job::RunAdminCommand { authority, command, reply }) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    self.operations.push_back(Operation::new(authority, command, reply));
                }
                #[cfg(test)]
                Ok(Job::InjectFault(inject)) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    inject(&mut self.connection);
                }
                #[cfg(test)]
                Ok(Job::MinuteIsOver) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    (self.upkeep_due, self.expire_due) = (self.started, self.started);
                }
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(operation) = self.operations.pop_front() {
                self.run_admin_command(operation);
            }
            if Instant::now() >= self.marks_due {
                self.tick();
            }
            if Instant::now() >= self.prune_due {
                self.prune();
            }
            if Instant::now() >= self.upkeep_due {
                self.upkeep();
            }
            if Instant::now() >= self.expire_due {
                self.expire();
            }
            if self.erasures.due().is_some_and(|due| Instant::now() >= due) {
                self.erase();
            }
        }
        for operation in self.operations.drain(..).filter(|operation| operation.has_begun()) {
            operation.end(Err(StoreError::Unknown));
        }
        self.upkeep();
        // The last marks, and the uptime.
        self.uptime_due = self.started;
        self.tick();
        // Dropping later jobs answers them.
        if let Err(error) = commit::checkpoint(&self.connection) {
            log::warn!("the last checkpoint failed, the next start reads the log: {error}");
        }
    }

    /// Commits marks, and retries a disk that failed: with a write, which shows whether writing works again.
    pub(super) fn tick(&mut self) {
        self.marks_due = Instant::now() + TICK_INTERVAL;
        if self.shared.outbox.has_marks() || self.must_write() {
            // Nobody waits for this; `writable` has the outcome.
            let _ = self.commit(Decided::nothing(self.log.next), 0);
            self.checkpoint();
        }
    }

    /// Whether to write even if there is nothing to write.
    fn must_write(&self) -> bool {
        !self.shared.writable.load(Ordering::Relaxed) || Instant::now() >= self.uptime_due
    }

    /// Seconds that the service has been running on this database: the clock of retention. Never faster than the
    /// monotonic clock, and it stands still while the service is down.
    pub(super) fn uptime(&self) -> i64 {
        self.log.uptime.saturating_add_unsigned(self.started.elapsed().as_secs())
    }

    fn apply(&mut self, group: Vec<Request>, operations: usize) {
        let prior = match group.iter().map(|request| self.prior(request)).collect() {
            Ok(prior) => prior,
            Err(error) => {
                self.report_failure(&error, "because what was before can't be read");
                return group.into_iter().for_each(|request| request.fail(StoreError::NotApplied));
            }
        };
        let (decided, decisions) = self.decide(group, prior);
        let failure = self.commit(decided, operations).err();
        for decision in decisions {
            decision.answer(failure.clone());
        }
        self.checkpoint();
    }

    /// Commits a group's decisions together with the marks. `operations` is for the metrics.
    pub(super) fn commit(&mut self, decided: Decided, operations: usize) -> Result<(), StoreError> {
        let marks = self.shared.outbox.marks();
        if decided.is_empty() && marks.is_empty() && !self.must_write() {
            return Ok(());
        }
        let (started, uptime) = (Instant::now(), self.uptime());
        // With nothing else to write, this is the write that shows whether the disk works.
        let save_uptime = decided.is_empty() || started >= self.uptime_due;
        let outcome = commit::commit(&mut self.connection, &decided, &marks, uptime, save_uptime);
        self.shared.metrics.committed(operations, started.elapsed());
        match outcome {
            Ok(()) => {
                if save_uptime {
                    self.uptime_due = started + SAVE_UPTIME_INTERVAL;
                }
                self.committed(decided, &marks, uptime);
                Ok(())
            }
            Err(CommitError::NotApplied(error)) => {
                self.report_failure(&error, "nothing of it was stored");
                Err(StoreError::NotApplied)
            }
            Err(CommitError::Unknown(error)) => {
                self.report_failure(&error, "it may have been stored");
                self.resolve_unknown_commit(decided, &marks, uptime);
                Err(StoreError::Unknown)
            }
            Err(CommitError::Fsync(error)) => abort_unflushed(&error),
        }
    }

    /// What earlier groups have left that a request is about.
    fn prior(&self, request: &Request) -> rusqlite::Result<Prior> {
        let Request::Todos { context: Context { owner, .. }, commands, .. } = request else {
            return Ok(Prior::default());
        };
        match self.read_prior(*owner, commands, request.undoes()) {
            // That concerns all, any other error only this one.
            Err(error @ rusqlite::Error::SqliteFailure(..)) => Err(error),
            Err(error) => {
                log::error!("what a request of account {owner} needs can't be read: {error}");
                Ok(Prior { answer: Some(Known::Unreadable), ..Prior::default() })
            }
            prior => prior,
        }
    }

    fn read_prior(
        &self,
        owner: UserId,
        commands: &Commands,
        undoes: Option<(Revision, bool)>,
    ) -> rusqlite::Result<Prior> {
        if let Some(request) = &commands.idempotency
            && let Some(answer) = idempotency::find(&self.connection, owner, request)?
        {
            return Ok(Prior { answer: Some(answer), undone: Vec::new() });
        }
        let Some((revision, whole_batch)) = undoes else { return Ok(Prior::default()) };
        let undone = history::undone(&self.connection, self.shared.epoch, owner, revision, whole_batch)?;
        Ok(Prior { answer: None, undone })
    }

    fn decide(&self, requests: Vec<Request>, prior: Vec<Prior>) -> (Decided, Vec<Decision>) {
        let state = self.state();
        let mut group = Group::new(&state, self.facts());
        let decide = |(request, prior): (_, Prior)| match request {
            Request::Todos { context, commands, reply } => {
                let (is_batch, is_settled) = (commands.is_batch, prior.answer.is_some());
                let decided = group.decide(&context, commands, prior).map_err(|refused| match refused {
                    Refused { command: Some(operation), refusal } if is_batch => {
                        StoreError::OperationRefused { operation, refusal }
                    }
                    Refused { refusal, .. } => StoreError::Refused(refusal),
                });
                if is_settled && decided != Err(StoreError::Refused(Refusal::NoLongerAllowed)) {
                    // It does not depend on this group's commit. The receiver is gone if the client disconnected.
                    let _ = reply.send(decided);
                    return None;
                }
                Some(Decision::Todos(decided, reply))
            }
            Request::Session { authority, command, reply } => {
                Some(Decision::Session(group.decide_session(authority, command).map_err(StoreError::Refused), reply))
            }
            Request::Account { authority, command, reply } => {
                Some(Decision::Account(group.decide_account(authority, command).map_err(StoreError::Refused), reply))
            }
        };
        let decisions = requests.into_iter().zip(prior).filter_map(decide).collect();
        (group.finish(), decisions)
    }

    pub(super) fn state(&self) -> Committed<'_> {
        let Shared { todos, users, sessions, personal_tokens, .. } = &*self.shared;
        Committed { heads: &self.log.heads, todos, users, sessions, personal_tokens }
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            epoch: self.shared.epoch,
            now: self.clock.now(),
            next: self.log.next,
            demo_users: self.shared.users.read().demo_users(),
            max_todos: self.max_todos,
        }
    }

    /// A group is on disk since `uptime`: nothing here may fail.
    fn committed(&mut self, decided: Decided, marks: &Marks, uptime: i64) {
        self.log.next = decided.next;
        self.shared.publish(&decided, uptime);
        if self.log.kept.added(&decided.answers) {
            self.expire_due = self.expire_due.min(Instant::now());
        }
        self.log.heads.extend(decided.heads);
        for account in decided.accounts.into_values() {
            self.log.heads.entry(account.id).or_default();
            if account.state == AccountState::Deleted {
                self.erasures.add(account.id);
            }
        }
        self.shared.outbox.marks_committed(marks);
        self.marks_due = Instant::now() + TICK_INTERVAL;
        if !self.shared.writable.swap(true, Ordering::Relaxed) {
            log::info!("the database can be written again");
        }
    }

    pub(super) fn report_failure(&self, error: &rusqlite::Error, consequence: &str) {
        // Once per outage, not once per request.
        if self.shared.writable.swap(false, Ordering::Relaxed) {
            log::error!(
                "a commit failed, {consequence}: {error}; changes are answered 503 until writing works again. \
                 Is the disk full?"
            );
        }
    }

    /// Resolves a commit whose error leaves its outcome open: asks the database, and follows it.
    fn resolve_unknown_commit(&mut self, decided: Decided, marks: &Marks, uptime: i64) {
        let stored = commit::is_stored(&self.connection, &decided).map(|stored| stored.unwrap_or(false));
        if resolved(stored) {
            self.committed(decided, marks, uptime);
        }
    }

    pub(super) fn checkpoint(&self) {
        if WAL_PAGES.get() < CHECKPOINT_AFTER_PAGES {
            return;
        }
        WAL_PAGES.set(0);
        match commit::checkpoint(&self.connection) {
            Ok(()) => {}
            Err(error) if commit::is_fsync(&error) => abort_unflushed(&error),
            Err(error) => log::warn!("a checkpoint failed and is tried again later: {error}"),
        }
    }
}

/// What the database says about a commit whose outcome was open.
pub(super) fn resolved(stored: rusqlite::Result<bool>) -> bool {
    stored.unwrap_or_else(|error| {
        abort(format_args!("cannot find out what was stored: {error}; aborting, a restart reads it from disk"))
    })
}

pub(super) fn abort_unflushed(error: &rusqlite::Error) -> ! {
    abort(format_args!("the disk did not confirm a write: {error}; aborting, a restart reads what is really stored"))
}

/// Ends the process without any clean-up that could touch the disk, after a last line in the log.
fn abort(why: fmt::Arguments<'_>) -> ! {
    log::error!("{why}");
    log::logger().flush();
    std::process::abort();
}
