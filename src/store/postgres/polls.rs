//! Who follows the log, and who waits for it: a read is answered after a poll that began after it arrived. One poll serves all
//! that wait, so the database's work does not grow with the number of reads (as etcd's ReadIndex,
//! <https://etcd.io/docs/v3.6/learning/api_guarantees/>).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::connection::ANSWER_TIMEOUT;
use super::error::PostgresError;
use crate::store::error::StoreError;

/// How often the log is read if nobody waits for it: so old is what followers and the relay hear of, at most.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The pause after a poll that failed, if nobody waits.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Polls, one after the other.
pub struct Polls {
    /// When the last one began that has not failed.
    last: Mutex<Instant>,
    /// The number of those that have begun.
    begun: AtomicU64,
    wanted: Notify,
    ended: watch::Sender<Ended>,
}

/// The last poll that has ended.
#[derive(Default)]
struct Ended {
    number: u64,
    has_failed: bool,
}

impl Default for Polls {
    fn default() -> Self {
        let (last, begun) = (Mutex::new(Instant::now()), AtomicU64::default());
        Self { last, begun, wanted: Notify::default(), ended: watch::Sender::default() }
    }
}

impl Polls {
    /// Memory has what was committed until so long ago.
    pub fn age(&self) -> Duration {
        self.last.lock().elapsed()
    }

    /// Waits for the end of a poll that begins after this call.
    pub async fn wait(self: Arc<Self>) -> Result<(), StoreError> {
        let mut ended = self.ended.subscribe();
        let next = self.begun.load(Ordering::SeqCst) + 1;
        self.wanted.notify_one();
        let waited = tokio::time::timeout(ANSWER_TIMEOUT, ended.wait_for(|ended| ended.number >= next)).await;
        match waited {
            Ok(Ok(ended)) if !ended.has_failed => Ok(()),
            _ => Err(StoreError::Unreadable),
        }
    }

    /// Polls for ever: at once when somebody waits.
    pub async fn run<P: Future<Output = Result<(), PostgresError>>>(&self, poll: impl Fn() -> P) {
        let mut pause = POLL_INTERVAL;
        loop {
            // Losing either loses nothing: a wish stays until it is seen.
            let _ = tokio::time::timeout(pause, self.wanted.notified()).await;
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let started = Instant::now();
            let polled = poll().await;
            if polled.is_ok() {
                *self.last.lock() = started;
            }
            let was_failing = pause == RETRY_PAUSE;
            match &polled {
                Ok(()) if was_failing => log::info!("what other processes commit can be read again"),
                Err(error) if !was_failing => {
                    log::warn!(
                        "what other processes commit can't be read: {error}; reads are answered 503 until it can"
                    );
                }
                _ => {}
            }
            pause = if polled.is_ok() { POLL_INTERVAL } else { RETRY_PAUSE };
            self.ended.send_replace(Ended { number, has_failed: polled.is_err() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::sync::atomic::AtomicBool;

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_a_poll_that_begins_after_it() {
        let polls = Arc::new(Polls::default());
        let (gate, fails) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
        let poll = {
            let (gate, fails) = (Arc::clone(&gate), Arc::clone(&fails));
            move || {
                let (gate, fails) = (Arc::clone(&gate), Arc::clone(&fails));
                async move {
                    gate.acquire().await.unwrap().forget();
                    if fails.load(Ordering::Relaxed) { Err(PostgresError::Unreachable) } else { Ok(()) }
                }
            }
        };
        let running = tokio::spawn({
            let polls = Arc::clone(&polls);
            async move { polls.run(poll).await }
        });
        let first = tokio::spawn(Arc::clone(&polls).wait());
        while polls.begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // The poll that has begun is not enough for this one.
        let mut second = Box::pin(Arc::clone(&polls).wait());
        assert!(second.as_mut().now_or_never().is_none());
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Ok(()));
        assert!(second.as_mut().now_or_never().is_none());
        gate.add_permits(1);
        assert_eq!(second.await, Ok(()));
        // Of one that fails, all that wait hear.
        fails.store(true, Ordering::Relaxed);
        let waiting: Vec<_> = (0..5).map(|_| tokio::spawn(Arc::clone(&polls).wait())).collect();
        gate.add_permits(2);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Err(StoreError::Unreadable));
        }
        // One that does not end is not waited for for ever.
        assert_eq!(Arc::clone(&polls).wait().await, Err(StoreError::Unreadable));
        running.abort();
    }
}
