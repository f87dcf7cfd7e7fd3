//! What the service counts and measures, for Prometheus (its text format; names and units as
//! <https://prometheus.io/docs/practices/naming/> asks). docs/operations.md says what to watch.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry::logging;

/// A label's name and value.
type Label = (&'static str, &'static str);
/// A family of histograms, created on first use.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Labels of a request: method, route template, status.
type HttpLabels = [(&'static str, String); 3];

/// Labels whose counters exist from the start, at zero: `rate` and `increase` don't see a step from nothing to 1.
const PUBLISH_RESULTS: [&str; 4] = ["stored", "refused", "unavailable", "unknown"];
const STORE_ERRORS: [&str; 6] = ["not_found", "not_allowed", "conflict", "busy", "not_applied", "unknown"];
const BACKGROUND_TASKS: [&str; 2] = ["relay", "sidecar watcher"];
/// Why a stream of events ended that its client has not left.
const STREAM_ENDS: [&str; 5] = ["token_expired", "token_ended", "reset", "shutdown", "unavailable"];
const LOGIN_RESULTS: [&str; 3] = ["ok", "failed", "limited"];

/// 0.1 ms to 26 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

/// 1 to 512 operations.
fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 10))
}

/// Every metric of the process. Shared by all that measure something; `/metrics` shows it.
pub struct Metrics {
    registry: Registry,
    http: Histograms<HttpLabels>,
    publishes: Family<[Label; 1], Counter>,
    publish_seconds: Histogram,
    refusals: Family<[Label; 1], Counter>,
    restarts: Family<[Label; 1], Counter>,
    /// Operations in one commit.
    pub commit_operations: Histogram,
    commit_seconds: Histogram,
    delivery_seconds: Histogram,
    password_seconds: Histogram,
    rate_limited: Family<[Label; 1], Counter>,
    logins: Family<[Label; 1], Counter>,
    pruned: Counter,
    /// Streams of events that are open.
    pub streams: Gauge,
    stream_ends: Family<[Label; 1], Counter>,
    /// 1 while publishing waits for the sidecar to recover.
    pub breaker_open: Gauge,
    /// Todos whose last publish failed: each waits by itself before it is tried again.
    pub failing_todos: Gauge,
    /// Set when `/metrics` is read.
    pub samples: Samples,
}

