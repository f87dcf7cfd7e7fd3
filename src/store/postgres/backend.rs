//! Postgres as the writer's database: one connection, made again whenever it breaks, on a runtime of the writer's thread.
//!
//! What a lost answer means is found out by counting: each transaction moves `processes.commits` by one, and each connection
//! takes a number of its own, `processes.fence`, which every transaction compares. So once a new connection has its number,
//! nothing that was sent before can be committed any more, and the count says what was.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use deadpool_postgres::ClientWrapper;
use futures_util::future::join_all;
use tokio::runtime::Runtime;

use super::commit::{Failed, ProcessRow};
use super::connection::{ANSWER_TIMEOUT, Connector, in_time};
use super::error::PostgresError;
use super::rows::get;
use super::tail::Begun;
use super::{admin, commit, erase, history, idempotency, retention, tail, used};
use crate::domain::account::UserId;
use crate::domain::change::{Epoch, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::session::PersonalTokenId;
use crate::store::abort::abort;
use crate::store::backend::{
    Answers, Asked, Backend, Commit, CommitError, Failure, Position, Pruned, Rule, Scrub, Scrubbed, Turn, UsedElsewhere,
};
use crate::store::command::OutboxCommand;
use crate::store::decide::{Decided, Head, Prior};
use crate::store::leases::Leases;
use crate::store::map::login_networks::Unsaved;

/// After a connection could not be made, the next attempt waits so long: whoever asks meanwhile is not kept waiting.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often what was in another transaction's way is tried again.
const MAX_CONFLICTS: u32 = 5;

/// Each session that writes holds it together with the others; whoever must be alone takes it alone.
const SHARE: &str = "SELECT pg_try_advisory_lock_shared(hashtextextended('todo-backend ' || current_schema(), 0)), pid,
     backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";
const ALONE: &str = "SELECT pg_try_advisory_lock(hashtextextended('todo-backend ' || current_schema(), 0)), pid,
     backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";
/// A process that is paused must not keep its turn for longer.
const TURN_LIMIT: &str = "SET idle_in_transaction_session_timeout = '2s'";
/// How long a connection waits for it: a session that has just ended may still hold it.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Ends a session of this process that has lost its connection, and may still have the turn. By now, its number may be
/// another one's. Not while it waits for the standby that its commit has to reach: others would see that commit before it has.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE pid = $1 AND backend_start = $2 AND wait_event IS DISTINCT FROM 'SyncRep'";

/// A connection that writes.
pub struct Session {
    /// The connection.
    pub client: ClientWrapper,
    not_replicated: Arc<AtomicBool>,
    /// What it is for the server: its process, and when that was started.
    server: (i32, SystemTime),
}

impl Session {
    /// Connects, beside others that write.
    pub async fn open(connector: &Connector) -> Result<Self, PostgresError> {
        Self::locked(connector, SHARE).await?.ok_or(PostgresError::NotShared)
    }

    /// Connects while nobody else writes.
    pub async fn alone(connector: &Connector) -> Result<Self, PostgresError> {
        Self::locked(connector, ALONE).await?.ok_or(PostgresError::Taken)
    }

    async fn locked(connector: &Connector, lock: &str) -> Result<Option<Self>, PostgresError> {
        let (client, not_replicated) = connector.connect().await?.cached();
        in_time(ANSWER_TIMEOUT, async { Ok(client.batch_execute(TURN_LIMIT).await?) }).await?;
        let started = Instant::now();
        loop {
            let row = in_time(ANSWER_TIMEOUT, async { Ok(client.query_one(lock, &[]).await?) }).await?;
            if get(&row, 0)? {
                return Ok(Some(Self { client, not_replicated, server: (get(&row, 1)?, get(&row, 2)?) }));
            }
            if started.elapsed() >= LOCK_PATIENCE {
                return Ok(None);
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
    leases: Arc<Leases>,
    session: Option<Session>,
    /// Of the last session: it may still be there for the server.
    last_server: (i32, SystemTime),
    process: ProcessRow,
    /// The transaction that has begun: where the log ended then, and the number of its turn.
    begun: Option<(Position, i64)>,
    /// The same of the last one: a group that is sent again must find it so.
    last_begun: Option<(Position, i64)>,
    /// A transaction was sent, and its answer was lost: whether it was committed is not known.
    in_doubt: bool,
    /// What became of the last one whose answer was lost.
    was_committed: bool,
    /// Not all marks of the last group were stored, or not as far as is known.
    has_refused_marks: bool,
    /// The writer has to ask about a group before anything else is done: it has not applied it yet.
    is_unresolved: bool,
    retry_at: Instant,
}

impl Postgres {
    /// Goes on with a session of the process whose row is `process`, and that has loaded what there is.
    pub fn new(
        runtime: Runtime,
        connector: Arc<Connector>,
        session: Session,
        epoch: Epoch,
        process: i32,
        leases: Arc<Leases>,
    ) -> Self {
        Self {
            runtime,
            connector,
            epoch,
            leases,
            last_server: session.server,
            session: Some(session),
            process: ProcessRow { id: process, fence: 0, commits: 0 },
            begun: None,
            last_begun: None,
            in_doubt: false,
            was_committed: false,
            has_refused_marks: false,
            is_unresolved: false,
            retry_at: Instant::now(),
        }
    }

    /// Sees to it that there is a connection. A new one finds out what became of what was in doubt.
    fn ready(&mut self) -> Result<(), PostgresError> {
        if self.is_unresolved { Err(PostgresError::Unreachable) } else { self.connected() }
    }

    fn connected(&mut self) -> Result<(), PostgresError> {
        if self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
            self.disconnect();
            if Instant::now() < self.retry_at {
                return Err(PostgresError::Unreachable);
            }
            self.session = Some(self.reopen().inspect_err(|_| self.retry_at = Instant::now() + RETRY_PAUSE)?);
        }
        Ok(())
    }

    /// A transaction that has begun ends with its connection.
    fn disconnect(&mut self) {
        (self.session, self.begun) = (None, None);
    }

    fn reopen(&mut self) -> Result<Session, PostgresError> {
        let (process, (pid, started)) = (self.process.id, self.last_server);
        let (session, row) = self.runtime.block_on(async {
            let session = Session::open(&self.connector).await?;
            // Otherwise, all have to wait until the server notices that it is not there any more.
            in_time(ANSWER_TIMEOUT, async { Ok(session.client.execute(TERMINATE, &[&pid, &started]).await?) }).await?;
            // Waits for a transaction that is being committed, and keeps away those that were sent and have not arrived yet.
            let sql = "UPDATE processes SET fence = fence + 1 WHERE id = $1 RETURNING fence, commits";
            let row = in_time(ANSWER_TIMEOUT, async { Ok(session.client.query_opt(sql, &[&process]).await?) }).await?;
            Ok::<_, PostgresError>((session, row))
        })?;
        let Some(row) = row else {
            abort(format_args!(
                "{} does not know this process any more: it was set back, or is another one, or this process was away for a \
                 day; aborting, a restart reads what is stored. After a restore, run `todo-backend renew-epoch` first",
                self.connector.location()
            ))
        };
        let commits: i64 = get(&row, 1)?;
        let expected = self.process.commits..=self.process.commits + i64::from(self.in_doubt);
        if !expected.contains(&commits) {
            abort(format_args!(
                "{} is not as this process left it ({commits} transactions, and not {expected:?}): it was set back, or is \
                 another one; aborting, a restart reads what is stored. After a restore, run `todo-backend renew-epoch` first",
                self.connector.location()
            ));
        }
        if std::mem::take(&mut self.in_doubt) {
            self.was_committed = commits > self.process.commits;
        }
        self.last_server = session.server;
        self.process = ProcessRow { id: process, fence: get(&row, 0)?, commits };
        Ok(session)
    }

    /// Begins a transaction, and waits for its turn.
    fn take_turn(&mut self, seen: Position) -> Result<Turn, PostgresError> {
        let (started, mut conflicts, mut is_new) = (Instant::now(), 0, self.session.is_none());
        loop {
            self.ready()?;
            let Some(session) = &self.session else { return Err(PostgresError::Unreachable) };
            let error =
                match self.runtime.block_on(in_time(ANSWER_TIMEOUT, tail::begin(&session.client, self.epoch, seen))) {
                    Ok(Begun { turn, number }) => {
                        let through = turn.missed.as_ref().map_or(seen, |missed| missed.through);
                        self.begun = Some((through, number));
                        self.last_begun = self.begun;
                        return Ok(turn);
                    }
                    Err(error) => error,
                };
            tail::abort_if_left_behind(&self.connector, &error);
            self.roll_back();
            if error.is_conflict() && conflicts < MAX_CONFLICTS && started.elapsed() < ANSWER_TIMEOUT {
                conflicts += 1;
                self.pause(conflicts);
                continue;
            }
            // One that was idle may have been broken for long.
            if self.session.is_none() && !std::mem::replace(&mut is_new, true) {
                continue;
            }
            return Err(error);
        }
    }

    /// Takes the turn again for what was decided in the last one: which holds only if nobody has written since.
    fn retake_turn(&mut self) -> Result<(), PostgresError> {
        let Some((seen, number)) = self.last_begun else { return Err(PostgresError::Overtaken) };
        self.take_turn(seen)?;
        if self.begun == Some((seen, number)) {
            return Ok(());
        }
        self.roll_back();
        Err(PostgresError::Overtaken)
    }

    /// Ends a transaction that may have begun.
    fn roll_back(&mut self) {
        self.begun = None;
        if let Some(session) = &self.session {
            let rolled_back = async { Ok(session.client.batch_execute("ROLLBACK").await?) };
            if self.runtime.block_on(in_time(ANSWER_TIMEOUT, rolled_back)).is_err() {
                self.session = None;
            }
        }
    }

    /// Reads something. What breaks the connection is tried once more.
    fn read<T>(&mut self, read: impl AsyncFn(&ClientWrapper) -> Result<T, PostgresError>) -> Result<T, PostgresError> {
        let mut is_new = self.session.is_none();
        loop {
            self.ready()?;
            let Some(session) = &self.session else { return Err(PostgresError::Unreachable) };
            match self.runtime.block_on(in_time(ANSWER_TIMEOUT, read(&session.client))) {
                Err(error) if !(error.is_refusal() || error.is_about_a_value()) => {
                    self.disconnect();
                    if is_new {
                        return Err(error);
                    }
                    is_new = true;
                }
                done => return done,
            }
        }
    }

    /// Does something in a transaction of its own.
    fn transact<T>(
        &mut self,
        work: impl AsyncFn(&ClientWrapper) -> Result<T, PostgresError>,
    ) -> Result<T, CommitError> {
        self.abandon();
        let (mut conflicts, mut is_new) = (0, self.session.is_none());
        loop {
            self.ready().map_err(|error| CommitError::NotApplied(error.into()))?;
            let process = self.process;
            let Some(session) = &self.session else {
                return Err(CommitError::NotApplied(PostgresError::Unreachable.into()));
            };
            session.not_replicated.store(false, Ordering::Relaxed);
            let client = &session.client;
            let begun = self.runtime.block_on(in_time(ANSWER_TIMEOUT, async {
                let turn = tail::lock(client).await?;
                commit::fence(client, process, turn).await?;
                work(client).await
            }));
            let done = match begun {
                Ok(done) => done,
                // Without COMMIT, nothing is stored; a connection that is dropped is rolled back.
                Err(error) => {
                    self.roll_back();
                    if error.is_fenced() {
                        self.disconnect();
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
                    self.process.commits += 1;
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
                    self.disconnect();
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

impl Backend for Postgres {
    fn begin(&mut self, seen: Position) -> Result<Option<Turn>, Failure> {
        Ok(Some(self.take_turn(seen)?))
    }

    fn abandon(&mut self) {
        if self.begun.is_some() {
            self.roll_back();
        }
    }

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
            if self.begun.is_none() {
                self.retake_turn().map_err(|error| CommitError::NotApplied(error.into()))?;
            }
            let (Some(session), Some((_, turn))) = (&self.session, self.begun.take()) else {
                return Err(CommitError::NotApplied(PostgresError::Unreachable.into()));
            };
            session.not_replicated.store(false, Ordering::Relaxed);
            let sent = commit::commit(&session.client, group, self.process, turn);
            let sent = self.runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, sent).await });
            let error = match sent {
                Ok(Ok(marked)) => {
                    self.process.commits += 1;
                    self.has_refused_marks = !marked.guarded;
                    if !marked.alone {
                        self.leases.look_again();
                    }
                    if session.not_replicated.swap(false, Ordering::Relaxed) {
                        (self.was_committed, self.is_unresolved) = (true, true);
                        return Err(CommitError::Unknown(PostgresError::NotReplicated.into()));
                    }
                    return Ok(());
                }
                Ok(Err(Failed::NotApplied(error))) if error.is_conflict() && conflicts < MAX_CONFLICTS => {
                    // It is still there if a statement could not be prepared.
                    self.roll_back();
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
                        self.disconnect();
                    } else {
                        self.roll_back();
                    }
                    if is_broken && started.elapsed() < ANSWER_TIMEOUT {
                        continue;
                    }
                    return Err(CommitError::NotApplied(error.into()));
                }
                Ok(Err(Failed::Unknown(error))) => error,
                Err(_) => PostgresError::Timeout(ANSWER_TIMEOUT),
            };
            self.disconnect();
            self.in_doubt = true;
            self.has_refused_marks = commit::guarded(group.marks) > 0;
            match self.ready() {
                Ok(()) if self.was_committed => return Ok(()),
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

    fn is_stored(&mut self, _: &Decided) -> Result<bool, Failure> {
        self.connected()?;
        self.is_unresolved = false;
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

    fn set_states(&mut self, command: &OutboxCommand, places: &[Place]) -> Result<usize, CommitError> {
        self.transact(async |client| admin::set_states(client, command, places).await)
    }

    fn is_done(&mut self, command: &OutboxCommand, place: Place) -> Result<bool, Failure> {
        Ok(self.read(async |client| admin::is_done(client, command, place).await)?)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn has_refused_marks(&self) -> bool {
        self.has_refused_marks
    }

    fn forget_records(&mut self) -> Result<(), CommitError> {
        let old = self.read(async |client| tail::old_records(client).await);
        match old.map_err(|error| CommitError::NotApplied(error.into()))? {
            Some(last) => self.transact(async |client| tail::forget_records(client, last).await),
            None => Ok(()),
        }
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

    fn keeps_house(&mut self) -> bool {
        self.leases.keep_house()
    }

    fn erasing(&mut self) -> Result<Vec<UserId>, Failure> {
        Ok(self.read(async |client| erase::accounts(client).await)?)
    }

    fn answers_sizes(&mut self) -> Result<Option<Vec<(UserId, u64)>>, Failure> {
        Ok(Some(self.read(async |client| idempotency::sizes(client).await)?))
    }

    fn used_since(&mut self, since: Timestamp) -> Result<UsedElsewhere, Failure> {
        Ok(self.read(async |client| used::since(client, since).await)?)
    }

    fn clock(&mut self) -> Option<i64> {
        let sql = "SELECT extract(epoch FROM clock_timestamp())::bigint";
        let now = self.read(async |client| get(&client.query_one(sql, &[]).await?, 0));
        now.inspect_err(|error| log::debug!("the database's time can't be read: {error}")).ok()
    }

    fn close(&mut self) {
        self.abandon();
        let Some(session) = self.session.take() else { return };
        // Others need not wait until its leases end by themselves.
        let sql = format!(
            "BEGIN; UPDATE leases SET process = NULL, until = '-infinity' WHERE process = {id};
             DELETE FROM processes WHERE id = {id}; COMMIT",
            id = self.process.id
        );
        let left = async { Ok(session.client.batch_execute(&sql).await?) };
        if let Err(error) = self.runtime.block_on(in_time(ANSWER_TIMEOUT, left)) {
            log::debug!("the connection that writes had ended before: {error}");
        }
    }

    #[cfg(test)]
    fn sqlite(&mut self) -> &mut rusqlite::Connection {
        panic!("this fault is one of SQLite")
    }
}
