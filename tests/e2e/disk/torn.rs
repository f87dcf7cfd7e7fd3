//! A write-ahead log that ends anywhere, as after a power cut: what opens is a prefix of the commits, each of them
//! whole.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use todo_backend::config::{Database, Retention};
use todo_backend::domain::clock::Clock;
use todo_backend::store::{DemoUsers, Options, Store};
use todo_backend::telemetry::metrics::Metrics;

use super::{amount, assert_good, assert_kept, database, with_suffix, workers};
use crate::stack::Stack;

/// The log's header, and the header of each frame (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Rows that have to be a prefix.
type Rows = Vec<Vec<rusqlite::types::Value>>;

fn rows(connection: &Connection, sql: &str) -> Rows {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A copy of the files that a killed service left.
struct Left {
    database: Vec<u8>,
    log: Vec<u8>,
    frame: usize,
    /// For each frame of the log's present round: whether a commit ends with it.
    commits: Vec<bool>,
    /// Frames that are in the database file already; the disk had confirmed them before.
    checkpointed: usize,
}

impl Left {
    fn read(path: &Path) -> Self {
        let log = std::fs::read(with_suffix(path, "-wal")).unwrap();
        let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
        let frame = FRAME_HEADER + number(8) as usize;
        let salts = &log[16..24];
        let commits = log[HEADER..]
            .chunks_exact(frame)
            .take_while(|frame| &frame[8..16] == salts)
            .map(|frame| frame[4..8] != [0; 4])
            .collect();
        // nBackfill, after two headers of 48 bytes (<https://sqlite.org/walformat.html#the_wal_index_file_format>).
        let index = std::fs::read(with_suffix(path, "-shm")).unwrap();
        let checkpointed = u32::from_ne_bytes(index[96..100].try_into().unwrap()) as usize;
        Self { database: std::fs::read(path).unwrap(), log, frame, commits, checkpointed }
    }

    /// Where the frame with this number begins, from 0.
    fn at(&self, frame: usize) -> usize {
        HEADER + frame * self.frame
    }

    /// Opens a copy with this log as the service does; returns the change log.
    fn open_with(&self, log: &[u8]) -> Rows {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("todos.db");
        std::fs::write(&path, &self.database).unwrap();
        std::fs::write(with_suffix(&path, "-wal"), log).unwrap();
        let hash = |_: &str| String::new();
        let store = Store::open(Options {
            database: &Database::File(path.clone()),
            clock: Clock::system(),
            demo_users: DemoUsers::Created(&hash),
            may_upgrade: true,
            retention: Retention {
                keep: Duration::from_secs(3600),
                per_owner: 1_000_000,
                trash: Duration::from_secs(3600),
            },
            max_todos: 1_000_000,
            metrics: Arc::new(Metrics::new()),
        });
        let store = store.unwrap_or_else(|problem| panic!("a cut log is not opened: {problem}"));
        let todos = store.todo_count();
        store.close();
        assert_good(&path);
        let connection = Connection::open(&path).unwrap();
        let changes = rows(&connection, "SELECT * FROM changes ORDER BY seq");
        let count: usize = connection
            .query_row("SELECT count(*) FROM todos WHERE deleted_uptime IS NULL", [], |row| row.get(0))
            .unwrap();
        assert_eq!(todos, count);
        let exist =
            "SELECT count(*) FROM (SELECT todo_id, max(version), kind FROM changes GROUP BY todo_id) WHERE kind <> 2";
        let alive: usize = connection.query_row(exist, [], |row| row.get(0)).unwrap();
        assert_eq!(todos, alive, "todos are what the log says");
        changes
    }
}

/// Cuts and damages the log of a killed service in many ways.
#[actix_web::test]
async fn a_log_cut_anywhere_opens_as_a_prefix_of_whole_commits() {
    let begun = Instant::now();
    let seed = std::env::var("DISK_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("DISK_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut stack = Stack::new();
    stack.start_service();
    let mut workers = workers(&stack, "torn", 12, 100).await;
    let steps = amount(25, 400);
    join_all(workers.iter_mut().map(|worker| worker.steps(steps))).await;
    stack.service().kill();

    let path = database(&stack);
    let left = Left::read(&path);
    let full = left.open_with(&left.log);
    assert_kept(&path, &workers);
    assert_eq!(full.len(), 12 * steps);

    let frames = left.commits.len();
    let first = left.checkpointed;
    let groups = left.commits[first..].iter().filter(|commit| **commit).count();
    assert!(frames > first, "nothing to cut: all {frames} frames are in the database file");
    // What is there when the log ends after so many frames; equal for all that end within the same commit.
    let mut after = vec![None; frames + 1];
    let mut expect = |frame: usize, found: Rows, how: &str| {
        assert!(full.starts_with(&found), "{how}: not a prefix of the log");
        let whole = (first..frame).rev().find(|at| left.commits[*at]).map_or(first, |at| at + 1);
        let known = after[whole].get_or_insert(found.len());
        assert_eq!(*known, found.len(), "{how}: another number of changes than after frame {whole}");
    };
    let (mut cuts, mut damaged) = (0, 0);
    let sample = amount(50, 400);
    for frame in (first..=frames).step_by(((frames - first) / sample).max(1)).chain([frames - 1, frames]) {
        expect(frame, left.open_with(&left.log[..left.at(frame)]), &format!("cut at frame {frame}"));
        cuts += 1;
    }
    for _ in 0..amount(30, 300) {
        let end = random.random_range(left.at(first)..left.at(frames));
        expect((end - HEADER) / left.frame, left.open_with(&left.log[..end]), &format!("cut at byte {end}"));
        cuts += 1;
    }
    // In the last frame: its commit is gone, nothing else. Elsewhere: the log ends there.
    for n in 0..amount(30, 300) {
        let begin = if n % 2 == 0 { left.at(frames - 1) } else { left.at(first) };
        let at = random.random_range(begin..left.at(frames));
        let mut log = left.log.clone();
        log[at] ^= 1 << random.random_range(0..8);
        expect((at - HEADER) / left.frame, left.open_with(&log), &format!("byte {at} changed"));
        damaged += 1;
    }
    let sizes: BTreeSet<usize> = after.iter().flatten().copied().collect();
    assert_eq!(after[frames], Some(full.len()), "nothing is missing when nothing is cut");
    assert!(sizes.len() > 5, "the cuts left too few different states: {sizes:?}");
    assert!(groups < full.len() || first > 0, "no two changes shared a commit");
    println!(
        "{} changes in {groups} commits ({frames} frames, {first} checkpointed): {cuts} cuts and {damaged} damaged \
         logs opened as {} different prefixes, in {:.1?}",
        full.len(),
        sizes.len(),
        begun.elapsed()
    );
}