/// What is looked up when `/metrics` is read.
#[derive(Default)]
pub struct Samples {
    /// Changes that are not known to be published.
    pub outbox_pending: Gauge,
    /// Age of the oldest of them, in seconds.
    pub outbox_oldest_seconds: Gauge,
    /// Parked changes, which wait for an operator.
    pub outbox_parked: Gauge,
    /// Parts of the todos whose events this process publishes, of 64.
    pub relay_parts: Gauge,
    /// 1 while this process removes what has had its time.
    pub keeps_house: Gauge,
    /// Memory has what was committed until so long ago, in seconds.
    pub log_age_seconds: Gauge,
    /// Operations that wait for the writer.
    pub queue_depth: Gauge,
    /// Todos that are not deleted.
    pub todos: Gauge,
    /// Todos in the trash.
    pub trashed_todos: Gauge,
    /// Memory that is kept for searches, in bytes.
    pub search_texts_bytes: Gauge,
    /// Size of the answers that are kept for requests that are sent again, in bytes.
    pub kept_answers_bytes: Gauge,
    /// 1 while the database can be written.
    pub store_writable: Gauge,
    /// 1 while the sidecar is ready.
    pub sidecar_ready: Gauge,
    /// Size of the database file, in bytes.
    pub database_bytes: Gauge,
    /// Size of SQLite's write-ahead log, in bytes.
    pub wal_bytes: Gauge,
    /// Changes in the log.
    pub log_changes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("todo_backend"),
            http: Family::new_with_constructor(durations),
            publishes: Family::default(),
            publish_seconds: durations(),
            refusals: Family::default(),
            restarts: Family::default(),
            commit_operations: sizes(),
            commit_seconds: durations(),
            delivery_seconds: durations(),
            password_seconds: durations(),
            rate_limited: Family::default(),
            logins: Family::default(),
            pruned: Counter::default(),
            streams: Gauge::default(),
            stream_ends: Family::default(),
            breaker_open: Gauge::default(),
            failing_todos: Gauge::default(),
            samples: Samples::default(),
        };
        metrics.register();
        for result in PUBLISH_RESULTS {
            drop(metrics.publishes.get_or_create(&[("result", result)]));
        }
        for reason in STORE_ERRORS {
            drop(metrics.refusals.get_or_create(&[("reason", reason)]));
        }
        for result in LOGIN_RESULTS {
            drop(metrics.logins.get_or_create(&[("result", result)]));
        }
        for reason in STREAM_ENDS {
            drop(metrics.stream_ends.get_or_create(&[("reason", reason)]));
        }
        for task in BACKGROUND_TASKS {
            drop(metrics.restarts.get_or_create(&[("task", task)]));
        }
        metrics
    }

    fn register(&mut self) {
        let Self { registry, samples, .. } = self;
        let seconds = || Unit::Seconds;
        let http = "HTTP requests by method, route and status";
        registry.register_with_unit("http_request_duration", http, seconds(), self.http.clone());
        registry.register("publishes", "Attempts to publish an event, by result", self.publishes.clone());
        registry.register_with_unit("publish_duration", "Time of an attempt", seconds(), self.publish_seconds.clone());
        registry.register("publish_breaker_open", "1 while publishing waits for recovery", self.breaker_open.clone());
        let failing = "Todos whose last publish failed, and whose events wait";
        registry.register("publish_failing_todos", failing, self.failing_todos.clone());
        registry.register("commands_refused", "Commands that changed nothing, by reason", self.refusals.clone());
        registry.register("task_restarts", "Background tasks that panicked and started again", self.restarts.clone());
        registry.register("commit_operations", "Operations in one commit", self.commit_operations.clone());
        registry.register_with_unit("commit_duration", "Time of one commit", seconds(), self.commit_seconds.clone());
        let dropped = "Log lines that were dropped because standard output was not read fast enough";
        registry.register("log_lines_dropped", dropped, logging::dropped());
        let delivery = "Time from a change to its event's return through the subscription";
        registry.register_with_unit("event_delivery_duration", delivery, seconds(), self.delivery_seconds.clone());
        let passwords = "Time of hashing or checking a password, without waiting for its turn";
        registry.register_with_unit("password_hash_duration", passwords, seconds(), self.password_seconds.clone());
        registry.register("logins", "Passwords that were tried to log in, by result", self.logins.clone());
        registry.register("rate_limited", "Requests answered 429, by limit", self.rate_limited.clone());
        registry.register("log_pruned_changes", "Changes removed from the log by retention", self.pruned.clone());
        registry.register("event_streams", "Streams of events that are open", self.streams.clone());
        let ends = "Streams of events that the service has ended, by reason";
        registry.register("event_streams_ended", ends, self.stream_ends.clone());
        let gauge = |registry: &mut Registry, name: &str, help: &str, gauge: &Gauge| {
            registry.register(name, help, gauge.clone());
        };
        gauge(registry, "outbox_pending_events", "Changes not known as published", &samples.outbox_pending);
        let oldest = &samples.outbox_oldest_seconds;
        gauge(
            registry,
            "outbox_oldest_age_seconds",
            "Age of the oldest pending change that no parked one holds up",
            oldest,
        );
        gauge(registry, "outbox_parked_events", "Changes that wait for an operator", &samples.outbox_parked);
        let parts = "Parts of the todos whose events this process publishes, of 64";
        gauge(registry, "relay_parts", parts, &samples.relay_parts);
        gauge(registry, "keeps_house", "1 while this process removes what has had its time", &samples.keeps_house);
        let age = "How long ago what other processes commit was read";
        gauge(registry, "log_age_seconds", age, &samples.log_age_seconds);
        gauge(registry, "queue_depth", "Operations that wait for the writer", &samples.queue_depth);
        gauge(registry, "todos", "Live todos", &samples.todos);
        gauge(registry, "trashed_todos", "Todos in the trash", &samples.trashed_todos);
        gauge(registry, "search_texts_bytes", "Memory that is kept for searches", &samples.search_texts_bytes);
        let kept = &samples.kept_answers_bytes;
        gauge(registry, "kept_answers_bytes", "Size of the answers that are kept for requests with a key", kept);
        gauge(registry, "store_writable", "1 while the database can be written", &samples.store_writable);
        gauge(registry, "sidecar_ready", "1 while the Dapr sidecar is ready", &samples.sidecar_ready);
        gauge(registry, "database_bytes", "Size of the database file", &samples.database_bytes);
        gauge(registry, "wal_bytes", "Size of SQLite's write-ahead log", &samples.wal_bytes);
        gauge(registry, "log_changes", "Changes in the log", &samples.log_changes);
    }

    /// Counts a request and its time. `route` is the template, never the path: the number of paths has no limit.
    pub fn request(&self, method: &str, route: Option<String>, status: u16, took: Duration) {
        let route = route.unwrap_or_else(|| "none".to_owned());
        let labels = [("method", method_name(method).to_owned()), ("route", route), ("status", status.to_string())];
        self.http.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an attempt to publish and its time.
    pub fn published(&self, result: &'static str, took: Duration) {
        self.publishes.get_or_create(&[("result", result)]).inc();
        self.publish_seconds.observe(took.as_secs_f64());
    }

    /// Counts a stream of events that the service has ended.
    pub fn stream_ended(&self, reason: &'static str) {
        self.stream_ends.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a command that changed nothing.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a background task's panic.
    pub fn restarted(&self, task: &'static str) {
        self.restarts.get_or_create(&[("task", task)]).inc();
    }

    /// Records the size and time of a commit.
    pub fn committed(&self, operations: usize, took: Duration) {
        self.commit_operations.observe(operations as f64);
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// Records the time from a change to its event's return through the subscription.
    pub fn delivered(&self, took: Duration) {
        self.delivery_seconds.observe(took.as_secs_f64());
    }

    /// Records the time of hashing or checking a password.
    pub fn password_hashed(&self, took: Duration) {
        self.password_seconds.observe(took.as_secs_f64());
    }

    /// Counts a login: `ok`, `failed` or `limited`.
    pub fn login(&self, result: &'static str) {
        self.logins.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a request that a limit refused.
    pub fn rate_limited(&self, limit: &'static str) {
        self.rate_limited.get_or_create(&[("limit", limit)]).inc();
    }

    /// Creates the counters of limits, so that they begin at zero.
    pub fn count_limits(&self, limits: &[&'static str]) {
        for limit in limits {
            drop(self.rate_limited.get_or_create(&[("limit", *limit)]));
        }
    }

    /// Counts changes that retention removed.
    pub fn pruned(&self, changes: usize) {
        self.pruned.inc_by(changes as u64);
    }

    /// All metrics as [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        Ok(to_prometheus(&text))
    }
}

/// A method's name in metrics and log lines: clients can send any, of any length.
pub fn method_name(method: &str) -> &str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    if known.contains(&method) { method } else { "other" }
}

/// The format that every version of Prometheus and `promtool` reads, whatever it asks for.
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Converts OpenMetrics text to Prometheus's, where a counter's help and type have the same name as its value, with
/// `_total`, and units are not declared.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines().filter(|line| !line.starts_with("# UNIT ")) {
        let described = |line: &str, keyword: &str| {
            let (name, what) = line.strip_prefix(keyword)?.split_once(' ')?;
            Some((name.to_owned(), what.to_owned()))
        };
        if let Some(found) = described(line, "# HELP ") {
            help = Some(found.1);
        } else if let Some((name, kind)) = described(line, "# TYPE ") {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let help = help.take().unwrap_or_default();
            text.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_names_units_and_labels() {
        let metrics = Metrics::new();
        metrics.request("GET", Some("/todos/{id}".into()), 200, Duration::from_millis(2));
        metrics.request("BREW", None, 404, Duration::from_millis(2));
        metrics.published("stored", Duration::from_millis(3));
        metrics.samples.todos.set(7);
        let text = metrics.encode().unwrap();
        for line in [
            r#"todo_backend_http_request_duration_seconds_count{method="GET",route="/todos/{id}",status="200"} 1"#,
            r#"todo_backend_http_request_duration_seconds_count{method="other",route="none",status="404"} 1"#,
            r#"todo_backend_publishes_total{result="stored"} 1"#,
            "# TYPE todo_backend_todos gauge",
            "todo_backend_todos 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn counters_with_known_labels_begin_at_zero() {
        let text = Metrics::new().encode().unwrap();
        for series in [
            r#"todo_backend_publishes_total{result="refused"}"#,
            r#"todo_backend_commands_refused_total{reason="not_found"}"#,
            r#"todo_backend_task_restarts_total{task="relay"}"#,
        ] {
            assert!(text.contains(&format!("{series} 0\n")), "{series} is not 0 in:\n{text}");
        }
    }

    #[test]
    fn a_counters_description_has_the_name_of_its_value() {
        let metrics = Metrics::new();
        metrics.pruned(3);
        let text = metrics.encode().unwrap();
        let name = "todo_backend_log_pruned_changes_total";
        let help = "Changes removed from the log by retention.";
        assert!(text.contains(&format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} 3\n")), "{text}");
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    }
}
