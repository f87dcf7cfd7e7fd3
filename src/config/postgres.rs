//! `DATABASE_URL=postgres://…`, as libpq's users write it
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>).
//!
//! What differs from libpq: a user and a host have to be named; of the environment only `PGPASSWORD` is read, and no file in
//! the home directory; `sslmode=allow` is refused; `@`, `/` and `?` in a password have to be percent-encoded, so that no
//! part of it is taken for a host, which is logged. `sslmode=prefer` speaks without TLS only to servers that have none.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, Host, SslNegotiation, TargetSessionAttrs};

use super::values::invalid;
use super::{ConfigError, Secret, authority, password_file};

/// The port of a URL that names none.
const PORT: u16 = 5432;

/// How long a server may take to accept a connection, if the URL doesn't say. libpq would wait for as long as the system
/// does: two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What an error says about URLs that can't be read.
const ALLOWED: &str = "allowed is postgres://USER@HOST:PORT/NAME?PARAMETER=VALUE, with %XX for characters such as @, / and \
                       ? in names and passwords";

/// Parameters that the client knows by the same name.
const PASSED: [&str; 9] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "tcp_user_timeout",
];

/// A Postgres database, how to reach it, and what its server has to prove.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Without the password.
    connection: tokio_postgres::Config,
    /// The same for each of several hosts.
    servers: Vec<tokio_postgres::Config>,
    password: Password,
    /// How the connection is protected.
    pub tls: Tls,
    /// `DATABASE_CONNECTIONS`: connections that read, 1 to 100. Default: 4.
    pub connections: usize,
}

/// Where the password comes from.
#[derive(Clone, PartialEq, Eq)]
enum Password {
    None,
    Known(Secret),
    /// The first line of this file.
    File(PathBuf),
}

/// How connections to Postgres are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `sslmode`. Default: prefer, as libpq's.
    pub mode: SslMode,
    /// `sslrootcert`; none: the system's authorities, where any are needed.
    pub roots: Option<Roots>,
    /// `sslcert` and `sslkey`.
    pub client: Option<ClientCertificate>,
}

/// libpq's `sslmode`, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS, unless the server has none.
    Prefer,
    /// TLS with anybody; with `sslrootcert`, the same as verify-ca.
    Require,
    /// TLS with a server whose certificate an authority has signed.
    VerifyCa,
    /// The same, and the certificate is for the host's name.
    VerifyFull,
}

/// Whose signature on a server's certificate counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// `sslrootcert=system`: whom the system trusts.
    System,
    /// The certificates in a file, in PEM format.
    File(PathBuf),
}

/// What the service proves its own name with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `sslcert`: a file with the certificate, and those between it and the authority, in PEM format.
    pub certificate: PathBuf,
    /// `sslkey`: a file with its key in PEM format, not encrypted.
    pub key: PathBuf,
}

/// What is checked of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Only that the server has its key.
    Key,
    /// Also that an authority has signed it.
    Chain,
    /// Also that it is for the host's name.
    ChainAndName,
}

impl Tls {
    /// What is checked of a server's certificate, if there is TLS.
    pub fn check(&self) -> Check {
        match self.mode {
            SslMode::VerifyFull => Check::ChainAndName,
            SslMode::VerifyCa => Check::Chain,
            _ if self.roots.is_some() => Check::Chain,
            _ => Check::Key,
        }
    }
}

