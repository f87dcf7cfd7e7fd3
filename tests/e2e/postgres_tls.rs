//! What `sslmode` promises, at a real PostgreSQL that speaks nothing but TLS.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use todo_backend::config::postgres::Postgres;
use todo_backend::config::{Config, Database};
use todo_backend::store::postgres::tls::connector;

use crate::process::Process;
use crate::stack::{PATIENCE, free_port, tool, wait_until_listening};

const PASSWORD: &str = "correct horse";

/// Runs a program to its end.
fn run(command: &mut Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| panic!("{name} can't be started: {error}; install {name}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A directory for certificates.
struct Certificates(PathBuf);

impl Certificates {
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Makes NAME.crt and NAME.key; without an `authority`, it signs itself.
    fn make(&self, name: &str, subject: &str, authority: Option<&str>, extensions: &[&str]) {
        let config = self.path("openssl.cnf");
        // Its own defaults would make every certificate an authority's.
        std::fs::write(&config, "[req]\ndistinguished_name = none\n[none]\n").unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-config", &config, "-days", "2", "-subj", &format!("/CN={subject}")]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-keyout", &self.path(&format!("{name}.key")), "-out", &self.path(&format!("{name}.crt"))]);
        if let Some(authority) = authority {
            openssl.args(["-CA", &self.path(&format!("{authority}.crt"))]);
            openssl.args(["-CAkey", &self.path(&format!("{authority}.key"))]);
        }
        for extension in extensions {
            openssl.args(["-addext", extension]);
        }
        run(&mut openssl);
    }
}

/// PostgreSQL refuses to run as root, and so do its tools.
fn as_nobody(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

/// Lets whom PostgreSQL runs as have it.
fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(path));
    }
}

/// A server with a certificate for `localhost`.
struct Server {
    process: Process,
    certificates: Certificates,
    port: u16,
    directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let certificates = Certificates(own.clone());
        let authority = ["basicConstraints=critical,CA:TRUE"];
        certificates.make("ca", "An authority", None, &authority);
        certificates.make("other", "Another authority", None, &authority);
        let names = ["basicConstraints=critical,CA:FALSE", "subjectAltName=DNS:localhost"];
        certificates.make("server", "localhost", Some("ca"), &names);
        certificates.make("keeper", "keeper", Some("ca"), &names[..1]);
        certificates.make("stranger", "keeper", Some("other"), &names[..1]);
        std::fs::write(own.join("password"), PASSWORD).unwrap();
        run(Command::new("chmod").arg("755").arg(directory.path()));
        give_away(&own);

        let binaries = Path::new(tool("POSTGRES_BIN"));
        let data = own.join("data");
        let mut initdb = as_nobody(&binaries.join("initdb"));
        initdb.current_dir(&own).arg("--pgdata").arg(&data).args(["--username=me", "--auth=scram-sha-256"]);
        run(initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--pwfile=password"]));
        std::fs::write(
            data.join("pg_hba.conf"),
            "hostssl all keeper all cert\nhostssl all all all scram-sha-256\nlocal all all trust\n",
        )
        .unwrap();
        give_away(&data);
        let port = free_port();
        let mut command = as_nobody(&binaries.join("postgres"));
        command.current_dir(&own).arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in ["fsync=off", "ssl=on", "listen_addresses=localhost"] {
            command.args(["-c", setting]);
        }
        command.arg("-c").arg(format!("unix_socket_directories={}", own.display()));
        for (setting, file) in [("cert", "server.crt"), ("key", "server.key"), ("ca", "ca.crt")] {
            command.arg("-c").arg(format!("ssl_{setting}_file={}", certificates.path(file)));
        }
        let mut process = Process::start("postgres", &mut command);
        wait_until_listening(&mut process, port, "PostgreSQL");
        process.wait_for("ready to accept connections", PATIENCE);
        Self { process, certificates, port, directory }
    }

    fn url(&self, login: &str, host: &str, parameters: &str) -> String {
        format!("postgres://{login}@{host}:{}/postgres?{parameters}", self.port)
    }
}

