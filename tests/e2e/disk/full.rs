//! A disk that is full: reads go on, changes are refused honestly, and when there is space again everything works
//! again by itself.
//!
//! The small disk is a tmpfs, and only root may mount one. As root this runs in `make test` too, in some seconds.
//! Otherwise `make test` says on standard error that it was left out, and `make torture` fails.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{Answer, Work, amount, assert_kept, workers};
use crate::stack::{PATIENCE, Stack};

/// A mounted tmpfs; it is unmounted when the test ends, whichever way.
pub struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` when it can't be mounted and that is allowed: without TORTURE=1.
    pub fn mount(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "todo-backend-test"])
            .arg(directory.path())
            .output()
            .expect("`mount` can't be started (Debian: apt-get install mount)");
        if mounted.status.success() {
            return Some(Self(directory));
        }
        let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
        let why = format!("a small disk can't be mounted: run as root, with CAP_SYS_ADMIN in a container ({why})");
        assert!(!amount(false, true), "{why}");
        // Past the harness, which shows only what tests write that fail.
        let mut shown = std::io::stderr();
        shown.write_all(format!("LEFT OUT: the tests of a full disk; {why}\n").as_bytes()).unwrap();
        None
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process of the test may still be ending.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Works until it has been answered so for this many times.
async fn work_until(worker: &mut Work, wanted: Answer, times: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < times {
        assert!(Instant::now() < deadline, "not answered {wanted:?} {times} times within {PATIENCE:?}");
        let answer = worker.step().await;
        assert_ne!(answer, Answer::None, "the connection broke");
        seen += usize::from(answer == wanted);
        worker.read().await;
        if answer != Answer::Done {
            // As clients do that are told to come back later.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Does something again and again until the service says so of its store.
async fn until_the_store_is(stack: &Stack, wanted: &str, mut meanwhile: impl AsyncFnMut()) {
    let client = stack.client("admin", "admin123").await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        meanwhile().await;
        let (status, body) = client.send("GET", "/health/ready", None).await;
        if body["store"] == wanted {
            assert_eq!(status, if wanted == "writable" { 200 } else { 503 });
            return;
        }
        assert!(Instant::now() < deadline, "/health/ready answers {status} {body}");
    }
}

/// Fills what is left of the disk, or the first `bytes` of it.
fn fill(path: &Path, bytes: usize) {
    let mut file = std::fs::File::create(path).unwrap();
    let block = vec![0; 4096];
    for _ in 0..bytes / block.len() {
        if file.write_all(&block).is_err() {
            return;
        }
    }
}

#[actix_web::test]
async fn a_full_disk_refuses_changes_keeps_reading_and_recovers() {
    let rounds = amount(2, 8);
    let Some(disk) = Disk::mount(&format!("size={}m", rounds + 6)) else { return };
    let begun = Instant::now();
    let ballast = disk.path().join("ballast");
    let path: PathBuf = disk.path().join("todos.db");
    fill(&ballast, (rounds + 2) << 20);
    let mut stack = Stack::new();
    stack.service_env = vec![("DATABASE_URL", format!("sqlite:{}", path.display()))];
    stack.start_service();
    let mut workers = workers(&stack, "full", 4, 3000).await;
    for round in 0..rounds {
        join_all(workers.iter_mut().map(|worker| work_until(worker, Answer::NotStored, 30))).await;
        // Small changes fit where large ones did not: without any space, the service's own attempt fails too.
        fill(&disk.path().join("rest"), usize::MAX);
        // A checkpoint can still make room in the log: that is used up again.
        until_the_store_is(&stack, "failing", async || {
            join_all(workers.iter_mut().map(|worker| work_until(worker, Answer::NotStored, 10))).await;
        })
        .await;
        let freed = Instant::now();
        let free = async {
            std::fs::remove_file(disk.path().join("rest")).unwrap();
            let size = std::fs::metadata(&ballast).unwrap().len();
            let smaller = std::fs::File::options().write(true).open(&ballast).unwrap();
            smaller.set_len(size - (1 << 20)).unwrap();
        };
        let working = join_all(workers.iter_mut().map(|worker| work_until(worker, Answer::Done, 5)));
        futures_util::future::join(working, free).await;
        until_the_store_is(&stack, "writable", async || tokio::time::sleep(Duration::from_millis(20)).await).await;
        assert!(stack.service().running());
        println!("round {round}: changes are stored again {:.1?} after there was space", freed.elapsed());
    }
    let lines = stack.service().lines();
    for (text, least) in [("a commit failed", 2), ("the database can be written again", 2)] {
        assert!(lines.iter().filter(|line| line.contains(text)).count() >= least, "{text:?} is not in the log");
    }
    stack.service().kill();
    stack.start_service();
    stack.client("demo", "demo123").await.create("goes on").await;
    stack.service().kill();
    assert_kept(&path, &workers);
    let sum = |count: fn(&Work) -> usize| workers.iter().map(count).sum::<usize>();
    println!(
        "{} changes done, {} refused, {} unknown; {} log lines about failures; {:.1?}",
        sum(|worker| worker.done.len()),
        sum(|worker| worker.not_stored.len()),
        sum(|worker| worker.unknown),
        lines.iter().filter(|line| line.contains("ERROR") || line.contains("WARNING")).count(),
        begun.elapsed()
    );
}
