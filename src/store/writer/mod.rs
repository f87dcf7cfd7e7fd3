//! The single writer: a thread that takes what queued up during the last commit, decides it, commits it as one group,
//! and only then publishes it to readers and answers.

mod admin;
mod erase;
mod expire;
pub mod jobs;
pub mod kept_sizes;
mod retention;
mod upkeep;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use parking_lot::{MutexGuard, RwLock};

use crate::config::Retention;
use crate::domain::account::{User, UserId};
use crate::domain::clock::Clock;
use crate::domain::session::{PersonalToken, PersonalTokenId, Session, SessionId};
use crate::domain::todo::{Todo, TodoId};
use crate::store::abort::abort;
use crate::store::backend::{Asked, Backend, Commit, CommitError, Failure, Position};
use crate::store::decide::todos::Refused;
use crate::store::decide::{Decided, Facts, Group, Head, Next, Prior, Refusal, State};
use crate::store::error::StoreError;
use crate::store::idempotency::Known;
use crate::store::map::TodoMap;
use crate::store::map::sessions::{PersonalTokens, Sessions};
use crate::store::map::users::Users;
use crate::store::outbox::Marks;
use crate::store::{Applied, Shared};
use erase::Erasures;
use jobs::{Decision, Job, Operation, Request};
use kept_sizes::KeptSizes;

/// Operations in one commit, at most; one request may have more.
const MAX_GROUP_OPERATIONS: usize = 512;

/// How often marks are committed when there is nothing else to write, and how often a failed disk is retried.
pub(super) const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the clock of retention is read, if it is the database's.
const READ_CLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// A jump of that clock that is worth a line in the log, in seconds.
const MAX_JUMP: i64 = 3600;

/// How often the uptime is saved while no change carries it.
const SAVE_UPTIME_INTERVAL: Duration = Duration::from_secs(3600);

/// What the writer keeps in memory of the log.
pub struct Memory {
    pub next: Next,
    /// The clock of retention at start, in seconds: how long the service had been running on this database, or the
    /// database's own time.
    pub uptime: i64,
    /// Deleted accounts that still have something.
    pub erasing: Vec<UserId>,
    /// How much is kept of the users' answers.
    pub kept: KeptSizes,
}

/// The state of the writer thread.
pub struct Writer {
    pub(super) backend: Box<dyn Backend>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) retention: Retention,
    /// See [`Facts::max_todos`].
    pub(super) max_todos: usize,
    pub(super) log: Memory,
    pub(super) started: Instant,
    /// When `log.uptime` was right.
    uptime_read: Instant,
    /// A group that was sent, and whose commit may be done or not: nothing is written until that is known.
    unresolved: Option<Unresolved>,
    /// It is this process's turn to write, and this is where the log ends.
    turn: Option<Position>,
    /// Whether it removes what has had its time.
    keeps_house: bool,
    /// Relays of other processes are still to be told that they must start over.
    restarts_relays: bool,
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

/// A group whose commit may be done or not.
struct Unresolved {
    decided: Decided,
    /// Where the log ends with it.
    through: Position,
    marks: Marks,
    uptime: i64,
    /// When the database is asked the next time.
    due: Instant,
}

/// What the writer decides on: all of it is in memory, and stays as it is meanwhile.
pub(super) struct Committed<'a> {
    applied: MutexGuard<'a, Applied>,
    todos: &'a RwLock<TodoMap>,
    users: &'a RwLock<Users>,
    sessions: &'a RwLock<Sessions>,
    personal_tokens: &'a RwLock<PersonalTokens>,
}

