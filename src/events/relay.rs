//! The relay: publishes every committed change to the sidecar. A thin loop around the [`Dispatcher`], which decides.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::dapr::{DaprClient, Outcome};
use super::dispatcher::{Dispatcher, PublishResult};
use super::event;
use crate::config::Config;
use crate::domain::change::{Change, Cursor, DeliveryState};
use crate::domain::clock::Clock;
use crate::store::Store;
use crate::store::feed::{Delivery, Stage};
use crate::store::leases::Parts;
use crate::store::outbox::{Found, Wanted};
use crate::telemetry::metrics::Metrics;

/// How often the relay looks for work without being woken.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long publishes in flight may take to end when the service stops. Others are repeated after the next start.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The delay before a failed read of the log is repeated.
const READ_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Publishes changes until it is stopped.
pub struct Relay {
    store: Arc<Store>,
    dapr: DaprClient,
    /// The topic, for log lines.
    topic: String,
    dispatcher: Dispatcher,
    started: Instant,
    clock: Clock,
    outage: OutageLog,
    /// Whether the last reading of the log was one.
    is_readable: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    /// An operator changed what is pending: once nothing is in flight, the dispatcher starts over.
    reloading: bool,
}

impl Relay {
    /// A relay that starts with what is unpublished in the log.
    pub fn new(store: Arc<Store>, dapr: DaprClient, config: &Config, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            dapr,
            topic: config.topic.clone(),
            dispatcher: Dispatcher::new(rand::random(), Parts::NONE),
            started: Instant::now(),
            clock: config.clock.clone(),
            outage: OutageLog::default(),
            is_readable: Arc::new(AtomicBool::new(true)),
            metrics,
            reloading: false,
        }
    }

    /// Milliseconds on the monotonic clock.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs until `stop` is cancelled, then lets what is in flight end. `sidecar` is true while the sidecar is ready.
    pub async fn run(mut self, stop: CancellationToken, mut sidecar: watch::Receiver<bool>) {
        self.store.take_leases();
        let mut flights = FuturesUnordered::new();
        let mut reading: Option<JoinHandle<Option<Found>>> = None;
        while !stop.is_cancelled() {
            let parts = self.store.leases().parts();
            self.reloading |= self.store.outbox().take_reload() | (parts != self.dispatcher.parts());
            if self.reloading && reading.is_none() && self.dispatcher.in_flight() == 0 {
                self.reloading = false;
                self.dispatcher = Dispatcher::new(rand::random(), parts);
                // It is in the log, and some of it may be published already.
                self.store.outbox().take(Cursor::START, Parts::NONE);
                self.store.leases().used(parts);
            }
            if reading.is_none() {
                let (changes, overflowed) = self.store.outbox().take(self.dispatcher.announced_through(), parts);
                self.dispatcher.committed(changes, overflowed);
            }
            let now = self.now();
            while !self.reloading
                && let Some(change) = self.dispatcher.start(now)
            {
                flights.push(publish(self.dapr.clone(), change));
            }
            if reading.is_none() {
                reading = self.start_reading();
            }
            self.metrics.breaker_open.set(i64::from(!self.dispatcher.healthy()));
            self.metrics.failing_todos.set(i64::try_from(self.dispatcher.suspects()).unwrap_or(i64::MAX));
            // While reloading, nothing is started; what is in flight wakes this loop when it ends.
            let due = self.dispatcher.wake_at().filter(|_| !self.reloading);
            let wake =
                due.map_or(POLL_INTERVAL, |at| Duration::from_millis(at.saturating_sub(self.now())).min(POLL_INTERVAL));
            tokio::select! {
                Some((change, outcome, took)) = flights.next() => self.finish(&change, outcome, took),
                // While the log is read, new changes wait in the outbox.
                () = self.store.outbox().pushed(), if reading.is_none() => {}
                found = finished(&mut reading) => {
                    reading = None;
                    self.dispatcher.finish_reading(found);
                }
                Ok(()) = sidecar.changed() => {
                    let is_ready = *sidecar.borrow_and_update();
                    self.store.leases().can_publish(is_ready);
                    if is_ready {
                        let now = self.now();
                        self.dispatcher.sidecar_ready(now);
                    }
                }
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wake) => {}
            }
        }
        let drain = async {
            while let Some((change, outcome, took)) = flights.next().await {
                self.finish(&change, outcome, took);
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_err() {
            log::warn!("stopping with publishes in flight; they are published again after the next start");
        }
    }

    fn start_reading(&mut self) -> Option<JoinHandle<Option<Found>>> {
        let wanted = self.dispatcher.start_reading()?;
        let (store, is_readable) = (Arc::clone(&self.store), Arc::clone(&self.is_readable));
        Some(tokio::spawn(async move {
            let read =
                tokio::task::spawn_blocking(move || read_log(&store, &wanted, &is_readable)).await.ok().flatten();
            if read.is_none() {
                tokio::time::sleep(READ_RETRY_DELAY).await;
            }
            read
        }))
    }

    fn finish(&mut self, change: &Change, outcome: Outcome, took: Duration) {
        self.metrics.published(outcome.name(), took);
        let now = self.now();
        let (result, why) = match outcome {
            Outcome::Stored => (PublishResult::Stored, None),
            Outcome::Refused(why) => (PublishResult::Refused, Some(why)),
            Outcome::Unknown(why) => (PublishResult::NoAnswer, Some(why)),
            Outcome::Unavailable(why) => (PublishResult::Unavailable, Some(why)),
        };
        let verdict = self.dispatcher.finish(change.todo.id, result, now);
        if let Some(place) = verdict.published {
            self.store.outbox().mark(place, DeliveryState::Published);
            let published = Delivery { revision: change.revision, stage: Stage::Published, at: self.clock.now() };
            self.store.tell_delivery(change.todo.owner, published);
            if log::log_enabled!(log::Level::Info) {
                log::info!("Message published to {}: {}", self.topic, event::data_json(change).unwrap_or_default());
            }
        }
        for place in verdict.parked {
            self.store.outbox().mark(place, DeliveryState::Parked);
            log::error!(
                "an event was refused again and again while others were accepted, and is parked: change {place}; \
                 later changes of the same todo wait behind it"
            );
        }
        match why {
            Some(why) => self.outage.report(&event::id(change), &why, self.store.outbox().pending()),
            None => {
                if self.dispatcher.healthy() && self.dispatcher.suspects() == 0 && self.outage.is_over() {
                    let waiting = self.store.outbox().pending();
                    log::info!("publishing works again; {waiting} events wait or are being recorded as published");
                }
            }
        }
    }
}

