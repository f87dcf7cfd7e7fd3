//! Clients in a closed loop, and what they know afterwards: which changes were acknowledged, and which may have been
//! made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::stack::{Client, Event};

/// What one client did. Every change carries a title of its own, so that its event can be told from all others.
#[derive(Default)]
pub struct Ledger {
    /// Titles of changes that were answered 2xx.
    pub acknowledged: BTreeSet<String>,
    /// Titles of changes that were sent and not answered, or answered 5xx: made or not.
    pub unknown: BTreeSet<String>,
    /// Todos whose deletion was answered 204.
    pub deleted: BTreeSet<i64>,
    /// Todos whose deletion was sent and not answered.
    pub deletion_unknown: BTreeSet<i64>,
    /// Time and duration of every answer.
    pub answers: Vec<(Instant, Duration)>,
    /// Answers that were neither 2xx nor expected, and broken connections.
    pub failures: Vec<String>,
}

impl Ledger {
    pub fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.deleted.extend(other.deleted);
        self.deletion_unknown.extend(other.deletion_unknown);
        self.answers.extend(other.answers);
        self.failures.extend(other.failures);
    }
}

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Ledger>>,
}

impl Load {
    /// Starts `count` clients, each with its own todos. `pace`: time from one request to the next; none: at once.
    pub fn start(client: &Client, count: usize, seed: u64, pace: Option<Duration>) -> Self {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..count)
            .map(|_| {
                let name = NAMES.fetch_add(1, Ordering::Relaxed);
                let (client, stop) = (client.clone(), Arc::clone(&stop));
                tokio::spawn(run_client(client, name, SmallRng::seed_from_u64(seed ^ name), stop, pace))
            })
            .collect();
        Self { stop, clients }
    }

    /// Lets each client end its request, and returns what all of them know together.
    pub async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        for client in self.clients {
            all.add(client.await.unwrap());
        }
        all
    }
}

async fn run_client(
    client: Client,
    name: u64,
    mut random: SmallRng,
    stop: Arc<AtomicBool>,
    pace: Option<Duration>,
) -> Ledger {
    let mut ledger = Ledger::default();
    let mut mine: Vec<i64> = Vec::new();
    let mut operation = 0;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Some(pace) = pace {
            due += pace;
            tokio::time::sleep_until(due.into()).await;
        }
        operation += 1;
        let title = format!("client {name} operation {operation}");
        let choice = random.random_range(0..10);
        let target = (!mine.is_empty() && choice > 2).then(|| random.random_range(0..mine.len()));
        let started = Instant::now();
        let (answer, delete) = match target {
            None => (client.try_send("POST", "/todos", Some(json!({ "title": title })), &[]).await, None),
            Some(at) if choice == 9 => {
                (client.try_send("DELETE", &format!("/todos/{}", mine[at]), None, &[]).await, Some(mine.remove(at)))
            }
            Some(at) => {
                let path = format!("/todos/{}", mine[at]);
                (client.try_send("PUT", &path, Some(json!({ "title": title })), &[]).await, None)
            }
        };
        let took = started.elapsed();
        match answer {
            Ok((status @ (200 | 201 | 204), body)) => {
                ledger.answers.push((started, took));
                match delete {
                    Some(id) => _ = ledger.deleted.insert(id),
                    None => _ = ledger.acknowledged.insert(title),
                }
                if status == 201 {
                    mine.push(body["id"].as_i64().unwrap());
                }
            }
            other => {
                ledger.failures.push(format!("{other:?}"));
                match delete {
                    Some(id) => _ = ledger.deletion_unknown.insert(id),
                    None => _ = ledger.unknown.insert(title),
                }
                // The service may be down: a short pause, or this loop is all that the machine does.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    ledger
}

/// Median and 99th percentile of times, in milliseconds, and their number.
pub fn quantiles(times: impl Iterator<Item = Duration>) -> (f64, f64, usize) {
    let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    (at(0.5), at(0.99), times.len())
}

/// What the events in Kafka say of the changes that clients know.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    pub acknowledged: usize,
    /// Acknowledged, and no event.
    pub lost: usize,
    /// An event, and nobody asked for the change.
    pub phantom: usize,
    /// Events that came more than once.
    pub duplicates: usize,
}

impl Account {
    /// Compares events with what clients know.
    pub fn of(ledger: &Ledger, events: &[Event]) -> Self {
        let mut titles = BTreeSet::new();
        let mut deletions = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut phantom = 0;
        for event in events {
            if !ids.insert(event.text("id").to_owned()) {
                continue;
            }
            if event.text("type") == "todo.deleted" {
                let todo = event.number("id");
                deletions.insert(todo);
                phantom += usize::from(!ledger.deleted.contains(&todo) && !ledger.deletion_unknown.contains(&todo));
            } else {
                let title = event.body["data"]["title"].as_str().unwrap().to_owned();
                phantom += usize::from(!ledger.acknowledged.contains(&title) && !ledger.unknown.contains(&title));
                titles.insert(title);
            }
        }
        Self {
            acknowledged: ledger.acknowledged.len() + ledger.deleted.len(),
            lost: ledger.acknowledged.difference(&titles).count() + ledger.deleted.difference(&deletions).count(),
            phantom,
            duplicates: events.len() - ids.len(),
        }
    }
}

/// Todos as the events leave them: id to title; deleted ones are not in it.
pub fn state_from(events: &[Event]) -> BTreeMap<i64, String> {
    let mut last: BTreeMap<i64, &Event> = BTreeMap::new();
    for event in events {
        let seen = last.entry(event.number("id")).or_insert(event);
        if event.number("version") > seen.number("version") {
            *seen = event;
        }
    }
    let live = last.into_iter().filter(|(_, event)| event.text("type") != "todo.deleted");
    live.map(|(id, event)| (id, event.body["data"]["title"].as_str().unwrap().to_owned())).collect()
}

/// Todos as the API lists them: id to title.
pub async fn state_of(client: &Client) -> BTreeMap<i64, String> {
    let (status, todos) = client.send("GET", "/todos", None).await;
    assert_eq!(status, 200);
    let todo = |todo: &Value| (todo["id"].as_i64().unwrap(), todo["title"].as_str().unwrap().to_owned());
    todos.as_array().unwrap().iter().map(todo).collect()
}
