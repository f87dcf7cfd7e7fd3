//! Reads each variable's text as its type, or says what is allowed.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ipnet::{IpNet, Ipv4Net};
use jsonwebtoken::Algorithm;

use super::postgres::Postgres;
use super::{ConfigError, CorsOrigins, Database, LogFormat, Secret, SigningKey, SigningKeys, authority};

/// The original's SECRET_KEY, which is published: fine for development, refused with DEBUG=False.
pub const PUBLISHED_SECRET_KEY: &str = "your-super-secret-key-change-this-in-production-environment";

/// Shortest SECRET_KEY with DEBUG=False, in bytes: HS256 wants a key of at least the hash's size (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

pub fn invalid<T>(variable: &'static str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { variable, message: message.into() })
}

/// A value as an error shows it: only if it is short and plain. Anything else could contain a secret that lost its line
/// break.
fn shown(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.len() <= 32 && value.chars().all(plain) { format!("{value:?}") } else { "not usable".to_owned() }
}

pub fn boolean(variable: &'static str, value: Option<String>, default: bool) -> Result<bool, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => invalid(variable, format!("is {}; allowed are True and False", shown(&value))),
    }
}

pub fn number<T>(variable: &'static str, value: Option<String>, default: T, min: T, max: T) -> Result<T, ConfigError>
where
    T: std::str::FromStr + PartialOrd + fmt::Display + Copy,
{
    let Some(value) = value else { return Ok(default) };
    match value.parse() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => invalid(variable, format!("is {}; allowed is a whole number from {min} to {max}", shown(&value))),
    }
}

/// A time of 1 day to 100 years.
pub fn days(variable: &'static str, value: Option<String>, default: u64) -> Result<Duration, ConfigError> {
    number(variable, value, default, 1, 36_500).map(|days| Duration::from_secs(86_400 * days))
}

/// A time of 1 second to an hour.
pub fn seconds(variable: &'static str, value: Option<String>, default: u64) -> Result<Duration, ConfigError> {
    number(variable, value, default, 1, 3600).map(Duration::from_secs)
}

/// Addresses and networks, separated by commas.
pub fn trusted_proxies(value: Option<String>) -> Result<Vec<IpNet>, ConfigError> {
    let value = value.unwrap_or_default();
    let entries = value.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty());
    let network = |(index, entry): (usize, &str)| match network(entry) {
        Some(network) if network.prefix_len() > 0 => Ok(network),
        found => {
            let what = if found.is_some() { "trusts everybody" } else { "isn't one" };
            invalid(
                "TRUSTED_PROXIES",
                format!(
                    "has an entry, number {}, that {what}; allowed are addresses such as 10.0.0.7 and networks such as \
                     172.16.0.0/12, separated by commas",
                    index + 1
                ),
            )
        }
    };
    entries.map(network).collect()
}

/// An address or a network. Peers are looked up as IPv4 addresses, even if they came through an IPv6 socket.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    match (network.addr().to_canonical(), network.prefix_len()) {
        (IpAddr::V4(address), prefix @ 96..) => Ipv4Net::new(address, prefix - 96).ok().map(IpNet::from),
        _ => Some(network),
    }
}

/// The name of a Kafka topic or Dapr component: characters that need no escaping in a URL's path.
pub fn name(variable: &'static str, value: Option<String>, default: &str) -> Result<String, ConfigError> {
    let value = value.unwrap_or_else(|| default.to_owned());
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.len() <= 249 && value.chars().all(allowed) && value.chars().any(|c| c != '.') {
        Ok(value)
    } else {
        invalid(variable, format!("is {}; allowed are 1 to 249 letters, digits, '.', '_' and '-'", shown(&value)))
    }
}

/// The broker's address. It is logged, so it must not contain a password.
pub fn broker(value: Option<String>) -> Result<String, ConfigError> {
    match value {
        Some(value) if value.contains('@') || value.contains(char::is_control) => {
            invalid("KAFKA_BROKER", "has credentials in it; allowed is HOST:PORT, the component has the rest")
        }
        value => Ok(value.unwrap_or_else(|| "localhost:9092".into())),
    }
}

pub fn token(variable: &'static str, value: Option<String>) -> Result<Option<Secret>, ConfigError> {
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
    let value = value.unwrap_or_else(|| PUBLISHED_SECRET_KEY.to_owned());
    if !debug && value == PUBLISHED_SECRET_KEY {
        return invalid(
            "SECRET_KEY",
            format!("is not set, or is the published one; DEBUG=False needs your own, or SECRET_KEYS alone: {HOW}"),
        );
    }
    if !debug && value.len() < MIN_SECRET_BYTES {
        return invalid("SECRET_KEY", format!("is shorter than {MIN_SECRET_BYTES} bytes; {HOW}"));
    }
    Ok(Secret(value))
}

