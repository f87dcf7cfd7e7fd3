//! Typed settings from the environment. The defaults below are the documentation of what development needs;
//! with `DEBUG=False`, settings that would be unsafe in production are refused.

pub mod env_file;
pub mod password_file;
pub mod postgres;
mod values;

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use thiserror::Error;

use crate::domain::clock::Clock;
use env_file::EnvFile;
use postgres::Postgres;
use values::{
    algorithm, bare_host, boolean, broker, cors, database, days, invalid, log_filter, log_format, name, number,
    open_or_closed, seconds, sidecar_url, signing_keys, token, trusted_proxies,
};

/// Every variable that is read, as text. `envy` maps field names to upper-case variables.
#[derive(Default, Deserialize)]
struct Raw {
    debug: Option<String>,
    host: Option<String>,
    port: Option<String>,
    database_url: Option<String>,
    database_connections: Option<String>,
    database_password_file: Option<String>,
    pgpassword: Option<String>,
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
    secret_keys: Option<String>,
    algorithm: Option<String>,
    access_token_expire_minutes: Option<String>,
    cors_allowed_origins: Option<String>,
    rust_log: Option<String>,
    log_format: Option<String>,
    registration: Option<String>,
    admin_username: Option<String>,
    admin_password: Option<String>,
    admin_password_file: Option<String>,
    metrics_token: Option<String>,
    history_retention_days: Option<String>,
    history_max_per_user: Option<String>,
    trash_retention_days: Option<String>,
    max_todos_per_user: Option<String>,
    trusted_proxies: Option<String>,
    hsts_max_age: Option<String>,
    docs: Option<String>,
    page: Option<String>,
    login_limits: Option<String>,
    rate_limit_user: Option<String>,
    rate_limit_address: Option<String>,
    max_connections: Option<String>,
    client_head_timeout: Option<String>,
    client_body_timeout: Option<String>,
    client_idle_timeout: Option<String>,
    client_read_timeout: Option<String>,
}

/// The settings of one running service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Development: demo users, CORS for localhost, the published SECRET_KEY accepted. Default: true, like the
    /// original's.
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
    /// Sign and verify access tokens.
    pub signing_keys: SigningKeys,
    /// HS256, HS384 or HS512.
    pub algorithm: Algorithm,
    /// How long an access token is valid. Default: 30 minutes.
    pub access_token_ttl: Duration,
    /// Whether anybody may create an account. Default: with DEBUG=True.
    pub registration_open: bool,
    /// The admin to create at a start that finds none. Not looked at otherwise, so it may be nonsense.
    pub first_admin: FirstAdmin,
    /// Which other origins may use the API from a browser.
    pub cors: CorsOrigins,
    /// env_logger's filter. Default: `info`, without actix's own start-up lines and
    /// its ERROR for every request that is not HTTP, which any client could cause.
    pub log_filter: String,
    /// Log lines for people or for machines.
    pub log_format: LogFormat,
    /// Opens `/metrics` to other machines. Without it and with DEBUG=False, only loopback may read it.
    pub metrics_token: Option<Secret>,
    /// How long the log keeps published changes, and how many of one user. Default: 30 days, 10,000.
    pub retention: Retention,
    /// Live todos of one user, at most. Default: 100,000.
    pub max_todos_per_user: usize,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long browsers are told to use only https, in seconds; 0: they aren't.
    pub hsts_max_age: u32,
    /// Whether the document and its viewers are served. Default: true.
    pub docs: bool,
    /// Whether the page is served at `/app`. Default: true.
    pub page: bool,
    /// How often passwords can be tried, and how many requests somebody can send.
    pub rate_limits: RateLimits,
    /// Most connections, if the limit of open files allows as many.
    pub max_connections: Option<usize>,
    /// How long clients can take.
    pub timeouts: Timeouts,
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
    /// A database of a Postgres server, which exists.
    Postgres(Box<Postgres>),
}

/// The admin that a start creates if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstAdmin {
    /// The name to log in with.
    pub username: Option<String>,
    /// The password, in the environment.
    pub password: Option<Secret>,
    /// The password, in the first line of a file.
    pub password_file: Option<PathBuf>,
}

/// Which origins CORS allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// `*`; only with DEBUG=True.
    Any,
    /// These, and with DEBUG=True any localhost origin.
    Listed(Vec<String>),
}

/// How long the log keeps published changes, and the trash what was deleted. Unpublished changes are always kept, and so
/// is everything after them of the same owner.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long, in running time of the service: a jump of the wall clock prunes nothing.
    pub keep: Duration,
    /// How many changes of one owner, at most.
    pub per_owner: i64,
    /// How long deleted todos stay in the trash, in running time of the service.
    pub trash: Duration,
}

