//! Postgres as the writer's database: one connection, made again whenever it breaks, on a runtime of the writer's thread.
//!
//! What a lost answer means is found out by counting: each transaction moves `streams.commits` by one, and each connection
//! takes a number of its own, `streams.fence`, which every transaction compares. So once a new connection has its number,
//! nothing that was sent before can be committed any more, and the count says what was.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper;
use futures_util::future::join_all;
use tokio::runtime::Runtime;

use super::commit::{Failed, Stream};
use super::connection::{ANSWER_TIMEOUT, Connector, in_time};
use super::error::PostgresError;
use super::rows::get;
use super::{admin, commit, erase, history, idempotency, retention, used};
use crate::domain::account::UserId;
use crate::domain::change::{Epoch, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::session::PersonalTokenId;
use crate::store::abort::abort;
use crate::store::backend::{Answers, Asked, Backend, Commit, CommitError, Failure, Pruned, Rule, Scrub, Scrubbed};
use crate::store::command::OutboxCommand;
use crate::store::decide::{Decided, Head, Next, Prior};
use crate::store::map::login_networks::Unsaved;

/// After a connection could not be made, the next attempt waits so long: whoever asks meanwhile is not kept waiting.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a connection waits for the lock, which one that has just ended may still hold.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often what was in another transaction's way is tried again.
const MAX_CONFLICTS: u32 = 5;

/// The one process that writes holds it as long as its connection lives.
const LOCK: &str =
    "SELECT pg_try_advisory_lock(hashtextextended('todo-backend ' || current_schema(), 0)), pg_backend_pid()";
/// Ends a session that still holds it. By now, its number may be another one's.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND pid = $1
         AND (classid::bigint << 32 | objid::bigint) = hashtextextended('todo-backend ' || current_schema(), 0)";

/// A connection that holds the lock.
pub struct Session {
    /// The connection.
    pub client: ClientWrapper,
    not_replicated: Arc<AtomicBool>,
    pid: i32,
}

impl Session {
    /// Connects and takes the lock; from the process's earlier connection, `before`, if need be.
    pub async fn open(connector: &Connector, before: Option<i32>) -> Result<Self, PostgresError> {
        let (client, not_replicated) = connector.connect().await?.cached();
        let started = Instant::now();
        loop {
            let row = in_time(ANSWER_TIMEOUT, async { Ok(client.query_one(LOCK, &[]).await?) }).await?;
            if get(&row, 0)? {
                return Ok(Self { client, not_replicated, pid: get(&row, 1)? });
            }
            if started.elapsed() >= LOCK_PATIENCE {
                return Err(PostgresError::Taken);
            }
            if let Some(before) = before {
                in_time(ANSWER_TIMEOUT, async { Ok(client.execute(TERMINATE, &[&before]).await?) }).await?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The writer's connection to Postgres.
pub struct Postgres {
    runtime: Runtime,
    connector: Arc<Connector>,
    epoch: Epoch,
    session: Option<Session>,
    /// Of the last session: it may still be there for the server.
    last_pid: i32,
    stream: Stream,
    /// A transaction was sent, and its answer was lost: whether it was committed is not known.
    in_doubt: bool,
    /// What became of the last one whose answer was lost.
    was_committed: bool,
    /// The writer has to ask about a group before anything else is done: it has not applied it yet.
    is_unresolved: bool,
    /// The unused ids that the database has.
    next: Next,
    retry_at: Instant,
}

impl Postgres {
    /// Goes on with a session that has `stream` and has loaded what there is; `next` are the unused ids.
    pub fn new(
        runtime: Runtime,
        connector: Arc<Connector>,
        session: Session,
        epoch: Epoch,
        stream: i32,
        next: Next,
    ) -> Self {
        Self {
            runtime,
            connector,
            epoch,
            last_pid: session.pid,
            session: Some(session),
            stream: Stream { id: stream, fence: 0, commits: 0 },
            in_doubt: false,
            was_committed: false,
            is_unresolved: false,
            next,
            retry_at: Instant::now(),
        }
    }

    /// Sees to it that there is a connection. A new one finds out what became of what was in doubt.
    fn ready(&mut self) -> Result<(), PostgresError> {
        if self.is_unresolved { Err(PostgresError::Unreachable) } else { self.connected() }
    }

    fn connected(&mut self) -> Result<(), PostgresError> {
        if self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
            self.session = None;
            if Instant::now() < self.retry_at {
                return Err(PostgresError::Unreachable);
            }
            self.session = Some(self.reopen().inspect_err(|_| self.retry_at = Instant::now() + RETRY_PAUSE)?);
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<Session, PostgresError> {
        let (stream, pid) = (self.stream.id, self.last_pid);
        let opened = self.runtime.block_on(async {
            let session = Session::open(&self.connector, Some(pid)).await;
            // Whoever holds the lock may have written: then what is in memory here is not what is stored.
            if matches!(session, Err(PostgresError::Taken)) && self.is_overtaken().await {
                abort_overtaken(&self.connector);
            }
            let session = session?;
            // Waits for a transaction that is being committed, and keeps away those that were sent and have not arrived yet.
            let sql = "UPDATE streams SET fence = fence + 1 WHERE id = $1
                 RETURNING fence, commits, (SELECT max(id) FROM streams)";
            let row = in_time(ANSWER_TIMEOUT, async { Ok(session.client.query_opt(sql, &[&stream]).await?) }).await?;
            Ok::<_, PostgresError>((session, row))
        });
        let (session, row) = opened?;
        let Some(row) = row else { abort_overtaken(&self.connector) };
        if get::<Option<i32>>(&row, 2)? != Some(stream) {
            abort_overtaken(&self.connector);
        }
        let commits: i64 = get(&row, 1)?;
        let expected = self.stream.commits..=self.stream.commits + i64::from(self.in_doubt);
        if !expected.contains(&commits) {
            abort(format_args!(
                "{} is not as this process left it ({commits} transactions, and not {expected:?}): it was set back, or is \
                 another one; aborting, a restart reads what is stored. After a restore, run `todo-backend renew-epoch` first",
                self.connector.location()
            ));
        }
        if std::mem::take(&mut self.in_doubt) {
            self.was_committed = commits > self.stream.commits;
        }
        self.last_pid = session.pid;
        self.stream = Stream { id: stream, fence: get(&row, 0)?, commits };
        Ok(session)
    }

    /// Whether another process has begun to write.
    async fn is_overtaken(&self) -> bool {
        let newest = in_time(ANSWER_TIMEOUT, async {
            let connected = self.connector.connect().await?;
            get::<Option<i32>>(&connected.client.query_one("SELECT max(id) FROM streams", &[]).await?, 0)
        });
        newest.await.is_ok_and(|newest| newest > Some(self.stream.id))
    }

    /// Reads something. What breaks the connection is tried once more.
    fn read<T>(&mut self, read: impl AsyncFn(&ClientWrapper) -> Result<T, PostgresError>) -> Result<T, PostgresError> {
        let mut is_new = self.session.is_none();
        loop {
            self.ready()?;
            let Some(session) = &self.session else { return Err(PostgresError::Unreachable) };
            match self.runtime.block_on(in_time(ANSWER_TIMEOUT, read(&session.client))) {
                Err(error) if !(error.is_refusal() || error.is_about_a_value()) => {
                    self.session = None;
                    if is_new {
                        return Err(error);
                    }
                    is_new = true;
                }
                done => return done,
            }
        }
    }

    /// Does something in a transaction.
    fn transact<T>(
        &mut self,
        work: impl AsyncFn(&ClientWrapper) -> Result<T, PostgresError>,
    ) -> Result<T, CommitError> {
        let (mut conflicts, mut is_new) = (0, self.session.is_none());
        loop {
            self.ready().map_err(|error| CommitError::NotApplied(error.into()))?;
            let stream = self.stream;
            let Some(session) = &self.session else {
                return Err(CommitError::NotApplied(PostgresError::Unreachable.into()));
            };
            session.not_replicated.store(false, Ordering::Relaxed);
            let client = &session.client;
            let begun = self.runtime.block_on(in_time(ANSWER_TIMEOUT, async {
                client.batch_execute(commit::BEGIN).await?;
                commit::fence(client, stream).await?;
                work(client).await
            }));
            let done = match begun {
                Ok(done) => done,
                // Without COMMIT, nothing is stored; a connection that is dropped is rolled back.
                Err(error) => {
                    let fenced = error.is_fenced();
                    let rolled_back = async { Ok(client.batch_execute("ROLLBACK").await?) };
                    if self.runtime.block_on(in_time(ANSWER_TIMEOUT, rolled_back)).is_err() || fenced {
                        self.session = None;
                    }
                    if error.is_conflict() && conflicts < MAX_CONFLICTS {
                        conflicts += 1;
                        self.pause(conflicts);
                        continue;
                    }
                    // One that was idle may have been broken for long.
                    if self.session.is_none() && !std::mem::replace(&mut is_new, true) {
                        continue;
                    }
                    return Err(CommitError::NotApplied(error.into()));
                }
            };
            match self.runtime.block_on(in_time(ANSWER_TIMEOUT, async { Ok(client.batch_execute("COMMIT").await?) })) {
                Ok(()) => {
                    self.stream.commits += 1;
                    if session.not_replicated.swap(false, Ordering::Relaxed) {
                        return Err(CommitError::Unknown(PostgresError::NotReplicated.into()));
                    }
                    return Ok(done);
                }
                Err(error) if error.is_conflict() && conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    self.pause(conflicts);
                }
                Err(error) => {
                    self.session = None;
                    self.in_doubt = true;
                    return match self.ready() {
                        Ok(()) if self.was_committed => Ok(done),
                        Ok(()) => Err(CommitError::NotApplied(error.into())),
                        Err(_) => Err(CommitError::Unknown(error.into())),
                    };
                }
            }
        }
    }

    /// Whoever was in the way is gone after some milliseconds, and not at the same time.
    fn pause(&self, conflicts: u32) {
        let longest = 5 << conflicts;
        std::thread::sleep(Duration::from_millis(rand::random_range(1..=longest)));
    }
}

/// Ends the process: another one has written to the database, and memory is not what is stored any more.
fn abort_overtaken(connector: &Connector) -> ! {
    abort(format_args!(
        "another todo-backend has taken over {}; aborting: only one can write to it",
        connector.location()
    ))
}

impl Backend for Postgres {
    fn prior(&mut self, asked: &[Asked<'_>]) -> Result<Vec<Result<Prior, Failure>>, Failure> {
        let epoch = self.epoch;
        let found = self.read(async |client| {
            let prior = asked.iter().map(async |asked| {
                if let Some(request) = asked.request
                    && let Some(answer) = idempotency::find(client, asked.owner, request).await?
                {
                    return Ok(Prior { answer: Some(answer), undone: Vec::new() });
                }
                let Some((revision, whole_batch)) = asked.undoes else { return Ok(Prior::default()) };
                let undone = history::undone(client, epoch, asked.owner, revision, whole_batch).await?;
                Ok(Prior { answer: None, undone })
            });
            // At the same time, which takes one round trip.
            let prior = join_all(prior).await.into_iter().map(|found: Result<Prior, PostgresError>| match found {
                Err(error) if !error.is_about_a_value() => Err(error),
                found => Ok(found),
            });
            prior.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(found.into_iter().map(|found| found.map_err(Failure::from)).collect())
    }

    fn commit(&mut self, group: &Commit<'_>) -> Result<(), CommitError> {
        let (started, mut conflicts) = (Instant::now(), 0);
        loop {
            self.ready().map_err(|error| CommitError::NotApplied(error.into()))?;
            let Some(session) = &self.session else {
                return Err(CommitError::NotApplied(PostgresError::Unreachable.into()));
            };
            session.not_replicated.store(false, Ordering::Relaxed);
            let sent = commit::commit(&session.client, group, self.stream, &self.next);
            let sent = self.runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, sent).await });
            let error = match sent {
                Ok(Ok(())) => {
                    self.stream.commits += 1;
                    self.next = group.decided.next;
                    if session.not_replicated.swap(false, Ordering::Relaxed) {
                        (self.was_committed, self.is_unresolved) = (true, true);
                        return Err(CommitError::Unknown(PostgresError::NotReplicated.into()));
                    }
                    return Ok(());
                }
                Ok(Err(Failed::NotApplied(error))) if error.is_conflict() && conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    self.pause(conflicts);
                    continue;
                }
                Ok(Err(Failed::NotApplied(error))) if error.is_contradiction() => {
                    abort(format_args!("a group contradicts what is stored: {error}; aborting, a restart reads it"));
                }
                Ok(Err(Failed::NotApplied(error))) => {
                    let is_broken = !error.is_refusal();
                    // Another connection finds out why.
                    if is_broken || error.is_fenced() {
                        self.session = None;
                    }
                    if is_broken && started.elapsed() < ANSWER_TIMEOUT {
                        continue;
                    }
                    return Err(CommitError::NotApplied(error.into()));
                }
                Ok(Err(Failed::Unknown(error))) => error,
                Err(_) => PostgresError::Timeout(ANSWER_TIMEOUT),
            };
            self.session = None;
            self.in_doubt = true;
            match self.ready() {
                Ok(()) if self.was_committed => {
                    self.next = group.decided.next;
                    return Ok(());
                }
                // It never will be: the new connection has seen to that. What was decided still holds.
                Ok(()) if started.elapsed() < ANSWER_TIMEOUT => {}
                Ok(()) => return Err(CommitError::NotApplied(error.into())),
                Err(_) => {
                    self.is_unresolved = true;
                    return Err(CommitError::Unknown(error.into()));
                }
            }
        }
    }

    fn is_stored(&mut self, decided: &Decided) -> Result<bool, Failure> {
        self.connected()?;
        self.is_unresolved = false;
        if self.was_committed {
            self.next = decided.next;
        }
        Ok(self.was_committed)
    }

    fn prune(&mut self, owners: &[(UserId, Head)], rule: Rule, limit: usize) -> Result<Vec<Pruned>, CommitError> {
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        self.transact(async |client| retention::prune(client, owners, rule, limit).await)
    }

    fn remove_answers(&mut self, which: Answers) -> Result<Vec<(UserId, u64)>, CommitError> {
        self.transact(async |client| idempotency::remove(client, which).await)
    }

    fn answers_size(&mut self, owner: UserId) -> Result<u64, Failure> {
        Ok(self.read(async |client| idempotency::size_of(client, owner).await)?)
    }

    fn scrub(&mut self, next: Scrub, limit: usize) -> Result<Scrubbed, CommitError> {
        self.transact(async |client| erase::scrub(client, next, limit).await)
    }

    fn save_used(
        &mut self,
        tokens: &HashMap<PersonalTokenId, Timestamp>,
        networks: &Unsaved,
    ) -> Result<(), CommitError> {
        self.transact(async |client| used::save(client, tokens, networks).await)
    }

    fn affected(
        &mut self,
        command: &OutboxCommand,
        below: Revision,
        limit: usize,
    ) -> Result<Vec<(Place, Revision)>, Failure> {
        Ok(self.read(async |client| admin::read_affected(client, command, below, limit).await)?)
    }

    fn set_states(&mut self, command: &OutboxCommand, places: &[Place]) -> Result<(), CommitError> {
        self.transact(async |client| admin::set_states(client, command, places).await)
    }

    fn is_done(&mut self, command: &OutboxCommand, place: Place) -> Result<bool, Failure> {
        Ok(self.read(async |client| admin::is_done(client, command, place).await)?)
    }

    fn keep_connected(&mut self) -> Result<(), Failure> {
        // The end of a connection is only noticed when it is looked at.
        self.runtime.block_on(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
        Ok(self.connected()?)
    }

    fn clock(&mut self) -> Option<i64> {
        let sql = "SELECT extract(epoch FROM clock_timestamp())::bigint";
        let now = self.read(async |client| get(&client.query_one(sql, &[]).await?, 0));
        now.inspect_err(|error| log::debug!("the database's time can't be read: {error}")).ok()
    }

    fn close(&mut self) {
        let Some(session) = self.session.take() else { return };
        // The server notices a little later that a connection has ended, and the next process should not have to wait.
        let unlocked = async { Ok(session.client.batch_execute("SELECT pg_advisory_unlock_all()").await?) };
        if let Err(error) = self.runtime.block_on(in_time(ANSWER_TIMEOUT, unlocked)) {
            log::debug!("the connection that writes had ended before: {error}");
        }
    }

    #[cfg(test)]
    fn sqlite(&mut self) -> &mut rusqlite::Connection {
        panic!("this fault is one of SQLite")
    }
}
