//! Typed settings from the environment. The defaults below are the documentation of what development needs;
//! with `DEBUG=False`, settings that would be unsafe in production are refused.

pub mod env_file;

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use thiserror::Error;

use crate::domain::clock::Clock;
use env_file::EnvFile;

/// The seed's published SECRET_KEY: fine for development, refused with DEBUG=False.
const SEED_SECRET_KEY: &str = "your-super-secret-key-change-this-in-production-environment";

/// Shortest SECRET_KEY with DEBUG=False, in bytes: HS256 wants a key of at least the hash's size (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Every variable that is read, as text. `envy` maps field names to upper-case variables.
#[derive(Default, Deserialize)]
struct Raw {
    debug: Option<String>,
    host: Option<String>,
    port: Option<String>,
    database_url: Option<String>,
    kafka_broker: Option<String>,
    kafka_topic: Option<String>,
    dapr_host: Option<String>,
    dapr_port: Option<String>,
    dapr_http_port: Option<String>,
    dapr_http_endpoint: Option<String>,
    dapr_pubsub_name: Option<String>,
    dapr_api_token: Option<String>,
    app_api_token: Option<String>,
    secret_key: Option<String>,
    algorithm: Option<String>,
    access_token_expire_minutes: Option<String>,
    cors_allowed_origins: Option<String>,
    rust_log: Option<String>,
    log_format: Option<String>,
    metrics_token: Option<String>,
    history_retention_days: Option<String>,
    history_max_per_user: Option<String>,
}

/// The settings of one running service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Development: demo users, CORS for localhost, the seed's SECRET_KEY accepted. Default: true, as the seed's.
    pub debug: bool,
    /// Address to listen on, an IPv6 address without brackets. Default: 127.0.0.1.
    pub host: String,
    /// Port to listen on. Default: 8000.
    pub port: u16,
    /// Where todos are stored. Default: `sqlite:data/todos.db`.
    pub database: Database,
    /// The broker that the sidecar's component uses: only logged, the service never connects to it.
    pub kafka_broker: String,
    /// The topic events go to. Default: `todos`.
    pub topic: String,
    /// The Dapr pub/sub component. Default: `kafka-pubsub`.
    pub pubsub: String,
    /// The sidecar's HTTP API, without a slash at the end. Default: `http://localhost:3500`.
    pub sidecar_url: String,
    /// Sent to the sidecar as `dapr-api-token`.
    pub dapr_api_token: Option<Secret>,
    /// Expected from the sidecar as `dapr-api-token`.
    pub app_api_token: Option<Secret>,
    /// Signs and verifies access tokens.
    pub secret_key: Secret,
    /// HS256, HS384 or HS512.
    pub algorithm: Algorithm,
    /// How long an access token is valid. Default: 30 minutes.
    pub access_token_ttl: Duration,
    /// Which other origins may use the API from a browser.
    pub cors: CorsOrigins,
    /// env_logger's filter. Default: `info`, without actix's own start-up lines and
    /// its ERROR for every request that is not HTTP, which any client could cause.
    pub log_filter: String,
    /// Log lines for people or for machines.
    pub log_format: LogFormat,
    /// Opens `/metrics` to other machines. Without it and with DEBUG=False, only loopback may read them.
    pub metrics_token: Option<Secret>,
    /// How long the log keeps published changes, and how many of one user. Default: 30 days, 10,000.
    pub retention: Retention,
    /// Not a setting: the file that settings were read from, besides the environment.
    pub env_file: Option<PathBuf>,
    /// Not a setting: where the wall clock is read. Tests replace it.
    pub clock: Clock,
}

/// Where todos are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// An SQLite file, created on first start.
    File(PathBuf),
    /// A private temporary file, deleted when the process ends.
    Temporary,
}

/// Which origins CORS allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// `*`; only with DEBUG=True.
    Any,
    /// These, and with DEBUG=True any localhost origin.
    Listed(Vec<String>),
}

/// How long the log keeps published changes. Unpublished ones are always kept, and so is everything after them of the
/// same owner.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long, in running time of the service: a jump of the wall clock prunes nothing.
    pub keep: Duration,
    /// How many changes of one owner, at most.
    pub per_owner: i64,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `2025-01-15 10:30:00,123 - auth.routes - INFO - …`, the seed's format.
    Text,
    /// One JSON object a line.
    Json,
}

