//! Log lines in the seed's format, or as one JSON object a line.

use std::io::Write;

use env_logger::Builder;
use log::Record;
use log::kv::{Key, VisitSource};
use serde_json::{Map, Value, json};
use time::macros::format_description;

use crate::clock::Timestamp;
use crate::config::{Config, LogFormat};

/// Starts logging to standard output. A second call changes nothing.
pub fn init(config: &Config) {
    let (clock, format) = (config.clock.clone(), config.log_format);
    let started = Builder::new()
        .parse_filters(&config.log_filter)
        .target(env_logger::Target::Stdout)
        .format(move |out, record| writeln!(out, "{}", line(record, clock.now(), format)))
        .try_init();
    if started.is_err() {
        log::debug!("logging was started before");
    }
}

/// `todo_backend::auth::routes` is shown as `auth.routes`.
fn logger_name(record: &Record<'_>) -> String {
    let target = record.target();
    target.strip_prefix("todo_backend::").unwrap_or(target).replace("::", ".")
}

fn line(record: &Record<'_>, at: Timestamp, format: LogFormat) -> String {
    let message = record.args().to_string();
    match format {
        LogFormat::Text => {
            let time = format_description!("[year]-[month]-[day] [hour]:[minute]:[second],[subsecond digits:3]");
            let time = at.to_utc().format(time).unwrap_or_default();
            let level = if record.level() == log::Level::Warn { "WARNING" } else { record.level().as_str() };
            format!("{time} - {} - {level} - {}", logger_name(record), one_line(&message))
        }
        LogFormat::Json => {
            let mut object = Map::new();
            object.insert("time".into(), json!(at));
            object.insert("level".into(), record.level().as_str().into());
            object.insert("logger".into(), logger_name(record).into());
            object.insert("message".into(), message.into());
            // Never fails: the visitor doesn't.
            let _ = record.key_values().visit(&mut Fields(&mut object));
            Value::Object(object).to_string()
        }
    }
}

/// A record's key-value pairs as members of its JSON object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: log::kv::Value<'kvs>) -> Result<(), log::kv::Error> {
        let number = value.to_u64().map(Value::from).or_else(|| value.to_f64().map(Value::from));
        self.0.insert(key.to_string(), number.unwrap_or_else(|| value.to_string().into()));
        Ok(())
    }
}

/// The message with control characters escaped: what a client sends can't forge a line or drive a terminal.
fn one_line(message: &str) -> String {
    // U+2028 and U+2029 end a line for some readers of logs; U+202A..=U+202E and U+2066..=U+2069 turn text around.
    let harmful = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if !message.contains(harmful) {
        return message.to_owned();
    }
    message.chars().fold(String::with_capacity(message.len() + 16), |mut line, c| {
        if harmful(c) {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str, format: LogFormat) -> String {
        let mut record = Record::builder();
        record.level(log::Level::Info).target("todo_backend::auth::routes");
        line(&record.args(format_args!("{message}")).build(), Timestamp(1_736_937_000_123), format)
    }

    #[test]
    fn a_line_is_in_the_seeds_format() {
        assert_eq!(
            shown("User logged in successfully: admin", LogFormat::Text),
            "2025-01-15 10:30:00,123 - auth.routes - INFO - User logged in successfully: admin"
        );
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
        assert_eq!((&value["level"], &value["logger"]), (&json!("INFO"), &json!("auth.routes")));
        assert!(!line.contains('\n'));
    }

    #[test]
    fn json_lines_have_the_records_fields() {
        let pairs = [("status", log::kv::Value::from(200)), ("ms", 1.5.into()), ("route", "/todos/{id}".into())];
        let record = Record::builder().args(format_args!("x")).key_values(&pairs).build();
        let value: Value = serde_json::from_str(&line(&record, Timestamp(0), LogFormat::Json)).unwrap();
        assert_eq!(
            (&value["status"], &value["ms"], &value["route"]),
            (&json!(200), &json!(1.5), &json!("/todos/{id}"))
        );
    }
}