fn postgres(variables: &[(&str, &str)]) -> Postgres {
    let config = Config::from_variables(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    match config.unwrap().database {
        Database::Postgres(postgres) => *postgres,
        other => panic!("{other:?}"),
    }
}

/// Connects as the service does; says whether there is TLS, or the causes of the error.
async fn connect(postgres: &Postgres) -> Result<bool, String> {
    let causes = |error: &dyn Error| {
        let mut causes = vec![error.to_string()];
        let mut next = error.source();
        while let Some(error) = next {
            causes.push(error.to_string());
            next = error.source();
        }
        causes.join(": ")
    };
    let connector = connector(postgres).map_err(|error| error.to_string())?;
    let mut connection = postgres.connection().clone();
    if let Some(password) = postgres.password().map_err(|error| error.to_string())? {
        connection.password(password.expose());
    }
    let (client, connection) = connection.connect(connector).await.map_err(|error| causes(&error))?;
    let connection = actix_web::rt::spawn(connection);
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let is_protected = client.query_one(sql, &[]).await.map_err(|error| causes(&error))?.get(0);
    client.batch_execute("DO $$ BEGIN CREATE ROLE keeper LOGIN; EXCEPTION WHEN OTHERS THEN END $$").await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    Ok(is_protected)
}

async fn connect_to(url: &str) -> Result<bool, String> {
    connect(&postgres(&[("DATABASE_URL", url), ("PGPASSWORD", PASSWORD)])).await
}

#[actix_web::test]
async fn sslmode_keeps_what_it_promises() {
    let server = Server::start();
    let [ca, other] = ["ca.crt", "other.crt"].map(|name| format!("sslrootcert={}", server.certificates.path(name)));
    let refused = "invalid peer certificate: UnknownIssuer";
    for (host, parameters, expected) in [
        ("localhost", "sslmode=disable".to_owned(), Err("no pg_hba.conf entry for host")),
        ("localhost", String::new(), Ok(true)),
        ("localhost", "sslmode=require".to_owned(), Ok(true)),
        ("localhost", "sslmode=require&channel_binding=require".to_owned(), Ok(true)),
        ("localhost", format!("sslmode=require&{ca}"), Ok(true)),
        ("localhost", format!("sslmode=require&{other}"), Err(refused)),
        ("localhost", format!("sslmode=prefer&{other}"), Err(refused)),
        ("localhost", format!("sslmode=verify-ca&{ca}"), Ok(true)),
        ("localhost", format!("sslmode=verify-ca&{other}"), Err(refused)),
        ("127.0.0.1", format!("sslmode=verify-ca&{ca}"), Ok(true)),
        ("localhost", format!("sslmode=verify-full&{ca}&channel_binding=require"), Ok(true)),
        ("localhost", format!("sslmode=verify-full&{other}"), Err(refused)),
        ("127.0.0.1", format!("sslmode=verify-full&{ca}"), Err("certificate not valid for name")),
        ("localhost", format!("sslmode=verify-full&{ca}&hostaddr=127.0.0.1"), Ok(true)),
        ("db.example", format!("sslmode=verify-full&{ca}&hostaddr=127.0.0.1"), Err("certificate not valid for name")),
        ("db.example", format!("sslmode=verify-ca&{ca}&hostaddr=127.0.0.1"), Ok(true)),
        // No public authority has signed it.
        ("localhost", "sslmode=verify-full".to_owned(), Err(refused)),
        ("localhost", "sslrootcert=system".to_owned(), Err(refused)),
    ] {
        let url = server.url("me", host, &parameters);
        match (connect_to(&url).await, expected) {
            (Ok(is_protected), Ok(expected)) => assert_eq!(is_protected, expected, "{url}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{url}: {error}"),
            (connected, _) => panic!("{url}: {connected:?}"),
        }
    }
    let socket = format!("{}/own", server.directory.path().display()).replace('/', "%2F");
    assert_eq!(connect_to(&server.url("me", &socket, "sslmode=verify-full")).await, Ok(false), "a socket has no TLS");
}

#[actix_web::test]
async fn a_client_proves_its_name_with_a_certificate_or_a_password_from_a_file() {
    let server = Server::start();
    let path = |name: &str| server.certificates.path(name);
    // Makes the role.
    assert_eq!(connect_to(&server.url("me", "localhost", "")).await, Ok(true));
    let verified = format!("sslmode=verify-full&sslrootcert={}", path("ca.crt"));
    let with = |certificate: &str, key: &str| {
        server.url("keeper", "localhost", &format!("{verified}&sslcert={}&sslkey={}", path(certificate), path(key)))
    };
    let plain = server.url("keeper", "localhost", &verified);
    for (url, expected) in [
        (plain, "connection requires a valid client certificate"),
        (with("stranger.crt", "stranger.key"), "UnknownCA"),
        (with("keeper.crt", "stranger.key"), "DATABASE_URL: sslcert and sslkey can't be used: "),
        (with("keeper.key", "keeper.key"), "keeper.key, has no certificate in PEM format"),
        (with("keeper.crt", "keeper.crt"), "keeper.crt, has no private key, not encrypted, in PEM format"),
        (with("keeper.crt", "none.key"), "none.key, can't be read: No such file"),
    ] {
        let error = connect_to(&url).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{url}: {error}");
    }
    let keeper = postgres(&[("DATABASE_URL", &with("keeper.crt", "keeper.key"))]);
    assert_eq!(connect_as_keeper(&keeper).await, "keeper");

    let file = server.directory.path().join("secret");
    let variables = [
        ("DATABASE_URL", &*server.url("me", "localhost", &verified)),
        ("DATABASE_PASSWORD_FILE", file.to_str().unwrap()),
    ];
    let from_file = postgres(&variables);
    for (content, expected) in [
        ("wrong\n", Err("password authentication failed")),
        (&*format!("{PASSWORD}\nnot this\n"), Ok(true)),
        ("\n", Err("can't be read: its first line is empty")),
    ] {
        std::fs::write(&file, content).unwrap();
        match (connect(&from_file).await, expected) {
            (Ok(is_protected), Ok(expected)) => assert_eq!(is_protected, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected) && !error.contains(PASSWORD), "{error}"),
            (connected, _) => panic!("{content}: {connected:?}"),
        }
    }
}

