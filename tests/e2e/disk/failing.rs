//! A disk that fails: strace lets the service's writes and flushes fail while it runs.
//! Needs strace and, like every debugger, the right to trace a child.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use futures_util::future::join_all;

use super::{Answer, Work, amount, assert_kept, database, with_suffix, workers};
use crate::stack::{PATIENCE, SERVICE, Stack};

/// Starts the service on the database that is there, so that these system calls on this file fail. `inject` is in
/// strace's syntax; `when` in it counts for each thread, and only the writer thread writes and flushes.
fn start_failing(stack: &mut Stack, file: &Path, inject: &str) {
    let there = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    assert!(there, "strace is not installed (Debian: apt-get install strace)");
    let mut command = stack.command("strace");
    command
        // The service is this test's child, strace its grandchild: signals and the exit status are the service's own.
        .args(["-D", "-f", "-qq", "-o"])
        .arg(stack.directory.path().join("strace.txt"))
        .arg("-P")
        .arg(file)
        .args(["-e", "trace=fsync,fdatasync,pwrite64,ftruncate,fallocate", "-e", &format!("inject={inject}")])
        .arg(SERVICE)
        .env("PATH", std::env::var_os("PATH").unwrap());
    stack.start_service_as(&mut command);
}

/// How many of the service's system calls failed.
fn injected(stack: &Stack) -> usize {
    let trace = std::fs::read_to_string(stack.directory.path().join("strace.txt")).unwrap();
    trace.lines().filter(|line| line.contains("(INJECTED)")).count()
}

/// The database is made, so that a start writes nothing.
fn with_database() -> Stack {
    let mut stack = Stack::new();
    stack.start_service();
    // It listens before it opens the database.
    stack.service().wait_for("the API is at", PATIENCE);
    stack.service().kill();
    stack
}

/// After a restart, everything that was acknowledged is there.
async fn assert_restarts(stack: &mut Stack, workers: &[Work]) {
    stack.service().kill();
    stack.start_service();
    stack.client("demo", "demo123").await.create("goes on").await;
    stack.service().kill();
    assert_kept(&database(stack), workers);
}

/// Works until the connection breaks.
async fn work_to_the_end(worker: &mut Work) {
    let deadline = Instant::now() + PATIENCE;
    while worker.step().await != Answer::None {
        assert!(Instant::now() < deadline, "the service still answers");
    }
}

/// The service aborts, and its last error says why.
async fn assert_aborts(stack: &mut Stack, workers: &mut [Work]) {
    use std::os::unix::process::ExitStatusExt;
    join_all(workers.iter_mut().map(work_to_the_end)).await;
    let status = stack.service().wait(PATIENCE);
    assert_eq!(status.signal(), Some(6), "SIGABRT: {status}");
    stack.service().wait_for("aborting", PATIENCE);
    let lines = stack.service().lines();
    // Until it ends, the relay may still warn that it can't publish.
    let last = lines.iter().rfind(|line| line.contains(" - ERROR - ")).unwrap();
    assert!(last.contains("the disk did not confirm a write") && last.contains("disk I/O error"), "{last}");
    assert!(workers.iter().all(|worker| worker.not_stored.is_empty()), "refused before the flush failed");
}

#[actix_web::test]
async fn a_flush_that_fails_ends_the_service_and_nothing_acknowledged_is_lost() {
    for nth in amount(&[1, 7][..], &[1, 2, 3, 5, 8, 13, 21, 34, 55, 89]) {
        let mut stack = with_database();
        let log = with_suffix(&database(&stack), "-wal");
        start_failing(&mut stack, &log, &format!("fsync,fdatasync:error=EIO:when={nth}"));
        let mut workers = workers(&stack, "flush", 3, 100).await;
        assert_aborts(&mut stack, &mut workers).await;
        let done: usize = workers.iter().map(|worker| worker.done.len()).sum();
        println!("flush {nth} failed: {done} changes were acknowledged before");
        // A commit takes one flush; the first one another, for the log's header.
        assert!(done + 2 >= *nth, "each commit was flushed");
        assert_restarts(&mut stack, &workers).await;
    }
}

