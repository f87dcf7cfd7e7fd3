//! What an operator does with the database file: check it, back it up, restore a backup.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, params};

use super::database_file::{DatabaseLock, Owner, make_parent, parent, refuse_unknown_names, replaced, with_suffix};
use super::{open, open_reader, open_writer, schema};
use crate::domain::change::Epoch;
use crate::store::check::{
    ACCOUNT_RULE, BEFORE_RULE, MAX_LISTED, RULES, RULES_WITH_TRASH, RULES_WITHOUT_TRASH, Rule, violation,
};
use crate::store::error::DatabaseError;

/// The suffix of the file that says where the database was moved to.
const MOVED: &str = ".moved";

/// Holds except while events are republished: then a later change can be published before an earlier one. `check`
/// reports it; it is no reason to refuse a backup.
const DELIVERY_RULE: Rule = (
    "no published change of a todo comes after one that waits, but while events are published again",
    "SELECT 'todo ' || todo_id FROM changes GROUP BY todo_id
     HAVING max(CASE WHEN state = 1 THEN version END) > min(CASE WHEN state = 0 THEN version END)",
);

/// Checks the file's structure and the log's invariants; returns the violations. Works while the service runs.
pub fn check(path: &Path) -> Result<Vec<String>, DatabaseError> {
    refuse_unknown_names(path)?;
    let connection = existing(path)?;
    let rules = rules(&connection, path)?.chain([&DELIVERY_RULE]);
    find_violations(&connection, rules).map_err(DatabaseError::sqlite(path))
}

/// The rules for a database of this version, which can be older than this program.
fn rules(connection: &Connection, path: &Path) -> Result<impl Iterator<Item = &'static Rule>, DatabaseError> {
    let version = schema::schema_version(connection, path)?;
    let of_todos: &[Rule] = if version >= schema::WITH_TRASH { &RULES_WITH_TRASH } else { &RULES_WITHOUT_TRASH };
    let of_accounts = (version >= schema::WITH_ACCOUNT_STATES).then_some(&ACCOUNT_RULE);
    let of_before = (version >= schema::WITH_BEFORE).then_some(&BEFORE_RULE);
    Ok(RULES.iter().chain(of_todos).chain(of_accounts).chain(of_before))
}

fn find_violations(
    connection: &Connection,
    rules: impl IntoIterator<Item = &'static Rule>,
) -> rusqlite::Result<Vec<String>> {
    let snapshot = connection.unchecked_transaction()?;
    let mut violations = Vec::new();
    let mut statement = snapshot.prepare("PRAGMA integrity_check(10)")?;
    for line in statement.query_map([], |row| row.get::<_, String>(0))? {
        violations.extend(Some(line?).filter(|line| line != "ok"));
    }
    let mut statement = snapshot.prepare("PRAGMA foreign_key_check")?;
    for table in statement.query_map([], |row| row.get::<_, String>(0))?.take(MAX_LISTED) {
        violations.push(format!("a row of {} refers to a row that is not there", table?));
    }
    for (rule, sql) in rules {
        let mut statement = snapshot.prepare(sql)?;
        for violation in statement.query_map([], |row| row.get::<_, String>(0))?.take(MAX_LISTED) {
            violations.push(self::violation(rule, &violation?));
        }
    }
    Ok(violations)
}

/// Copies the database, as of one moment, to `target`, which must not exist. Works while the service runs and writes.
/// The copy has the database's mode and owner, because it holds the same password hashes.
pub fn backup(path: &Path, target: &Path) -> Result<(), DatabaseError> {
    if target.exists() {
        return Err(DatabaseError::Exists { path: target.to_owned() });
    }
    refuse_unknown_names(path)?;
    let connection = existing(path)?;
    let owner = Owner::of_database(path).map_err(DatabaseError::io("look at", path))?;
    let partial = with_suffix(target, ".partial");
    copy(&connection, path, &partial, owner)?;
    refuse_bad_copy(&existing(&partial)?, &partial)?;
    put_in_place(&partial, target)
}

