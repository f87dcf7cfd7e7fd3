//! The relay: publishes every committed change to the sidecar. A thin loop around [`Lanes`], which decides.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::dapr::{DaprClient, Outcome};
use super::dispatcher::{Dispatcher, PublishResult};
use super::event;
use crate::config::Config;
use crate::domain::change::{Change, DeliveryState};
use crate::store::Store;
use crate::store::outbox::{Found, Wanted};
use crate::telemetry::metrics::Metrics;

/// How often the relay looks without being woken.
const POLL: Duration = Duration::from_secs(1);
/// At stop, how long publishes in flight may take to end. What does not is published again after the next start.
const STOP: Duration = Duration::from_secs(5);
/// A log that could not be read is read again after this.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Publishes changes until told to stop.
pub struct Relay {
    store: Arc<Store>,
    dapr: DaprClient,
    /// `pubsub/topic`, for messages.
    topic: String,
    dispatcher: Dispatcher,
    started: Instant,
    outage: OutageLog,
    metrics: Arc<Metrics>,
    /// An operator changed what is pending: nothing is started until nothing is in flight, then all begins anew.
    reloading: bool,
}

impl Relay {
    /// A relay that begins with what the log has as unpublished.
    pub fn new(store: Arc<Store>, dapr: DaprClient, config: &Config, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            dapr,
            topic: config.topic.clone(),
            dispatcher: Dispatcher::new(rand::random()),
            started: Instant::now(),
            outage: OutageLog::default(),
            metrics,
            reloading: false,
        }
    }

    /// Milliseconds on the monotonic clock.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs until `stop` is true, then lets what is in flight end. `sidecar` is true while the sidecar is ready.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, mut sidecar: watch::Receiver<bool>) {
        let mut flights = FuturesUnordered::new();
        let mut reading: Option<JoinHandle<Option<Found>>> = None;
        while !*stop.borrow() {
            self.reloading |= self.store.outbox().take_reload();
            if self.reloading && reading.is_none() && self.dispatcher.in_flight() == 0 {
                self.reloading = false;
                self.dispatcher = Dispatcher::new(rand::random());
            }
            if reading.is_none() {
                let (changes, overflowed) = self.store.outbox().take(self.dispatcher.announced_through());
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
            // Reloading, nothing is started: what is in flight wakes this up when it ends.
            let due = self.dispatcher.wake_at().filter(|_| !self.reloading);
            let wake = due.map_or(POLL, |at| Duration::from_millis(at.saturating_sub(self.now())).min(POLL));
            tokio::select! {
                Some((change, outcome, took)) = flights.next() => self.finish(&change, outcome, took),
                // While the log is read, new changes wait in the outbox.
                () = self.store.outbox().pushed(), if reading.is_none() => {}
                found = finished(&mut reading) => {
                    reading = None;
                    self.dispatcher.finish_reading(found);
                }
                Ok(()) = sidecar.changed() => {
                    if *sidecar.borrow_and_update() {
                        let now = self.now();
                        self.dispatcher.sidecar_ready(now);
                    }
                }
                _ = stop.changed() => {}
                () = tokio::time::sleep(wake) => {}
            }
        }
        let drain = async {
            while let Some((change, outcome, took)) = flights.next().await {
                self.finish(&change, outcome, took);
            }
        };
        if tokio::time::timeout(STOP, drain).await.is_err() {
            log::warn!("stopping with publishes in flight; they are published again after the next start");
        }
    }

    fn start_reading(&mut self) -> Option<JoinHandle<Option<Found>>> {
        let wanted = self.dispatcher.start_reading()?;
        let store = Arc::clone(&self.store);
        Some(tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || read_log(&store, &wanted)).await.ok().flatten();
            if read.is_none() {
                tokio::time::sleep(READ_AGAIN).await;
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
            Outcome::Unknown(why) => (PublishResult::Silent, Some(why)),
            Outcome::Unavailable(why) => (PublishResult::Away, Some(why)),
        };
        let verdict = self.dispatcher.finish(change.todo.id, result, now);
        if let Some(place) = verdict.published {
            self.store.outbox().mark(place, DeliveryState::Published);
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

fn read_log(store: &Store, wanted: &Wanted) -> Option<Found> {
    store.read_outbox(wanted).inspect_err(|problem| log::warn!("cannot read the change log: {problem}")).ok()
}

/// Ends when the reading does; never, if there is none.
async fn finished(reading: &mut Option<JoinHandle<Option<Found>>>) -> Option<Found> {
    match reading {
        // A reading that panicked has failed.
        Some(handle) => handle.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Reasons that are logged in one outage, at most.
const REASONS: usize = 16;

/// Logs each reason of an outage once, not at every attempt.
#[derive(Default)]
struct OutageLog {
    logged: HashSet<String>,
}

impl OutageLog {
    fn report(&mut self, event_id: &str, why: &str, waiting: usize) {
        if self.logged.len() < REASONS && self.logged.insert(why.to_owned()) {
            log::warn!(
                "cannot publish event {event_id}, {waiting} wait: {why}; trying again until it works, nothing is lost"
            );
        }
    }

    /// Whether there was an outage; the next one is logged anew.
    fn is_over(&mut self) -> bool {
        !std::mem::take(&mut self.logged).is_empty()
    }
}
