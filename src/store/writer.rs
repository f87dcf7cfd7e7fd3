//! The one writer: a thread that takes what queued up during the last commit, decides it against memory, commits it
//! as one group, and only then shows it to readers and answers.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use tokio::sync::oneshot;

use super::outbox::Marks;
use super::sqlite::{self, CommitError, Head, Next, Pruned};
use super::{Command, Context, Failure, OutboxCommand, Shared};
use crate::config::Retention;
use crate::domain::account::UserId;
use crate::domain::change::{Change, Kind, Place, Revision};
use crate::domain::clock::Clock;
use crate::domain::todo::{Field, Todo, TodoId, Version};

/// Operations in one commit, at most.
const GROUP: usize = 512;

/// With nothing else to write, marks are committed this often; a failed disk is tried this often.
const TICK: Duration = Duration::from_secs(1);

/// How long the service has run is written this often, if no change says it.
const SAVE_UPTIME: Duration = Duration::from_secs(3600);

/// After a whole round, pruning pauses this long; after a step, as long as the step took.
const PRUNE_PAUSE: Duration = Duration::from_secs(60);
/// Owners whose part of the log is looked at in one step of pruning.
const PRUNE_OWNERS: usize = 200;
/// Changes that one step removes at most: about as many as a group adds.
const PRUNE_CHANGES: usize = 500;

/// Changes that an operator's command is done with in one commit, at most.
const OPERATE: usize = 1000;

/// Pages in the log that make the writer checkpoint, SQLite's own default.
const CHECKPOINT_PAGES: i32 = 1000;

/// What the writer is asked to do.
pub enum Job {
    /// Apply commands.
    Apply(Request),
    /// Do what an operator asks.
    Operate { command: OutboxCommand, reply: oneshot::Sender<Result<usize, Failure>> },
    /// Commit the final marks and end.
    Close,
    /// Make the database fail, or stop failing.
    #[cfg(test)]
    Sabotage(fn(&mut Connection)),
}

/// What the writer knows of the log.
pub struct Log {
    pub heads: HashMap<UserId, Head>,
    pub next: Next,
    /// Seconds that the service has run on this database, at start.
    pub uptime: i64,
}

/// Commands to be applied all or none.
pub struct Request {
    pub context: Context,
    pub commands: Vec<Command>,
    pub reply: oneshot::Sender<Answer>,
}

type Answer = Result<Vec<Arc<Change>>, Failure>;

thread_local! {
    /// Pages in the log after the last commit on this thread, as SQLite's hook told.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

pub struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    clock: Clock,
    retention: Retention,
    log: Log,
    started: Instant,
    marks_due: Instant,
    uptime_due: Instant,
    prune_due: Instant,
    /// Owners whose part of the log this round of pruning has still to look at.
    prune_next: VecDeque<UserId>,
    /// What operators asked for and is not done, the oldest first.
    operations: VecDeque<Operation>,
}

/// An operator's command, done a part at a time.
struct Operation {
    command: OutboxCommand,
    /// The next part is below this revision. From the latest change down: what waits of a todo is always its end.
    below: Revision,
    done: usize,
    reply: oneshot::Sender<Result<usize, Failure>>,
}

impl Writer {
    pub fn new(connection: Connection, shared: Arc<Shared>, clock: Clock, retention: Retention, log: Log) -> Self {
        let now = Instant::now();
        Self {
            connection,
            shared,
            clock,
            retention,
            log,
            started: now,
            marks_due: now + TICK,
            uptime_due: now + SAVE_UPTIME,
            prune_due: now + TICK,
            prune_next: VecDeque::new(),
            operations: VecDeque::new(),
        }
    }

