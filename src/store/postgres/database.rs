//! A Postgres database that is open: connections that read, on a thread of their own.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use deadpool::managed::{self, Manager, Metrics, Object, PoolError, RecycleError, RecycleResult, Timeouts};
use deadpool_postgres::ClientWrapper;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use super::backend::{Postgres, Session};
use super::connection::{ANSWER_TIMEOUT, Connector, in_time};
use super::error::PostgresError;
use super::leases::{RENEW_INTERVAL, RENEW_PAUSE};
use super::polls::Polls;
use super::rows::get;
use super::{history, leases, load, maintenance, reader, schema, tail};
use crate::config::postgres as settings;
use crate::domain::account::{DEMO_USERS, UserId};
use crate::domain::change::{Change, Epoch, Place};
use crate::domain::todo::{TodoId, Version};
use crate::store::change_log::LogSamples;
use crate::store::error::{DatabaseError, StoreError};
use crate::store::history::{Limit, Page, Past, Span};
use crate::store::leases::Leases;
use crate::store::loaded::Loaded;
use crate::store::outbox::{Found, Marks, Wanted};
use crate::store::{DemoUsers, Options, Shared, elsewhere};

type Pool = managed::Pool<Connects>;

/// An open database, for those who read.
pub struct Database {
    connector: Arc<Connector>,
    epoch: Epoch,
    /// This process's row.
    process: i32,
    leases: Arc<Leases>,
    takes_leases: AtomicBool,
    clients: Pool,
    /// The relay does not wait for clients that read what they did.
    relay: Pool,
    /// Nor does whoever follows what other processes commit, or renews leases.
    tail: Pool,
    polls: Arc<Polls>,
    runtime: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

impl Database {
    /// Opens a database, creating or migrating it if needed, and takes it for this process.
    pub fn open(
        settings: &settings::Postgres,
        options: &Options<'_>,
    ) -> Result<(Self, Loaded, Postgres), DatabaseError> {
        let location = settings.location();
        let failed = DatabaseError::postgres(&location);
        let connector = Arc::new(Connector::open(settings)?);
        let writer = runtime()?;
        let (session, loaded, process) = writer.block_on(open(&connector, options))?;
        let leases = Arc::new(Leases::none());
        let backend =
            Postgres::new(writer, Arc::clone(&connector), session, loaded.epoch, process, Arc::clone(&leases));
        let clients = pool(&connector, connector.readers()).map_err(&failed)?;
        let relay = pool(&connector, 1).map_err(&failed)?;
        let tail = pool(&connector, 2).map_err(&failed)?;
        let stop = CancellationToken::new();
        let (runtime, thread) = {
            let (runtime, stop) = (runtime()?, stop.clone());
            let handle = runtime.handle().clone();
            let thread = std::thread::Builder::new()
                .name("store-readers".into())
                .spawn(move || {
                    runtime.block_on(stop.cancelled());
                    // Whatever is still asked for is not waited for.
                    runtime.shutdown_background();
                })
                .map_err(DatabaseError::Thread)?;
            (handle, Mutex::new(Some(thread)))
        };
        let database = Self {
            connector,
            epoch: loaded.epoch,
            process,
            leases,
            takes_leases: AtomicBool::new(false),
            clients,
            relay,
            tail,
            polls: Arc::default(),
            runtime,
            thread,
            stop,
        };
        Ok((database, loaded, backend))
    }

    /// Where the data is, without a password.
    pub fn location(&self) -> String {
        self.connector.location()
    }

    /// What only one process does at a time.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Begins to follow what other processes commit.
    pub(in crate::store) fn follow(&self, shared: &Arc<Shared>) {
        let (tail, connector, shared) = (self.tail.clone(), Arc::clone(&self.connector), Arc::clone(shared));
        let poll = move || poll(tail.clone(), Arc::clone(&connector), Arc::clone(&shared));
        let polls = Arc::clone(&self.polls);
        self.runtime.spawn(async move { polls.run(poll).await });
    }

    /// Begins to take part in what only one process does at a time.
    pub(in crate::store) fn take_leases(&self, shared: &Arc<Shared>) {
        if self.takes_leases.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pool, process, leases) = (self.tail.clone(), self.process, Arc::clone(&self.leases));
        let shared = Arc::clone(shared);
        self.runtime.spawn(async move {
            let mut is_renewed = true;
            loop {
                let asked = shared.outbox.ask_for_pending();
                let renewed = renew(&pool, process, &leases).await;
                match &renewed {
                    Ok(waiting) => {
                        shared.outbox.set_pending(*waiting, asked);
                        if !is_renewed {
                            log::info!("leases are renewed again");
                        }
                    }
                    Err(error) if is_renewed => log::warn!("leases can't be renewed, and end: {error}"),
                    Err(_) => {}
                }
                is_renewed = renewed.is_ok();
                tokio::time::sleep(RENEW_PAUSE).await;
                let _ = tokio::time::timeout(RENEW_INTERVAL, leases.changed()).await;
            }
        });
    }

    /// Waits until memory has what was committed before.
    pub fn catch_up(&self) -> impl Future<Output = Result<(), StoreError>> + use<> {
        Arc::clone(&self.polls).wait()
    }

