//! Whichever way `make dapr` and the scripts of the tests end, nothing of what they started is left: no process, no
//! port, no temporary file. The runs of `make dapr` use the ports 8000, 3500 and 9092.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crate::process::{Process, in_terminal, install};
use crate::readme::copy_of_the_project;
use crate::stack::{PATIENCE, PORT_8000, SERVICE, Stack};

/// Within this time everything is gone.
pub const LIMIT: Duration = Duration::from_secs(15);

/// The ports of the README's examples.
const PORTS: [u16; 3] = [8000, 3500, 9092];

/// A variable that a run's processes have in their environment.
const MARK: &str = "CLEANUP_TEST_DIRECTORY";

/// A process as /proc shows it.
#[derive(Debug)]
struct Seen {
    id: u32,
    arguments: Vec<String>,
}

impl Seen {
    /// Every process that is alive; one that has ended but was not waited for is not.
    fn all() -> Vec<Self> {
        let ids =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter_map(Self::with_id).collect()
    }

    fn with_id(id: u32) -> Option<Self> {
        let command = std::fs::read(format!("/proc/{id}/cmdline")).ok().filter(|command| !command.is_empty())?;
        let arguments =
            String::from_utf8_lossy(&command).trim_end_matches('\0').split('\0').map(str::to_owned).collect();
        Some(Self { id, arguments })
    }

    /// Whether it belongs to a run in `directory`: by its environment, or, where that was cleared, by where it is.
    fn is_of(&self, directory: &Path) -> bool {
        let environment = std::fs::read(format!("/proc/{}/environ", self.id)).unwrap_or_default();
        let mark = format!("{MARK}={}", directory.display());
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
            || std::fs::read_link(format!("/proc/{}/cwd", self.id)).is_ok_and(|cwd| cwd.starts_with(directory))
    }

    /// The program's name without its directory.
    fn name(&self) -> &str {
        self.arguments[0].rsplit('/').next().unwrap()
    }
}

/// Who listens on a port, in words.
fn holder(port: u16) -> String {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN.
            if fields.len() > 9 && fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "0A" {
                inodes.push(format!("socket:[{}]", fields[9]));
            }
        }
    }
    let holds = |process: &Seen| {
        let files = std::fs::read_dir(format!("/proc/{}/fd", process.id)).ok();
        files.into_iter().flatten().flatten().any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|target| inodes.iter().any(|inode| target == Path::new(inode)))
        })
    };
    match Seen::all().into_iter().find(holds) {
        Some(process) => format!("process {} ({})", process.id, process.arguments.join(" ")),
        None => "a process that this user can't see".to_owned(),
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Takes the ports of the README's examples for one test; panics when something else has one.
pub fn take_ports() -> MutexGuard<'static, ()> {
    let guard = PORT_8000.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for port in PORTS {
        assert!(!listens(port), "this test needs port {port}, which {} has: stop that first", holder(port));
    }
    guard
}