/// How much somebody can ask for.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits {
    /// Whether passwords, registrations and refreshes are limited. Default: true.
    pub logins: bool,
    /// Requests of one account a second, for long; ten times as many at once. 0: no limit. Default: 200.
    pub per_user: u32,
    /// The same of one client address, or one IPv6 /64. Default: 500.
    pub per_address: u32,
}

/// How long clients can take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the head of a request, from its first byte; of the first one, from the connection on. Default: 10 s.
    pub head: Duration,
    /// For a body, besides a second for each 500 bytes. Default: 20 s.
    pub body: Duration,
    /// For the next request. Default: 75 s: longer than the 60 s after which proxies and clients commonly stop reusing a
    /// connection, so that no request is sent into one that is just being closed.
    pub idle: Duration,
    /// For reading something of an answer: until then, the answer stays in memory. Default: 30 s.
    pub read: Duration,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `2025-01-15 10:30:00,123 - auth.audit - INFO - …`, the original's format.
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

/// The keys of access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeys {
    /// Signs and verifies.
    pub first: SigningKey,
    /// Only verify: what they have signed is still valid.
    pub others: Vec<SigningKey>,
}

impl SigningKeys {
    /// One key without a name.
    pub fn only(secret: impl Into<Box<[u8]>>) -> Self {
        Self { first: SigningKey::new(None, secret), others: Vec::new() }
    }

    /// All that verify.
    pub fn all(&self) -> impl Iterator<Item = &SigningKey> {
        [&self.first].into_iter().chain(&self.others)
    }
}

/// A key of access tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// The name that tokens carry (`kid`); none: they carry none.
    pub id: Option<String>,
    secret: Box<[u8]>,
}

impl SigningKey {
    /// A key with this name and secret.
    pub fn new(id: Option<String>, secret: impl Into<Box<[u8]>>) -> Self {
        Self { id, secret: secret.into() }
    }

    /// The secret itself.
    pub fn expose(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.id)
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

impl Config {
    /// Reads the process's environment and, for what is not set there, `file`.
    pub fn from_env(file: Option<EnvFile>) -> Result<Self, ConfigError> {
        Self::read_env(file, true, None)
    }

    /// The same for a command that works on the database and that nobody can reach: it needs no secrets.
    pub fn of_database(file: Option<EnvFile>) -> Result<Self, ConfigError> {
        Self::read_env(file, false, None)
    }

    /// The same with another `DATABASE_URL`.
    pub fn of_database_at(url: &str, file: Option<EnvFile>) -> Result<Self, ConfigError> {
        Self::read_env(file, false, Some(url))
    }

    fn read_env(file: Option<EnvFile>, serves: bool, database: Option<&str>) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            // A value that is not UTF-8 is passed on lossily: where it matters, it is refused.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        let database = database.map(|url| ("DATABASE_URL".to_owned(), url.to_owned()));
        let (path, variables) = file.map(|file| (file.path, file.variables)).unzip();
        let config = Self::read(variables.into_iter().flatten().chain(environment).chain(database), serves)?;
        Ok(Self { env_file: path, ..config })
    }

