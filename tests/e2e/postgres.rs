//! A real PostgreSQL of one test, which kills, freezes and starts it again. The tests here prove that it does.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::process::Process;
use crate::stack::{PATIENCE, Stack, free_port, script, wait_until_listening};

/// Ends all connections of services.
pub const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'todo-backend'";

/// A server on a port of its own. What it has committed is on the disk, as in production. It ends with the test.
pub struct Postgres {
    // Before the directory, in which it writes.
    server: Process,
    directory: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// It runs, and has an empty database `todo`.
    pub fn started() -> Self {
        let postgres = Self::new(None);
        let created = run(&mut postgres.psql_at("postgres", "CREATE DATABASE todo"));
        assert_eq!(created, "CREATE DATABASE");
        postgres
    }

    /// Another server, with all of this one, that every commit reaches before it is acknowledged.
    pub fn standby(&self) -> Self {
        let standby = Self::new(Some(self.port));
        self.psql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
        self.psql("SELECT pg_reload_conf()");
        let deadline = Instant::now() + PATIENCE;
        while self.psql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != "1" {
            assert!(Instant::now() < deadline, "the standby is not synchronous");
        }
        standby
    }

    fn new(primary: Option<u16>) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        Self { server: Self::serve(&directory, port, primary), directory, port }
    }

    fn serve(directory: &tempfile::TempDir, port: u16, primary: Option<u16>) -> Process {
        let mut command = Command::new("bash");
        command.arg(script()).arg(if primary.is_some() { "standby" } else { "postgres" });
        command.arg(directory.path()).arg(port.to_string()).args(primary.map(|port| port.to_string()));
        let mut server = Process::start("postgres", &mut command);
        wait_until_listening(&mut server, port, "Postgres");
        // It listens before it has recovered.
        server.wait_for(
            if primary.is_some() { "accept read-only connections" } else { "ready to accept connections" },
            PATIENCE,
        );
        server
    }

    pub fn url(&self) -> String {
        self.url_of("todo")
    }

    /// The URL for a service that uses whichever of both is the primary.
    pub fn url_with(&self, other: &Self) -> String {
        format!("postgres://todo@127.0.0.1:{},127.0.0.1:{}/todo", self.port, other.port)
    }

    /// The URL of one of its databases.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://todo@127.0.0.1:{}/{database}", self.port)
    }

    /// SIGKILL to all of it at once, as when its container is killed.
    pub fn kill(&mut self) {
        let sessions = self.children();
        self.server.kill();
        send("KILL", &sessions);
        // As long as one is there, the next server does not start: they would share memory.
        let deadline = Instant::now() + PATIENCE;
        while sessions.iter().any(|pid| runs(*pid)) {
            assert!(Instant::now() < deadline, "sessions of the killed server are still there after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// After `kill`.
    pub fn start(&mut self) {
        assert!(!self.server.running(), "it runs already");
        self.server = Self::serve(&self.directory, self.port, None);
    }

    /// As an upgrade does: open transactions are rolled back, and connections end.
    pub fn restart(&mut self) {
        self.server.signal("INT");
        self.server.wait(PATIENCE);
        self.start();
    }

    /// Connections stay, new ones can be made, and nobody answers.
    pub fn freeze(&self) {
        // The server first: then it starts no more sessions.
        send("STOP", &[self.server.id()]);
        send("STOP", &self.children());
    }

    pub fn thaw(&self) {
        send("CONT", &self.children());
        send("CONT", &[self.server.id()]);
    }

    /// Runs SQL with psql; columns of its answer are separated by `|`. Panics with what psql says if it fails.
    pub fn psql(&self, sql: &str) -> String {
        run(&mut self.psql_command(sql))
    }

    /// A psql that runs SQL, for who does not want to wait for it.
    pub fn psql_command(&self, sql: &str) -> Command {
        self.psql_at("todo", sql)
    }

    fn psql_at(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg(script()).args(["psql", "--no-psqlrc", "-At", "--set=ON_ERROR_STOP=1", "--command", sql]);
        command.arg(self.url_of(database));
        command
    }

    /// The sessions and the server's workers.
    fn children(&self) -> Vec<u32> {
        let pgrep = Command::new("pgrep").args(["-P", &self.server.id().to_string()]).output().unwrap();
        String::from_utf8(pgrep.stdout).unwrap().lines().map(|pid| pid.parse().unwrap()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A server that is only killed leaves shared memory behind, and one that is frozen its sessions.
        if self.server.running() {
            self.thaw();
            send("QUIT", &[self.server.id()]);
            for _ in 0..500 {
                if !self.server.running() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// To those that still run.
fn send(signal: &str, processes: &[u32]) {
    if !processes.is_empty() {
        let processes = processes.iter().map(u32::to_string);
        Command::new("kill").arg(format!("-{signal}")).args(processes).output().unwrap();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Not what has ended and has a parent that doesn't ask.
fn runs(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[test]
fn what_postgres_has_committed_outlives_its_death() {
    let mut stack = Stack::on_postgres();
    let postgres = stack.postgres();
    postgres.psql("CREATE TABLE kept (id integer PRIMARY KEY)");
    assert_eq!(postgres.psql("SHOW fsync"), "on");
    for round in 1..=3 {
        postgres.psql(&format!("INSERT INTO kept VALUES ({round})"));
        // It is in the middle of something when it dies.
        let mut busy = Process::start("psql", &mut postgres.psql_command("SELECT 'busy'; SELECT pg_sleep(600)"));
        while postgres.psql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'") != "1" {
            assert!(busy.running(), "{:?}", busy.lines());
        }
        postgres.kill();
        assert!(!busy.wait(PATIENCE).success());
        postgres.start();
        assert_eq!(postgres.psql("SELECT count(*), max(id) FROM kept"), format!("{round}|{round}"));
    }
    postgres.psql("INSERT INTO kept VALUES (4)");
    postgres.restart();
    assert_eq!(postgres.psql("SELECT count(*) FROM kept"), "4");
}

#[tokio::test]
async fn frozen_postgres_keeps_everyone_waiting() {
    let mut stack = Stack::on_postgres();
    let url = stack.postgres().url();
    let told = stack.service_command();
    assert!(told.get_envs().any(|(name, value)| name == "DATABASE_URL" && value == Some(url.as_ref())), "{told:?}");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await.unwrap();
    stack.postgres().freeze();
    let mut newcomer = Process::start("psql", &mut stack.postgres().psql_command("SELECT 'new'"));
    let mut answer = std::pin::pin!(client.simple_query("SELECT 'old'"));
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut answer).await;
    assert!(waited.is_err(), "a connection that was open is not answered");
    assert!(newcomer.running(), "neither is a new one: {:?}", newcomer.lines());
    stack.postgres().thaw();
    let messages = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert!(
        messages.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("old")))
    );
    assert!(newcomer.wait(PATIENCE).success());
    newcomer.wait_for("new", PATIENCE);
    // What is frozen at the end of its test ends, too.
    stack.postgres().freeze();
    let sessions = stack.postgres().children();
    assert!(sessions.len() > 1, "{sessions:?}");
    drop(stack);
    for session in sessions {
        assert!(!runs(session), "{session}");
    }
}
