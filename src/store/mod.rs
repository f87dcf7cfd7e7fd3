//! The durable store and its change log. A mutation is a [`Command`]; its effect is a [`Change`], committed in the same
//! transaction as the todo. Reads are served from memory; the relay reads the log through [`Store::read_outbox`].

mod abort;
mod backend;
mod change_log;
mod check;
mod command;
pub mod decide;
pub mod error;
pub mod feed;
pub mod history;
pub mod idempotency;
pub mod leases;
mod loaded;
pub mod map;
pub mod moving;
pub mod outbox;
pub mod outcome;
pub mod postgres;
mod sqlite;
mod stored;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::config::postgres::Postgres;
use crate::config::{Database, Retention};
use crate::domain::account::{AccountState, DEMO_USERS, DemoUser, TokenEpoch, User, UserId};
use crate::domain::change::{Change, Epoch, Revision};
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::network::Network;
use crate::domain::session::{PersonalToken, PersonalTokenId, Session, SessionId, TokenHash};
use crate::domain::sync_token::SyncToken;
use crate::domain::todo::{Todo, TodoId, Version};
use crate::telemetry::metrics::Metrics;
use backend::{Backend, Position};
use change_log::ChangeLog;
pub use command::{
    AccountCommand, AccountUpdate, Authority, Command, Commands, Condition, Context, Means, Merge, NewAccount,
    NewPersonalToken, NewSession, OutboxCommand, SessionCommand, Target, Versions,
};
use decide::sessions::SessionOutcome;
use decide::{Decided, Head};
use error::{DatabaseError, StoreError};
use feed::{Delivery, Feed, Follower, News};
use history::{Gap, HistoryError, Limit, Page, Past, Span};
use idempotency::Answered;
use leases::Leases;
use loaded::Loaded;
use map::login_networks::LoginNetworks;
use map::sessions::{PersonalTokens, Sessions, Used};
use map::trash::Trash;
use map::users::Users;
use map::{OwnerView, TodoMap, TrashView};
use moving::{Counts, Progress};
use outbox::{Found, Outbox, Wanted};
use postgres::connection::Connector;
pub use sqlite::maintenance;
use writer::Writer;
use writer::jobs::{Job, Request};

/// Jobs that may wait for the writer; beyond that, [`StoreError::Busy`].
const MAX_QUEUED: usize = 4096;

/// How to open a store.
pub struct Options<'a> {
    /// Which database to open.
    pub database: &'a Database,
    /// The wall clock that changes are stamped with.
    pub clock: Clock,
    /// Whether the demo users exist.
    pub demo_users: DemoUsers<'a>,
    /// Whether a database of an earlier version may be upgraded.
    pub may_upgrade: bool,
    /// How long the log keeps published changes, and how long deleted todos can be restored.
    pub retention: Retention,
    /// Live todos of a user, at most.
    pub max_todos: usize,
    /// Counts commits, refusals and more.
    pub metrics: Arc<Metrics>,
}

/// Whether the demo users exist, which are for development.
pub enum DemoUsers<'a> {
    /// They don't, not even those that an earlier run in development created. The database is one of production from
    /// now on.
    None,
    /// Those that an earlier run in development created do.
    Existing,
    /// They do: missing ones are created, with this password hash function.
    Created(&'a (dyn Fn(&str) -> String + Sync)),
}

/// An open store: memory for readers, a queue for the one writer, an outbox for the relay.
pub struct Store {
    shared: Arc<Shared>,
    queue: SyncSender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
    log: ChangeLog,
}

