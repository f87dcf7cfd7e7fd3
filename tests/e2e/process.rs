//! A child process whose output is read line by line, and that does not outlive its test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The lines a process has written so far, and the news that there are more.
#[derive(Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

pub struct Process {
    name: &'static str,
    child: Child,
    output: Arc<Output>,
}

/// Copies a program to where it can be run. Not by this process: a child that another test forks meanwhile would have
/// the copy open for writing, and what is open for writing can't be run ("Text file busy").
pub fn install(program: &Path, target: &Path) {
    let installed = Command::new("install").args(["-m", "755"]).args([program, target]).status().unwrap();
    assert!(installed.success(), "{} can't be copied to {}", program.display(), target.display());
}

/// A command line in a process group of its own, as a terminal starts it: ctrl-c ends it, also when the tests run as a
/// background job of a script, or by nohup. What a process ignores, its children ignore, and bash can't change that.
pub fn in_terminal(line: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", "bash", "-c", line]).process_group(0);
    command
}

impl Process {
    /// Starts `command`; its standard output and error are read together.
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} can't be started: {e}"));
        let output = Arc::new(Output::default());
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if std::env::var_os("E2E_SHOW_OUTPUT").is_some() {
                        eprintln!("{name}: {line}");
                    }
                    output.lines.lock().unwrap().push(line);
                    output.more.notify_all();
                }
            });
        }
        Self { name, child, output }
    }

    /// Everything written so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines.lock().unwrap().clone()
    }

    /// The first line that holds `text`; panics with the last lines if it doesn't come in time.
    pub fn wait_for(&self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        let mut lines = self.output.lines.lock().unwrap();
        let mut seen = 0;
        loop {
            if let Some(line) = lines[seen..].iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            seen = lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = lines[seen.saturating_sub(30)..].join("\n  ");
                panic!("{} has not written {text:?} within {limit:?}; its last lines:\n  {last}", self.name);
            }
            lines = self.output.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{} can't be sent SIG{signal}", self.name);
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("Linux's /proc is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal to the process's whole group, as a terminal does.
    pub fn signal_group(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), "--", &format!("-{}", self.child.id())]).status();
        assert!(sent.unwrap().success(), "{}'s group can't be sent SIG{signal}", self.name);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for it to end by itself; panics if it doesn't in time.
    pub fn wait(&mut self, limit: Duration) -> std::process::ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} has not ended within {limit:?}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