    /// Reads settings from name and value pairs; of two with the same name, the later one wins. A variable set to the
    /// empty string counts as not set, and only upper-case names count.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Self::read(variables, true)
    }

    /// `serves`: others can reach what is run with these settings, so with DEBUG=False it needs secrets.
    fn read(variables: impl IntoIterator<Item = (String, String)>, serves: bool) -> Result<Self, ConfigError> {
        let set = variables.into_iter().map(|(name, value)| (name, value.trim().to_owned()));
        // envy would read `debug` as DEBUG, and report both together as a duplicate.
        let set: HashMap<String, String> =
            set.filter(|(name, value)| !value.is_empty() && *name == name.to_ascii_uppercase()).collect();
        let raw: Raw =
            envy::from_iter(set).or_else(|_| invalid("environment", "can't be read; allowed is UTF-8 text"))?;
        let debug = boolean("DEBUG", raw.debug, true)?;
        let is_private = debug || !serves;
        let config = Self {
            debug,
            host: bare_host(raw.host.as_deref().unwrap_or("127.0.0.1")).to_owned(),
            port: number("PORT", raw.port, 8000, 0, u16::MAX)?,
            database: database(raw.database_url, raw.database_connections, raw.pgpassword, raw.database_password_file)?,
            kafka_broker: broker(raw.kafka_broker)?,
            topic: name("KAFKA_TOPIC", raw.kafka_topic, "todos")?,
            pubsub: name("DAPR_PUBSUB_NAME", raw.dapr_pubsub_name, "kafka-pubsub")?,
            sidecar_url: sidecar_url(raw.dapr_http_endpoint, raw.dapr_host, raw.dapr_http_port, raw.dapr_port)?,
            dapr_api_token: token("DAPR_API_TOKEN", raw.dapr_api_token)?,
            app_api_token: token("APP_API_TOKEN", raw.app_api_token)?,
            signing_keys: signing_keys(raw.secret_keys, raw.secret_key, is_private)?,
            algorithm: algorithm(raw.algorithm)?,
            access_token_ttl: Duration::from_secs(
                60 * number("ACCESS_TOKEN_EXPIRE_MINUTES", raw.access_token_expire_minutes, 30, 1, 525_600)?,
            ),
            registration_open: open_or_closed("REGISTRATION", raw.registration, debug)?,
            first_admin: FirstAdmin {
                username: raw.admin_username,
                password: raw.admin_password.map(Secret),
                password_file: raw.admin_password_file.map(PathBuf::from),
            },
            cors: cors(raw.cors_allowed_origins, is_private)?,
            log_filter: log_filter(raw.rust_log)?,
            log_format: log_format(raw.log_format)?,
            metrics_token: token("METRICS_TOKEN", raw.metrics_token)?,
            retention: Retention {
                keep: days("HISTORY_RETENTION_DAYS", raw.history_retention_days, 30)?,
                per_owner: number("HISTORY_MAX_PER_USER", raw.history_max_per_user, 10_000, 100, 1_000_000_000)?,
                trash: days("TRASH_RETENTION_DAYS", raw.trash_retention_days, 30)?,
            },
            max_todos_per_user: number("MAX_TODOS_PER_USER", raw.max_todos_per_user, 100_000, 1, 10_000_000)?,
            trusted_proxies: trusted_proxies(raw.trusted_proxies)?,
            hsts_max_age: number("HSTS_MAX_AGE", raw.hsts_max_age, 0, 0, 63_072_000)?,
            docs: boolean("DOCS", raw.docs, true)?,
            page: boolean("PAGE", raw.page, true)?,
            rate_limits: RateLimits {
                logins: boolean("LOGIN_LIMITS", raw.login_limits, true)?,
                per_user: number("RATE_LIMIT_USER", raw.rate_limit_user, 200, 0, 1_000_000)?,
                per_address: number("RATE_LIMIT_ADDRESS", raw.rate_limit_address, 500, 0, 1_000_000)?,
            },
            max_connections: match number("MAX_CONNECTIONS", raw.max_connections, 0, 0, 1_000_000)? {
                0 => None,
                limit => Some(limit),
            },
            timeouts: Timeouts {
                head: seconds("CLIENT_HEAD_TIMEOUT", raw.client_head_timeout, 10)?,
                body: seconds("CLIENT_BODY_TIMEOUT", raw.client_body_timeout, 20)?,
                idle: seconds("CLIENT_IDLE_TIMEOUT", raw.client_idle_timeout, 75)?,
                read: seconds("CLIENT_READ_TIMEOUT", raw.client_read_timeout, 30)?,
            },
            env_file: None,
            clock: Clock::system(),
        };
        if !is_private && config.app_api_token.is_none() {
            return invalid(
                "APP_API_TOKEN",
                "is not set, so anybody could post events to /events/todos; with DEBUG=False, set the token that \
                 the sidecar sends (the sidecar reads the same variable)",
            );
        }
        Ok(config)
    }
}