/// A value that must not be seen in logs or error messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A setting that can't be used: which variable, what is wrong, what is allowed. One line; never a secret's value.
// Without a source: what a parser says about a value can repeat it.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{variable}: {message}")]
pub struct ConfigError {
    /// The environment variable.
    pub variable: &'static str,
    /// What is wrong and what is allowed.
    pub message: String,
}

fn invalid<T>(variable: &'static str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { variable, message: message.into() })
}

/// A value as an error shows it: only if it is short and plain. Anything else could contain a secret that lost its line
/// break.
fn shown(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.len() <= 32 && value.chars().all(plain) { format!("{value:?}") } else { "not usable".to_owned() }
}

impl Config {
    /// Reads the process's environment and, for what is not set there, `file`.
    pub fn from_env(file: Option<EnvFile>) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            // A value that is not UTF-8 is passed on lossily: where it matters, it is refused.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        let (path, variables) = file.map(|file| (file.path, file.variables)).unzip();
        let config = Self::from_variables(variables.into_iter().flatten().chain(environment))?;
        Ok(Self { env_file: path, ..config })
    }

    /// Reads settings from name and value pairs; of two with the same name, the later one wins. A variable set to the
    /// empty string counts as not set, and only upper-case names count.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let set = variables.into_iter().map(|(name, value)| (name, value.trim().to_owned()));
        // envy would read `debug` as DEBUG, and report both together as a duplicate.
        let set: HashMap<String, String> =
            set.filter(|(name, value)| !value.is_empty() && *name == name.to_ascii_uppercase()).collect();
        let raw: Raw =
            envy::from_iter(set).or_else(|_| invalid("environment", "can't be read; allowed is UTF-8 text"))?;
        let debug = boolean("DEBUG", raw.debug, true)?;
        let config = Self {
            debug,
            host: bare_host(raw.host.as_deref().unwrap_or("127.0.0.1")).to_owned(),
            port: number("PORT", raw.port, 8000, 0, u16::MAX)?,
            database: database(raw.database_url)?,
            kafka_broker: broker(raw.kafka_broker)?,
            topic: name("KAFKA_TOPIC", raw.kafka_topic, "todos")?,
            pubsub: name("DAPR_PUBSUB_NAME", raw.dapr_pubsub_name, "kafka-pubsub")?,
            sidecar_url: sidecar_url(raw.dapr_http_endpoint, raw.dapr_host, raw.dapr_http_port, raw.dapr_port)?,
            dapr_api_token: token("DAPR_API_TOKEN", raw.dapr_api_token)?,
            app_api_token: token("APP_API_TOKEN", raw.app_api_token)?,
            secret_key: secret_key(raw.secret_key, debug)?,
            algorithm: algorithm(raw.algorithm)?,
            access_token_ttl: Duration::from_secs(
                60 * number("ACCESS_TOKEN_EXPIRE_MINUTES", raw.access_token_expire_minutes, 30, 1, 525_600)?,
            ),
            cors: cors(raw.cors_allowed_origins, debug)?,
            log_filter: log_filter(raw.rust_log)?,
            log_format: log_format(raw.log_format)?,
            metrics_token: token("METRICS_TOKEN", raw.metrics_token)?,
            retention: Retention {
                keep: Duration::from_secs(
                    86_400 * number("HISTORY_RETENTION_DAYS", raw.history_retention_days, 30, 1, 36_500)?,
                ),
                per_owner: number("HISTORY_MAX_PER_USER", raw.history_max_per_user, 10_000, 100, 1_000_000_000)?,
            },
            env_file: None,
            clock: Clock::system(),
        };
        if !debug && config.app_api_token.is_none() {
            return invalid(
                "APP_API_TOKEN",
                "is not set, so anybody could post events to /events/todos; with DEBUG=False, set the token that \
                 the sidecar sends (the sidecar reads the same variable)",
            );
        }
        Ok(config)
    }
}

fn boolean(variable: &'static str, value: Option<String>, default: bool) -> Result<bool, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => invalid(variable, format!("is {}; allowed are True and False", shown(&value))),
    }
}

fn number<T>(variable: &'static str, value: Option<String>, default: T, min: T, max: T) -> Result<T, ConfigError>
where
    T: std::str::FromStr + PartialOrd + fmt::Display + Copy,
{
    let Some(value) = value else { return Ok(default) };
    match value.parse() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => invalid(variable, format!("is {}; allowed is a whole number from {min} to {max}", shown(&value))),
    }
}