/// Replaces the database with a copy of `backup` under a new epoch, by which consumers and clients see that versions
/// start over. All access tokens end with the old epoch; sessions and personal access tokens are removed. The replaced
/// database is kept beside it; returns its new name. Mode and owner stay as they were, whoever restores. The service must
/// not be running.
pub fn restore(path: &Path, backup: &Path) -> Result<Option<PathBuf>, DatabaseError> {
    make_parent(path)?;
    let lock = DatabaseLock::take_if_there(path)?;
    let path = lock.path();
    let source = existing(backup)?;
    let violations = find_violations(&source, rules(&source, backup)?).map_err(DatabaseError::sqlite(backup))?;
    if let Some(violation) = violations.into_iter().next() {
        return Err(DatabaseError::BadBackup { path: backup.to_owned(), violation });
    }
    let owner = Owner::of_database(path).map_err(DatabaseError::io("look at", path))?;
    let partial = with_suffix(path, ".restoring");
    copy(&source, backup, &partial, owner)?;
    renew_epoch(&partial).map_err(DatabaseError::sqlite(&partial))?;
    let replaced = if path.exists() { Some(set_aside(path)?) } else { None };
    remove_leftovers(path)?;
    put_in_place(&partial, path)?;
    Ok(replaced)
}

/// Keeps a copy of a database that is about to get another schema, for the program that it was written by. A copy of an
/// attempt that failed later is replaced.
pub(super) fn copy_before_migration(
    connection: &Connection,
    path: &Path,
    version: usize,
) -> Result<PathBuf, DatabaseError> {
    let kept = with_suffix(path, &format!(".before-{version}"));
    let partial = with_suffix(&kept, ".partial");
    let owner = Owner::of_database(path).map_err(DatabaseError::io("look at", path))?;
    copy(connection, path, &partial, owner)?;
    put_in_place(&partial, &kept)?;
    Ok(kept)
}

/// Copies the database `from`, as of one moment, to the new file `to`.
fn copy(connection: &Connection, from: &Path, to: &Path, owner: Owner) -> Result<(), DatabaseError> {
    let name = to.to_str().ok_or_else(|| DatabaseError::BadName { path: to.to_owned(), what: "UTF-8 name" })?;
    begin_file(to, owner)?;
    let copied = connection.execute("VACUUM INTO ?1", params![name]);
    copied.map(drop).map_err(|source| {
        // Half a copy would keep a full disk full. If it can't be removed, the next copy does.
        let _ = remove_if_there(to);
        DatabaseError::Copy { from: from.to_owned(), to: to.to_owned(), source }
    })
}

/// Creates an empty file for a database. SQLite would create a world-readable one; it fills one that exists.
fn begin_file(path: &Path, owner: Owner) -> Result<(), DatabaseError> {
    // Leftovers of an interrupted copy.
    for suffix in ["", "-journal"] {
        remove_if_there(&with_suffix(path, suffix))?;
    }
    owner.create(path).map_err(DatabaseError::io("write", path))
}

fn refuse_bad_copy(copy: &Connection, path: &Path) -> Result<(), DatabaseError> {
    let violations = find_violations(copy, rules(copy, path)?).map_err(DatabaseError::sqlite(path))?;
    match violations.into_iter().next() {
        Some(violation) => Err(DatabaseError::BadCopy { path: path.to_owned(), violation }),
        None => Ok(()),
    }
}

fn renew_epoch(path: &Path) -> rusqlite::Result<()> {
    let connection = open(path)?;
    connection.execute("UPDATE meta SET epoch = ?1", [Epoch(rand::random()).to_string()])?;
    let version: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version >= schema::WITH_SESSIONS {
        // Some of them may have been ended since the backup.
        connection.execute_batch("DELETE FROM sessions; DELETE FROM personal_tokens")?;
    }
    connection.close().map_err(|(_, error)| error)
}

/// Gives the database a second name, under which it survives when the first is replaced. Its log is emptied into the
/// file first; if it is too damaged for that, the log is kept beside it as it is.
fn set_aside(path: &Path) -> Result<PathBuf, DatabaseError> {
    let keep_log = match empty_log(path) {
        Ok(true) => false,
        Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => true,
        Ok(false) | Err(_) => {
            return Err(DatabaseError::InUse { path: path.to_owned() });
        }
    };
    let aside =
        (1..).map(|n| replaced(path, n)).find(|name| !name.exists()).unwrap_or_else(|| with_suffix(path, ".replaced"));
    let keep = |suffix: &str| {
        let kept = with_suffix(&aside, suffix);
        std::fs::hard_link(with_suffix(path, suffix), &kept)
            .map_err(DatabaseError::io("keep the present database as", kept))
    };
    keep("")?;
    if keep_log && with_suffix(path, "-wal").exists() {
        keep("-wal")?;
    }
    Ok(aside)
}

