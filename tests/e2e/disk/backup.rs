//! `todo-backend check`, `backup` and `restore-backup`: the way an operator uses them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{amount, assert_good, assert_kept, database, logged, with_suffix, workers};
use crate::process::{Process, install};
use crate::stack::{PATIENCE, SERVICE, Stack};

/// Runs a subcommand; returns whether it succeeded, and what it wrote.
fn run(stack: &Stack, arguments: &[&str]) -> (bool, String) {
    let output = stack.service_command().args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn run_well(stack: &Stack, arguments: &[&str]) -> String {
    let (good, text) = run(stack, arguments);
    assert!(good, "{arguments:?}: {text}");
    text
}

/// Runs a subcommand that must fail, in one line that holds `why`.
fn refused(stack: &Stack, arguments: &[&str], why: &str) {
    let (good, text) = run(stack, arguments);
    assert!(!good && text.contains(why) && text.trim_end().lines().count() == 1, "{arguments:?}: {text}");
}

fn epoch(path: &Path) -> String {
    Connection::open(path).unwrap().query_row("SELECT epoch FROM meta", [], |row| row.get(0)).unwrap()
}

/// Every file of a directory with its content, without locks.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file() && path.extension().is_none_or(|end| end != "lock"));
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Starts the service, makes changes and kills it; returns the log.
async fn make_database(stack: &mut Stack, round: &str, changes: usize) -> Vec<String> {
    stack.start_service();
    let mut workers = workers(stack, round, 4, 500).await;
    join_all(workers.iter_mut().map(|worker| worker.steps(changes / 4))).await;
    stack.service().kill();
    assert_kept(&database(stack), &workers);
    logged(&database(stack))
}

#[actix_web::test]
async fn a_backup_while_writes_go_on_is_a_consistent_prefix() {
    let mut stack = Stack::new();
    stack.start_service();
    let mut workers = workers(&stack, "backup", 6, 500).await;
    join_all(workers.iter_mut().map(|worker| worker.steps(20))).await;
    let (over, acknowledged) = (Cell::new(false), Cell::new(120));
    let writing = join_all(workers.iter_mut().map(|worker| async {
        while !over.get() {
            worker.steps(1).await;
            acknowledged.set(acknowledged.get() + 1);
        }
    }));
    let mut backups = Vec::new();
    let backing_up = async {
        for n in 0..amount(3, 30) {
            let file = stack.directory.path().join(format!("backup-{n}.db"));
            // What an earlier backup that was interrupted left.
            std::fs::write(with_suffix(&file, ".partial"), "half a backup").unwrap();
            let before = acknowledged.get();
            let mut command = stack.service_command();
            command.arg("backup").arg(&file);
            let output = actix_web::rt::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            assert!(output.status.success(), "{output:?}");
            backups.push((file, before, acknowledged.get()));
        }
        over.set(true);
    };
    join(writing, backing_up).await;
    assert_eq!(run_well(&stack, &["check"]), "data/todos.db is good\n");
    let kept = &backups[0].0;
    let content = std::fs::read(kept).unwrap();
    refused(&stack, &["backup", kept.to_str().unwrap()], "exists already");
    assert_eq!(std::fs::read(kept).unwrap(), content);
    refused(&stack, &["restore-backup", kept.to_str().unwrap()], "another todo-backend uses");

    stack.service().kill();
    assert_kept(&database(&stack), &workers);
    let log = logged(&database(&stack));
    for (file, before, after) in &backups {
        // A rollback-mode file: it can be read where nothing can be written (bytes 18 and 19 of the header).
        assert_eq!(std::fs::read(file).unwrap()[18..20], [1, 1]);
        assert_good(file);
        let copied = logged(file);
        assert!(log.starts_with(&copied), "the backup is no prefix of the log");
        assert!(copied.len() >= *before, "{} changes were acknowledged before, {} copied", before, copied.len());
        println!("backup of {} changes; {} were acknowledged meanwhile", copied.len(), after - before);
    }
    assert!(backups.iter().any(|(_, before, after)| after > before), "nothing was written meanwhile");
}

#[actix_web::test]
async fn a_restored_backup_goes_on_from_where_it_was_in_a_new_epoch() {
    let mut stack = Stack::new();
    let path = database(&stack);
    let old = make_database(&mut stack, "old", 60).await;
    let backup = stack.directory.path().join("backup.db");
    run_well(&stack, &["backup", backup.to_str().unwrap()]);
    stack.start_service();
    let client = stack.client("admin", "admin123").await;
    let todos = client.send("GET", "/todos", None).await.1;
    stack.service().kill();
    let new = make_database(&mut stack, "new", 60).await;
    assert!(new.len() > old.len() && new.starts_with(&old));
    let replaced_epoch = epoch(&path);

    let text = run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
    let aside = with_suffix(&path, ".replaced-1");
    assert!(text.contains(&format!("is kept as {}\n", aside.canonicalize().unwrap().display())), "{text}");
    assert_eq!((logged(&aside), epoch(&aside)), (new, replaced_epoch.clone()));
    assert_good(&aside);
    assert_eq!(logged(&path), old);
    assert_good(&path);
    let restored_epoch = epoch(&path);
    assert_ne!(restored_epoch, replaced_epoch);
    assert_eq!(epoch(&backup), replaced_epoch, "the backup itself is not changed");

    stack.start_service();
    let line = stack.service().wait_for("events to publish", PATIENCE);
    assert!(line.contains(&format!(", {} events to publish", old.len())), "{line}");
    let client = stack.client("admin", "admin123").await;
    assert_eq!(client.send("GET", "/todos", None).await.1, todos);
    let numbers = |path: &Path| -> (i64, i64, i64) {
        let sql = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'todos'), max(c.seq), u.revision
                   FROM changes c, users u WHERE u.username = 'admin'";
        let connection = Connection::open(path).unwrap();
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let (id, seq, revision) = numbers(&backup);
    assert_eq!(client.create("after the restore").await, id + 1);
    let known: &Value = &todos[0];
    let put = format!("/todos/{}", known["id"]);
    assert_eq!(client.send("PUT", &put, Some(json!({"title": "changed after the restore"}))).await.0, 200);
    assert_eq!(numbers(&path), (id + 1, seq + 2, revision + 2));
    stack.service().kill();
    assert_good(&path);

    // Once more, on a log that was not checkpointed: the first one that was kept stays.
    run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
    let second = logged(&with_suffix(&path, ".replaced-2"));
    assert_eq!((second.len(), second.last().unwrap().as_str()), (old.len() + 2, "changed after the restore"));
    assert_eq!(epoch(&with_suffix(&path, ".replaced-2")), restored_epoch);
    assert_ne!(epoch(&path), restored_epoch);
}

#[actix_web::test]
async fn a_backup_that_is_not_good_is_refused_and_nothing_is_changed() {
    let mut stack = Stack::new();
    let path = database(&stack);
    make_database(&mut stack, "kept", 40).await;
    let good = stack.directory.path().join("good.db");
    run_well(&stack, &["backup", good.to_str().unwrap()]);
    let bytes = std::fs::read(&good).unwrap();
    let bad = stack.directory.path().join("bad.db");
    let before = files(path.parent().unwrap());
    let refuse = |why: &str| {
        refused(&stack, &["restore-backup", bad.to_str().unwrap()], why);
        assert_eq!(files(path.parent().unwrap()), before, "{why}");
    };
    refuse("there is no database at");
    let mut holed = bytes.clone();
    holed[2 * 4096..6 * 4096].fill(0);
    for content in [&b""[..], b"Not a database. ", &bytes[..bytes.len() / 2], &holed] {
        std::fs::write(&bad, content).unwrap();
        refuse("todo-backend: ");
    }
    let planted = [
        ("DELETE FROM changes WHERE seq = 7", "not good, nothing was changed"),
        ("DELETE FROM todos WHERE deleted_uptime IS NULL", "not good, nothing was changed"),
        ("DROP TABLE changes", "no such table"),
        ("PRAGMA user_version = 99", "was written by a newer todo-backend"),
    ];
    for (damage, why) in planted {
        std::fs::write(&bad, &bytes).unwrap();
        Connection::open(&bad).unwrap().execute_batch(damage).unwrap();
        refuse(why);
    }
}

#[actix_web::test]
async fn check_finds_planted_damage() {
    let mut stack = Stack::new();
    let path = database(&stack);
    make_database(&mut stack, "checked", 40).await;
    assert!(run_well(&stack, &["check"]).contains("is good"));
    let copy = stack.directory.path().join("copy.db");
    run_well(&stack, &["backup", copy.to_str().unwrap()]);
    std::fs::remove_file(with_suffix(&path, "-wal")).unwrap();
    let damages = [
        "DELETE FROM changes WHERE seq = (SELECT max(seq) FROM changes)",
        "DELETE FROM changes WHERE seq = 7",
        "DELETE FROM todos WHERE id = (SELECT max(id) FROM todos WHERE deleted_uptime IS NULL)",
        "UPDATE todos SET deleted_uptime = 1 WHERE id = (SELECT max(id) FROM todos WHERE deleted_uptime IS NULL)",
        "UPDATE todos SET deleted_uptime = NULL WHERE id = (SELECT max(id) FROM todos WHERE deleted_uptime IS NOT NULL)",
        "UPDATE todos SET tags = '[\"x\"]' WHERE id = (SELECT min(id) FROM todos)",
        "UPDATE todos SET title = 'another' WHERE id = (SELECT min(id) FROM todos)",
        "UPDATE todos SET version = version + 1 WHERE id = (SELECT min(id) FROM todos)",
        "UPDATE todos SET owner_id = 99 WHERE id = (SELECT min(id) FROM todos)",
        "UPDATE users SET revision = revision + 1 WHERE id = 1",
        "UPDATE changes SET version = version + 1 WHERE seq = 1",
        "UPDATE changes SET state = 1 WHERE version = 2",
    ];
    for damage in damages {
        std::fs::copy(&copy, &path).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        assert!(connection.execute(damage, []).unwrap() > 0);
        drop(connection);
        let (good, text) = run(&stack, &["check"]);
        assert!(!good && text.contains("problem"), "{damage}: {text}");
    }
    // Damaged pages, by the file's structure.
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes[2 * 4096..6 * 4096].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    assert!(!run(&stack, &["check"]).0);
    std::fs::remove_file(&path).unwrap();
    refused(&stack, &["check"], "there is no database at");
    std::fs::copy(&copy, &path).unwrap();
    assert!(run_well(&stack, &["check"]).contains("is good"));
}

#[actix_web::test]
async fn a_backup_replaces_a_database_that_cannot_be_read() {
    let mut stack = Stack::new();
    let path = database(&stack);
    let log = make_database(&mut stack, "lost", 40).await;
    let backup = stack.directory.path().join("backup.db");
    run_well(&stack, &["backup", backup.to_str().unwrap()]);
    // The file is overwritten; its log is still there, and is not to be played into the restored database.
    std::fs::write(&path, "Not a database. ".repeat(1000)).unwrap();
    let wal = std::fs::read(with_suffix(&path, "-wal")).unwrap();
    run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
    assert_eq!(logged(&path), log);
    assert_good(&path);
    let aside = with_suffix(&path, ".replaced-1");
    assert!(std::fs::read_to_string(&aside).unwrap().starts_with("Not a database. "));
    assert_eq!(std::fs::read(with_suffix(&aside, "-wal")).unwrap(), wal, "the log is kept beside it");
}

#[actix_web::test]
async fn a_backup_replaces_a_database_that_was_removed() {
    let mut stack = Stack::new();
    let path = database(&stack);
    let log = make_database(&mut stack, "moved", 40).await;
    let backup = stack.directory.path().join("backup.db");
    run_well(&stack, &["backup", backup.to_str().unwrap()]);
    // Somebody removed the database, and not the log beside it.
    stack.start_service();
    stack.client("admin", "admin123").await.create("after the backup").await;
    stack.service().kill();
    std::fs::remove_file(&path).unwrap();
    assert!(with_suffix(&path, "-wal").exists());
    run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
    assert_eq!(logged(&path), log);
    assert_good(&path);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(run_well(&stack, &["restore-backup", backup.to_str().unwrap()]), "data/todos.db is restored\n");
    assert_eq!(logged(&path), log);
    stack.start_service();
    stack.client("admin", "admin123").await.create("goes on").await;
}

#[actix_web::test]
async fn an_interrupted_restore_leaves_the_old_or_the_new_database() {
    let seed = std::env::var("DISK_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("DISK_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut stack = Stack::new();
    let path = database(&stack);
    let mut known = Vec::new();
    for round in ["first", "second"] {
        let log = make_database(&mut stack, round, 200).await;
        let backup = stack.directory.path().join(format!("{round}.db"));
        run_well(&stack, &["backup", backup.to_str().unwrap()]);
        known.push((backup, log));
    }
    let begun = Instant::now();
    run_well(&stack, &["restore-backup", known[0].0.to_str().unwrap()]);
    let takes = begun.elapsed();
    let (mut old, mut new, mut complete, mut leftovers) = (0, 0, 0, 0);
    let mut present = 0;
    for _ in 0..amount(20, 300) {
        let wanted = 1 - present;
        let mut command = stack.service_command();
        command.arg("restore-backup").arg(&known[wanted].0);
        let mut restore = Process::start("restore-backup", &mut command);
        let deadline = Instant::now() + takes.mul_f64(random.random_range(0.0..1.2));
        while restore.running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
        complete += usize::from(!restore.running());
        restore.kill();
        leftovers += usize::from(with_suffix(&path, ".restoring").exists());
        let log = logged(&path);
        assert_good(&path);
        present = known.iter().position(|(_, known)| *known == log).expect("neither the old nor the new database");
        if present == wanted { new += 1 } else { old += 1 }
    }
    stack.start_service();
    stack.client("admin", "admin123").await.create("goes on").await;
    stack.service().kill();
    assert_eq!(logged(&path).len(), known[present].1.len() + 1);
    // A restore that was killed while it wrote the new epoch: its journal must not be played into the next one's copy.
    let restoring = with_suffix(&path, ".restoring");
    leave_a_hot_journal(&known[1].0, &restoring);
    run_well(&stack, &["restore-backup", known[0].0.to_str().unwrap()]);
    assert_eq!(logged(&path), known[0].1);
    assert_good(&path);
    for suffix in ["", "-journal"] {
        assert!(!with_suffix(&restoring, suffix).exists(), ".restoring{suffix} is left");
    }
    println!(
        "{} restores of {takes:.1?} were killed at random moments ({complete} were complete, {leftovers} left a copy): \
         the database was the old one {old} times, the new one {new} times",
        old + new
    );
}

/// Makes `target` and `target-journal` as a process leaves them that is killed amid a transaction.
fn leave_a_hot_journal(source: &Path, target: &Path) {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("work.db");
    std::fs::copy(source, &path).unwrap();
    let connection = Connection::open(&path).unwrap();
    // A cache of so few pages is written out before the end of the transaction.
    connection.execute_batch("PRAGMA cache_size = 2; BEGIN; UPDATE changes SET title = 'from the journal';").unwrap();
    std::fs::copy(&path, target).unwrap();
    std::fs::copy(with_suffix(&path, "-journal"), with_suffix(target, "-journal")).unwrap();
}

/// Mode, user and group of a file.
fn mode_and_owner(path: &Path) -> (u32, u32, u32) {
    let file = std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (file.mode() & 0o777, file.uid(), file.gid())
}

/// Another user for the service, if this one may give files away: only root may.
fn other_user() -> Option<(u32, u32)> {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        println!("not run by root: only modes are looked at, not owners");
    }
    root.then_some((10_001, 10_002))
}

/// Gives a stack's directory and database to a user and a group.
fn give_away(stack: &Stack, (user, group): (u32, u32)) {
    let data = database(stack);
    let data = data.parent().unwrap();
    let lock = with_suffix(&database(stack), ".lock");
    for path in files(data).into_keys().chain([lock, data.to_owned(), stack.directory.path().to_owned()]) {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// The service's command, run as a user and a group.
fn command_of(stack: &Stack, (user, group): (u32, u32)) -> Command {
    // Another user can't read the build directory.
    let binary = stack.directory.path().join("todo-backend");
    if !binary.exists() {
        install(SERVICE.as_ref(), &binary);
    }
    let mut command = stack.command(binary);
    command.uid(user).gid(group);
    command
}

#[actix_web::test]
async fn a_backup_and_a_restored_database_have_the_databases_mode_and_owner() {
    let mut stack = Stack::new();
    let path = database(&stack);
    let log = make_database(&mut stack, "kept", 40).await;
    assert_eq!(mode_and_owner(&path).0, 0o600, "a new database holds password hashes");
    let owner = other_user();
    if let Some(owner) = owner {
        give_away(&stack, owner);
    }
    for mode in [0o640, 0o600] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let expected = mode_and_owner(&path);
        let backup = stack.directory.path().join(format!("backup-{mode:o}.db"));
        run_well(&stack, &["backup", backup.to_str().unwrap()]);
        assert_eq!(mode_and_owner(&backup), expected);
        run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
        assert_eq!(mode_and_owner(&path), expected);
        assert_eq!(logged(&path), log);
    }
    // Nothing is there any more that could say whose it was, but the directory.
    let (_, user, group) = mode_and_owner(&path);
    let backup = stack.directory.path().join("backup-600.db");
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
    assert_eq!(mode_and_owner(&path), (0o600, user, group));
    // The user that it belongs to can work with it, whoever restored it.
    let mut command = owner.map_or_else(|| stack.service_command(), |owner| command_of(&stack, owner));
    stack.start_service_as(&mut command);
    stack.client("admin", "admin123").await.create("written by its owner").await;
    stack.service().kill();
    assert_eq!(logged(&path).len(), log.len() + 1);
}

#[actix_web::test]
async fn whoever_may_not_give_files_away_keeps_them_private() {
    let Some((user, group)) = other_user() else { return };
    let mut stack = Stack::new();
    let path = database(&stack);
    let log = make_database(&mut stack, "kept", 20).await;
    give_away(&stack, (user, group));
    // The database's user, but not of its group.
    let outside = group + 1;
    for (mode, expected) in [(0o640, 0o600), (0o760, 0o700)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let backup = stack.directory.path().join(format!("backup-{mode:o}.db"));
        let output = command_of(&stack, (user, outside)).arg("backup").arg(&backup).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(mode_and_owner(&backup), (expected, user, outside), "{mode:o}");
        assert_eq!(logged(&backup), log);
    }
    // Everybody may use the database, but its lock can only belong to who starts.
    std::fs::set_permissions(path.parent().unwrap(), std::fs::Permissions::from_mode(0o777)).unwrap();
    for file in files(path.parent().unwrap()).into_keys() {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    std::fs::remove_file(with_suffix(&path, ".lock")).unwrap();
    stack.start_service_as(&mut command_of(&stack, (user + 1, outside)));
    assert_eq!(mode_and_owner(&with_suffix(&path, ".lock")), (0o600, user + 1, outside));
    stack.client("admin", "admin123").await.create("written by somebody else").await;
    stack.service().kill();
    assert_eq!(logged(&path).len(), log.len() + 1);
}

#[actix_web::test]
async fn a_restore_through_a_link_replaces_what_it_points_to() {
    let mut stack = Stack::new();
    let real = stack.directory.path().join("real.db");
    let alias = stack.directory.path().join("alias.db");
    symlink("real.db", &alias).unwrap();
    stack.service_env = vec![("DATABASE_URL", "sqlite:alias.db".to_owned())];
    stack.start_service();
    stack.client("admin", "admin123").await.create("kept").await;
    stack.service().kill();
    let log = logged(&real);
    let backup = stack.directory.path().join("backup.db");
    run_well(&stack, &["backup", backup.to_str().unwrap()]);
    stack.start_service();
    stack.client("admin", "admin123").await.create("given up").await;
    stack.service().kill();
    run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
    assert!(alias.is_symlink() && !real.is_symlink());
    assert_eq!((logged(&real), logged(&alias)), (log.clone(), log.clone()));
    // Also when what it points to is gone.
    std::fs::remove_file(&real).unwrap();
    run_well(&stack, &["restore-backup", backup.to_str().unwrap()]);
    assert!(alias.is_symlink() && !real.is_symlink());
    assert_eq!(logged(&real), log);
}

#[actix_web::test]
async fn a_backup_that_cannot_be_written_blames_its_own_file() {
    let mut stack = Stack::new();
    make_database(&mut stack, "kept", 20).await;
    std::fs::write(stack.directory.path().join("file"), "").unwrap();
    for (target, why) in [
        ("/no/dir/x", "todo-backend: cannot write /no/dir/x.partial: No such file or directory"),
        ("file/x", "todo-backend: cannot write file/x.partial: Not a directory"),
    ] {
        refused(&stack, &["backup", target], why);
    }
    let work = files(stack.directory.path()).into_keys().filter(|file| file.to_string_lossy().contains("partial"));
    assert_eq!(work.count(), 0);
}
