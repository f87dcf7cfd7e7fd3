//! How many connections there may be. Each takes a file descriptor: clients that took all of them would leave none for
//! the sidecar and the database.

use std::io;
use std::net::TcpListener;

/// Connections that the kernel completes before they are accepted; the standard library asks for 128. The kernel has a
/// limit of its own (`net.core.somaxconn`).
#[cfg(unix)]
const BACKLOG: i32 = 2048;
/// Descriptors that are no client's: for up to 64 publishes in flight and 512 more whose outcome is not known yet, each on
/// a connection of its own; for the database, the log, and the event loop of each worker.
const RESERVED_DESCRIPTORS: usize = 700;
/// What actix lets one worker have by itself.
const MAX_CONNECTIONS_PER_WORKER: usize = 25_600;

/// How many connections of clients are open at a time. Who comes then waits in the listener's backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The limit of open file descriptors that this comes from.
    pub open_files: usize,
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections of each.
    pub per_worker: usize,
}

impl Limit {
    /// The limit of this process, which may have more descriptors from now on: as many as its hard limit allows.
    pub fn raised() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // actix has no more workers.
        Self::new(raise_open_files(), cores.min(512))
    }

    fn new(open_files: usize, workers: usize) -> Self {
        let reserved = RESERVED_DESCRIPTORS.min(open_files / 3 * 2);
        Self {
            open_files,
            workers,
            per_worker: ((open_files - reserved) / workers).clamp(1, MAX_CONNECTIONS_PER_WORKER),
        }
    }

    /// Connections of all workers.
    pub fn connections(&self) -> usize {
        self.workers * self.per_worker
    }
}

/// Raises the soft limit of open files to the hard one (getrlimit(2)); returns what it is then. It is low by default for
/// the sake of programs that use `select`.
#[cfg(unix)]
fn raise_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // macOS has no hard limit, and doesn't take more than this.
    let most = maximum.unwrap_or(10_240);
    let limit = match current {
        Some(current) if current < most => match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }) {
            Ok(()) => most,
            Err(error) => {
                log::warn!("the limit of open files stays at {current}, it can't be raised: {error}");
                current
            }
        },
        _ => current.unwrap_or(u64::MAX),
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn raise_open_files() -> usize {
    usize::MAX
}

/// Lets as many clients connect at the same moment as the kernel allows. Those for whom there is no room try again only
/// after a second.
#[cfg(unix)]
pub fn widen_backlog(listener: &TcpListener) -> io::Result<()> {
    // On a socket that listens already, this changes the backlog.
    Ok(rustix::net::listen(listener, BACKLOG)?)
}

/// Only where it can be done.
#[cfg(not(unix))]
pub fn widen_backlog(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_the_sidecar_and_the_database() {
        for (open_files, workers, connections) in [
            (20_000, 2, 19_300),
            (4096, 4, 3396),
            (1024, 2, 342),
            (256, 2, 86),
            (1_048_576, 2, 51_200),
            (usize::MAX, 1, 25_600),
            // As few as that can't work.
            (0, 3, 3),
        ] {
            let limit = Limit::new(open_files, workers);
            assert_eq!(limit.connections(), connections, "{limit:?}");
        }
    }
}