    /// Works until told to close. A panic here would leave memory and disk apart: it ends the process.
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
        if let Err(problem) = hook {
            log::warn!("the log is only checkpointed at the end: {problem}");
        }
        let mut next = None;
        loop {
            let due = if self.operations.is_empty() { self.marks_due.min(self.prune_due) } else { self.started };
            let wait = due.saturating_duration_since(Instant::now());
            match next.take().map_or_else(|| jobs.recv_timeout(wait), Ok) {
                Ok(Job::Apply(request)) => {
                    let mut operations = request.commands.len();
                    let mut group = vec![request];
                    while operations < GROUP {
                        match jobs.try_recv() {
                            Ok(Job::Apply(request)) => {
                                operations += request.commands.len();
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
                Ok(Job::Operate { command, reply }) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    self.operations.push_back(Operation { command, below: Revision::MAX, done: 0, reply });
                }
                #[cfg(test)]
                Ok(Job::Sabotage(sabotage)) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    sabotage(&mut self.connection);
                }
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(operation) = self.operations.pop_front() {
                self.operate(operation);
            }
            if Instant::now() >= self.marks_due {
                self.tick();
            }
            if Instant::now() >= self.prune_due {
                self.prune();
            }
        }
        for operation in self.operations.drain(..).filter(|operation| operation.done > 0) {
            let _ = operation.reply.send(Err(Failure::Unknown));
        }
        // The final marks, and how long the service has run.
        self.uptime_due = self.started;
        self.tick();
        // Jobs that arrived after the last one are answered by dropping them.
        if let Err(problem) = sqlite::checkpoint(&self.connection) {
            log::warn!("the last checkpoint failed, the next start reads the log: {problem}");
        }
    }

    /// Commits marks, and tries a disk that failed: with a write, so that it says whether writing works again.
    fn tick(&mut self) {
        self.marks_due = Instant::now() + TICK;
        if self.shared.outbox.has_marks() || self.must_write() {
            self.apply(Vec::new(), 0);
        }
    }

    /// Whether to write even if there is nothing to write.
    fn must_write(&self) -> bool {
        !self.shared.writable.load(Ordering::Relaxed) || Instant::now() >= self.uptime_due
    }

    /// Seconds that the service has run on this database. Never runs faster than the monotonic clock, and not at all
    /// while the service is down: what retention goes by.
    fn uptime(&self) -> i64 {
        self.log.uptime.saturating_add_unsigned(self.started.elapsed().as_secs())
    }

    fn apply(&mut self, group: Vec<Request>, operations: usize) {
        let mut overlay = Overlay::new(self.log.next);
        let answers: Vec<(Answer, oneshot::Sender<Answer>)> = group
            .into_iter()
            .map(|request| (self.decide(&mut overlay, &request.context, request.commands), request.reply))
            .collect();
        let marks = self.shared.outbox.marks();
        let outcome = if overlay.changes.is_empty() && marks.is_empty() && !self.must_write() {
            Ok(())
        } else {
            let (started, uptime) = (Instant::now(), self.uptime());
            // With nothing else to write, it is also what finds out whether the disk takes it.
            let save_uptime = overlay.changes.is_empty() || started >= self.uptime_due;
            let Overlay { changes, heads, .. } = &overlay;
            let outcome = sqlite::commit(&mut self.connection, changes, heads, &marks, uptime, save_uptime);
            self.shared.metrics.committed(operations, started.elapsed());
            if save_uptime && outcome.is_ok() {
                self.uptime_due = started + SAVE_UPTIME;
            }
            outcome
        };
        let failure = match outcome {
            Ok(()) => {
                self.committed(overlay, &marks);
                None
            }
            Err(CommitError::NotApplied(problem)) => {
                self.failed(&problem, "nothing of it was stored");
                Some(Failure::NotApplied)
            }
            Err(CommitError::Unknown(problem)) => {
                self.failed(&problem, "it may have been stored");
                self.find_out(overlay, &marks);
                Some(Failure::Unknown)
            }
            Err(CommitError::Fsync(problem)) => abort_unflushed(&problem),
        };
        for (answer, reply) in answers {
            // Refusals were decided on top of changes that may be gone now: all members are answered alike.
            // A client that went away doesn't take its answer.
            let _ = reply.send(failure.map_or(answer, Err));
        }
        self.checkpoint();
    }

    /// A group is on disk: show it to readers, then to the relay. Nothing here can fail.
    fn committed(&mut self, overlay: Overlay, marks: &Marks) {
        self.log.next = overlay.next;
        self.log.heads.extend(overlay.heads);
        if !overlay.changes.is_empty() {
            let mut todos = self.shared.todos.write();
            for change in &overlay.changes {
                match change.kind {
                    Kind::Created | Kind::Updated => todos.insert(Arc::clone(&change.todo)),
                    Kind::Deleted => todos.remove(change.todo.owner, change.todo.id),
                }
            }
            drop(todos);
            self.shared.outbox.push(&overlay.changes);
        }
        self.shared.outbox.marks_committed(marks);
        self.marks_due = Instant::now() + TICK;
        if !self.shared.writable.swap(true, Ordering::Relaxed) {
            log::info!("the database can be written again");
        }
    }

    fn failed(&self, problem: &rusqlite::Error, consequence: &str) {
        // Once per outage, not once per request.
        if self.shared.writable.swap(false, Ordering::Relaxed) {
            log::error!(
                "a commit failed, {consequence}: {problem}; changes are answered 503 until writing works again. \
                 Is the disk full?"
            );
        }
    }

    /// A commit ended in an error that leaves its outcome open: ask the database, and follow it.
    fn find_out(&mut self, overlay: Overlay, marks: &Marks) {
        let Some(last) = overlay.changes.last() else { return };
        if found_out(sqlite::is_logged(&self.connection, last.place)) {
            self.committed(overlay, marks);
        }
    }

    /// Does the next part of what an operator asks, and answers with the last one. The relay begins anew only then.
    fn operate(&mut self, mut operation: Operation) {
        // Marks that are not committed yet would undo what the command does.
        self.tick();
        let outcome = self.operate_part(&mut operation);
        if outcome == Ok(true) {
            self.operations.push_front(operation);
            return;
        }
        if operation.done > 0 {
            self.shared.outbox.reload();
        }
        // A client that went away doesn't take its answer.
        let _ = operation.reply.send(match outcome {
            Ok(_) => Ok(operation.done),
            // Earlier parts were stored.
            Err(_) if operation.done > 0 => Err(Failure::Unknown),
            Err(failure) => Err(failure),
        });
    }

    /// Whether there may be more to do.
    fn operate_part(&mut self, operation: &mut Operation) -> Result<bool, Failure> {
        let command = operation.command;
        let affected = sqlite::read_affected(&self.connection, &command, operation.below, OPERATE);
        let affected = affected.map_err(|problem| {
            log::error!("the change log can't be read: {problem}");
            Failure::NotApplied
        })?;
        let (places, revisions): (Vec<Place>, Vec<Revision>) = affected.into_iter().unzip();
        let (Some(&last), Some(&below)) = (places.last(), revisions.last()) else { return Ok(false) };
        let outcome = match sqlite::operate(&mut self.connection, &command, &places) {
            Ok(()) => Ok(places.len() == OPERATE),
            Err(CommitError::NotApplied(problem)) => {
                self.failed(&problem, "nothing of it was stored");
                return Err(Failure::NotApplied);
            }
            Err(CommitError::Unknown(problem)) => {
                self.failed(&problem, "it may have been stored");
                if !found_out(sqlite::is_done(&self.connection, &command, last)) {
                    return Err(Failure::Unknown);
                }
                Err(Failure::Unknown)
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

    /// Looks at the next owners' parts of the log and removes what retention doesn't keep: a little at a time, so that
    /// nobody waits for it, and no longer than it pauses, so that it goes as fast as changes come.
    fn prune(&mut self) {
        let started = Instant::now();
        if self.prune_next.is_empty() {
            let grown = self.log.heads.iter().filter(|(_, head)| head.revision > head.floor);
            self.prune_next = grown.map(|(owner, _)| *owner).collect();
        }
        let step = self.prune_next.len().min(PRUNE_OWNERS);
        let owners: Vec<(UserId, Head)> =
            self.prune_next.drain(..step).filter_map(|owner| Some((owner, *self.log.heads.get(&owner)?))).collect();
        let keep = i64::try_from(self.retention.keep.as_secs()).unwrap_or(i64::MAX);
        let keep_from = self.uptime().saturating_sub(keep);
        let pruned = sqlite::prune(&mut self.connection, &owners, keep_from, self.retention.per_owner, PRUNE_CHANGES);
        let mut pause = started.elapsed();
        match pruned {
            Ok(pruned) => {
                for Pruned { owner, floor, more } in pruned {
                    if let Some(head) = self.log.heads.get_mut(&owner) {
                        self.shared.metrics.pruned(usize::try_from(floor.0 - head.floor.0).unwrap_or_default());
                        head.floor = floor;
                    }
                    if more {
                        self.prune_next.push_back(owner);
                    }
                }
            }
            Err(CommitError::Fsync(problem)) => abort_unflushed(&problem),
            // Its outcome doesn't matter: the next round finds out what is there.
            Err(CommitError::NotApplied(problem) | CommitError::Unknown(problem)) => {
                log::warn!("pruning the log failed and is tried again later: {problem}");
                pause = TICK;
            }
        }
        self.prune_due = Instant::now() + if self.prune_next.is_empty() { PRUNE_PAUSE } else { pause };
        self.checkpoint();
    }

    fn checkpoint(&self) {
        if WAL_PAGES.get() < CHECKPOINT_PAGES {
            return;
        }
        WAL_PAGES.set(0);
        match sqlite::checkpoint(&self.connection) {
            Ok(()) => {}
            Err(problem) if sqlite::is_fsync(&problem) => abort_unflushed(&problem),
            Err(problem) => log::warn!("a checkpoint failed and is tried again later: {problem}"),
        }
    }

    /// What `commands` would change, on top of the group's earlier ones. Refused: they leave no trace in `overlay`.
    fn decide(&self, overlay: &mut Overlay, context: &Context, commands: Vec<Command>) -> Answer {
        let mut scratch = Overlay::new(overlay.next);
        for command in commands {
            self.decide_one(overlay, &mut scratch, context, command)?;
        }
        let changes = scratch.changes.clone();
        overlay.merge(scratch);
        Ok(changes)
    }

    fn decide_one(
        &self,
        earlier: &Overlay,
        scratch: &mut Overlay,
        context: &Context,
        command: Command,
    ) -> Result<(), Failure> {
        let owner = context.owner;
        let head = [&scratch.heads, &earlier.heads, &self.log.heads].into_iter().find_map(|heads| heads.get(&owner));
        let head = head.copied().unwrap_or_default();
        let at = self.clock.now().max(head.last_at);
        let current = |id: TodoId| -> Result<Todo, Failure> {
            let todo = match scratch.todos.get(&id).or_else(|| earlier.todos.get(&id)) {
                Some(decided) => decided.clone(),
                None => self.shared.todos.read().get(owner, id).cloned(),
            };
            let todo = todo.filter(|todo| todo.owner == owner).ok_or(Failure::NotFound)?;
            Ok(Todo { version: todo.version.next(), updated_at: at, ..Todo::clone(&todo) })
        };
        let (kind, todo, changed) = match command {
            Command::Create(new) => {
                let todo = Todo {
                    id: scratch.next.id,
                    owner,
                    version: Version::FIRST,
                    title: new.title,
                    description: new.description,
                    completed: new.completed,
                    created_at: at,
                    updated_at: at,
                };
                scratch.next.id.0 += 1;
                (Kind::Created, todo, Field::ALL.to_vec())
            }
            Command::Update(id, patch) => {
                let mut todo = current(id)?;
                let changed = patch.apply(&mut todo);
                (Kind::Updated, todo, changed)
            }
            Command::Delete(id) => (Kind::Deleted, current(id)?, Vec::new()),
        };
        let todo = Arc::new(todo);
        scratch.todos.insert(todo.id, (kind != Kind::Deleted).then(|| Arc::clone(&todo)));
        scratch.heads.insert(owner, Head { revision: head.revision.next(), last_at: at, ..head });
        scratch.changes.push(Arc::new(Change {
            place: scratch.next.place,
            epoch: self.shared.epoch,
            revision: head.revision.next(),
            kind,
            at,
            actor: Arc::clone(&context.actor),
            changed,
            trace: context.trace.clone(),
            todo,
        }));
        scratch.next.place.0 += 1;
        Ok(())
    }
}

/// What the database says of a commit whose outcome was open.
fn found_out(stored: rusqlite::Result<bool>) -> bool {
    stored.unwrap_or_else(|problem| {
        abort(format_args!("cannot find out what was stored: {problem}; aborting, a restart reads it from disk"))
    })
}

fn abort_unflushed(problem: &rusqlite::Error) -> ! {
    abort(format_args!("the disk did not confirm a write: {problem}; aborting, a restart reads what is really stored"))
}

/// Ends the process without a clean-up that could touch the disk. The line is the last one of the log.
fn abort(why: fmt::Arguments<'_>) -> ! {
    log::error!("{why}");
    log::logger().flush();
    std::process::abort();
}

/// What a group, or one of its members, has decided so far and nobody else sees yet.
struct Overlay {
    /// `None`: deleted.
    todos: HashMap<TodoId, Option<Arc<Todo>>>,
    heads: HashMap<UserId, Head>,
    next: Next,
    changes: Vec<Arc<Change>>,
}

impl Overlay {
    fn new(next: Next) -> Self {
        Self { todos: HashMap::new(), heads: HashMap::new(), next, changes: Vec::new() }
    }

    fn merge(&mut self, later: Self) {
        self.todos.extend(later.todos);
        self.heads.extend(later.heads);
        self.next = later.next;
        self.changes.extend(later.changes);
    }
}
