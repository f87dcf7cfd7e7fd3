//! Log lines in the original's format, or as one JSON object a line, on standard output.

pub mod names;
mod queue;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use env_logger::{Builder, Target};
use log::kv::{Key, VisitSource};
use log::{Level, Log, Metadata, Record};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Map, Value, json};

use crate::config::{Config, LogFormat};
use crate::domain::clock::Timestamp;
use names::logger;
use queue::Queue;

/// How long a clean stop waits for the reader of the log.
const STOP_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a panic or an abort waits for the reader of the log.
const CRASH_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that were dropped because the reader was too slow. Static, like the `log` crate's logger.
static DROPPED: LazyLock<Counter<u64, AtomicU64>> = LazyLock::new(Counter::default);
static QUEUE: LazyLock<Queue> = LazyLock::new(|| Queue::new(DROPPED.clone()));

/// Starts logging to standard output. Call it once.
pub fn init(config: &Config) {
    let (clock, format) = (config.clock.clone(), config.log_format);
    let lines = Builder::new()
        .parse_filters(&config.log_filter)
        .target(Target::Pipe(Box::new(Lines)))
        .format(move |out, record| write_line(out, record, clock.now(), format))
        .build();
    let clock = config.clock.clone();
    let report = move |count| dropped_line(count, clock.now(), format);
    let writer = std::thread::Builder::new().name("log-writer".into());
    if let Err(error) = writer.spawn(move || QUEUE.write_to(io::stdout(), report)) {
        // The service works without a log, too.
        let _ = writeln!(io::stderr(), "todo-backend: nothing is logged, the thread for it can't be started: {error}");
        return;
    }
    let level = lines.filter();
    if log::set_boxed_logger(Box::new(Logger(lines))).is_err() {
        log::error!("logging was started before, and goes on with its first settings");
        return;
    }
    log::set_max_level(level);
    let show_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        show_panic(panic);
        QUEUE.flush(CRASH_FLUSH_TIMEOUT);
    }));
}

/// Waits until everything that was logged is written, for 5 s at most. For a clean stop.
pub fn finish() {
    QUEUE.flush(STOP_FLUSH_TIMEOUT);
}

/// The counter of lines that were dropped because the reader was too slow.
pub fn dropped() -> Counter<u64, AtomicU64> {
    DROPPED.clone()
}

/// env_logger's filter and formatting, with the names of our loggers, in front of a queue that can be flushed.
struct Logger(env_logger::Logger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if has_secrets(metadata) {
            return false;
        }
        let target = logger(metadata.target());
        self.0.enabled(&Metadata::builder().level(metadata.level()).target(&target).build())
    }

    fn log(&self, record: &Record<'_>) {
        if has_secrets(record.metadata()) {
            return;
        }
        let target = logger(record.target());
        self.0.log(&record.to_builder().target(&target).build());
    }

    /// Called before an abort, as `log::logger().flush()`.
    fn flush(&self) {
        QUEUE.flush(CRASH_FLUSH_TIMEOUT);
    }
}

/// Whether a line may show what nobody must read in a log, whatever RUST_LOG says: the driver of Postgres shows what is stored,
/// password hashes, too.
fn has_secrets(metadata: &Metadata<'_>) -> bool {
    metadata.level() > Level::Info && metadata.target().starts_with("tokio_postgres")
}

/// Receives what env_logger writes: a whole line at a time.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dropped_line(count: u64, at: Timestamp, format: LogFormat) -> Vec<u8> {
    let mut line = Vec::new();
    let mut record = Record::builder();
    let target = logger(module_path!());
    record.level(Level::Warn).target(&target);
    let pairs = [("dropped", log::kv::Value::from(count))];
    let text = format_args!("{count} log lines were dropped here: standard output is not read fast enough");
    // Writing to memory doesn't fail.
    let _ = write_line(&mut line, &record.key_values(&pairs).args(text).build(), at, format);
    line
}

fn write_line(out: &mut impl Write, record: &Record<'_>, at: Timestamp, format: LogFormat) -> io::Result<()> {
    match format {
        LogFormat::Text => {
            write_time(out, at)?;
            let level = if record.level() == Level::Warn { "WARNING" } else { record.level().as_str() };
            write!(out, " - {} - {level} - ", LoggerName(record.target()))?;
            fmt::write(&mut OneLine(out), *record.args()).map_err(io::Error::other)?;
            out.write_all(b"\n")
        }
        LogFormat::Json => {
            let mut object = Map::new();
            object.insert("time".into(), json!(at));
            object.insert("level".into(), record.level().as_str().into());
            object.insert("logger".into(), LoggerName(record.target()).to_string().into());
            object.insert("message".into(), record.args().to_string().into());
            // Never fails: the visitor doesn't.
            let _ = record.key_values().visit(&mut Fields(&mut object));
            writeln!(out, "{}", Value::Object(object))
        }
    }
}

/// `2025-01-15 10:30:00,123`. What precedes the comma is cached: a busy service logs thousands of lines a second.
fn write_time(out: &mut impl Write, at: Timestamp) -> io::Result<()> {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != at.seconds() {
            let time = at.to_utc();
            let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
            let (hour, minute) = (time.hour(), time.minute());
            *text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02},", time.second());
            *second = at.seconds();
        }
        out.write_all(text.as_bytes())
    })?;
    write!(out, "{:03}", at.0.rem_euclid(1000))
}

/// The logger `todo_backend::auth::audit` is shown as `auth.audit`.
struct LoggerName<'a>(&'a str);

