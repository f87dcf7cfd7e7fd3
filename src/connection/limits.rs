//! The limit of connections. Each takes a file descriptor: clients must not take those that the sidecar and the
//! database need.

use std::io;
use std::net::TcpListener;

/// Connections that the kernel completes before they are accepted; the standard library's default is 128. The kernel
/// has a limit of its own (`net.core.somaxconn`).
#[cfg(unix)]
const BACKLOG: i32 = 2048;
/// Descriptors that clients can't take: for up to 64 publishes in flight and 512 more whose outcome is not known yet,
/// each on its own connection; for the database, the log, and the event loop of each worker.
const RESERVED_DESCRIPTORS: usize = 700;
/// actix's own default limit for one worker.
const MAX_CONNECTIONS_PER_WORKER: usize = 25_600;

/// How many client connections are open at a time. Further clients wait in the listener's backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The limit of open file descriptors that this comes from.
    pub open_files: usize,
    /// Threads that serve connections.
    pub workers: usize,
    /// Most connections of each.
    pub per_worker: usize,
}

impl Limit {
    /// Raises the process's soft limit of open files to its hard limit, and derives the limit of connections from it; at
    /// most `wanted`, but one for each worker.
    pub fn raised(wanted: Option<usize>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // actix allows no more workers.
        Self::new(raise_open_files(), cores.min(512), wanted)
    }

    fn new(open_files: usize, workers: usize, wanted: Option<usize>) -> Self {
        let reserved = RESERVED_DESCRIPTORS.min(open_files / 3 * 2);
        // All workers have the same limit.
        let most = wanted.map_or(MAX_CONNECTIONS_PER_WORKER, |wanted| wanted / workers);
        let per_worker = ((open_files - reserved) / workers).min(most).clamp(1, MAX_CONNECTIONS_PER_WORKER);
        Self { open_files, workers, per_worker }
    }

    /// Most connections of all workers together.
    pub fn connections(&self) -> usize {
        self.workers * self.per_worker
    }
}

/// Raises the soft limit of open files to the hard one (getrlimit(2)); returns the new one. The soft limit is low by
/// default for the sake of programs that use `select`.
#[cfg(unix)]
fn raise_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // macOS reports no hard limit, but accepts no more than this (OPEN_MAX).
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

/// Enlarges the listener's backlog, for clients that connect at the same moment. Those that don't fit try again only
/// after a second.
#[cfg(unix)]
pub fn widen_backlog(listener: &TcpListener) -> io::Result<()> {
    // On a socket that is listening already, this changes the backlog.
    Ok(rustix::net::listen(listener, BACKLOG)?)
}

/// Not supported here.
#[cfg(not(unix))]
pub fn widen_backlog(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_the_sidecar_and_the_database() {
        for (open_files, workers, wanted, connections) in [
            (20_000, 2, None, 19_300),
            (4096, 4, None, 3396),
            (1024, 2, None, 342),
            (256, 2, None, 86),
            (1_048_576, 2, None, 51_200),
            (usize::MAX, 1, None, 25_600),
            // Too few to work, but it must not divide by zero or reserve all.
            (0, 3, None, 3),
            (20_000, 2, Some(100), 100),
            (20_000, 3, Some(100), 99),
            (1024, 2, Some(1000), 342),
            (20_000, 2, Some(1), 2),
        ] {
            let limit = Limit::new(open_files, workers, wanted);
            assert_eq!(limit.connections(), connections, "{limit:?}");
        }
    }
}
