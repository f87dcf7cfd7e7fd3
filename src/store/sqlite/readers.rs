//! Connections that read what clients ask of the log, off the async threads. The relay has one of its own, so that it does
//! not wait for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::open_reader;
use crate::store::error::DatabaseError;

/// Reads at the same time. Others wait without a thread: those are for passwords, too.
const CONNECTIONS: usize = 2;

/// Some connections, and the turns at them.
pub struct Readers {
    connections: [Mutex<Connection>; CONNECTIONS],
    turns: Arc<Semaphore>,
    path: PathBuf,
}

impl Readers {
    /// Opens the database at `path`.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let connections = [Mutex::new(open_reader(path)?), Mutex::new(open_reader(path)?)];
        Ok(Self { connections, turns: Arc::new(Semaphore::new(CONNECTIONS)), path: path.to_owned() })
    }

    /// All of them.
    pub fn connections(&self) -> impl Iterator<Item = &Mutex<Connection>> {
        self.connections.iter()
    }

    /// Reads something, in a thread that may block.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        // Never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        let readers = Arc::clone(self);
        let done = spawn_blocking(move || {
            let [first, second] = &readers.connections;
            // Whose turn it is finds one that is free.
            let connection = first.try_lock().unwrap_or_else(|| second.lock());
            let done = read(&connection).map_err(DatabaseError::sqlite(&readers.path));
            drop(connection);
            drop(turn);
            done
        });
        done.await.map_err(DatabaseError::Interrupted)?
    }
}