/// The name of a Kafka topic or Dapr component: characters that need no escaping in a URL's path.
fn name(variable: &'static str, value: Option<String>, default: &str) -> Result<String, ConfigError> {
    let value = value.unwrap_or_else(|| default.to_owned());
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.len() <= 249 && value.chars().all(allowed) && value.chars().any(|c| c != '.') {
        Ok(value)
    } else {
        invalid(variable, format!("is {}; allowed are 1 to 249 letters, digits, '.', '_' and '-'", shown(&value)))
    }
}

/// It is logged, so it must not contain a password.
fn broker(value: Option<String>) -> Result<String, ConfigError> {
    match value {
        Some(value) if value.contains('@') || value.contains(char::is_control) => {
            invalid("KAFKA_BROKER", "has credentials in it; allowed is HOST:PORT, the component has the rest")
        }
        value => Ok(value.unwrap_or_else(|| "localhost:9092".into())),
    }
}

fn token(variable: &'static str, value: Option<String>) -> Result<Option<Secret>, ConfigError> {
    match value {
        Some(value) if !value.chars().all(|c| c.is_ascii_graphic()) => invalid(
            variable,
            "has characters that can't be sent in a header; allowed is printable ASCII without spaces",
        ),
        value => Ok(value.map(Secret)),
    }
}

fn secret_key(value: Option<String>, debug: bool) -> Result<Secret, ConfigError> {
    const HOW: &str = "create one with: openssl rand -hex 32";
    let value = value.unwrap_or_else(|| SEED_SECRET_KEY.to_owned());
    if !debug && value == SEED_SECRET_KEY {
        return invalid(
            "SECRET_KEY",
            format!("is not set, or is the published one; DEBUG=False needs your own: {HOW}"),
        );
    }
    if !debug && value.len() < MIN_SECRET_BYTES {
        return invalid("SECRET_KEY", format!("is shorter than {MIN_SECRET_BYTES} bytes; {HOW}"));
    }
    Ok(Secret(value))
}

fn algorithm(value: Option<String>) -> Result<Algorithm, ConfigError> {
    match value.as_deref() {
        None | Some("HS256") => Ok(Algorithm::HS256),
        Some("HS384") => Ok(Algorithm::HS384),
        Some("HS512") => Ok(Algorithm::HS512),
        Some(other) => invalid("ALGORITHM", format!("is {}; allowed are HS256, HS384 and HS512", shown(other))),
    }
}

fn database(value: Option<String>) -> Result<Database, ConfigError> {
    const ALLOWED: &str = "allowed are sqlite:PATH (such as sqlite:data/todos.db) and sqlite::memory:";
    let Some(value) = value else { return Ok(Database::File("data/todos.db".into())) };
    match value.strip_prefix("sqlite:") {
        // `sqlite:///path` is the same file as `sqlite:/path`, `sqlite://path` is relative, as elsewhere.
        Some(path) => match path.strip_prefix("//").unwrap_or(path) {
            "" => invalid("DATABASE_URL", format!("names no file; {ALLOWED}")),
            ":memory:" => Ok(Database::Temporary),
            path if path.contains('?') => invalid("DATABASE_URL", format!("has options; {ALLOWED}")),
            // SQLite's own URIs (https://sqlite.org/uri.html) give a file a second name, and so a second lock file.
            path if path.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:")) => {
                invalid("DATABASE_URL", format!("has one of SQLite's file: URIs; {ALLOWED}"))
            }
            path => Ok(Database::File(path.into())),
        },
        // The value may contain a password: it is not repeated.
        None => invalid("DATABASE_URL", format!("is for a database that is not supported; {ALLOWED}")),
    }
}

/// A host as settings have it, without the brackets that an IPv6 address has in URLs.
fn bare_host(host: &str) -> &str {
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inside.filter(|inside| inside.contains(':')).unwrap_or(host)
}

