//! Assembles the service: state, routes, background tasks; the order of start and of shutdown.

mod first_admin;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_cors::Cors;
use actix_server::{Server, ServerHandle};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::access_log::access_log;
use crate::api::client::TrustedProxies;
use crate::api::dapr::Subscription;
use crate::api::health::Readiness;
use crate::api::http::valid_head;
use crate::api::large_lists::LargeLists;
use crate::api::limits::limit_addresses;
use crate::api::metrics::MetricsAccess;
use crate::api::per_user::PerUser;
use crate::api::state::AppState;
use crate::api::sync::live::MAX_STREAMS;
use crate::api::turns::Turns;
use crate::auth::limits::{self, Limits};
use crate::auth::password::{HashError, Passwords};
use crate::auth::token::Keys;
use crate::config::{Config, CorsOrigins, Database, RateLimits};
use crate::connection;
use crate::events::dapr::{ClientError, DaprClient};
use crate::events::relay::Relay;
use crate::events::sidecar;
use crate::store::error::DatabaseError;
use crate::store::{DemoUsers, Options, Store};
use crate::telemetry::metrics::Metrics;
use first_admin::FirstAdminError;

/// How long requests in flight may take to finish when the service stops, in seconds (actix's unit).
const DRAIN_TIMEOUT_SECONDS: u64 = 10;
/// With fewer connections than this, the start logs a warning.
const FEW_CONNECTIONS: usize = 1000;
/// Delay before a background task that panicked is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Request headers that pages on other origins may send.
const CORS_REQUEST_HEADERS: [&str; 12] = [
    "Authorization",
    "Content-Type",
    "Accept",
    "If-Match",
    "If-None-Match",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
    "X-Request-Id",
    // Sent by tracing in a page (W3C Trace Context and Baggage).
    "traceparent",
    "tracestate",
    "baggage",
];

/// Response headers that pages on other origins may read.
const CORS_EXPOSED_HEADERS: [&str; 14] = [
    "ETag",
    "Location",
    "Link",
    "X-Total-Count",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "WWW-Authenticate",
    "Accept-Patch",
    "Preference-Applied",
    "Change-Revision",
    "Idempotent-Replayed",
    "Sync-Token",
    "X-Request-Id",
];