/// `HOST:PORT` as in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2), whether or not `host` has them.
pub fn authority(host: &str, port: u16) -> String {
    let host = bare_host(host);
    // A zone (`fe80::1%eth0`, RFC 4007) belongs to the address.
    let address = host.split('%').next().unwrap_or(host);
    if address.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use base64::Engine;
    use base64::prelude::BASE64_STANDARD as STANDARD;

    use super::values::PUBLISHED_SECRET_KEY;
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
        let secret = config.signing_keys.first.expose();
        assert_eq!((secret, config.port, config.topic.as_str()), (&b"of the file"[..], 2, "todos"));
    }

    #[test]
    fn registration_is_open_in_development_only_unless_it_is_set() {
        assert!(config(&[]).unwrap().registration_open);
        assert!(!config(&PRODUCTION).unwrap().registration_open);
        assert!(production_with("REGISTRATION", "open").unwrap().registration_open);
        assert!(!config(&[("REGISTRATION", "closed")]).unwrap().registration_open);
    }

    #[test]
    fn a_command_on_the_database_needs_no_secrets() {
        let variables = [("DEBUG", "False"), ("DATABASE_URL", "sqlite:x.db"), ("CORS_ALLOWED_ORIGINS", "*")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(Config::from_variables(variables.clone()).unwrap_err().variable, "SECRET_KEY");
        let config = Config::read(variables, false).unwrap();
        assert_eq!((config.debug, config.database), (false, Database::File("x.db".into())));
    }

    #[test]
    fn the_first_of_several_keys_signs_and_the_old_one_still_verifies() {
        let key = |byte: u8| STANDARD.encode([byte; 32]);
        let keys = |variables: &[(&str, &str)]| config(variables).map(|config| config.signing_keys);
        let two = format!("b:{}, a:{}", key(2), key(1));
        let named = |id: &str, byte: u8| SigningKey::new(Some(id.to_owned()), [byte; 32]);
        let expected = SigningKeys { first: named("b", 2), others: vec![named("a", 1)] };
        assert_eq!(keys(&[("SECRET_KEYS", &two)]), Ok(expected.clone()), "the published one does not verify");
        let mut with_old = expected;
        with_old.others.push(SigningKey::new(None, *b"the old one"));
        assert_eq!(keys(&[("SECRET_KEYS", &two), ("SECRET_KEY", "the old one")]), Ok(with_old));
        for bad in [
            ":",
            "a",
            "a:",
            ":AAAA",
            "a:%%%%",
            &format!("a:{}", STANDARD.encode([1; 31])),
            &format!("a b:{}", key(1)),
            &format!("a:{},a:{}", key(1), key(2)),
            &format!("a:{},", key(1)),
        ] {
            let error = keys(&[("SECRET_KEYS", bad), ("DEBUG", "True")]).unwrap_err();
            assert!(error.variable == "SECRET_KEYS" && !error.message.contains(&key(1)), "{bad}: {error}");
        }
        let production = [("DEBUG", "False"), ("APP_API_TOKEN", "t"), ("SECRET_KEYS", two.as_str())];
        assert!(config(&production).is_ok(), "SECRET_KEY is not needed then");
        let published = format!("a:{}", STANDARD.encode(PUBLISHED_SECRET_KEY));
        let published = [("DEBUG", "False"), ("APP_API_TOKEN", "t"), ("SECRET_KEYS", published.as_str())];
        assert!(config(&published).unwrap_err().message.contains("the published key, as a"));
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
            ("REGISTRATION", "maybe", "open and closed"),
            ("ALGORITHM", "none", "HS256, HS384 and HS512"),
            ("ALGORITHM", "RS256", "HS256, HS384 and HS512"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "0", "from 1 to 525600"),
            ("DATABASE_URL", "mysql://me:pass@db/x", "sqlite:PATH"),
            ("DATABASE_URL", "mysql://me:pass@db/x", "postgres://USER@HOST/NAME"),
            ("DATABASE_CONNECTIONS", "0", "from 1 to 100"),
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
            ("TRASH_RETENTION_DAYS", "0", "from 1 to 36500"),
            ("TRUSTED_PROXIES", "10.0.0.0/33", "separated by commas"),
            ("TRUSTED_PROXIES", "::1, proxy.example", "number 2, that isn't one"),
            ("TRUSTED_PROXIES", "0.0.0.0/0", "trusts everybody"),
            ("TRUSTED_PROXIES", "::/0", "trusts everybody"),
            ("TRUSTED_PROXIES", "::ffff:0.0.0.0/96", "trusts everybody"),
            ("HSTS_MAX_AGE", "63072001", "from 0"),
            ("DOCS", "maybe", "True and False"),
            ("LOGIN_LIMITS", "5", "True and False"),
            ("RATE_LIMIT_USER", "-1", "from 0"),
            ("RATE_LIMIT_ADDRESS", "many", "from 0"),
            ("MAX_CONNECTIONS", "-1", "from 0"),
            ("CLIENT_HEAD_TIMEOUT", "0", "from 1 to 3600"),
            ("CLIENT_BODY_TIMEOUT", "3601", "from 1 to 3600"),
            ("CLIENT_IDLE_TIMEOUT", "1 s", "from 1 to 3600"),
            ("CLIENT_READ_TIMEOUT", "1.5", "from 1 to 3600"),
        ] {
            let error = config(&[(variable, value)]).expect_err(value);
            assert_eq!(error.variable, variable);
            let line = error.to_string();
            assert!(line.contains(allowed) && !line.contains('\n'), "{line}");
            assert!(!line.contains("pass"), "{line}");
        }
    }

    #[test]
    fn trusted_proxies_are_addresses_and_networks() {
        let config = config(&[("TRUSTED_PROXIES", "::ffff:10.0.0.7, ::ffff:172.16.0.0/108,::1,fd00::/8,")]).unwrap();
        for (address, is_trusted) in [
            ("10.0.0.7", true),
            ("10.0.0.8", false),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("::1", true),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(config.trusted_proxies.iter().any(|net| net.contains(&address)), is_trusted, "{address}");
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
            ("SECRET_KEY", PUBLISHED_SECRET_KEY),
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