/// `HOST:PORT` as in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2), whether or not `host` has them.
pub fn authority(host: &str, port: u16) -> String {
    let host = bare_host(host);
    // A zone (`fe80::1%eth0`, RFC 4007) belongs to the address.
    let address = host.split('%').next().unwrap_or(host);
    if address.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn sidecar_url(
    endpoint: Option<String>,
    host: Option<String>,
    http_port: Option<String>,
    port: Option<String>,
) -> Result<String, ConfigError> {
    let port = number("DAPR_PORT", port, 3500, 1, u16::MAX)?;
    let port = number("DAPR_HTTP_PORT", http_port, port, 1, u16::MAX)?;
    let (variable, url, allowed) = match endpoint {
        Some(endpoint) => (
            "DAPR_HTTP_ENDPOINT",
            endpoint.trim_end_matches('/').to_owned(),
            "http://HOST:PORT or https://HOST:PORT, an IPv6 address in brackets",
        ),
        None => (
            "DAPR_HOST",
            format!("http://{}", authority(host.as_deref().unwrap_or("localhost"), port)),
            "a host name or an IP address",
        ),
    };
    // What precedes the @ may be a password: the address is logged, so it must not be kept, nor repeated here.
    if url.contains('@') {
        return invalid(variable, format!("has credentials in it; allowed is {allowed}"));
    }
    match url::Url::parse(&url) {
        Ok(parsed)
            if matches!(parsed.scheme(), "http" | "https")
                && parsed.path() == "/"
                && parsed.query().is_none()
                && parsed.fragment().is_none() =>
        {
            Ok(url)
        }
        _ => invalid(variable, format!("is not a valid address; allowed is {allowed}")),
    }
}

fn cors(value: Option<String>, debug: bool) -> Result<CorsOrigins, ConfigError> {
    let value = value.unwrap_or_default();
    let origins: Vec<&str> = value.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect();
    if origins.contains(&"*") {
        if debug {
            return Ok(CorsOrigins::Any);
        }
        return invalid(
            "CORS_ALLOWED_ORIGINS",
            "is a wildcard; with DEBUG=False, list the origins, separated by commas",
        );
    }
    for origin in &origins {
        // An origin as browsers send it (RFC 6454, 6.2): scheme, host, a port that is not the scheme's own.
        let exact = url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin);
        if !exact {
            return invalid(
                "CORS_ALLOWED_ORIGINS",
                "has an entry that isn't one; allowed are origins such as https://app.example.org, separated by commas",
            );
        }
    }
    Ok(CorsOrigins::Listed(origins.into_iter().map(str::to_owned).collect()))
}

fn log_filter(value: Option<String>) -> Result<String, ConfigError> {
    let value = value.unwrap_or_else(|| "info,actix_server=warn,actix_http=off".to_owned());
    match env_filter::Builder::new().try_parse(&value) {
        Ok(_) => Ok(value),
        Err(_) => invalid(
            "RUST_LOG",
            format!(
                "is {}; allowed is a level (error, warn, info, debug, trace, off) or MODULE=LEVEL, separated by commas",
                shown(&value)
            ),
        ),
    }
}