impl SslMode {
    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];
        all.into_iter().find(|mode| mode.name() == text)
    }

    /// As it is written in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl Postgres {
    /// Reads a URL without its `postgres://`. `password` and `password_file`: `PGPASSWORD`, `DATABASE_PASSWORD_FILE`.
    pub(super) fn parse(
        rest: &str,
        connections: usize,
        password: Option<String>,
        password_file: Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut parameters = Parameters::read(rest)?;
        let password = Password::choose(parameters.take("password"), password, password_file)?;
        let tls = tls(&mut parameters)?;
        let Some(user) = parameters.take("user") else {
            return refuse("names no user");
        };
        let name = parameters.take("dbname").unwrap_or_else(|| user.clone());
        let servers = Servers::take(&mut parameters)?;
        let is_writable = is_writable(parameters.take("target_session_attrs"), servers.hosts.len())?;
        let is_direct = is_direct(parameters.take("sslnegotiation"), tls.mode)?;
        let mut connection = parameters.client()?;
        if connection.get_application_name().is_none() {
            connection.application_name(env!("CARGO_PKG_NAME"));
        }
        if !parameters.has("connect_timeout") {
            connection.connect_timeout(CONNECT_TIMEOUT);
        }
        connection.user(user).dbname(name).target_session_attrs(is_writable).ssl_negotiation(is_direct);
        let mut alone = vec![connection.clone(); servers.hosts.len()];
        for ((host, port), alone) in servers.hosts.iter().zip(servers.ports).zip(&mut alone) {
            connection.host(host.as_str()).port(port);
            alone.host(host.as_str()).port(port);
        }
        for (index, address) in servers.addresses.into_iter().enumerate() {
            connection.hostaddr(address);
            alone.get_mut(index).map(|alone| alone.hostaddr(address));
        }
        let mut postgres = Self { connection, servers: alone, password, tls, connections };
        let mode = postgres.ssl_mode();
        for connection in [&mut postgres.connection].into_iter().chain(&mut postgres.servers) {
            connection.ssl_mode(mode);
        }
        Ok(postgres)
    }

    /// [`Postgres::connection`] for each host alone, so that one that does not answer holds up no other.
    pub fn servers(&self) -> &[tokio_postgres::Config] {
        &self.servers
    }

    /// What the client connects with, but for the password, which can change: [`Postgres::password`].
    pub fn connection(&self) -> &tokio_postgres::Config {
        &self.connection
    }

    /// The password as it is now: that of the URL, or of `PGPASSWORD`, or the first line of `DATABASE_PASSWORD_FILE`, which
    /// is read each time, because passwords are rotated. The error names the file and is one line.
    pub fn password(&self) -> io::Result<Option<Secret>> {
        match &self.password {
            Password::None => Ok(None),
            Password::Known(password) => Ok(Some(password.clone())),
            Password::File(path) => {
                let line = File::open(path).and_then(password_file::read_line);
                let line = line.and_then(|line| match line.as_str() {
                    "" => Err(io::Error::new(io::ErrorKind::InvalidData, "its first line is empty")),
                    _ => Ok(Some(Secret(line))),
                });
                line.map_err(|error| {
                    let message = format!("DATABASE_PASSWORD_FILE: {} can't be read: {error}", path.display());
                    io::Error::new(error.kind(), message)
                })
            }
        }
    }

    /// The client's part of `sslmode`; [`Tls::check`] is the rest. A socket has no TLS, whatever `sslmode` is.
    pub fn ssl_mode(&self) -> tokio_postgres::config::SslMode {
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        match self.tls.mode {
            _ if self.connection.get_hosts().iter().all(is_socket) => tokio_postgres::config::SslMode::Disable,
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        }
    }

    /// `postgres://user@host:5432/name`, for logs: without password and parameters, with `%XX` for what is not plain.
    pub fn location(&self) -> String {
        let ports = self.connection.get_ports();
        let hosts = self.connection.get_hosts().iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
            match host {
                Host::Tcp(name) => authority(name, port),
                Host::Unix(path) => format!("{}:{port}", encoded(&path.to_string_lossy())),
            }
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let [user, name] = [self.connection.get_user(), self.connection.get_dbname()];
        format!("postgres://{}@{hosts}/{}", encoded(user.unwrap_or_default()), encoded(name.unwrap_or_default()))
    }

    /// Whether somebody on the way to the server could answer in its place: it is on another machine, and neither
    /// `sslmode=verify-full` nor `channel_binding=require` makes it prove who it is.
    pub fn is_exposed(&self) -> bool {
        let proves = self.tls.mode == SslMode::VerifyFull
            || (self.tls.mode >= SslMode::Require && self.connection.get_channel_binding() == ChannelBinding::Require);
        let addresses = self.connection.get_hostaddrs();
        let mut hosts = self.connection.get_hosts().iter().enumerate();
        !proves
            && hosts.any(|(index, host)| match (addresses.get(index), host) {
                (Some(address), _) => !address.to_canonical().is_loopback(),
                (None, Host::Unix(_)) => false,
                (None, Host::Tcp(name)) => match name.parse::<IpAddr>() {
                    Ok(address) => !address.to_canonical().is_loopback(),
                    Err(_) => !name.eq_ignore_ascii_case("localhost"),
                },
            })
    }

    /// What to log at a start with DEBUG=False if [`Postgres::is_exposed`]: one line that says what to do.
    pub fn warning(&self) -> Option<String> {
        let what = match (self.tls.mode, self.tls.check()) {
            (SslMode::Disable | SslMode::Prefer, _) => "others on the network could read and change what is sent",
            (_, Check::Key) => "others on the network could answer in its place",
            _ => "whoever has a certificate of the same authority could answer in its place",
        };
        self.is_exposed().then(|| {
            format!(
                "the database {} is reached with sslmode={}: {what}; set sslmode=verify-full in DATABASE_URL, and \
                 sslrootcert if no public authority has signed its certificate",
                self.location(),
                self.tls.mode.name()
            )
        })
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("location", &self.location())
            .field("tls", &self.tls)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Password {
    fn choose(url: Option<String>, variable: Option<String>, file: Option<String>) -> Result<Self, ConfigError> {
        const FILE: &str = "DATABASE_PASSWORD_FILE";
        match (url, variable, file) {
            (Some(_), _, Some(_)) => invalid(FILE, "is set, and DATABASE_URL has a password; remove one"),
            (None, Some(_), Some(_)) => invalid(FILE, "is set together with PGPASSWORD; set one"),
            (None, None, Some(path)) => Ok(Self::File(path.into())),
            (Some(password), _, None) => Ok(Self::Known(Secret(password))),
            // What is not UTF-8 was read lossily.
            (None, Some(password), None) if password.contains(char::REPLACEMENT_CHARACTER) => {
                invalid("PGPASSWORD", "is not UTF-8")
            }
            (None, Some(password), None) => Ok(Self::Known(Secret(password))),
            (None, None, None) => Ok(Self::None),
        }
    }
}

/// What a URL says, by libpq's names of parameters. Empty values are left out.
struct Parameters(BTreeMap<String, String>);

impl Parameters {
    fn read(rest: &str) -> Result<Self, ConfigError> {
        if rest.contains(char::REPLACEMENT_CHARACTER) {
            return refuse("is not UTF-8");
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, name) = path.split_once('/').unwrap_or((path, ""));
        let (login, servers) = server.split_once('@').unwrap_or(("", server));
        // Of a password that is not encoded, the rest would be taken for something that is logged.
        if servers.contains('@') || name.contains('@') || (server == path && query.contains('@')) {
            return refuse("has an @ where none can be");
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let servers = servers.split(',').map(host_and_port).collect::<Result<Vec<_>, _>>()?;
        let (hosts, ports): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
        let mut parameters = Self(BTreeMap::new());
        parameters.put("user", user)?;
        parameters.put("password", password)?;
        parameters.put("dbname", name)?;
        parameters.put("host", &hosts.join(","))?;
        parameters.put("port", &ports.join(","))?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return refuse("has a parameter without a value");
            };
            match (decoded(name).as_deref(), value) {
                // As libpq takes them, for the sake of JDBC's.
                (Some("ssl"), "true") => parameters.put("sslmode", "require")?,
                (Some("keepalives_count"), value) => parameters.put("keepalives_retries", value)?,
                (Some(name), value) => parameters.put(name, value)?,
                (None, _) => return refuse("has a parameter whose name can't be read"),
            }
        }
        Ok(parameters)
    }

    fn put(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        match decoded(value) {
            Some(value) if value.is_empty() => Ok(()),
            Some(value) => {
                self.0.insert(name.to_owned(), value);
                Ok(())
            }
            None => refuse(&format!("has a {} that can't be read", shown(name))),
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The client's own configuration, with what is left.
    fn client(&self) -> Result<tokio_postgres::Config, ConfigError> {
        let mut all = String::new();
        for (name, value) in &self.0 {
            if !PASSED.contains(&name.as_str()) && name != "keepalives_retries" {
                let ours = "host, hostaddr, port, user, password, dbname, sslmode, sslrootcert, sslcert, sslkey, \
                            sslnegotiation, target_session_attrs, keepalives_count";
                let what = shown(name);
                let message = format!("has an unknown parameter, {what}; allowed are {ours}, {}", PASSED.join(", "));
                return invalid("DATABASE_URL", message);
            }
            let quoted = format!("{name}='{}' ", value.replace('\\', r"\\").replace('\'', r"\'"));
            // What the client says about a value can repeat it.
            if quoted.parse::<tokio_postgres::Config>().is_err() {
                let message = format!("has a value of {name} that is not allowed; see PostgreSQL's manual, 34.1.2");
                return invalid("DATABASE_URL", message);
            }
            all.push_str(&quoted);
        }
        all.parse().or_else(|_| refuse("can't be read"))
    }
}

/// The hosts of a URL, each with its port, and maybe with its address.
struct Servers {
    /// Names, addresses, and absolute paths of directories with sockets.
    hosts: Vec<String>,
    /// None, or one for each host.
    addresses: Vec<IpAddr>,
    /// One for each host.
    ports: Vec<u16>,
}

impl Servers {
    fn take(parameters: &mut Parameters) -> Result<Self, ConfigError> {
        let list = |text: Option<String>| -> Vec<String> {
            text.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
        };
        let addresses = list(parameters.take("hostaddr"));
        let mut hosts = list(parameters.take("host"));
        if hosts.is_empty() {
            // Then it is the address that a certificate has to be for.
            hosts.clone_from(&addresses);
        }
        if hosts.is_empty() || hosts.iter().any(String::is_empty) {
            return refuse("names no host");
        }
        if !hosts.iter().all(|host| host.starts_with('/') || is_host(host)) {
            return refuse("has a host that can't be one");
        }
        let sockets = hosts.iter().filter(|host| host.starts_with('/')).count();
        if sockets > 0 && sockets < hosts.len() {
            return refuse("names sockets and hosts; name only one of both kinds");
        }
        let Ok(addresses) = addresses.iter().map(|address| address.parse()).collect::<Result<Vec<IpAddr>, _>>() else {
            return refuse("has a hostaddr that is no IP address");
        };
        if !addresses.is_empty() && addresses.len() != hosts.len() {
            return refuse("has another number of hostaddr than of hosts");
        }
        let port = |text: &String| match text.as_str() {
            "" => Some(PORT),
            text => text.parse().ok().filter(|port| *port > 0),
        };
        let Some(mut ports) = list(parameters.take("port")).iter().map(port).collect::<Option<Vec<u16>>>() else {
            return refuse("has a port that is not a number from 1 to 65535");
        };
        if ports.len() <= 1 {
            ports = vec![ports.first().copied().unwrap_or(PORT); hosts.len()];
        }
        if ports.len() != hosts.len() {
            return refuse("has another number of ports than of hosts");
        }
        Ok(Self { hosts, addresses, ports })
    }
}

fn tls(parameters: &mut Parameters) -> Result<Tls, ConfigError> {
    let roots = parameters.take("sslrootcert").map(|roots| match roots.as_str() {
        "system" => Roots::System,
        path => Roots::File(path.into()),
    });
    let mode = match parameters.take("sslmode").as_deref() {
        None if roots == Some(Roots::System) => SslMode::VerifyFull,
        None => SslMode::Prefer,
        Some(text) => match SslMode::parse(text) {
            Some(mode) => mode,
            None => {
                let allowed = "allowed are disable, prefer, require, verify-ca and verify-full";
                return invalid("DATABASE_URL", format!("has an sslmode that can't be used; {allowed}"));
            }
        },
    };
    // As libpq: public authorities sign for everybody.
    if roots == Some(Roots::System) && mode != SslMode::VerifyFull {
        return invalid("DATABASE_URL", "has sslrootcert=system, which needs sslmode=verify-full");
    }
    let client = match (parameters.take("sslcert"), parameters.take("sslkey")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate: certificate.into(), key: key.into() }),
        _ => return invalid("DATABASE_URL", "has one of sslcert and sslkey; both are needed, or none"),
    };
    Ok(Tls { mode, roots, client })
}