async fn connect_as_keeper(postgres: &Postgres) -> String {
    let (client, connection) = postgres.connection().connect(connector(postgres).unwrap()).await.unwrap();
    actix_web::rt::spawn(connection);
    client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0)
}

#[actix_web::test]
async fn a_certificate_that_signed_itself_can_be_trusted_as_it_is() {
    let server = Server::start();
    // As PostgreSQL's manual makes one, and OpenSSL's defaults: an authority's.
    let extensions = ["basicConstraints=critical,CA:TRUE", "subjectAltName=DNS:localhost"];
    for name in ["server", "twin"] {
        server.certificates.make(name, "localhost", None, &extensions);
    }
    give_away(&server.certificates.0);
    server.process.signal("HUP");
    let [own, twin] = ["server.crt", "twin.crt"].map(|name| server.certificates.path(name));
    let url = |host: &str, root: &str| server.url("me", host, &format!("sslmode=verify-full&sslrootcert={root}"));
    // It takes the new one some time after the signal.
    let started = Instant::now();
    while let Err(error) = connect_to(&url("localhost", &own)).await {
        assert!(started.elapsed() < PATIENCE, "{error}");
    }
    let error = connect_to(&url("127.0.0.1", &own)).await.unwrap_err();
    assert!(error.contains("certificate not valid for name"), "{error}");
    let error = connect_to(&url("localhost", &twin)).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

/// Shows a certificate without having its key.
#[derive(Debug)]
struct Stolen(Arc<CertifiedKey>);

impl ResolvesServerCert for Stolen {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Begins TLS with whoever connects first, as PostgreSQL does.
fn begin_tls(listener: &TcpListener, config: Arc<ServerConfig>) -> std::io::Result<(usize, usize)> {
    let (mut stream, _): (TcpStream, _) = listener.accept()?;
    let mut request = [0; 8];
    stream.read_exact(&mut request)?;
    assert_eq!(request[4..], 80_877_103_u32.to_be_bytes(), "an SSLRequest");
    stream.write_all(b"S")?;
    ServerConnection::new(config).unwrap().complete_io(&mut stream)
}

#[actix_web::test]
async fn a_server_needs_the_key_of_its_certificate_even_if_nobody_checks_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates(directory.path().to_owned());
    for name in ["server", "thief"] {
        certificates.make(name, "localhost", None, &["basicConstraints=critical,CA:FALSE"]);
    }
    let certificate = CertificateDer::from_pem_file(certificates.path("server.crt")).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (name, is_owner) in [("server", true), ("thief", false)] {
            let provider = ring::default_provider();
            let key = PrivateKeyDer::from_pem_file(certificates.path(&format!("{name}.key"))).unwrap();
            let key = provider.key_provider.load_private_key(key).unwrap();
            let shown = Stolen(Arc::new(CertifiedKey::new(vec![certificate.clone()], key)));
            let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[version]);
            let config = Arc::new(builder.unwrap().with_no_client_auth().with_cert_resolver(Arc::new(shown)));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("postgres://me@{}/x?sslmode=require", listener.local_addr().unwrap());
            let server = std::thread::spawn(move || begin_tls(&listener, config));
            let error = connect_to(&url).await.unwrap_err();
            assert_eq!(
                error.contains("invalid peer certificate: BadSignature"),
                !is_owner,
                "{version:?} {name}: {error}"
            );
            assert_eq!(server.join().unwrap().is_ok(), is_owner, "{version:?} {name}");
        }
    }
}