fn log_format(value: Option<String>) -> Result<LogFormat, ConfigError> {
    match value.as_deref() {
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => invalid("LOG_FORMAT", format!("is {}; allowed are text and json", shown(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
    }

    const PRODUCTION: [(&str, &str); 3] =
        [("DEBUG", "False"), ("SECRET_KEY", "0123456789abcdef0123456789abcdef"), ("APP_API_TOKEN", "app-token")];

    fn production_with(variable: &str, value: &str) -> Result<Config, ConfigError> {
        let mut variables = PRODUCTION.to_vec();
        variables.retain(|(name, _)| *name != variable);
        variables.push((variable, value));
        config(&variables)
    }

    #[test]
    fn nothing_set_is_development_on_loopback() {
        let config = config(&[]).unwrap();
        assert!(config.debug);
        assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 8000));
        assert_eq!(config.database, Database::File("data/todos.db".into()));
        assert_eq!(config.sidecar_url, "http://localhost:3500");
        assert_eq!((config.pubsub.as_str(), config.topic.as_str()), ("kafka-pubsub", "todos"));
        assert_eq!(config.access_token_ttl, Duration::from_secs(1800));
        assert_eq!(config.cors, CorsOrigins::Listed(vec![]));
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let config = config(&[("PORT", ""), ("DAPR_API_TOKEN", " ")]).unwrap();
        assert_eq!((config.port, config.dapr_api_token), (8000, None));
    }

    #[test]
    fn the_sidecar_is_found_in_the_documented_order() {
        let all = [
            ("DAPR_HTTP_ENDPOINT", "https://dapr:1/"),
            ("DAPR_HOST", "h"),
            ("DAPR_HTTP_PORT", "2"),
            ("DAPR_PORT", "3"),
        ];
        let urls: Vec<_> = (0..4).map(|from| config(&all[from..]).unwrap().sidecar_url).collect();
        assert_eq!(urls, ["https://dapr:1", "http://h:2", "http://localhost:2", "http://localhost:3"]);
    }

    #[test]
    fn ipv6_addresses_are_taken_with_and_without_brackets() {
        for host in ["::1", "[::1]"] {
            let config = config(&[("DAPR_HOST", host), ("HOST", host)]).unwrap();
            assert_eq!((config.sidecar_url.as_str(), config.host.as_str()), ("http://[::1]:3500", "::1"));
        }
        let endpoint = config(&[("DAPR_HTTP_ENDPOINT", "http://[::1]:3501")]).unwrap();
        assert_eq!(endpoint.sidecar_url, "http://[::1]:3501");
        for (host, shown) in
            [("::", "[::]:8"), ("fe80::1%eth0", "[fe80::1%eth0]:8"), ("10.0.0.7", "10.0.0.7:8"), ("web", "web:8")]
        {
            assert_eq!(authority(host, 8), shown);
        }
    }

    #[test]
    fn only_upper_case_names_count() {
        let config = config(&[("debug", "1"), ("DEBUG", "False"), ("Port", "9"), ("secret_key", "x")]);
        assert_eq!(config.unwrap_err().variable, "SECRET_KEY");
        let config = super::tests::config(&[("debug", "False"), ("DEBUG", "True"), ("port", "9")]).unwrap();
        assert_eq!((config.debug, config.port), (true, 8000));
    }

    #[test]
    fn the_environment_wins_over_the_file_unless_it_is_empty() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let file = pairs(&[("SECRET_KEY", "of the file"), ("PORT", "1"), ("KAFKA_TOPIC", "")]);
        let environment = pairs(&[("SECRET_KEY", ""), ("PORT", "2"), ("KAFKA_TOPIC", " ")]);
        let config = Config::from_variables(file.into_iter().chain(environment)).unwrap();
        assert_eq!((config.secret_key.expose(), config.port, config.topic.as_str()), ("of the file", 2, "todos"));
    }

    #[test]
    fn both_ways_to_write_a_temporary_database_work() {
        for url in ["sqlite::memory:", "sqlite://:memory:"] {
            assert_eq!(config(&[("DATABASE_URL", url)]).unwrap().database, Database::Temporary, "{url}");
        }
    }

    #[test]
    fn bad_values_name_the_variable_and_what_is_allowed() {
        for (variable, value, allowed) in [
            ("DEBUG", "maybe", "True and False"),
            ("PORT", "70000", "from 0 to 65535"),
            ("PORT", "-1", "from 0 to 65535"),
            ("KAFKA_TOPIC", "a/b", "letters, digits"),
            ("DAPR_PUBSUB_NAME", "..", "letters, digits"),
            ("DAPR_HOST", "a b", "host name"),
            ("DAPR_PORT", "0", "from 1"),
            ("DAPR_HTTP_PORT", "x", "from 1"),
            ("DAPR_HTTP_ENDPOINT", "ftp://x", "http://HOST:PORT"),
            ("DAPR_API_TOKEN", "a\nb", "printable ASCII"),
            ("ALGORITHM", "none", "HS256, HS384 and HS512"),
            ("ALGORITHM", "RS256", "HS256, HS384 and HS512"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "0", "from 1 to 525600"),
            ("DATABASE_URL", "postgres://me:pass@db/x", "sqlite:PATH"),
            ("DATABASE_URL", "sqlite:", "sqlite:PATH"),
            ("DATABASE_URL", "sqlite:file:todos.db", "sqlite:PATH"),
            ("DATABASE_URL", "sqlite://FILE:/todos.db", "sqlite:PATH"),
            ("DAPR_HTTP_ENDPOINT", "http://me:pass@x:1", "http://HOST:PORT"),
            ("DAPR_HTTP_ENDPOINT", "http://me:pass@ x:1", "http://HOST:PORT"),
            ("DAPR_HTTP_ENDPOINT", "http://::1:3500", "in brackets"),
            ("DAPR_HOST", "me:pass@x", "host name"),
            ("DAPR_HOST", "fe80::1%eth0", "host name"),
            ("CORS_ALLOWED_ORIGINS", "https://a.example/", "separated by commas"),
            ("CORS_ALLOWED_ORIGINS", "a.example", "separated by commas"),
            ("RUST_LOG", "app=loud", "error, warn"),
            ("LOG_FORMAT", "xml", "text and json"),
            ("METRICS_TOKEN", "a b", "printable ASCII"),
            ("HISTORY_RETENTION_DAYS", "0", "from 1 to 36500"),
            ("HISTORY_MAX_PER_USER", "99", "from 100"),
        ] {
            let error = config(&[(variable, value)]).expect_err(value);
            assert_eq!(error.variable, variable);
            let line = error.to_string();
            assert!(line.contains(allowed) && !line.contains('\n'), "{line}");
            assert!(!line.contains("pass"), "{line}");
        }
    }

    #[test]
    fn a_secret_that_lost_its_line_is_not_shown() {
        for (variable, value) in [
            ("DEBUG", "False\rSECRET_KEY=s3cret"),
            ("PORT", "8000 SECRET_KEY=s3cret"),
            ("LOG_FORMAT", "json; SECRET_KEY=s3cret"),
            ("RUST_LOG", "info SECRET_KEY=s3cret"),
            ("ALGORITHM", "HS256 SECRET_KEY=s3cret"),
            ("KAFKA_TOPIC", "todos SECRET_KEY=s3cret"),
            ("KAFKA_BROKER", "SASL://u:s3cret@b:9092"),
            ("CORS_ALLOWED_ORIGINS", "https://a:s3cret@b"),
            ("DAPR_HTTP_ENDPOINT", "http://h:3500/?token=s3cret"),
            ("DAPR_HTTP_ENDPOINT", "http://h:3500/#s3cret"),
            ("DAPR_HOST", "h/s3cret"),
        ] {
            let error = config(&[(variable, value)]).expect_err(value).to_string();
            assert!(error.starts_with(variable) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn production_starts_with_its_own_secrets() {
        let config = config(&PRODUCTION).unwrap();
        assert!(!config.debug);
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn production_refuses_what_is_unsafe() {
        for (variable, value) in [
            ("SECRET_KEY", SEED_SECRET_KEY),
            ("SECRET_KEY", ""),
            ("SECRET_KEY", "0123456789abcdef0123456789abcde"),
            ("CORS_ALLOWED_ORIGINS", "*"),
            ("CORS_ALLOWED_ORIGINS", "https://a.example,*"),
            ("APP_API_TOKEN", ""),
        ] {
            let error = production_with(variable, value).expect_err(variable);
            assert_eq!(error.variable, variable);
            assert!(value.is_empty() || value == "*" || !error.to_string().contains(value));
        }
    }

    /// The README's settings table, as (variable, default).
    fn documented() -> Vec<(String, String)> {
        let readme = include_str!("../../README.md");
        let table = readme.split("## Settings").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let cell = |row: &str, n: usize| row.split('|').nth(n).unwrap().trim().trim_matches('`').to_owned();
        rows.map(|row| (cell(row, 1), cell(row, 2))).collect()
    }

    /// The variables that are read: envy asks for every field of `Raw`.
    fn read() -> Vec<String> {
        let source = include_str!("mod.rs");
        let fields = source.split("struct Raw {").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
        let names = fields.lines().filter_map(|line| line.trim().strip_suffix(": Option<String>,"));
        names.map(str::to_ascii_uppercase).collect()
    }

    #[test]
    fn the_readme_documents_every_setting_with_its_default() {
        let (mut documented_names, mut read) = (documented().into_iter().map(|row| row.0).collect::<Vec<_>>(), read());
        documented_names.sort();
        read.sort();
        assert_eq!(documented_names, read);
        // A documented default is what happens without the variable: setting it changes nothing.
        let nothing_set = format!("{:?}", config(&[]).unwrap());
        for (variable, default) in documented() {
            if default.is_empty() || variable == "SECRET_KEY" || variable == "RUST_LOG" {
                continue;
            }
            let set = format!("{:?}", config(&[(&variable, &default)]).unwrap());
            let clock = |text: &str| text.split("clock: ").next().unwrap().to_owned();
            assert_eq!(clock(&set), clock(&nothing_set), "{variable}={default}");
        }
    }

    #[test]
    fn listed_origins_are_kept_as_browsers_send_them() {
        let config = production_with("CORS_ALLOWED_ORIGINS", "https://a.example, http://b.example:8080").unwrap();
        assert_eq!(config.cors, CorsOrigins::Listed(vec!["https://a.example".into(), "http://b.example:8080".into()]));
    }
}