/// What the writer shares with everybody else.
struct Shared {
    epoch: Epoch,
    /// Locked by whoever makes something visible, before anything else.
    applied: Mutex<Applied>,
    todos: RwLock<TodoMap>,
    users: RwLock<Users>,
    sessions: RwLock<Sessions>,
    personal_tokens: RwLock<PersonalTokens>,
    used: Mutex<Used>,
    /// From where accounts were logged in to; saved in the same way.
    login_networks: Mutex<LoginNetworks>,
    outbox: Outbox,
    feed: Arc<Feed>,
    writable: AtomicBool,
    /// Jobs that wait for the writer.
    queued: AtomicUsize,
    /// The size of all answers that are kept, in bytes.
    kept_bytes: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

/// What memory has of the log.
struct Applied {
    position: Position,
    heads: HashMap<UserId, Head>,
    /// Accounts that were deleted, and that the writer has not heard of.
    deleted: Vec<UserId>,
}

impl Shared {
    /// Makes what was committed visible: to readers of the maps first, then to the relay. Whatever follows the log gets it
    /// here, and only here. `through`: where the log ends with it; what is in memory already is left out. `uptime`: when its
    /// nth change was made.
    fn publish(&self, decided: &Decided, through: Position, uptime: impl Fn(usize) -> i64) {
        let mut applied = self.applied.lock();
        if through.record > applied.position.record {
            self.publish_records(decided, &mut applied);
            applied.position.record = through.record;
        }
        let is_new = |change: &Arc<Change>| change.place.0 > applied.position.change.0;
        let first = decided.changes.iter().position(is_new).unwrap_or(decided.changes.len());
        let changes = &decided.changes[first..];
        if changes.is_empty() && decided.purged.is_empty() {
            return;
        }
        let mut todos = self.todos.write();
        for (index, change) in changes.iter().enumerate() {
            todos.apply(change, uptime(first + index));
            let head = applied.heads.entry(change.todo.owner).or_default();
            (head.revision, head.last_at) = (change.revision, change.at);
        }
        for &(owner, id) in &decided.purged {
            todos.purge(owner, id);
        }
        drop(todos);
        if let Some(last) = changes.last() {
            applied.position.change = last.place;
        }
        // Before the relay, which tells how far their events have come.
        self.feed.committed(changes);
        self.outbox.push(changes);
    }