    /// Memory has what was committed until so long ago.
    pub fn age(&self) -> Duration {
        self.polls.age()
    }

    /// Checks what is stored; returns the violations. Blocks, on a connection of its own.
    pub fn check(&self) -> Result<Vec<String>, DatabaseError> {
        elsewhere(|| maintenance::check(&self.connector))
    }

    /// Reads what the relay asks for, without what is `marked`. Blocks.
    pub fn read_outbox(&self, wanted: &Wanted, marked: &Marks) -> Result<Found, DatabaseError> {
        let (relay, epoch, wanted, marked) = (self.relay.clone(), self.epoch, wanted.clone(), marked.clone());
        self.wait(async move {
            let mut client = take(&relay).await?;
            give_back(in_time(ANSWER_TIMEOUT, reader::read_outbox(&mut client, epoch, &wanted, &marked)).await, client)
        })
    }

    /// Parked changes, oldest first. Blocks.
    pub fn parked(&self, limit: usize) -> Result<Vec<Change>, DatabaseError> {
        let (clients, epoch) = (self.clients.clone(), self.epoch);
        self.wait(async move {
            let client = take(&clients).await?;
            give_back(in_time(ANSWER_TIMEOUT, reader::read_parked(&client, epoch, limit)).await, client)
        })
    }

    /// Samples the log; see `reader::sample_log`. Blocks.
    pub fn sample(&self, from: Place) -> Result<LogSamples, DatabaseError> {
        let clients = self.clients.clone();
        self.wait(async move {
            let mut client = take(&clients).await?;
            give_back(in_time(ANSWER_TIMEOUT, reader::sample_log(&mut client, from)).await, client)
        })
    }

    /// The next of some changes; `None` if the log does not have all of them any more.
    pub fn whole_page(&self, span: Span) -> impl Future<Output = Result<Option<Page>, DatabaseError>> + use<> {
        let (clients, epoch) = (self.clients.clone(), self.epoch);
        self.ask(async move {
            let client = take(&clients).await?;
            give_back(in_time(ANSWER_TIMEOUT, history::whole_page(&client, epoch, &span)).await, client)
        })
    }

    /// The next of some changes that the log has.
    pub fn page(&self, span: Span) -> impl Future<Output = Result<Page, DatabaseError>> + use<> {
        let (clients, epoch) = (self.clients.clone(), self.epoch);
        self.ask(async move {
            let client = take(&clients).await?;
            give_back(in_time(ANSWER_TIMEOUT, history::page(&client, epoch, &span)).await, client)
        })
    }

    /// The changes of a todo of `owner` after a version, and whether there are more; none of another's.
    pub fn of_todo(
        &self,
        owner: UserId,
        todo: TodoId,
        after: Version,
        limit: Limit,
    ) -> impl Future<Output = Result<(Vec<Past>, bool), DatabaseError>> + use<> {
        let (clients, epoch) = (self.clients.clone(), self.epoch);
        self.ask(async move {
            let client = take(&clients).await?;
            give_back(
                in_time(ANSWER_TIMEOUT, history::of_todo(&client, epoch, owner, todo, after, limit)).await,
                client,
            )
        })
    }

    /// Closes the connections that read. Blocks.
    pub fn close(&self) {
        self.stop.cancel();
        if self.thread.lock().take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that reads from Postgres panicked while closing");
        }
    }

    /// Reads something on the thread for it. Begun here, and not in the future: that would keep room for all of it, and each
    /// stream of events would be many times as large.
    fn ask<T: Send + 'static, R>(&self, read: R) -> impl Future<Output = Result<T, DatabaseError>> + use<T, R>
    where
        R: Future<Output = Result<T, PostgresError>> + Send + 'static,
    {
        let (done, failed) = (self.runtime.spawn(read), DatabaseError::postgres(&self.location()));
        async move { done.await.unwrap_or(Err(PostgresError::Stopping)).map_err(failed) }
    }

    /// The same for callers that may block.
    fn wait<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<T, PostgresError>> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (reply, done) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move { reply.send(read.await) });
        done.recv().unwrap_or(Err(PostgresError::Stopping)).map_err(DatabaseError::postgres(&self.location()))
    }
}

/// A runtime of the thread that blocks on it.
pub fn runtime() -> Result<Runtime, DatabaseError> {
    Builder::new_current_thread().enable_all().build().map_err(DatabaseError::Thread)
}

/// Makes visible what other processes have committed since the last time.
async fn poll(tail: Pool, connector: Arc<Connector>, shared: Arc<Shared>) -> Result<(), PostgresError> {
    let seen = shared.applied.lock().position;
    let client = take(&tail).await?;
    let missed = in_time(ANSWER_TIMEOUT, tail::poll(&client, shared.epoch, seen)).await;
    if let Err(error) = &missed {
        tail::abort_if_left_behind(&connector, error);
    }
    if let Some(missed) = give_back(missed, client)? {
        shared.publish(&missed.decided, missed.through, |index| missed.uptimes[index]);
    }
    Ok(())
}