#[actix_web::test]
async fn a_checkpoint_whose_flush_fails_ends_the_service_and_nothing_acknowledged_is_lost() {
    let mut stack = with_database();
    let path = database(&stack);
    // The first flush of the database file itself is a checkpoint's.
    start_failing(&mut stack, &path, "fsync,fdatasync:error=EIO:when=1");
    let mut workers = workers(&stack, "checkpoint", 6, 9000).await;
    assert_aborts(&mut stack, &mut workers).await;
    let done: usize = workers.iter().map(|worker| worker.done.len()).sum();
    println!("the first checkpoint failed after {done} changes");
    assert_restarts(&mut stack, &workers).await;
}

/// Works until changes were refused and are done again.
async fn work_through_an_outage(worker: &mut Work) {
    let deadline = Instant::now() + PATIENCE;
    let (mut refused, mut done_since) = (0, 0);
    while done_since < 10 {
        assert!(Instant::now() < deadline, "{refused} changes refused, then {done_since} done: no recovery");
        match worker.step().await {
            Answer::Done if refused > 0 => done_since += 1,
            Answer::Done => {}
            Answer::NotStored | Answer::Unknown => (refused, done_since) = (refused + 1, 0),
            Answer::None => panic!("the connection broke"),
        }
        worker.read().await;
    }
}

#[actix_web::test]
async fn writes_that_fail_are_answered_503_and_work_again() {
    for (error, when) in amount(
        &[("ENOSPC", "20..45"), ("EIO", "20..45")][..],
        &[("ENOSPC", "1..30"), ("ENOSPC", "20..45"), ("ENOSPC", "33..400+3"), ("EIO", "20..45"), ("EIO", "33..400+3")],
    ) {
        let mut stack = with_database();
        let log = with_suffix(&database(&stack), "-wal");
        start_failing(&mut stack, &log, &format!("pwrite64:error={error}:when={when}"));
        let mut workers = workers(&stack, "write", 3, 100).await;
        join_all(workers.iter_mut().map(work_through_an_outage)).await;
        assert!(stack.service().running());
        stack.service().wait_for("the database can be written again", PATIENCE);
        let sum = |count: fn(&Work) -> usize| workers.iter().map(count).sum::<usize>();
        println!(
            "{error} {when}: {} writes failed, {} changes done, {} refused, {} unknown",
            injected(&stack),
            sum(|worker| worker.done.len()),
            sum(|worker| worker.not_stored.len()),
            sum(|worker| worker.unknown)
        );
        assert_restarts(&mut stack, &workers).await;
    }
}

#[actix_web::test]
async fn a_checkpoint_that_cannot_write_is_tried_again_and_changes_go_on() {
    for error in ["ENOSPC", "EIO"] {
        let mut stack = with_database();
        let path = database(&stack);
        start_failing(&mut stack, &path, &format!("pwrite64:error={error}:when=1..3"));
        let mut workers = workers(&stack, "checkpoint", 6, 9000).await;
        let before = std::fs::metadata(&path).unwrap().len();
        let deadline = Instant::now() + PATIENCE;
        while std::fs::metadata(&path).unwrap().len() < before + (1 << 20) {
            join_all(workers.iter_mut().map(|worker| worker.steps(5))).await;
            assert!(Instant::now() < deadline, "no checkpoint succeeded");
        }
        let failed = stack.service().lines().iter().filter(|line| line.contains("a checkpoint failed")).count();
        assert!((1..=3).contains(&failed), "{failed} checkpoints failed");
        println!("{error}: {failed} checkpoints failed, the next one succeeded");
        assert_restarts(&mut stack, &workers).await;
    }
}
