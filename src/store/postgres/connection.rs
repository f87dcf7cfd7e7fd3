//! Connections to Postgres, and what is set for each of them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use rand::seq::SliceRandom;
use tokio::task::JoinHandle;
use tokio_postgres::config::LoadBalanceHosts;
use tokio_postgres::{AsyncMessage, Client, Config, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::PostgresError;
use super::tls;
use crate::config::postgres::Postgres;
use crate::store::error::DatabaseError;

/// How long a connection is idle before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long the server may take to answer, if nothing is wrong: what takes longer is given up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What holds for every session. What a process asked for that is paused, cut off or gone with its machine must not go on for
/// ever, and must hold no locks. Commits are durable, whatever the server's default is.
const SET_UP: &str = "
    SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET idle_in_transaction_session_timeout = '10s';
    SET lock_timeout = '2s';
    SET statement_timeout = '3s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET client_min_messages = 'warning';
    SET jit = off;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Makes connections.
pub struct Connector {
    settings: Postgres,
    tls: MakeRustlsConnect,
    patience: Duration,
}

/// A connection that is set up.
pub struct Connected {
    pub client: Client,
    /// Drives it.
    pub task: JoinHandle<()>,
    /// Set when the server has stopped waiting for the standby that a commit has to reach
    /// (<https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA>).
    pub not_replicated: Arc<AtomicBool>,
}

impl Connected {
    /// The same, with a cache of prepared statements.
    pub fn cached(self) -> (ClientWrapper, Arc<AtomicBool>) {
        (ClientWrapper::new(self.client, self.task), self.not_replicated)
    }
}

impl Connector {
    /// Connections as the settings say.
    pub fn open(settings: &Postgres) -> Result<Self, DatabaseError> {
        let tls =
            tls::connector(settings).map_err(|error| DatabaseError::postgres(&settings.location())(error.into()))?;
        Ok(Self { settings: settings.clone(), tls, patience: ANSWER_TIMEOUT })
    }

    /// The same for work that nobody waits for, such as a copy: a server that is busy may take its time.
    pub fn patient(self) -> Self {
        Self { patience: Duration::from_secs(60), ..self }
    }

    /// Where the data is, without a password.
    pub fn location(&self) -> String {
        self.settings.location()
    }

    /// How many connections may read.
    pub fn readers(&self) -> usize {
        self.settings.connections
    }

    /// Makes a connection to the first host that can be used; the caller's runtime drives it. The password is read again
    /// each time: it can change.
    pub async fn connect(&self) -> Result<Connected, PostgresError> {
        let password = self.settings.password().map_err(PostgresError::Password)?;
        let mut servers: Vec<_> = self.settings.servers().iter().collect();
        if self.settings.connection().get_load_balance_hosts() == LoadBalanceHosts::Random {
            servers.shuffle(&mut rand::rng());
        }
        let mut failed = PostgresError::Unreachable;
        for server in servers {
            let mut config = server.clone();
            if let Some(password) = &password {
                config.password(password.expose());
            }
            // The client's default is the system's: a connection that is cut would be waited for for hours.
            if config.get_keepalives_idle() > KEEPALIVE {
                config.keepalives_idle(KEEPALIVE);
            }
            if config.get_tcp_user_timeout().is_none() {
                config.tcp_user_timeout(self.patience);
            }
            // `connect_timeout=0`: as long as it takes.
            let limit = config.get_connect_timeout().copied().unwrap_or(Duration::MAX);
            match in_time(limit, self.connect_to(&config)).await {
                Ok(connected) => return Ok(connected),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(&self, config: &Config) -> Result<Connected, PostgresError> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let not_replicated = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(drive(connection, Arc::clone(&not_replicated)));
        client.batch_execute(SET_UP).await?;
        Ok(Connected { client, task, not_replicated })
    }
}

/// Lets a connection work until it ends.
async fn drive<S>(mut connection: tokio_postgres::Connection<Socket, S>, not_replicated: Arc<AtomicBool>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                // Its text is translated, and its SQLSTATE is that of other warnings, too.
                if notice.routine() == Some("SyncRepWaitForLSN") {
                    not_replicated.store(true, Ordering::Relaxed);
                }
                log::debug!("Postgres says: {}", notice.message());
            }
            Ok(_) => {}
            Err(error) => {
                log::debug!("a connection has ended: {}", PostgresError::from(error));
                return;
            }
        }
    }
}

/// Does something, or gives it up.
pub async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(PostgresError::Timeout(limit)))
}