impl State for Committed<'_> {
    fn head(&self, owner: UserId) -> Head {
        self.applied.heads.get(&owner).copied().unwrap_or_default()
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
    /// A writer that goes on from what `log` says.
    pub fn new(
        backend: Box<dyn Backend>,
        shared: Arc<Shared>,
        clock: Clock,
        retention: Retention,
        max_todos: usize,
        mut log: Memory,
    ) -> Self {
        let (now, erasures) = (Instant::now(), Erasures::new(std::mem::take(&mut log.erasing)));
        Self {
            backend,
            shared,
            clock,
            retention,
            max_todos,
            log,
            started: now,
            uptime_read: now,
            unresolved: None,
            turn: None,
            keeps_house: false,
            restarts_relays: false,
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
            abort(format_args!("the writer panicked; aborting, so that a restart begins from what is stored"));
        }
    }

    fn work(&mut self, jobs: &Receiver<Job>) {
        let mut next = None;
        loop {
            let due = if let Some(unresolved) = &self.unresolved {
                unresolved.due
            } else if self.operations.is_empty() {
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
                    inject(self.backend.sqlite());
                }
                #[cfg(test)]
                Ok(Job::MinuteIsOver) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    (self.upkeep_due, self.expire_due) = (self.started, self.started);
                }
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_unresolved() {
                continue;
            }
            if let Some(operation) = self.operations.pop_front() {
                self.run_admin_command(operation);
            }
            if Instant::now() >= self.marks_due {
                self.tick();
            }
            self.read_clock();
            self.see_to_the_house();
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
        if !self.is_unresolved() {
            self.upkeep();
            // The last marks, and the uptime.
            self.uptime_due = self.started;
            self.tick();
        }
        // Dropping later jobs answers them.
        self.backend.close();
    }

    /// Commits marks, and retries a disk that failed: with a write, which shows whether writing works again.
    pub(super) fn tick(&mut self) {
        self.marks_due = Instant::now() + TICK_INTERVAL;
        if let Err(error) = self.backend.keep_connected() {
            return self.report_failure(&error, "the database can't be reached");
        }
        if self.restarts_relays {
            self.restart_relays();
        }
        if self.shared.outbox.has_marks() || self.must_write() {
            // Nobody waits for this; `writable` has the outcome.
            let _ = self.commit(Decided::nothing(self.log.next), 0);
            self.backend.tidy();
        }
    }

    /// Makes the relays of all processes start over with what the log has. If they can't be told now, they are later.
    pub(super) fn restart_relays(&mut self) {
        if !self.backend.is_shared() {
            return self.shared.outbox.reload();
        }
        // What was begun has the numbers that are unused.
        let begun = self.begin();
        let told = begun.and_then(|_| self.commit(Decided::only_restart_relays(self.log.next), 0));
        self.restarts_relays = told.is_err();
    }

    /// Whether to write even if there is nothing to write.
    fn must_write(&self) -> bool {
        !self.shared.writable.load(Ordering::Relaxed) || Instant::now() >= self.uptime_due
    }

    /// The clock of retention, in seconds. It never goes backwards. By default it is how long the service has been running
    /// on this database: never faster than the monotonic clock, and it stands still while the service is down.
    pub(super) fn uptime(&self) -> i64 {
        self.log.uptime.saturating_add_unsigned(self.uptime_read.elapsed().as_secs())
    }

    /// Reads the clock of retention again, if it is the database's.
    fn read_clock(&mut self) {
        if self.uptime_read.elapsed() >= READ_CLOCK_INTERVAL
            && let Some(now) = self.backend.clock()
        {
            let ahead = now.saturating_sub(self.uptime());
            if ahead > MAX_JUMP {
                log::warn!("the database's clock has jumped by {ahead} s: what it makes old is removed");
            }
            (self.log.uptime, self.uptime_read) = (self.uptime().max(now), Instant::now());
        }
    }

    fn apply(&mut self, group: Vec<Request>, operations: usize) {
        let fail = |group: Vec<Request>| group.into_iter().for_each(|request| request.fail(StoreError::NotApplied));
        if self.is_unresolved() || self.begin().is_err() {
            return fail(group);
        }
        let prior = match self.prior(&group) {
            Ok(prior) => prior,
            Err(error) => {
                self.abandon();
                self.report_failure(&error, "what was before can't be read");
                return fail(group);
            }
        };
        let (decided, decisions) = self.decide(group, prior);
        let failure = self.commit(decided, operations).err();
        for decision in decisions {
            decision.answer(failure.clone());
        }
        self.backend.tidy();
    }

    /// Waits for this process's turn to write, and makes visible what others have committed meanwhile: what is decided from
    /// now on is decided on what is stored. The turn ends with the next commit. A failure is logged.
    pub(super) fn begin(&mut self) -> Result<Position, StoreError> {
        if let Some(position) = self.turn {
            return Ok(position);
        }
        let seen = self.shared.applied.lock().position;
        match self.backend.begin(seen) {
            Ok(turn) => {
                if let Some(turn) = turn {
                    self.log.next = turn.next;
                    if let Some(missed) = turn.missed {
                        self.shared.publish(&missed.decided, missed.through, |index| missed.uptimes[index]);
                    }
                }
                let position = self.shared.applied.lock().position;
                self.turn = Some(position);
                Ok(position)
            }
            Err(error) => {
                self.report_failure(&error, "the database can't be reached");
                Err(StoreError::NotApplied)
            }
        }
    }

    /// Ends the turn: there is nothing to commit.
    pub(super) fn abandon(&mut self) {
        if self.turn.take().is_some() {
            self.backend.abandon();
        }
    }

    /// Commits a group's decisions together with the marks. `operations` is for the metrics.
    pub(super) fn commit(&mut self, decided: Decided, operations: usize) -> Result<(), StoreError> {
        let marks = self.shared.outbox.marks();
        if decided.is_empty() && marks.is_empty() && !self.must_write() {
            self.abandon();
            return Ok(());
        }
        let begun = self.begin()?;
        let through = Position {
            change: decided.changes.last().map_or(begun.change, |change| change.place),
            record: begun.record + i64::try_from(decided.records()).unwrap_or(i64::MAX),
        };
        self.turn = None;
        let (started, uptime) = (Instant::now(), self.uptime());
        // With nothing else to write, this is the write that shows whether the database works.
        let save_uptime = decided.is_empty() || started >= self.uptime_due;
        self.shared.outbox.storing(true);
        let outcome = self.backend.commit(&Commit { decided: &decided, marks: &marks, uptime, save_uptime });
        self.shared.metrics.committed(operations, started.elapsed());
        let outcome = match outcome {
            Ok(()) => {
                if save_uptime {
                    self.uptime_due = started + SAVE_UPTIME_INTERVAL;
                }
                self.committed(decided, through, &marks, uptime);
                Ok(())
            }
            Err(CommitError::NotApplied(error)) => {
                self.report_failure(&error, "a commit failed, nothing of it was stored");
                Err(StoreError::NotApplied)
            }
            Err(CommitError::Unknown(error)) => {
                self.report_failure(&error, "a commit failed, it may have been stored");
                self.unresolved = Some(Unresolved { decided, through, marks, uptime, due: started });
                self.is_unresolved();
                Err(StoreError::Unknown)
            }
        };
        self.shared.outbox.storing(false);
        outcome
    }

    /// What earlier groups have left that the requests are about. A database that can't be read concerns all of them, a
    /// value that can't be read only its own request.
    fn prior(&mut self, group: &[Request]) -> Result<Vec<Prior>, Failure> {
        let asked: Vec<Option<Asked<'_>>> = group.iter().map(Request::asks).collect();
        let found = match asked.iter().flatten().copied().collect::<Vec<_>>() {
            asked if asked.is_empty() => Vec::new(),
            asked => self.backend.prior(&asked)?,
        };
        let mut found = found.into_iter();
        let prior = asked.into_iter().map(|asked| {
            let Some((asked, found)) = asked.and_then(|asked| Some((asked, found.next()?))) else {
                return Prior::default();
            };
            found.unwrap_or_else(|error| {
                log::error!("what a request of account {} needs can't be read: {error}", asked.owner);
                Prior { answer: Some(Known::Unreadable), ..Prior::default() }
            })
        });
        Ok(prior.collect())
    }

    /// Begins to remove what has had its time, or leaves it to another process.
    fn see_to_the_house(&mut self) {
        let keeps_house = self.backend.keeps_house();
        if keeps_house && !self.keeps_house {
            match self.backend.erasing() {
                Ok(owners) => owners.into_iter().for_each(|owner| self.erasures.add(owner)),
                Err(error) => return log::debug!("which accounts are to be erased can't be read yet: {error}"),
            }
        }
        let deleted = std::mem::take(&mut self.shared.applied.lock().deleted);
        if keeps_house {
            deleted.into_iter().for_each(|owner| self.erasures.add(owner));
        } else {
            self.erasures = Erasures::new(Vec::new());
        }
        self.keeps_house = keeps_house;
    }

    fn decide(&self, requests: Vec<Request>, prior: Vec<Prior>) -> (Decided, Vec<Decision>) {
        let (facts, state) = (self.facts(), self.state());
        let mut group = Group::new(&state, facts);
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
        let Shared { applied, todos, users, sessions, personal_tokens, .. } = &*self.shared;
        Committed { applied: applied.lock(), todos, users, sessions, personal_tokens }
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

    /// A group is stored since `uptime`: nothing here may fail.
    fn committed(&mut self, decided: Decided, through: Position, marks: &Marks, uptime: i64) {
        self.log.next = decided.next;
        self.shared.publish(&decided, through, |_| uptime);
        if self.log.kept.added(&decided.answers) {
            self.expire_due = self.expire_due.min(Instant::now());
        }
        self.shared.outbox.marks_committed(marks);
        if self.backend.has_refused_marks() {
            // It takes for parked what is not, if it still has the part.
            self.shared.outbox.reload();
        }
        self.marks_due = Instant::now() + TICK_INTERVAL;
        if !self.shared.writable.swap(true, Ordering::Relaxed) {
            log::info!("the database can be written again");
        }
    }

    pub(super) fn report_failure(&self, error: &Failure, what: &str) {
        // Once per outage, not once per request.
        if self.shared.writable.swap(false, Ordering::Relaxed) {
            let look_at = match error {
                Failure::Sqlite(_) => "Is the disk full?",
                Failure::Postgres(_) => "Is Postgres there, and does it have room?",
            };
            log::error!("{what}: {error}; changes are answered 503 until writing works again. {look_at}");
        }
    }

    /// Whether there is a group whose commit may be done or not. Asks the database about it, now and then, and follows it.
    fn is_unresolved(&mut self) -> bool {
        let Some(unresolved) = self.unresolved.take_if(|unresolved| Instant::now() >= unresolved.due) else {
            return self.unresolved.is_some();
        };
        match self.backend.is_stored(&unresolved.decided) {
            Ok(true) => self.committed(unresolved.decided, unresolved.through, &unresolved.marks, unresolved.uptime),
            Ok(false) => {}
            Err(error) => {
                log::debug!("whether a commit is done can't be found out yet: {error}");
                self.unresolved = Some(Unresolved { due: Instant::now() + TICK_INTERVAL, ..unresolved });
                return true;
            }
        }
        false
    }
}