/// Why the service could not start, or stopped by itself: one line that says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address is taken, or not one of this machine.
    #[error("cannot listen on {address}: {source}; set HOST and PORT to a free address")]
    Bind {
        /// `HOST:PORT`.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The listener can't be used by the server.
    #[error(transparent)]
    Listener(io::Error),
    /// Passwords can't be hashed.
    #[error(transparent)]
    Passwords(#[from] HashError),
    /// The database can't be opened.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The first admin can't be created.
    #[error(transparent)]
    FirstAdmin(#[from] FirstAdminError),
    /// The client for the sidecar can't be created.
    #[error(transparent)]
    SidecarClient(#[from] ClientError),
    /// The server ended although nobody stopped it.
    #[error("the server ended: {0}")]
    Server(#[source] io::Error),
}

/// The assembled service. Its port is open already; it serves once [`App::run`] is awaited.
pub struct App {
    address: SocketAddr,
    limit: connection::Limit,
    server: Server,
    store: Arc<Store>,
    dapr: DaprClient,
    config: Config,
    stop: CancellationToken,
    sidecar: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

impl App {
    /// Opens the store and sets up the server on `listener`, which is bound already: Dapr waits for our port, so
    /// waiting for Dapr before listening would be a deadlock.
    pub async fn build(config: Config, listener: TcpListener) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(StartError::Listener)?;
        connection::widen_backlog(&listener).map_err(StartError::Listener)?;
        let limit = connection::Limit::raised(config.max_connections);
        let metrics = Arc::new(Metrics::new());
        let passwords = Passwords::new(Arc::clone(&metrics))?;
        metrics.count_limits(&limits::NAMES);
        let store = Arc::new(open_store(&config, &passwords, &metrics)?);
        first_admin::ensure(&config, &store, &passwords).await?;
        let dapr = DaprClient::new(&config)?;
        let (sidecar, stop) = (watch::Sender::new(false), CancellationToken::new());
        let state = web::Data::new(AppState {
            store: Arc::clone(&store),
            passwords,
            keys: Keys::new(&config, store.epoch()),
            clock: config.clock.clone(),
            registration_open: config.registration_open,
            limits: Limits::new(config.rate_limits),
            proxies: TrustedProxies::new(&config.trusted_proxies),
            metrics: Arc::clone(&metrics),
            metrics_access: MetricsAccess::new(&config),
            subscription: Subscription::new(&config),
            turns: Turns::default(),
            lists: LargeLists::default(),
            imports: PerUser::at_most(1),
            streams: PerUser::at_most(MAX_STREAMS),
            readiness: Readiness { sidecar: sidecar.subscribe(), stop: stop.clone() },
        });
        let (settings, timeouts) = (config.clone(), config.timeouts);
        let routes = move || {
            actix_web::App::new()
                .wrap(from_fn(valid_head))
                .wrap(from_fn(limit_addresses))
                .wrap(cors(&settings))
                .wrap(security_headers(&settings))
                .wrap(from_fn(access_log))
                .configure(api::configure(state.clone(), &settings))
        };
        // actix would stop at once on SIGINT; `run` treats it like SIGTERM.
        let server = Server::build()
            .disable_signals()
            .shutdown_timeout(DRAIN_TIMEOUT_SECONDS)
            .workers(limit.workers)
            .max_concurrent_connections(limit.per_worker);
        let draining = server.graceful_shutdown_signal();
        let server = server
            .listen("http", listener, move || connection::serve(routes(), address, draining.clone(), timeouts))
            .map_err(StartError::Listener)?
            .run();
        Ok(Self { address, limit, server, store, dapr, config, stop, sidecar, metrics })
    }

    /// The address that it listens on, with the port that the system chose if none was set.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cancelling it stops the service, as SIGTERM does; [`App::run`] ends when that is complete.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The store, for tests that check what the API doesn't show.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Serves until SIGTERM, SIGINT or [`App::stop_token`], then finishes what was begun and closes the store.
    pub async fn run(self) -> Result<(), StartError> {
        let Self { address, limit, server, store, dapr, config, stop, sidecar, metrics } = self;
        announce(&config, address, limit, &store);
        let handle = server.handle();
        let mut server = actix_web::rt::spawn(server);
        // Not a child of `stop`: background tasks go on until the requests in flight are finished.
        let drained = CancellationToken::new();
        let tasks = background_tasks(&store, &dapr, &config, &drained, sidecar, &metrics);
        let ended = tokio::select! {
            ended = &mut server => Some(ended),
            () = shutdown_signal() => None,
            () = stop.cancelled() => None,
        };
        stop.cancel();
        if ended.is_none() {
            log::info!("stopping: requests in flight are finished, events not yet published stay in the log");
            drain_requests(&handle, server).await;
        }
        drained.cancel();
        for task in tasks {
            if let Err(error) = task.await {
                log::error!("a background task failed while stopping: {error}");
            }
        }
        let left = store.outbox().pending();
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            log::error!("closing the store panicked");
        }
        log::info!("stopped; at most {left} events will be published after the next start");
        match ended {
            Some(Err(panicked)) => Err(StartError::Server(io::Error::other(panicked))),
            Some(Ok(Err(error))) => Err(StartError::Server(error)),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }
}

fn open_store(config: &Config, passwords: &Passwords, metrics: &Arc<Metrics>) -> Result<Store, DatabaseError> {
    let hash = |password: &str| {
        passwords.hash_now(password).unwrap_or_else(|error| {
            log::error!("a demo user's password can't be hashed: {error}");
            String::new()
        })
    };
    let options = Options {
        database: &config.database,
        clock: config.clock.clone(),
        demo_users: if config.debug { DemoUsers::Created(&hash) } else { DemoUsers::None },
        may_upgrade: true,
        retention: config.retention,
        max_todos: config.max_todos_per_user,
        metrics: Arc::clone(metrics),
    };
    Store::open(options)
}

fn cors(config: &Config) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allowed_headers(CORS_REQUEST_HEADERS)
        .expose_headers(CORS_EXPOSED_HEADERS)
        .max_age(600);
    let listed = match &config.cors {
        CorsOrigins::Any => return cors.allow_any_origin(),
        CorsOrigins::Listed(origins) => origins,
    };
    let cors = listed.iter().fold(cors, |cors, origin| cors.allowed_origin(origin));
    if config.debug { cors.allowed_origin_fn(|origin, _| origin.to_str().is_ok_and(is_localhost)) } else { cors }
}

/// What browsers must not do with any answer. The pages of the documentation have a policy of their own.
fn security_headers(config: &Config) -> DefaultHeaders {
    let headers = DefaultHeaders::new()
        // Not guess another type than the one we send (https://mimesniff.spec.whatwg.org/).
        .add((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Not show it inside another page.
        .add((CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"));
    match config.hsts_max_age {
        0 => headers,
        // Not ask again without TLS (RFC 6797).
        age => headers.add((STRICT_TRANSPORT_SECURITY, format!("max-age={age}"))),
    }
}

/// Whether an origin is a page served by this machine: what a frontend developer uses.
fn is_localhost(origin: &str) -> bool {
    let host = url::Url::parse(origin).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| {
        matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost")
    })
}

fn announce(config: &Config, address: SocketAddr, limit: connection::Limit, store: &Store) {
    let page = if config.page { format!("at http://{address}/app") } else { "switched off".into() };
    let documentation =
        if config.docs { format!("at http://{address}/docs and /redoc") } else { "switched off".into() };
    log::info!("the API is at http://{address}, its documentation {documentation}; the page is {page}");
    let (connections, open_files) = (limit.connections(), limit.open_files);
    log::info!("up to {connections} connections at a time, with a limit of {open_files} open files");
    if connections < FEW_CONNECTIONS && config.max_connections.is_none() {
        log::warn!(
            "only {connections} connections at a time, further clients wait: raise the limit of open files \
             (ulimit -Hn, LimitNOFILE=, docker run --ulimit nofile=)"
        );
    }
    match &config.env_file {
        Some(file) => log::info!("settings: from {} and the environment, which wins", file.display()),
        None => log::info!("settings: from the environment; there is no .env in the working directory"),
    }
    if let Database::Postgres(settings) = &config.database
        && !config.debug
        && let Some(warning) = settings.warning()
    {
        log::warn!("{warning}");
    }
    let data = store.location();
    log::info!("data: {data} ({} todos, {} events to publish)", store.todo_count(), store.outbox().pending());
    log::info!(
        "events go to the Dapr sidecar at {}, component {}, topic {}; its Kafka is expected at {}",
        config.sidecar_url,
        config.pubsub,
        config.topic,
        config.kafka_broker
    );
    let registration = if config.registration_open { "open" } else { "closed" };
    log::info!("accounts: {}, registration is {registration}", store.account_count());
    log::info!("{}", limits_in_words(config));
    if !config.debug && !store.has_admin() {
        log::warn!(
            "there is no admin: create one with `todo-backend user add NAME --admin` (with a database file, while the \
             service is stopped), or start it with ADMIN_USERNAME and ADMIN_PASSWORD_FILE"
        );
    }
    if config.debug {
        let demo_users: Vec<String> =
            store.demo_users().iter().map(|user| format!("{}/{}", user.username, user.password)).collect();
        log::info!("demo users (DEBUG=True): {}", demo_users.join(", "));
        if !address.ip().is_loopback() {
            log::warn!(
                "DEMO USERS WITH PUBLISHED PASSWORDS ARE REACHABLE FROM OUTSIDE: this service listens on {address}. \
                 Set DEBUG=False, or HOST=127.0.0.1"
            );
        }
    }
}

/// The limits of requests, and by whom they are told for whom they ask.
fn limits_in_words(config: &Config) -> String {
    let RateLimits { logins, per_user, per_address } = config.rate_limits;
    let rate = |per_second| if per_second == 0 { "no limit".to_owned() } else { format!("{per_second} a second") };
    let proxies = config.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "limits: passwords {}, requests of an account {}, from an address {}; trusted proxies: {}",
        if logins { "on" } else { "OFF" },
        rate(per_user),
        rate(per_address),
        if proxies.is_empty() { "none" } else { &proxies }
    )
}

fn background_tasks(
    store: &Arc<Store>,
    dapr: &DaprClient,
    config: &Config,
    stop: &CancellationToken,
    ready: watch::Sender<bool>,
    metrics: &Arc<Metrics>,
) -> Vec<JoinHandle<()>> {
    let relay = {
        let (store, dapr, config, stop, ready, metrics) =
            (Arc::clone(store), dapr.clone(), config.clone(), stop.clone(), ready.clone(), Arc::clone(metrics));
        move || {
            Relay::new(Arc::clone(&store), dapr.clone(), &config, Arc::clone(&metrics))
                .run(stop.clone(), ready.subscribe())
        }
    };
    let watcher = {
        let (dapr, config, stop) = (dapr.clone(), config.clone(), stop.clone());
        move || sidecar::watch(dapr.clone(), config.clone(), ready.clone(), stop.clone())
    };
    let relay = supervise("relay", relay, Arc::clone(metrics));
    let watcher = supervise("sidecar watcher", watcher, Arc::clone(metrics));
    vec![tokio::spawn(relay), tokio::spawn(watcher)]
}

/// Runs a task until it ends by itself, and starts it again if it panics.
async fn supervise<F, Fut>(name: &'static str, start: F, metrics: Arc<Metrics>)
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(start()).await {
        log::error!("the {name} failed and starts again: {error}");
        metrics.restarted(name);
        tokio::time::sleep(RESTART_DELAY).await;
    }
}

async fn drain_requests(handle: &ServerHandle, server: JoinHandle<io::Result<()>>) {
    handle.stop(true).await;
    if let Ok(Err(error)) = server.await {
        log::error!("the server failed while stopping: {error}");
    }
}

/// Completes on SIGTERM or SIGINT.
async fn shutdown_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                log::error!("signals can't be received, only SIGKILL stops this process: {error}");
                std::future::pending::<()>().await;
            }
        }
    }
    #[cfg(not(unix))]
    if let Err(error) = tokio::signal::ctrl_c().await {
        log::error!("ctrl-c can't be received: {error}");
        std::future::pending::<()>().await;
    }
}
