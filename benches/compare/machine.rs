//! What the figures were measured on, and the tools they were measured with.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// oha, the load generator; installed the first time.
pub fn oha() -> Command {
    let mut oha = Command::new("bash");
    oha.arg(script("tool.sh")).args(["oha", "1.16.0", "oha"]);
    oha
}

/// The path of PocketBase; built the first time.
pub fn pocketbase() -> PathBuf {
    let found = Command::new("bash").arg(script("stack.sh")).arg("pocketbase").stderr(Stdio::inherit()).output();
    let found = found.unwrap();
    assert!(found.status.success(), "there is no PocketBase");
    PathBuf::from(String::from_utf8(found.stdout).unwrap().trim_end())
}

/// Of tests/stack.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack").join(name)
}

/// One line: processors, system, and how often a second the disk of `directory` flushes 4 KiB, which is what bounds the
/// writes of a single client.
pub fn facts(directory: &Path) -> String {
    let cores = std::thread::available_parallelism().unwrap();
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let (cpuinfo, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    let (system, kernel) = (std::env::consts::OS, kernel.trim_end());
    format!("{cores} cores {model}, {system} {kernel}, disk: {} flushes/s", flushes(&directory.join("flushes")))
}

fn flushes(path: &Path) -> u32 {
    let mut file = std::fs::File::create(path).unwrap();
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count
}

/// Seconds of CPU that a process has used; none where there is no /proc.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything; proc_pid_stat(5): utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    // USER_HZ is 100 on every architecture that Linux has today.
    Some(ticks / 100.0)
}