    fn publish_records(&self, decided: &Decided, applied: &mut Applied) {
        if !decided.accounts.is_empty() {
            let mut users = self.users.write();
            for account in decided.accounts.values() {
                applied.heads.entry(account.id).or_default();
                if account.state == AccountState::Deleted {
                    applied.deleted.push(account.id);
                }
                // With its tokens, an account forgets from where it was logged in to.
                if users.stored(account.id).is_some_and(|before| before.token_epoch != account.token_epoch) {
                    self.login_networks.lock().remove(account.id);
                }
                users.put(Arc::clone(account));
            }
        }
        // Those about whose access followers have to ask again.
        let mut accessed: BTreeSet<UserId> = decided.accounts.keys().copied().collect();
        accessed.extend(decided.personal_tokens.keys().map(|(user, _)| *user));
        if !decided.sessions.is_empty() {
            let mut sessions = self.sessions.write();
            for (id, session) in &decided.sessions {
                match session {
                    Some(session) => sessions.put(Arc::clone(session)),
                    None => {
                        accessed.extend(sessions.get(*id).map(|session| session.user));
                        sessions.remove(*id);
                    }
                }
            }
        }
        if !decided.personal_tokens.is_empty() {
            let mut tokens = self.personal_tokens.write();
            for ((user, id), token) in &decided.personal_tokens {
                match token {
                    Some(token) => tokens.put(Arc::clone(token)),
                    None => {
                        tokens.remove(*user, *id);
                        self.used.lock().remove(*id);
                    }
                }
            }
        }
        for user in accessed {
            self.feed.tell(user, News::AccessChanged);
        }
        if decided.restarts_relays {
            self.outbox.reload();
        }
    }
}

impl Store {
    /// Opens the database, creating or migrating it if needed, and loads it into memory.
    pub fn open(options: Options<'_>) -> Result<Self, DatabaseError> {
        let (log, loaded, backend) = match options.database {
            Database::File(path) => open_sqlite(Some(path), &options)?,
            Database::Temporary => open_sqlite(None, &options)?,
            Database::Postgres(settings) => open_postgres(settings, &options)?,
        };
        let kept_bytes = loaded.kept.total();
        let memory =
            writer::Memory { next: loaded.next, uptime: loaded.uptime, erasing: loaded.erasing, kept: loaded.kept };
        let shared = Arc::new(Shared {
            epoch: loaded.epoch,
            applied: Mutex::new(Applied { position: loaded.position, heads: loaded.heads, deleted: Vec::new() }),
            todos: RwLock::new(loaded.todos),
            users: RwLock::new(loaded.users),
            sessions: RwLock::new(loaded.sessions),
            personal_tokens: RwLock::new(loaded.personal_tokens),
            used: Mutex::new(Used::new(loaded.used)),
            login_networks: Mutex::new(LoginNetworks::new(loaded.login_networks)),
            outbox: Outbox::new(loaded.pending),
            feed: Arc::default(),
            writable: AtomicBool::new(true),
            queued: AtomicUsize::new(0),
            kept_bytes,
            metrics: options.metrics,
        });
        log.follow(&shared);
        let (queue, jobs) = sync_channel(MAX_QUEUED);
        let Options { clock, retention, max_todos, .. } = options;
        let writer = Writer::new(backend, Arc::clone(&shared), clock, retention, max_todos, memory);
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&jobs))
            .map_err(DatabaseError::Thread)?;
        Ok(Self { shared, queue, writer: Mutex::new(Some(writer)), log })
    }

    /// Applies all of `commands` or none, in one commit, and returns what they did once that is durable.
    pub async fn apply(&self, context: Context, commands: Commands) -> Result<Answered, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Todos { context, commands, reply }, answer).await
    }

    /// Applies a command to an account, and returns what the account is once that is durable. `authority`: the token
    /// that allows it, if one has to.
    pub async fn apply_to_account(
        &self,
        authority: Option<Authority>,
        command: AccountCommand,
    ) -> Result<Arc<User>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Account { authority, command, reply }, answer).await
    }

    /// Applies a command about sessions or personal access tokens, and returns what became of it once that is durable.
    /// `authority`: the access token that allows it, if one has to.
    pub async fn apply_to_session(
        &self,
        authority: Option<Authority>,
        command: SessionCommand,
    ) -> Result<SessionOutcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Session { authority, command, reply }, answer).await
    }

    async fn request<T>(
        &self,
        request: Request,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let applied = self.enqueue(Job::Apply(request), answer).await;
        if let Err(error) = &applied {
            self.shared.metrics.refused(error.reason());
        }
        applied
    }

    /// Runs an operator's command; returns the number of changes it affected. `authority`: the token that allows it, if
    /// one has to.
    pub async fn run_admin_command(
        &self,
        authority: Option<Authority>,
        command: OutboxCommand,
    ) -> Result<usize, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::RunAdminCommand { authority, command, reply }, answer).await
    }

    async fn enqueue<T>(&self, job: Job, answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        // The queue is full, or the writer has ended because the service is stopping.
        if self.queue.try_send(job).is_err() {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(StoreError::Busy);
        }
        answer.await.unwrap_or(Err(StoreError::NotApplied))
    }

    /// Waits until memory has what was committed before, by whatever process. What is read after it is as strict as if there
    /// were one process; what is read without it may be some milliseconds old.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.log.catch_up().await
    }

    /// One todo of `owner`.
    ///
    /// Reads are answered from memory, at once; see [`Self::catch_up`].
    pub async fn todo(&self, owner: UserId, id: TodoId) -> Result<Option<Arc<Todo>>, StoreError> {
        Ok(self.shared.todos.read().get(owner, id).cloned())
    }

    /// All todos of `owner`, as of one moment.
    pub async fn view(&self, owner: UserId) -> Result<OwnerView, StoreError> {
        Ok(self.shared.todos.read().view(owner))
    }

    /// Everything in the trash of `owner`: the last that was deleted first.
    pub async fn trash(&self, owner: UserId) -> Result<TrashView, StoreError> {
        Ok(self.shared.todos.read().trash_view(owner).last_deleted_first())
    }

    /// The ids of the first todos in the trash of `owner`, at most `limit`, and whether there are more.
    pub async fn first_in_trash(&self, owner: UserId, limit: usize) -> Result<(Vec<TodoId>, bool), StoreError> {
        let todos = self.shared.todos.read();
        let count = todos.trash(owner).map_or(0, Trash::count);
        Ok((todos.first_trashed(owner, limit), count > limit))
    }

    /// Both, as of the same moment.
    pub async fn view_with_trash(&self, owner: UserId) -> Result<(OwnerView, TrashView), StoreError> {
        let todos = self.shared.todos.read();
        let (view, trash) = (todos.view(owner), todos.trash_view(owner));
        drop(todos);
        Ok((view, trash.last_deleted_first()))
    }

    /// How much memory is kept for searches, in bytes.
    pub fn search_texts_size(&self) -> usize {
        self.shared.todos.read().texts_size()
    }

    /// The number of live todos of all users.
    pub fn todo_count(&self) -> usize {
        self.shared.todos.read().count()
    }

    /// The account with this id.
    pub async fn account(&self, id: UserId) -> Result<Option<Arc<User>>, StoreError> {
        Ok(self.shared.users.read().by_id(id).cloned())
    }

    /// The account with this name; case does not matter.
    pub async fn account_named(&self, username: &str) -> Result<Option<Arc<User>>, StoreError> {
        Ok(self.shared.users.read().by_name(username).cloned())
    }

    /// The session with this id, if it is not over.
    pub async fn session(&self, id: SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        Ok(self.shared.sessions.read().get(id).cloned())
    }

    /// The sessions of an account, by id.
    pub async fn sessions(&self, user: UserId) -> Result<Vec<Arc<Session>>, StoreError> {
        Ok(self.shared.sessions.read().of(user).cloned().collect())
    }

    /// The personal access token with this hash.
    pub async fn personal_token(&self, hash: &TokenHash) -> Result<Option<Arc<PersonalToken>>, StoreError> {
        Ok(self.shared.personal_tokens.read().get(hash).cloned())
    }

    /// The personal access tokens of an account, by id, and when they were used last.
    pub async fn personal_tokens(
        &self,
        user: UserId,
    ) -> Result<Vec<(Arc<PersonalToken>, Option<Timestamp>)>, StoreError> {
        let tokens = self.shared.personal_tokens.read();
        let used = self.shared.used.lock();
        Ok(tokens.of(user).map(|token| (Arc::clone(token), used.get(token.id))).collect())
    }

    /// Remembers that a personal access token was used. It is stored a minute later at most.
    pub fn personal_token_used(&self, id: PersonalTokenId, at: Timestamp) {
        self.shared.used.lock().put(id, at);
    }

    /// Remembers from where an account was logged in to, until its tokens are ended. It is stored a minute later at most.
    pub fn logged_in(&self, user: UserId, network: Network, at: Timestamp) {
        self.shared.login_networks.lock().put((user, network), at);
    }

    /// Whether an account was logged in to from there in the last 30 days.
    pub fn is_known_there(&self, user: UserId, network: Network, now: Timestamp) -> bool {
        self.shared.login_networks.lock().is_known((user, network), now)
    }

    /// Accounts by id, at most `limit` of those after `after`, and the number of all. Deleted ones are among them.
    pub async fn accounts(&self, after: UserId, limit: usize) -> Result<(Vec<Arc<User>>, usize), StoreError> {
        let users = self.shared.users.read();
        Ok((users.after(after).take(limit).cloned().collect(), users.count()))
    }

    /// The number of accounts that are not deleted.
    pub fn account_count(&self) -> usize {
        let users = self.shared.users.read();
        users.all().filter(|user| user.state != AccountState::Deleted).count()
    }

    /// The demo users that can log in with the password that is published.
    pub fn demo_users(&self) -> Vec<&'static DemoUser> {
        let users = self.shared.users.read();
        let created = |demo: &&DemoUser| {
            let user = users.by_name(demo.username);
            // The first change of a password, or of anything else, ends the first epoch. So does logging out everywhere:
            // such a user is left out although the password is the published one.
            user.is_some_and(|user| user.is_demo && user.is_active() && user.token_epoch == TokenEpoch::default())
        };
        DEMO_USERS.iter().filter(created).collect()
    }

    /// Whether there is an active admin who is not a demo user.
    pub fn has_admin(&self) -> bool {
        self.shared.users.read().all().any(|user| user.is_active_admin() && !user.is_demo)
    }

    /// The epoch that versions and revisions belong to.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Where the data is, for people.
    pub fn location(&self) -> String {
        self.log.location()
    }

    /// The file, if it is one: for tests that look behind the store.
    pub fn path(&self) -> Option<&Path> {
        match &self.log {
            ChangeLog::Sqlite(database) => Some(database.path()),
            ChangeLog::Postgres(_) => None,
        }
    }

    /// Checks what is stored, as `todo-backend check` does; returns the violations. Blocks on the database.
    pub fn check(&self) -> Result<Vec<String>, DatabaseError> {
        self.log.check()
    }

    /// Whether the last commit succeeded.
    pub fn writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed)
    }

    /// Committed changes that are not yet published.
    pub fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

    /// What only one process does at a time, and which of it this one does.
    pub fn leases(&self) -> &Leases {
        self.log.leases()
    }

    /// Begins to take part in what only one process does at a time: publishing and keeping house.
    pub fn take_leases(&self) {
        self.log.take_leases(&self.shared);
    }

    /// Reads from the log what the relay asks for. Blocks on the database: call it off the async threads.
    pub fn read_outbox(&self, wanted: &Wanted) -> Result<Found, DatabaseError> {
        // Copied before the read, so that it includes marks that are committed meanwhile.
        let marked = self.shared.outbox.marks();
        self.log.read_outbox(wanted, &marked)
    }

    /// Tells those who follow `owner` how far a change's event has come.
    pub fn tell_delivery(&self, owner: UserId, delivery: Delivery) {
        self.shared.feed.tell(owner, News::Delivered(delivery));
    }

    /// Follows the changes of `owner`, of which this is the last one: the follower hears of all after it.
    pub async fn follow(&self, owner: UserId) -> Result<(Follower, Revision), StoreError> {
        // In this order: what is committed in between is heard, and known already.
        let follower = self.shared.feed.follow(owner);
        let head = self.shared.todos.read().revision(owner);
        Ok((follower, head))
    }

    /// How far a client knows the changes of an owner, up to this one.
    pub fn sync_token(&self, revision: Revision) -> SyncToken {
        SyncToken { epoch: self.shared.epoch, revision }
    }

    /// What a client knows that has `token`, of an owner whose last change is `head`.
    pub fn known(&self, token: SyncToken, head: Revision) -> Result<Revision, Gap> {
        history::known(token, self.shared.epoch, head)
    }

    /// Whether `owner` has this todo, or has it in the trash.
    pub async fn has_todo(&self, owner: UserId, id: TodoId) -> Result<bool, StoreError> {
        let todos = self.shared.todos.read();
        Ok(todos.get(owner, id).is_some() || todos.trash(owner).is_some_and(|trash| trash.get(id).is_some()))
    }

    /// What whoever knows the changes of `owner` up to `token` does not know, from the log.
    pub async fn changes_since(
        &self,
        owner: UserId,
        token: SyncToken,
        only_last: bool,
        limit: Limit,
    ) -> Result<Page, HistoryError> {
        let through = self.shared.todos.read().revision(owner);
        let after = history::known(token, self.shared.epoch, through).map_err(HistoryError::Gap)?;
        if after == through {
            return Ok(Page { changes: Vec::new(), through, more: false });
        }
        let span = Span { owner, after, through, only_last, limit };
        self.log.whole_page(span).await?.ok_or(HistoryError::Gap(Gap::Pruned))
    }

    /// Some of an owner's changes, as far as the log still has them.
    pub async fn changes(&self, span: Span) -> Result<Page, DatabaseError> {
        self.log.page(span).await
    }

    /// The changes of one todo of `owner` after a version that the log still has, and whether there are more.
    pub async fn changes_of(
        &self,
        owner: UserId,
        todo: TodoId,
        after: Version,
        limit: Limit,
    ) -> Result<(Vec<Past>, bool), DatabaseError> {
        self.log.of_todo(owner, todo, after, limit).await
    }

    /// Parked changes, oldest first. Blocks on the database.
    pub fn parked(&self, limit: usize) -> Result<Vec<Change>, DatabaseError> {
        self.log.parked(limit)
    }

    /// Updates the metrics' gauges of the store. Blocks on the database.
    pub fn sample(&self, now: Timestamp) -> Result<(), DatabaseError> {
        let from = self.outbox().oldest_from();
        let asked = self.outbox().ask_for_pending();
        let log = self.log.sample(from)?;
        self.outbox().set_oldest(from, log.oldest_from);
        if let Some(pending) = log.pending {
            self.outbox().set_pending(usize::try_from(pending).unwrap_or_default(), asked);
        }
        let samples = &self.shared.metrics.samples;
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        samples.outbox_pending.set(count(self.outbox().pending()));
        samples.outbox_oldest_seconds.set(log.oldest_pending.map_or(0, |at| now.0.saturating_sub(at.0).max(0) / 1000));
        samples.outbox_parked.set(log.parked);
        samples.log_changes.set(log.changes);
        samples.queue_depth.set(count(self.shared.queued.load(Ordering::Relaxed)));
        samples.todos.set(count(self.todo_count()));
        samples.search_texts_bytes.set(count(self.search_texts_size()));
        samples.trashed_todos.set(count(self.shared.todos.read().trashed()));
        samples
            .kept_answers_bytes
            .set(i64::try_from(self.shared.kept_bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        samples.relay_parts.set(count(self.leases().parts().count()));
        samples.keeps_house.set(i64::from(self.leases().keep_house()));
        samples.log_age_seconds.set(i64::try_from(self.log.age().as_secs()).unwrap_or(i64::MAX));
        samples.store_writable.set(i64::from(self.writable()));
        samples.database_bytes.set(log.database_bytes);
        samples.wal_bytes.set(log.wal_bytes);
        Ok(())
    }

    /// Ends the writer once the queue and the last marks are committed, and closes the database, so that another store
    /// can open it even while this one's memory is still being read. Blocks.
    pub fn close(&self) {
        // Fails when the writer has already ended.
        if self.queue.send(Job::Close).is_ok()
            && let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            log::error!("the writer thread panicked while closing");
        }
        self.log.close();
    }
}