async fn renew(pool: &Pool, process: i32, leases: &Arc<Leases>) -> Result<usize, PostgresError> {
    let client = take(pool).await?;
    give_back(in_time(ANSWER_TIMEOUT, leases::renew(&client, process, leases)).await, client)
}

async fn open(connector: &Connector, options: &Options<'_>) -> Result<(Session, Loaded, i32), DatabaseError> {
    let location = connector.location();
    let failed = DatabaseError::postgres(&location);
    let session = Session::open(connector).await.map_err(&failed)?;
    let client = &session.client;
    warn_if_unsafe(client).await.map_err(&failed)?;
    // One process after the other does what follows.
    client.batch_execute(LOCK_START).await.map_err(|error| failed(error.into()))?;
    let found = schema::version(client).await.map_err(&failed)?;
    if found > schema::VERSION {
        return Err(DatabaseError::NewerSchema { database: location, found, known: schema::VERSION });
    }
    if !options.may_upgrade && (1..schema::VERSION).contains(&found) {
        return Err(DatabaseError::OlderSchema { database: location, found, known: schema::VERSION });
    }
    if found > 0 && schema::is_unfinished(client).await.map_err(&failed)? {
        return Err(DatabaseError::Unfinished { database: location });
    }
    maintenance::refuse_moved(client, &location).await?;
    schema::migrate(client, found).await.map_err(&failed)?;
    let is_production = schema::is_production(client).await.map_err(&failed)?;
    let demo_users = match options.demo_users {
        DemoUsers::None => {
            schema::set_production(client).await.map_err(&failed)?;
            false
        }
        DemoUsers::Existing => !is_production,
        DemoUsers::Created(_) if is_production => return Err(DatabaseError::Production { database: location }),
        DemoUsers::Created(hash) => {
            schema::add_demo_users(client, &DEMO_USERS, hash, options.clock.now()).await.map_err(&failed)?;
            true
        }
    };
    let process = begin_process(client).await.map_err(&failed)?;
    client.batch_execute(UNLOCK_START).await.map_err(|error| failed(error.into()))?;
    let loaded = load::load(client, demo_users).await.map_err(&failed)?;
    Ok((session, loaded, process))
}

/// Whoever waits for it may wait for a long migration.
const LOCK_START: &str = "SET statement_timeout = 0; SET lock_timeout = 0;
     SELECT pg_advisory_lock(hashtextextended('todo-backend starts ' || current_schema(), 0));
     SET statement_timeout = '3s'; SET lock_timeout = '2s'";
const UNLOCK_START: &str = "SELECT pg_advisory_unlock(hashtextextended('todo-backend starts ' || current_schema(), 0))";

/// A row for this process.
async fn begin_process(client: &ClientWrapper) -> Result<i32, PostgresError> {
    // Not those of processes that may only be away.
    let sql = "DELETE FROM processes WHERE coalesce(seen_at, started_at) < clock_timestamp() - interval '1 day'";
    client.execute(sql, &[]).await?;
    let name = std::env::var("HOSTNAME").unwrap_or_default();
    let sql = "INSERT INTO processes (name) VALUES ($1) RETURNING id";
    get(&client.query_one(sql, &[&name]).await?, 0)
}

/// Says what makes the server lose what it has confirmed.
async fn warn_if_unsafe(client: &ClientWrapper) -> Result<(), PostgresError> {
    for setting in ["fsync", "full_page_writes"] {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await?;
        if get::<&str>(&row, 0)? == "off" {
            log::warn!("Postgres runs with {setting}=off: a crash of its machine can lose what was answered");
        }
    }
    Ok(())
}

/// A pool of at most so many connections.
fn pool(connector: &Arc<Connector>, size: usize) -> Result<Pool, PostgresError> {
    let patience = Timeouts { wait: Some(ANSWER_TIMEOUT), create: None, recycle: None };
    let pool = Pool::builder(Connects(Arc::clone(connector))).max_size(size).timeouts(patience);
    pool.runtime(deadpool::Runtime::Tokio1).build().map_err(|error| PostgresError::Pool(error.to_string()))
}

async fn take(pool: &Pool) -> Result<Object<Connects>, PostgresError> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => error,
        other => PostgresError::Pool(other.to_string()),
    })
}

/// What was read. The connection goes back into the pool, unless it may be broken, or still be busy with it.
fn give_back<T>(read: Result<T, PostgresError>, client: Object<Connects>) -> Result<T, PostgresError> {
    if read.as_ref().is_err_and(|error| !(error.is_refusal() || error.is_about_a_value())) {
        drop(Object::take(client));
    }
    read
}

/// How the pool gets its connections.
struct Connects(Arc<Connector>);

impl Manager for Connects {
    type Type = ClientWrapper;
    type Error = PostgresError;

    async fn create(&self) -> Result<ClientWrapper, PostgresError> {
        Ok(self.0.connect().await?.cached().0)
    }

    async fn recycle(&self, client: &mut ClientWrapper, _: &Metrics) -> RecycleResult<PostgresError> {
        if client.is_closed() { Err(RecycleError::message("it is closed")) } else { Ok(()) }
    }
}