/// Moves everything from the database's log into its file; false if another process is reading it.
fn empty_log(path: &Path) -> rusqlite::Result<bool> {
    let connection = open_writer(path, true)?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(busy == 0)
}

/// Flushes `partial` to disk and renames it to `target` atomically.
fn put_in_place(partial: &Path, target: &Path) -> Result<(), DatabaseError> {
    let put = || -> std::io::Result<()> {
        File::open(partial)?.sync_all()?;
        std::fs::rename(partial, target)?;
        // On Windows a directory can't be opened as a file, and needs no flushing.
        if cfg!(unix) { File::open(parent(target))?.sync_all() } else { Ok(()) }
    };
    put().map_err(|source| DatabaseError::InPlace { path: target.to_owned(), source })
}

/// Creates the database `named`, which must not exist yet: it gets its name when `fill` has put everything into it.
pub fn create<T>(
    named: &Path,
    fill: impl FnOnce(&Connection, &Path) -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    make_parent(named)?;
    let lock = DatabaseLock::take_if_there(named)?;
    let path = lock.path();
    if path.exists() {
        return Err(DatabaseError::Exists { path: named.to_owned() });
    }
    let owner = Owner::of_database(path).map_err(DatabaseError::io("look at", path))?;
    let partial = with_suffix(path, ".partial");
    begin_file(&partial, owner)?;
    let create = || {
        let failed = DatabaseError::sqlite(&partial);
        let mut connection = open(&partial).map_err(&failed)?;
        // It is flushed as a whole, before it has its name.
        connection.pragma_update(None, "synchronous", "OFF").map_err(&failed)?;
        schema::migrate(&mut connection, &partial, |_, _, _| Ok(()))?;
        let filled = fill(&connection, &partial)?;
        refuse_bad_copy(&connection, &partial)?;
        connection.close().map_err(|(_, error)| failed(error))?;
        Ok(filled)
    };
    let filled = create().inspect_err(|error| {
        // Half a copy would keep a full disk full; a bad one is looked at.
        if !matches!(error, DatabaseError::BadCopy { .. }) {
            let _ = remove_if_there(&partial);
        }
    })?;
    remove_leftovers(path)?;
    put_in_place(&partial, path)?;
    Ok(filled)
}

/// Records that what is in the database goes on elsewhere.
pub fn mark_moved(path: &Path, target: &str) -> Result<(), DatabaseError> {
    let mark = with_suffix(path, MOVED);
    std::fs::write(&mark, format!("{target}\n")).map_err(DatabaseError::io("write", mark))
}

/// Refuses a database if what was in it goes on elsewhere.
pub fn refuse_moved(path: &Path) -> Result<(), DatabaseError> {
    let mark = with_suffix(path, MOVED);
    match std::fs::read_to_string(&mark) {
        Ok(target) => Err(DatabaseError::Moved {
            database: path.display().to_string(),
            target: target.trim().to_owned(),
            undo: format!("remove {}", mark.display()),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DatabaseError::io("read", mark)(error)),
    }
}

/// Opens a database that is good and has this version's schema, to read all of it.
pub fn whole(path: &Path) -> Result<Connection, DatabaseError> {
    let connection = existing(path)?;
    let database = path.display().to_string();
    let found = schema::schema_version(&connection, path)?;
    if found < schema::VERSION {
        return Err(DatabaseError::OlderSchema { database, found, known: schema::VERSION });
    }
    let violations = find_violations(&connection, rules(&connection, path)?).map_err(DatabaseError::sqlite(path))?;
    match violations.into_iter().next() {
        Some(violation) => Err(DatabaseError::BadDatabase { database, violation }),
        None => Ok(connection),
    }
}

fn existing(path: &Path) -> Result<Connection, DatabaseError> {
    if !path.is_file() {
        return Err(DatabaseError::Missing { path: path.to_owned() });
    }
    open_reader(path).map_err(DatabaseError::sqlite(path))
}

/// Removes what belonged to another file of this name. SQLite would replay its log, even if the file is gone.
fn remove_leftovers(path: &Path) -> Result<(), DatabaseError> {
    for suffix in ["-wal", "-shm", MOVED] {
        remove_if_there(&with_suffix(path, suffix))?;
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), DatabaseError> {
    match std::fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(DatabaseError::io("remove", path)(e))
        }
        _ => Ok(()),
    }
}