pub fn open_or_closed(variable: &'static str, value: Option<String>, default: bool) -> Result<bool, ConfigError> {
    match value.as_deref() {
        None => Ok(default),
        Some("open") => Ok(true),
        Some("closed") => Ok(false),
        Some(other) => invalid(variable, format!("is {}; allowed are open and closed", shown(other))),
    }
}

/// The keys of `SECRET_KEYS`, or that of `SECRET_KEY`; if both are set, the latter only verifies.
pub fn signing_keys(keys: Option<String>, key: Option<String>, is_private: bool) -> Result<SigningKeys, ConfigError> {
    let old = |value: Secret| SigningKey::new(None, value.0.into_bytes());
    let Some(keys) = keys else {
        let first = old(secret_key(key, is_private)?);
        return Ok(SigningKeys { first, others: Vec::new() });
    };
    let mut named = keys.split(',').map(|key| signing_key(key.trim(), is_private)).collect::<Result<Vec<_>, _>>()?;
    for (index, key) in named.iter().enumerate() {
        if named[..index].iter().any(|earlier| earlier.id == key.id) {
            return invalid("SECRET_KEYS", "has two keys with the same name");
        }
    }
    let first = named.remove(0);
    let old = key.map(|key| secret_key(Some(key), is_private)).transpose()?.map(old);
    Ok(SigningKeys { first, others: named.into_iter().chain(old).collect() })
}

/// `NAME:BASE64`.
fn signing_key(text: &str, is_private: bool) -> Result<SigningKey, ConfigError> {
    const ALLOWED: &str = "allowed are NAME:BASE64, separated by commas: names of 1 to 64 letters, digits, '.', '_' and \
        '-', and 32 bytes or more; create one with: echo \"$(date +%F):$(openssl rand -base64 32)\"";
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_name = |name: &str| (1..=64).contains(&name.len()) && name.chars().all(plain);
    let Some((id, secret)) = text.split_once(':').filter(|(id, _)| is_name(id)) else {
        return invalid("SECRET_KEYS", format!("has a key without a name, or with one that can't be used; {ALLOWED}"));
    };
    match BASE64_STANDARD.decode(secret) {
        Ok(secret) if !is_private && secret == PUBLISHED_SECRET_KEY.as_bytes() => {
            invalid("SECRET_KEYS", format!("has the published key, as {id}; DEBUG=False needs your own"))
        }
        Ok(secret) if secret.len() >= MIN_SECRET_BYTES => Ok(SigningKey::new(Some(id.to_owned()), secret)),
        _ => invalid("SECRET_KEYS", format!("has a key that can't be used, {id}; {ALLOWED}")),
    }
}

pub fn algorithm(value: Option<String>) -> Result<Algorithm, ConfigError> {
    match value.as_deref() {
        None | Some("HS256") => Ok(Algorithm::HS256),
        Some("HS384") => Ok(Algorithm::HS384),
        Some("HS512") => Ok(Algorithm::HS512),
        Some(other) => invalid("ALGORITHM", format!("is {}; allowed are HS256, HS384 and HS512", shown(other))),
    }
}

/// The database of a URL. The rest is for Postgres: connections that read, `PGPASSWORD` and `DATABASE_PASSWORD_FILE`.
pub fn database(
    value: Option<String>,
    connections: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
) -> Result<Database, ConfigError> {
    const ALLOWED: &str = "allowed are sqlite:PATH (such as sqlite:data/todos.db), sqlite::memory: and \
        postgres://USER@HOST/NAME";
    let connections = number("DATABASE_CONNECTIONS", connections, 4, 1, 100)?;
    let Some(value) = value else { return Ok(Database::File("data/todos.db".into())) };
    if let Some(rest) = value.strip_prefix("postgres://").or(value.strip_prefix("postgresql://")) {
        let postgres = Postgres::parse(rest, connections, password, password_file)?;
        return Ok(Database::Postgres(Box::new(postgres)));
    }
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
pub fn bare_host(host: &str) -> &str {
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inside.filter(|inside| inside.contains(':')).unwrap_or(host)
}

pub fn sidecar_url(
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

pub fn cors(value: Option<String>, debug: bool) -> Result<CorsOrigins, ConfigError> {
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

pub fn log_filter(value: Option<String>) -> Result<String, ConfigError> {
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

pub fn log_format(value: Option<String>) -> Result<LogFormat, ConfigError> {
    match value.as_deref() {
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => invalid("LOG_FORMAT", format!("is {}; allowed are text and json", shown(other))),
    }
}