/// Waits until nobody listens on the ports.
pub fn wait_until_free(ports: &[u16], deadline: Instant) {
    while let Some(port) = ports.iter().find(|port| listens(**port)) {
        assert!(Instant::now() < deadline, "port {port} is still in use, by {}", holder(*port));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The processes of a run in a directory. When its test ends, they end, whatever the scripts have done.
pub struct Processes(pub PathBuf);

impl Processes {
    /// Those that are alive.
    fn alive(&self) -> Vec<Seen> {
        Seen::all().into_iter().filter(|process| process.is_of(&self.0)).collect()
    }

    /// Waits until there is none left.
    pub fn wait_until_gone(&self, deadline: Instant) {
        loop {
            let left = self.alive();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still running: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Until they are gone: the next test needs their ports.
        let deadline = Instant::now() + LIMIT;
        while let alive = self.alive()
            && !alive.is_empty()
            && Instant::now() < deadline
        {
            for process in alive {
                send("KILL", process.id);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A copy of the project in a directory of its own, and all the processes that are started there.
struct Playground {
    /// First, because fields are dropped in their order.
    processes: Processes,
    directory: tempfile::TempDir,
    project: PathBuf,
}

impl Playground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let project = copy_of_the_project(directory.path());
        let playground = Self { processes: Processes(directory.path().to_owned()), directory, project };
        for name in ["tmp", "bin", "cache", "target/debug"] {
            std::fs::create_dir_all(playground.path(name)).unwrap();
        }
        let binary = playground.path("target/debug/todo-backend");
        std::os::unix::fs::symlink(SERVICE, binary).unwrap();
        // The service is built already.
        playground.fake("cargo", "exit 0");
        playground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program of that name, which is found before the real one.
    fn fake(&self, name: &str, script: &str) {
        let source = self.path("script");
        std::fs::write(&source, format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
        install(&source, &self.path("bin").join(name));
    }

    /// A command line in the copy. Unless it is simple, bash stays its parent.
    fn command(&self, line: &str) -> Command {
        let mut command = in_terminal(line);
        command
            .current_dir(&self.project)
            .env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()))
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env("TMPDIR", self.path("tmp"))
            .env(MARK, self.directory.path());
        command
    }

    fn start(&self, name: &'static str, line: &str) -> Process {
        Process::start(name, &mut self.command(line))
    }

    /// Waits for a process and returns its id.
    fn wait_for_process(&self, what: &str, is_it: impl Fn(&Seen) -> bool) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let processes = self.processes.alive();
            if let Some(process) = processes.iter().find(|process| is_it(process)) {
                return process.id;
            }
            assert!(Instant::now() < deadline, "no {what} among {processes:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for_name(&self, name: &str) -> u32 {
        self.wait_for_process(name, |process| process.name() == name)
    }

    /// Waits until the process, those that it has started and these ports' listeners are gone, and temporary files,
    /// too. Returns the exit status as a shell shows it.
    fn wait_for_the_end(&self, process: &mut Process, ports: &[u16], way: &str) -> i32 {
        let started = Instant::now();
        let status = process.wait(LIMIT);
        self.processes.wait_until_gone(started + LIMIT);
        wait_until_free(ports, started + LIMIT);
        let files: Vec<_> = std::fs::read_dir(self.path("tmp")).unwrap().flatten().collect();
        assert!(files.is_empty(), "{way}: temporary files are left: {files:?}");
        eprintln!("{way}: everything was gone after {:.1} s", started.elapsed().as_secs_f32());
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    fn signal_script(&self, signal: &str) {
        let script = |process: &Seen| process.name() == "bash" && process.arguments.iter().any(|a| a == "dapr");
        send(signal, self.wait_for_process("script", script));
    }
}

fn send(signal: &str, id: u32) {
    // It may be gone already.
    let _ = Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).output();
}

/// The same as `make dapr`, without make in between.
const SCRIPT: &str = r#"exec bash tests/stack/stack.sh dapr "$CARGO_TARGET_DIR/debug/todo-backend""#;

/// `make dapr` in a playground, up and running.
fn start_everything(playground: &Playground, line: &str) -> Process {
    let everything = playground.start("make dapr", line);
    everything.wait_for("You're up and running", PATIENCE);
    everything
}

/// The service ended by itself: `dapr run`, which would kill it, was told afterwards.
fn assert_politely(way: &str, everything: &Process) {
    // Its last line may come a moment after its end.
    everything.wait_for("stack: stopped", PATIENCE);
    let lines = everything.lines();
    let line = |text: &str| lines.iter().position(|line| line.contains(text));
    let (service, dapr) = (line("Exited App successfully"), line("terminated signal received"));
    assert!(service.is_some() && service < dapr, "{way}: {lines:#?}");
}

#[test]
fn make_dapr_leaves_nothing_when_it_is_told_to_end() {
    let _ports = take_ports();
    let playground = Playground::new();

    let group = |signal| move |everything: &Process| everything.signal_group(signal);
    let alone = |signal| move |everything: &Process| everything.signal(signal);
    type Way<'a> = (&'a str, &'a str, &'a dyn Fn(&Process), i32);
    let ways: [Way; 5] = [
        ("ctrl-c", "exec make dapr", &group("INT"), 130),
        // make gives the signal to the script.
        ("SIGTERM to make", "exec make dapr", &alone("TERM"), 143),
        ("SIGTERM to make and the script", "exec make dapr", &group("TERM"), 143),
        ("SIGTERM to the script", SCRIPT, &alone("TERM"), 143),
        ("a closed terminal", SCRIPT, &group("HUP"), 129),
    ];
    for (way, line, end, expected) in ways {
        let mut everything = start_everything(&playground, line);
        end(&everything);
        let status = playground.wait_for_the_end(&mut everything, &PORTS, way);
        assert_politely(way, &everything);
        assert_eq!(status, expected, "{way}");
    }

    // A service that does not end: ctrl-c again kills it.
    let mut everything = start_everything(&playground, SCRIPT);
    send("STOP", playground.wait_for_name("todo-backend"));
    everything.signal_group("INT");
    everything.wait_for("ctrl-c again", PATIENCE);
    let impatient = Instant::now();
    everything.signal_group("INT");
    assert_eq!(playground.wait_for_the_end(&mut everything, &PORTS, "ctrl-c, and again"), 130);
    assert!(impatient.elapsed() < Duration::from_secs(5), "the second ctrl-c took {:?}", impatient.elapsed());

    // And without another one it is killed, too.
    let mut everything = start_everything(&playground, SCRIPT);
    send("STOP", playground.wait_for_name("todo-backend"));
    everything.signal_group("INT");
    assert_eq!(playground.wait_for_the_end(&mut everything, &PORTS, "ctrl-c, the service hangs"), 130);

    // Nobody reads what it says any more.
    let mut everything = start_everything(&playground, &format!("({SCRIPT}) 2>&1 | tee"));
    send("KILL", playground.wait_for_name("tee"));
    playground.signal_script("TERM");
    playground.wait_for_the_end(&mut everything, &PORTS, "SIGTERM, its output goes nowhere");

    // It has started Kafka, which does not listen yet.
    let mut everything = playground.start("make dapr", SCRIPT);
    playground.wait_for_process("Kafka", |process| process.arguments.iter().any(|a| a == "kafka.Kafka"));
    everything.signal_group("INT");
    assert_eq!(playground.wait_for_the_end(&mut everything, &PORTS, "ctrl-c, Kafka starts"), 130);
}

#[test]
fn make_dapr_ends_when_a_part_of_it_dies() {
    let _ports = take_ports();
    let playground = Playground::new();
    let ways = [
        ("dapr", "'dapr run' has ended (status 137)"),
        ("daprd", "'dapr run' has ended (status 1)"),
        ("todo-backend", "'dapr run' has ended (status 1)"),
        ("java", "Kafka has ended (status 137)"),
    ];
    for (name, message) in ways {
        let mut everything = start_everything(&playground, SCRIPT);
        send("KILL", playground.wait_for_name(name));
        let status = playground.wait_for_the_end(&mut everything, &PORTS, &format!("{name} is killed"));
        everything.wait_for(message, PATIENCE);
        assert!([1, 137].contains(&status), "{name}: {status}");
    }

    // A Kafka that does not start.
    std::fs::write(playground.project.join("data/kafka/server.properties"), "process.roles=nonsense\n").unwrap();
    let mut everything = playground.start("make dapr", "exec make dapr");
    let status = playground.wait_for_the_end(&mut everything, &PORTS, "Kafka does not start");
    everything.wait_for("Kafka did not start", PATIENCE);
    assert_eq!(status, 2);
}

#[test]
fn make_dapr_stops_what_a_killed_run_has_left() {
    let _ports = take_ports();
    let playground = Playground::new();
    let mut killed = start_everything(&playground, SCRIPT);
    let left = playground.wait_for_name("java");
    killed.kill();

    let mut everything = start_everything(&playground, SCRIPT);
    everything.wait_for("an earlier run was killed and has left its", PATIENCE);
    everything.wait_for("Kafka 4.1.0 is up", PATIENCE);
    assert!(playground.processes.alive().iter().all(|process| process.id != left));
    everything.signal_group("INT");
    assert_eq!(playground.wait_for_the_end(&mut everything, &PORTS, "ctrl-c, after a killed run"), 130);
}

#[test]
fn make_dapr_leaves_the_users_own_kafka_alone() {
    let _ports = take_ports();
    let mut stack = Stack::new();
    stack.use_kafka_port(9092);
    stack.start_kafka();
    let playground = Playground::new();
    let mut everything = start_everything(&playground, SCRIPT);
    everything.wait_for("using the Kafka that listens on localhost:9092", PATIENCE);
    everything.signal_group("INT");
    let deadline = Instant::now() + LIMIT;
    assert_eq!(everything.wait(LIMIT).code(), Some(130));
    playground.processes.wait_until_gone(deadline);
    wait_until_free(&[8000, 3500], deadline);
    assert!(stack.kafka().running() && listens(9092), "Kafka was stopped");
}

#[test]
fn make_replicas_goes_on_without_one_and_leaves_nothing() {
    let _ports = take_ports();
    let playground = Playground::new();
    let mut everything = playground.start("make replicas", "exec make replicas");
    everything.wait_for("all of them behind nginx: http://localhost:8000", PATIENCE);
    let ask = |arguments: &[&str]| {
        let curl = Command::new("curl")
            .args(["-sS", "--fail-with-body", "--max-time", "20"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(curl.status.success(), "{arguments:?}: {curl:?}");
        String::from_utf8(curl.stdout).unwrap()
    };
    let login = ask(&["-X", "POST", "http://localhost:8000/auth/login?username=demo&password=demo123"]);
    let token = format!("Authorization: Bearer {}", login.split('"').nth(3).unwrap());
    let create = || ask(&["-H", &token, "--json", r#"{"title":"x"}"#, "http://localhost:8000/todos"]);
    let logs = |text: &str| {
        let log = |n| std::fs::read_to_string(playground.project.join(format!("data/replicas/{n}.log"))).unwrap();
        (1..=3).map(log).filter(|log| log.contains(text)).count()
    };
    for _ in 0..6 {
        create();
    }
    let deadline = Instant::now() + PATIENCE;
    while logs("POST /todos 201") < 3 {
        assert!(Instant::now() < deadline, "not all replicas are asked");
        std::thread::sleep(Duration::from_millis(50));
    }
    // One is killed, with its sidecar.
    send("KILL", playground.wait_for_name("todo-backend"));
    everything.wait_for("has ended, the others go on", PATIENCE);
    for _ in 0..6 {
        create();
    }
    let todos = ask(&["-H", &token, "http://localhost:8000/todos"]);
    assert_eq!(todos.matches(r#""title":"x""#).count(), 12);
    everything.signal_group("INT");
    assert_eq!(playground.wait_for_the_end(&mut everything, &PORTS, "ctrl-c, make replicas"), 130);
    everything.wait_for("stack: stopped", PATIENCE);
    // What it stored is there the next time.
    let mut everything = playground.start("make replicas", "REPLICAS=1 exec make replicas");
    everything.wait_for("all of them behind nginx", PATIENCE);
    assert_eq!(ask(&["-H", &token, "http://localhost:8000/todos"]).matches(r#""title":"x""#).count(), 12);
    send("KILL", playground.wait_for_name("todo-backend"));
    assert_eq!(playground.wait_for_the_end(&mut everything, &PORTS, "the last replica is killed"), 2);
    everything.wait_for("which was the last one", PATIENCE);
}

/// Starts a script again and again, and ends it as a terminal, make and the terminal's window do.
fn end_a_script(playground: &Playground, line: &str, wait: impl Fn(), look: impl Fn(&str)) {
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let way = format!("{signal} to {line}");
        let mut script = playground.start("the script", line);
        playground.wait_for_process("tool that takes its time", |process| process.arguments == ["sleep", "1000"]);
        wait();
        // make passes only SIGTERM on, to the script alone.
        if signal == "TERM" {
            script.signal(signal)
        } else {
            script.signal_group(signal)
        }
        assert_eq!(playground.wait_for_the_end(&mut script, &[], &way), status, "{way}");
        look(&way);
    }
}

/// A command that takes its time in a process of its own.
const SLOW: &str = "sleep 1000; :";

#[test]
fn a_build_of_the_stack_ends_with_its_script() {
    let playground = Playground::new();
    playground.fake("java", "exit 0");
    // It has made the half of what it should.
    let half = r#"for a; do case $a in -DoutputDirectory=*) touch "${a#*=}/half.jar" ;; esac; done"#;
    playground.fake("mvn", &format!("{half}; {SLOW}"));
    let cache = playground.path("cache/todo-backend");
    let kafka = "bash tests/stack/stack.sh kafka data/kafka 1";
    for line in [kafka.to_owned(), format!("bash tests/stage.sh tools {kafka}")] {
        let wait = || assert!(cache.join("kafka-4.1.0.partial/half.jar").exists());
        let look = |way: &str| {
            let names: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(names.iter().all(|name| name == "lock" || name == "log"), "{way}: {names:?}");
            let free = Command::new("flock").arg("-n").arg(cache.join("lock")).arg("true").status().unwrap();
            assert!(free.success(), "{way}: the lock is held");
        };
        end_a_script(&playground, &format!("XDG_CACHE_HOME=$PWD/../cache exec {line}"), wait, look);
    }
}

#[test]
fn a_service_for_tests_ends_with_its_script() {
    let playground = Playground::new();
    let service = || {
        playground.wait_for_name("todo-backend");
    };
    let serve = format!("bash tests/stack/serve.sh -- bash -c '{SLOW}'");
    end_a_script(&playground, &format!("exec {serve}"), service, |_| ());
    end_a_script(&playground, &format!("exec bash tests/stage.sh served {serve}"), service, |_| ());
}

#[test]
fn what_the_test_scripts_run_ends_with_them() {
    let playground = Playground::new();
    playground.fake("promtool", SLOW);
    end_a_script(&playground, "exec bash tests/deploy/run.sh", || (), |_| ());
    playground.fake("cargo", SLOW);
    let tool = "XDG_CACHE_HOME=$PWD/../cache exec bash tests/stack/tool.sh a-tool 1.0.0 a-tool";
    end_a_script(&playground, tool, || (), |_| ());
    // The others begin with a tool of the stack.
    std::fs::write(playground.project.join("tests/stack/stack.sh"), SLOW).unwrap();
    for script in ["contract", "docs", "web"] {
        end_a_script(&playground, &format!("BASE_URL=- exec bash tests/{script}/run.sh"), || (), |_| ());
    }
}