/// An open database: for those who read, in memory, and for the writer.
type Opened = (ChangeLog, Loaded, Box<dyn Backend>);

fn open_sqlite(named: Option<&Path>, options: &Options<'_>) -> Result<Opened, DatabaseError> {
    let (database, loaded, backend) = sqlite::database::Database::open(named, options)?;
    Ok((ChangeLog::Sqlite(database), loaded, Box::new(backend)))
}

fn open_postgres(settings: &Postgres, options: &Options<'_>) -> Result<Opened, DatabaseError> {
    let (database, loaded, backend) = elsewhere(|| postgres::database::Database::open(settings, options))?;
    Ok((ChangeLog::Postgres(database), loaded, Box::new(backend)))
}

/// Does something on a thread of its own: the caller's may be one of an asynchronous runtime, which must not wait for another
/// one.
fn elsewhere<T: Send>(work: impl FnOnce() -> Result<T, DatabaseError> + Send) -> Result<T, DatabaseError> {
    let done = std::thread::scope(|scope| {
        std::thread::Builder::new().name("store-opening".into()).spawn_scoped(scope, work).map(|thread| thread.join())
    });
    done.map_err(DatabaseError::Thread)?.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Checks a Postgres database as [`maintenance::check`] does a file; returns the violations. Works while the service runs.
pub fn check_postgres(settings: &Postgres) -> Result<Vec<String>, DatabaseError> {
    elsewhere(|| postgres::maintenance::check(&Connector::open(settings)?))
}

/// Gives a Postgres database a new epoch, after it was restored to what it was before: consumers and clients see by it that
/// versions start over. All access tokens end with the old epoch; sessions and personal access tokens are removed. The
/// service must not be running.
pub fn renew_epoch(settings: &Postgres) -> Result<Epoch, DatabaseError> {
    elsewhere(|| postgres::maintenance::renew_epoch(&Connector::open(settings)?))
}

/// Copies a database of SQLite into an empty one of Postgres, or goes on with a copy that was broken off: see [`moving`]. Neither
/// may be used by a service. The copy of a backup has a new epoch.
pub fn copy_to_postgres(
    path: &Path,
    is_backup: bool,
    target: &Postgres,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Counts, DatabaseError> {
    elsewhere(|| moving::to_postgres(path, is_backup, &Connector::open(target)?.patient(), progress))
}

/// Copies a database of Postgres, which no service uses, to a new file.
pub fn copy_to_sqlite(
    settings: &Postgres,
    target: &Path,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Counts, DatabaseError> {
    elsewhere(|| moving::to_sqlite(&Connector::open(settings)?.patient(), target, progress))
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