/// A service that writes needs a server that can be written to: of several, only one can.
fn is_writable(attributes: Option<String>, hosts: usize) -> Result<TargetSessionAttrs, ConfigError> {
    match attributes.as_deref() {
        None if hosts > 1 => Ok(TargetSessionAttrs::ReadWrite),
        None | Some("any") => Ok(TargetSessionAttrs::Any),
        Some("read-write" | "primary") => Ok(TargetSessionAttrs::ReadWrite),
        Some(_) => invalid(
            "DATABASE_URL",
            "has target_session_attrs that can't be used; allowed are any, read-write and primary: todos are written",
        ),
    }
}

fn is_direct(negotiation: Option<String>, mode: SslMode) -> Result<SslNegotiation, ConfigError> {
    match negotiation.as_deref() {
        None | Some("postgres") => Ok(SslNegotiation::Postgres),
        Some("direct") if mode >= SslMode::Require => Ok(SslNegotiation::Direct),
        Some("direct") => invalid("DATABASE_URL", "has sslnegotiation=direct, which needs sslmode=require or stronger"),
        Some(_) => invalid("DATABASE_URL", "has an sslnegotiation that can't be used; allowed are postgres and direct"),
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT`, still encoded.
fn host_and_port(text: &str) -> Result<(&str, &str), ConfigError> {
    let Some(inside) = text.strip_prefix('[') else {
        return Ok(text.split_once(':').unwrap_or((text, "")));
    };
    match inside.split_once(']') {
        Some((host, "")) => Ok((host, "")),
        Some((host, rest)) if rest.starts_with(':') => Ok((host, &rest[1..])),
        _ => refuse("has a host that can't be one"),
    }
}

/// A name or an address, without brackets.
fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Without `%XX` (a `+` is a `+`, as for libpq); none: it is not UTF-8, has a NUL or a `%` that stands for nothing.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || u8::try_from(char::from(rest.next()?).to_digit(16)?).ok();
        bytes.push(if byte == b'%' { 16 * digit()? + digit()? } else { byte });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// With `%XX` for all but plain characters.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A parameter's name as an error shows it: only if it looks like one. Anything else could be the rest of a password.
fn shown(name: &str) -> &str {
    let plain = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if plain { name } else { "(not shown)" }
}

/// Values are not repeated: they may contain a password.
fn refuse<T>(what: &str) -> Result<T, ConfigError> {
    invalid("DATABASE_URL", format!("{what}; {ALLOWED}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Database};

    fn config(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
    }

    fn with(variables: &[(&str, &str)]) -> Result<Postgres, ConfigError> {
        match config(variables)?.database {
            Database::Postgres(postgres) => Ok(*postgres),
            other => panic!("{other:?}"),
        }
    }

    fn postgres(url: &str) -> Postgres {
        with(&[("DATABASE_URL", url)]).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_url_says_who_and_where() {
        for (url, location) in [
            ("postgres://me@db", "postgres://me@db:5432/me"),
            ("postgresql://me@db/todos", "postgres://me@db:5432/todos"),
            ("postgres://me:secret@db:6432/todos", "postgres://me@db:6432/todos"),
            ("postgres://me@a,b:6432,[::1]:7/todos", "postgres://me@a:5432,b:6432,[::1]:7/todos"),
            ("postgres://m%40e:x@db/t%2Fodos", "postgres://m%40e@db:5432/t%2Fodos"),
            ("postgres://me@%2Frun%2Fpostgresql/todos", "postgres://me@%2Frun%2Fpostgresql:5432/todos"),
            ("postgres:///todos?host=/run/postgresql&user=me", "postgres://me@%2Frun%2Fpostgresql:5432/todos"),
            ("postgres://db?user=me&dbname=todos&port=7", "postgres://me@db:7/todos"),
            ("postgres:///todos?host=a,b&port=7&user=me", "postgres://me@a:7,b:7/todos"),
            ("postgres://me@db:6432/x?host=other&port=7&dbname=todos", "postgres://me@other:7/todos"),
            ("postgres://me@/todos?hostaddr=10.0.0.7", "postgres://me@10.0.0.7:5432/todos"),
            ("postgres://me@db.example/todos?hostaddr=10.0.0.7", "postgres://me@db.example:5432/todos"),
            ("postgres://me@:6432/todos?host=db", "postgres://me@db:6432/todos"),
            ("postgres://m%0Ae@db/", "postgres://m%0Ae@db:5432/m%0Ae"),
        ] {
            assert_eq!(postgres(url).location(), location, "{url}");
        }
    }

    #[test]
    fn parameters_reach_the_client() {
        let all = postgres(
            "postgres://me@db/todos?application_name=a%20b%27%5C+c&connect_timeout=7&options=-c%20a%3Db&channel_binding=require\
             &keepalives=1&keepalives_idle=8&keepalives_interval=9&keepalives_count=3&tcp_user_timeout=5\
             &load_balance_hosts=random&sslmode=require&sslnegotiation=direct&target_session_attrs=primary",
        );
        let client = all.connection();
        assert_eq!(client.get_application_name(), Some(r"a b'\+c"));
        assert_eq!(client.get_options(), Some("-c a=b"));
        assert_eq!(client.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(client.get_channel_binding(), ChannelBinding::Require);
        assert_eq!((client.get_keepalives_idle(), client.get_keepalives_retries()), (Duration::from_secs(8), Some(3)));
        assert_eq!(client.get_ssl_negotiation(), SslNegotiation::Direct);
        assert_eq!(client.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        let client = postgres("postgres://me@db").connection().clone();
        assert_eq!((client.get_application_name(), client.get_dbname()), (Some("todo-backend"), Some("me")));
        assert_eq!(client.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(client.get_target_session_attrs(), TargetSessionAttrs::Any);
        assert_eq!(postgres("postgres://me@db?connect_timeout=0").connection().get_connect_timeout(), None);
        let several = postgres("postgres://me@a,b/todos");
        assert_eq!(several.connection().get_target_session_attrs(), TargetSessionAttrs::ReadWrite, "one is a standby");
        assert_eq!(several.connection().get_ports(), [5432, 5432]);
        let addressed = postgres("postgres://me@/todos?hostaddr=10.0.0.7");
        assert_eq!(addressed.connection().get_hosts(), [Host::Tcp("10.0.0.7".to_owned())], "TLS needs a name");
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        use tokio_postgres::config::SslMode as Client;
        for (query, mode, client, check) in [
            ("", SslMode::Prefer, Client::Prefer, Check::Key),
            ("sslmode=disable", SslMode::Disable, Client::Disable, Check::Key),
            ("sslmode=prefer", SslMode::Prefer, Client::Prefer, Check::Key),
            ("sslmode=require", SslMode::Require, Client::Require, Check::Key),
            ("ssl=true", SslMode::Require, Client::Require, Check::Key),
            ("sslmode=require&sslrootcert=ca.crt", SslMode::Require, Client::Require, Check::Chain),
            ("sslrootcert=ca.crt", SslMode::Prefer, Client::Prefer, Check::Chain),
            ("sslmode=verify-ca&sslrootcert=ca.crt", SslMode::VerifyCa, Client::Require, Check::Chain),
            ("sslmode=verify-ca", SslMode::VerifyCa, Client::Require, Check::Chain),
            ("sslmode=verify-full", SslMode::VerifyFull, Client::Require, Check::ChainAndName),
            ("sslrootcert=system", SslMode::VerifyFull, Client::Require, Check::ChainAndName),
            ("sslmode=verify-full&sslrootcert=system", SslMode::VerifyFull, Client::Require, Check::ChainAndName),
        ] {
            let postgres = postgres(&format!("postgres://me@db/todos?{query}"));
            assert_eq!(
                (postgres.tls.mode, postgres.ssl_mode(), postgres.tls.check()),
                (mode, client, check),
                "{query}"
            );
            assert_eq!(postgres.connection().get_ssl_mode(), client, "{query}");
        }
        let socket = postgres("postgres://me@%2Frun%2Fpostgresql/todos?sslmode=verify-full");
        assert_eq!(socket.ssl_mode(), Client::Disable);
        let client = postgres("postgres://me@db?sslcert=/c/me%20.crt&sslkey=/c/me.key").tls.client.unwrap();
        assert_eq!((client.certificate, client.key), (PathBuf::from("/c/me .crt"), PathBuf::from("/c/me.key")));
    }

    #[test]
    fn what_anybody_on_the_way_could_fake_is_warned_of() {
        for (url, said) in [
            ("postgres://me:s3cret@db/t?options=s3cret", Some("sslmode=prefer: others on the network could read")),
            ("postgres://me@db/t?sslmode=disable", Some("sslmode=disable: others on the network could read")),
            ("postgres://me@10.0.0.7/t?sslmode=require", Some("sslmode=require: others on the network could answer")),
            ("postgres://me@db/t?sslmode=verify-ca", Some("whoever has a certificate of the same authority")),
            ("postgres://me@localhost,db/t", Some("@localhost:5432,db:5432/t is reached with sslmode=prefer")),
            ("postgres://me@localhost/t?hostaddr=10.0.0.7", Some("sslmode=prefer")),
            ("postgres://me@db/t?channel_binding=require", Some("sslmode=prefer")),
            ("postgres://me@db/t?channel_binding=require&sslmode=require", None),
            ("postgres://me@db/t?sslmode=verify-full", None),
            ("postgres://me@db/t?hostaddr=127.0.0.1", None),
            ("postgres://me@localhost/t", None),
            ("postgres://me@127.0.0.2,[::1]/t?sslmode=disable", None),
            ("postgres://me@/t?hostaddr=::ffff:127.0.0.1", None),
            ("postgres://me@%2Frun%2Fpostgresql/t", None),
        ] {
            let (postgres, warning) = (postgres(url), postgres(url).warning());
            assert_eq!((postgres.is_exposed(), warning.is_some()), (said.is_some(), said.is_some()), "{url}");
            let line = warning.unwrap_or_default();
            assert!(
                line.contains(said.unwrap_or_default()) && !line.contains('\n') && !line.contains("s3cret"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_one_line_without_its_secrets() {
        for (rest, said) in [
            ("", "names no user"),
            ("db", "names no user"),
            ("me:s3cret@/todos", "names no host"),
            ("me:s3cret@a,,b/todos", "names no host"),
            ("me:s3cret@d b/todos", "has a host that can't be one"),
            ("me:s3cret@[::1/todos", "has a host that can't be one"),
            ("me:s3cret@@db/todos", "has an @ where none can be"),
            ("me:a@s3cret@db/todos", "has an @ where none can be"),
            ("me:1/s3cret@db/todos", "has an @ where none can be"),
            ("me:1?s3cret@db/todos", "has an @ where none can be"),
            ("db:5432?user=me&password=a@s3cret", "has an @ where none can be"),
            ("me:%s3cret@db/todos", "has a password that can't be read"),
            ("me:s3cret%00@db/todos", "has a password that can't be read"),
            ("me:s3cret%ff@db/todos", "has a password that can't be read"),
            ("me:s3cret\u{fffd}@db/todos", "is not UTF-8"),
            ("me:s3cret@db:x/todos", "has a port that is not a number"),
            ("me:s3cret@db:0/todos", "has a port that is not a number"),
            ("me:s3cret@a,b/todos?port=1,2,3", "has another number of ports"),
            ("me:s3cret@a,b/todos?hostaddr=10.0.0.7", "has another number of hostaddr"),
            ("me:s3cret@db/todos?hostaddr=db", "has a hostaddr that is no IP address"),
            ("me:s3cret@db,%2Frun/todos", "names sockets and hosts"),
            ("me:s3cret@db/todos?sslmode", "has a parameter without a value"),
            ("me:s3cret@db/todos?service=x", "has an unknown parameter, service; allowed are host,"),
            ("me:s3cret@db/todos?sslMode=x", "has an unknown parameter, (not shown); allowed are host,"),
            ("me@db/todos?password=x&S3cret=y", "has an unknown parameter, (not shown)"),
            ("me:s3cret@db/todos?connect_timeout=s3cret", "has a value of connect_timeout that is not allowed"),
            ("me:s3cret@db/todos?channel_binding=s3cret", "has a value of channel_binding that is not allowed"),
            ("me:s3cret@db/todos?sslmode=allow", "allowed are disable, prefer, require, verify-ca and verify-full"),
            ("me:s3cret@db/todos?sslmode=s3cret", "has an sslmode that can't be used"),
            ("me:s3cret@db/todos?sslrootcert=system&sslmode=require", "which needs sslmode=verify-full"),
            ("me:s3cret@db/todos?sslcert=x", "both are needed"),
            ("me:s3cret@db/todos?sslkey=x", "both are needed"),
            ("me:s3cret@db/todos?sslnegotiation=direct", "which needs sslmode=require or stronger"),
            ("me:s3cret@db/todos?target_session_attrs=standby", "any, read-write and primary"),
        ] {
            let error = with(&[("DATABASE_URL", &format!("postgres://{rest}"))]).expect_err(rest);
            assert_eq!(error.variable, "DATABASE_URL");
            let line = error.to_string();
            assert!(line.contains(said) && !line.contains('\n'), "{rest}: {line}");
            assert!(!line.to_lowercase().contains("s3cret"), "{rest}: {line}");
        }
    }

    #[test]
    fn the_password_comes_from_one_place_and_a_file_is_read_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let file = ("DATABASE_PASSWORD_FILE", path.to_str().unwrap());
        let url = |url| ("DATABASE_URL", url);
        let password = |variables: &[(&str, &str)]| {
            let password = with(variables).unwrap().password().unwrap();
            password.map(|password| password.expose().to_owned())
        };
        let plain = url("postgres://me@db");
        assert_eq!(password(&[plain]), None);
        assert_eq!(password(&[plain, ("PGPASSWORD", "p w")]).as_deref(), Some("p w"));
        let both = [url("postgres://me:%70@db"), ("PGPASSWORD", "other")];
        assert_eq!(password(&both).as_deref(), Some("p"), "as with libpq");
        assert_eq!(password(&[url("postgres://me@db/?password=a+%2B@b%3D=")]).as_deref(), Some("a++@b=="));
        let from_file = with(&[plain, file]).unwrap();
        let error = from_file.password().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let expected = format!("DATABASE_PASSWORD_FILE: {} can't be read: ", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        for (content, expected) in [("first\nsecond\n", Some("first")), ("rotated", Some("rotated")), ("\n", None)] {
            std::fs::write(&path, content).unwrap();
            let password = from_file.password().ok().flatten();
            assert_eq!(password.as_ref().map(Secret::expose), expected);
        }
        for (variables, variable) in [
            (&[url("postgres://me:p@db"), file][..], "DATABASE_PASSWORD_FILE"),
            (&[plain, file, ("PGPASSWORD", "p")], "DATABASE_PASSWORD_FILE"),
            (&[plain, ("PGPASSWORD", "p\u{fffd}")], "PGPASSWORD"),
        ] {
            assert_eq!(with(variables).unwrap_err().variable, variable);
        }
        // They are somebody else's, then.
        assert!(config(&[file, ("PGPASSWORD", "p")]).is_ok());
    }

    #[test]
    fn the_settings_can_be_shown_without_the_password() {
        let all = [("DATABASE_URL", "postgres://me:s3cret@db/t?options=s3cret"), ("DATABASE_CONNECTIONS", "9")];
        let (config, postgres) = (config(&all).unwrap(), with(&all).unwrap());
        assert_eq!(postgres.connections, 9);
        assert!(postgres.connection().get_password().is_none());
        let shown = format!("{config:?} {postgres:?}");
        assert!(shown.contains("postgres://me@db:5432/t") && !shown.contains("s3cret"), "{shown}");
        let variable = with(&[("DATABASE_URL", "postgres://me@db"), ("PGPASSWORD", "s3cret")]).unwrap();
        assert!(!format!("{variable:?}").contains("s3cret"));
    }
}