async fn publish(dapr: DaprClient, change: Arc<Change>) -> (Arc<Change>, Outcome, Duration) {
    let started = Instant::now();
    let outcome = dapr.publish(&change).await;
    (change, outcome, started.elapsed())
}

/// Once per outage, not once per attempt.
fn read_log(store: &Store, wanted: &Wanted, is_readable: &AtomicBool) -> Option<Found> {
    let read = store.read_outbox(wanted);
    let was_readable = is_readable.swap(read.is_ok(), Ordering::Relaxed);
    match &read {
        Ok(_) if !was_readable => log::info!("the change log can be read again"),
        Err(error) if was_readable => log::warn!("cannot read the change log: {error}"),
        _ => {}
    }
    read.ok()
}

/// Completes when the read does; never if there is none.
async fn finished(reading: &mut Option<JoinHandle<Option<Found>>>) -> Option<Found> {
    match reading {
        // A read that panicked has failed.
        Some(handle) => handle.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Reasons logged per outage, at most.
const MAX_REASONS: usize = 16;

/// Logs an outage once per reason, not once per attempt.
#[derive(Default)]
struct OutageLog {
    logged: HashSet<String>,
}

impl OutageLog {
    fn report(&mut self, event_id: &str, why: &str, waiting: usize) {
        if self.logged.len() < MAX_REASONS && self.logged.insert(why.to_owned()) {
            log::warn!(
                "cannot publish event {event_id}, {waiting} wait: {why}; trying again until it works, nothing is lost"
            );
        }
    }

    /// Whether there was an outage. The next one is logged again.
    fn is_over(&mut self) -> bool {
        !std::mem::take(&mut self.logged).is_empty()
    }
}