impl fmt::Display for LoggerName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.strip_prefix("todo_backend::").unwrap_or(self.0);
        for (n, part) in name.split("::").enumerate() {
            f.write_str(if n > 0 { "." } else { "" })?;
            f.write_str(part)?;
        }
        Ok(())
    }
}

/// A record's key-value pairs as members of its JSON object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
        let number = value.to_u64().map(Value::from).or_else(|| value.to_f64().map(Value::from));
        let value = number.unwrap_or_else(|| value.to_string().into());
        // Text that is empty is not there.
        if value != "" {
            self.0.insert(key.to_string(), value);
        }
        Ok(())
    }
}

/// Writes text with control characters escaped: input from clients can't forge a line or control a terminal.
struct OneLine<'a, W>(&'a mut W);

impl<W: Write> fmt::Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // U+2028 and U+2029 end a line for some readers of logs; U+202A..=U+202E and U+2066..=U+2069 turn text around.
        let harmful = |c: char| {
            c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        };
        let mut rest = text;
        while let Some(at) = rest.find(harmful) {
            let (before, from) = rest.split_at(at);
            let mut characters = from.chars();
            let escaped = characters.next().map(char::escape_default);
            self.0.write_all(before.as_bytes()).map_err(|_| fmt::Error)?;
            write!(self.0, "{}", escaped.into_iter().flatten().collect::<String>()).map_err(|_| fmt::Error)?;
            rest = characters.as_str();
        }
        self.0.write_all(rest.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str, format: LogFormat) -> String {
        let mut record = Record::builder();
        record.level(Level::Info).target("todo_backend::auth::audit");
        let mut line = Vec::new();
        let at = Timestamp(1_736_937_000_123);
        write_line(&mut line, &record.args(format_args!("{message}")).build(), at, format).unwrap();
        String::from_utf8(line).unwrap().strip_suffix('\n').expect("a whole line").to_owned()
    }

    #[test]
    fn a_line_is_in_the_seeds_format() {
        assert_eq!(
            shown("User logged in successfully: admin", LogFormat::Text),
            "2025-01-15 10:30:00,123 - auth.audit - INFO - User logged in successfully: admin"
        );
    }

    #[test]
    fn each_line_has_its_own_time() {
        let shown = |at| {
            let mut time = Vec::new();
            write_time(&mut time, Timestamp(at)).unwrap();
            String::from_utf8(time).unwrap()
        };
        for (at, time) in [
            (1_736_937_000_123, "2025-01-15 10:30:00,123"),
            (1_736_937_000_999, "2025-01-15 10:30:00,999"),
            (1_736_937_001_000, "2025-01-15 10:30:01,000"),
            (1_736_937_000_001, "2025-01-15 10:30:00,001"),
            (0, "1970-01-01 00:00:00,000"),
        ] {
            assert_eq!(shown(at), time);
        }
    }

    #[test]
    fn a_message_cannot_forge_a_second_line() {
        assert!(shown("a\r\nb\u{1b}[31m\u{2028}é", LogFormat::Text).ends_with(" - a\\r\\nb\\u{1b}[31m\\u{2028}é"));
    }

    #[test]
    fn json_lines_can_be_parsed() {
        let line = shown("a\n\"b\"", LogFormat::Json);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "a\n\"b\"");
        assert_eq!(value["time"], "2025-01-15T10:30:00.123Z");
        assert_eq!((&value["level"], &value["logger"]), (&json!("INFO"), &json!("auth.audit")));
        assert!(!line.contains('\n'));
    }

    #[test]
    fn json_lines_have_the_records_fields() {
        let pairs = [("status", log::kv::Value::from(200)), ("ms", 1.5.into()), ("route", "/todos/{id}".into())];
        let record = Record::builder().args(format_args!("x")).key_values(&pairs).build();
        let mut line = Vec::new();
        write_line(&mut line, &record, Timestamp(0), LogFormat::Json).unwrap();
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            (&value["status"], &value["ms"], &value["route"]),
            (&json!(200), &json!(1.5), &json!("/todos/{id}"))
        );
    }

    /// The test is its own child, which ends at once after its panic.
    #[test]
    fn what_was_logged_before_a_panic_is_written() {
        const LOGGED: &str = "the last line before the panic";
        const IS_CHILD: &str = "LOGGING_TEST_PANICS";
        if std::env::var_os(IS_CHILD).is_some() {
            init(&Config::from_variables([]).unwrap());
            log::error!("{LOGGED}");
            let _ = std::panic::catch_unwind(|| panic!("on purpose"));
            std::process::abort();
        }
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "telemetry::logging::tests::what_was_logged_before_a_panic_is_written", "--nocapture"]);
        let output = child.env(IS_CHILD, "1").output().unwrap();
        let [written, reported] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(reported.contains("on purpose"), "{reported}");
        assert!(written.contains(&format!(" - logging.tests - ERROR - {LOGGED}\n")), "{written}");
    }

    #[test]
    fn the_number_of_dropped_lines_is_logged_in_the_same_format() {
        let text = String::from_utf8(dropped_line(7, Timestamp(0), LogFormat::Text)).unwrap();
        let expected = "1970-01-01 00:00:00,000 - logging - WARNING - 7 log lines were dropped here: \
            standard output is not read fast enough\n";
        assert_eq!(text, expected);
        let json: Value = serde_json::from_slice(&dropped_line(7, Timestamp(0), LogFormat::Json)).unwrap();
        assert_eq!((&json["level"], &json["dropped"]), (&json!("WARN"), &json!(7)));
    }
}
