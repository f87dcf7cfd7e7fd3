//! Commits: what one transaction writes, and what its errors mean.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, ffi, params};

use super::idempotency;
use super::rows::{ACCOUNT_COLUMNS, SESSION_COLUMNS, account, session};
use crate::domain::change::Kind;
use crate::store::abort::abort;
use crate::store::backend::{Commit, CommitError};
use crate::store::decide::Decided;
use crate::store::outbox::Marks;
use crate::store::stored;

fn before_commit(error: rusqlite::Error) -> CommitError {
    abort_if_unflushed(&error);
    CommitError::NotApplied(error.into())
}

fn at_commit(error: rusqlite::Error) -> CommitError {
    abort_if_unflushed(&error);
    match error.sqlite_error_code() {
        // The log could not take all frames: without the last one, the commit frame, the others don't count.
        Some(ffi::ErrorCode::DiskFull | ffi::ErrorCode::DatabaseBusy) => CommitError::NotApplied(error.into()),
        _ => CommitError::Unknown(error.into()),
    }
}

/// Ends the process if the disk did not confirm a flush. Trying again could succeed without the data being there
/// (<https://wiki.postgresql.org/wiki/Fsync_Errors>); only a restart shows what is on disk.
pub fn abort_if_unflushed(error: &rusqlite::Error) {
    if matches!(error, rusqlite::Error::SqliteFailure(code, _)
        if [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&code.extended_code))
    {
        abort(format_args!(
            "the disk did not confirm a write: {error}; aborting, a restart reads what is really stored"
        ));
    }
}

/// Runs `work` in a transaction and commits it; an error rolls it back.
pub fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, CommitError> {
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = begun.map_err(before_commit)?;
    // Dropping the transaction rolls it back.
    let done = work(&transaction).map_err(before_commit)?;
    transaction.commit().map_err(at_commit)?;
    Ok(done)
}

/// Commits a group: its changes, what it purged, the answers to be kept, its owners' heads and the relay's marks.
pub fn commit(connection: &mut Connection, group: &Commit<'_>) -> Result<(), CommitError> {
    let &Commit { decided, marks, uptime, save_uptime } = group;
    in_transaction(connection, |transaction| {
        write(transaction, decided, marks, uptime)?;
        if save_uptime {
            // A page is written even if the value stays the same.
            transaction.prepare_cached("UPDATE meta SET uptime = ?1")?.execute([uptime])?;
        }
        Ok(())
    })
}

fn write(transaction: &Transaction<'_>, decided: &Decided, marks: &Marks, uptime: i64) -> rusqlite::Result<()> {
    // Most groups have none of these.
    if !decided.accounts.is_empty() {
        write_accounts(transaction, decided)?;
    }
    if !decided.sessions.is_empty() {
        write_sessions(transaction, decided)?;
    }
    if !decided.personal_tokens.is_empty() {
        write_personal_tokens(transaction, decided)?;
    }
    let mut put = transaction.prepare_cached(
        "INSERT INTO todos (id, owner_id, version, title, description, completed, created_at, updated_at, due_at,
             priority, tags, sort_order, field_versions, deleted_uptime)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (id) DO UPDATE SET version = excluded.version, title = excluded.title,
             description = excluded.description, completed = excluded.completed, updated_at = excluded.updated_at,
             due_at = excluded.due_at, priority = excluded.priority, tags = excluded.tags,
             sort_order = excluded.sort_order, field_versions = excluded.field_versions,
             deleted_uptime = excluded.deleted_uptime",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM todos WHERE id = ?1")?;
    let mut log = transaction.prepare_cached(
        "INSERT INTO changes (seq, owner_id, revision, todo_id, version, kind, at, actor, changed, trace,
             title, description, completed, created_at, updated_at, due_at, priority, tags, sort_order, field_versions,
             uptime, scrubbed, batch, op, before)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
             ?23, ?24, ?25)",
    )?;
    for (change, before) in decided.changes.iter().zip(&decided.before) {
        let todo = &change.todo;
        if change.scrubbed {
            delete.execute([todo.id])?;
        } else {
            put.execute(params![
                todo.id,
                todo.owner,
                todo.version,
                todo.title,
                todo.description,
                todo.completed,
                todo.created_at.0,
                todo.updated_at.0,
                todo.due_at,
                todo.priority,
                todo.tags,
                todo.order,
                todo.field_versions,
                (change.kind == Kind::Deleted).then_some(uptime)
            ])?;
        }
        let changed = stored::fields_to_text(&change.changed);
        log.execute(params![
            change.place,
            todo.owner,
            change.revision,
            todo.id,
            todo.version,
            change.kind as u8,
            change.at.0,
            change.actor,
            changed,
            change.trace.as_str(),
            todo.title,
            todo.description,
            todo.completed,
            todo.created_at.0,
            todo.updated_at.0,
            todo.due_at,
            todo.priority,
            todo.tags,
            todo.order,
            todo.field_versions,
            uptime,
            change.scrubbed,
            change.batch,
            change.op,
            before.as_ref().filter(|_| !change.scrubbed)
        ])?;
    }
    for (_, id) in &decided.purged {
        delete.execute([id])?;
    }
    if !decided.answers.is_empty() {
        idempotency::write(transaction, &decided.answers, uptime)?;
    }
    let mut set_head = transaction.prepare_cached("UPDATE users SET revision = ?2, last_at = ?3 WHERE id = ?1")?;
    for (owner, head) in &decided.heads {
        set_head.execute(params![owner, head.revision, head.last_at.0])?;
    }
    let mut set_state = transaction.prepare_cached("UPDATE changes SET state = ?2 WHERE seq = ?1 AND state = 0")?;
    // In log order, because neighbours share a page.
    let mut marks: Vec<_> = marks.iter().collect();
    marks.sort_unstable_by_key(|(place, _)| place.0);
    for (place, state) in marks {
        set_state.execute(params![place, state])?;
    }
    Ok(())
}

/// Writes the accounts that are new or different. What belongs to their part of the log, such as the revision, is
/// written elsewhere.
fn write_accounts(transaction: &Transaction<'_>, decided: &Decided) -> rusqlite::Result<()> {
    let mut put = transaction.prepare_cached(
        "INSERT INTO users (id, username, password_hash, role, state, token_epoch, created_at, demo, deleted_by,
             revision, last_at, floor)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, 0, 0)
         ON CONFLICT (id) DO UPDATE SET password_hash = excluded.password_hash, role = excluded.role,
             state = excluded.state, token_epoch = excluded.token_epoch, deleted_by = excluded.deleted_by",
    )?;
    // In the order of their ids: a demo user makes room before its successor takes the name.
    for account in decided.accounts.values() {
        put.execute(params![
            account.id,
            account.username,
            account.password_hash,
            account.role.name(),
            account.state as u8,
            account.token_epoch,
            account.created_at.0,
            account.is_demo,
            account.deleted_by
        ])?;
    }
    Ok(())
}

fn write_sessions(transaction: &Transaction<'_>, decided: &Decided) -> rusqlite::Result<()> {
    let mut put = transaction.prepare_cached(
        "INSERT INTO sessions (id, user_id, created_at, user_agent, key, latest, rotated_at, repeats)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET latest = excluded.latest, rotated_at = excluded.rotated_at,
             repeats = excluded.repeats",
    )?;
    let mut end = transaction.prepare_cached("DELETE FROM sessions WHERE id = ?1")?;
    for (id, session) in &decided.sessions {
        match session {
            Some(session) => put.execute(params![
                session.id,
                session.user,
                session.created_at.0,
                session.user_agent,
                session.key.0,
                session.latest,
                stored::times_to_text(&session.rotated_at),
                session.repeats
            ])?,
            None => end.execute([id])?,
        };
    }
    save_next(transaction, "sessions", decided.next.session.0)
}

fn write_personal_tokens(transaction: &Transaction<'_>, decided: &Decided) -> rusqlite::Result<()> {
    let mut put = transaction.prepare_cached(
        "INSERT INTO personal_tokens (id, user_id, name, scope, hash, created_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut revoke = transaction.prepare_cached("DELETE FROM personal_tokens WHERE id = ?1")?;
    for ((_, id), token) in &decided.personal_tokens {
        match token {
            Some(token) => put.execute(params![
                token.id,
                token.user,
                token.name,
                token.scope.name(),
                token.hash,
                token.created_at.0,
                token.expires_at.map(|at| at.0)
            ])?,
            None => revoke.execute([id])?,
        };
    }
    save_next(transaction, "personal_tokens", decided.next.personal_token.0)
}

/// Sees to it that no id below `next` is used again, also one that began and ended in this group.
fn save_next(transaction: &Transaction<'_>, table: &str, next: i64) -> rusqlite::Result<()> {
    let mut save =
        transaction.prepare_cached("UPDATE sqlite_sequence SET seq = ?2 - 1 WHERE name = ?1 AND seq < ?2 - 1")?;
    save.execute(params![table, next]).map(drop)
}

/// Whether a group is in the database; all of it is, if any of it. Ends the process if that can't be found out.
pub fn is_stored(connection: &Connection, decided: &Decided) -> bool {
    match shows(connection, decided) {
        Ok(stored) => stored.unwrap_or(false),
        Err(error) => {
            abort(format_args!("cannot find out what was stored: {error}; aborting, a restart reads it from disk"))
        }
    }
}

/// What in the database shows of a group; `None`: it had nothing that does.
fn shows(connection: &Connection, decided: &Decided) -> rusqlite::Result<Option<bool>> {
    if let Some(change) = decided.changes.last() {
        let sql = "SELECT EXISTS (SELECT 1 FROM changes WHERE seq = ?1)";
        return connection.query_row(sql, [change.place], |row| row.get(0)).map(Some);
    }
    if let Some(((owner, request), _)) = decided.answers.last_key_value() {
        return idempotency::is_kept(connection, *owner, request).map(Some);
    }
    if let Some((_, id)) = decided.purged.last() {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM todos WHERE id = ?1)";
        return connection.query_row(sql, [id], |row| row.get(0)).map(Some);
    }
    // All of them: what began and ended in this group looks the same before and after.
    for (id, session) in &decided.sessions {
        let sql = format!("SELECT {SESSION_COLUMNS} FROM sessions WHERE id = ?1");
        let stored = connection.query_row(&sql, [id], self::session).optional()?;
        if stored.as_ref() != session.as_deref() {
            return Ok(Some(false));
        }
    }
    for ((_, id), token) in &decided.personal_tokens {
        let sql = "SELECT EXISTS (SELECT 1 FROM personal_tokens WHERE id = ?1)";
        let is_stored: bool = connection.query_row(sql, [id], |row| row.get(0))?;
        if is_stored != token.is_some() {
            return Ok(Some(false));
        }
    }
    for decided in decided.accounts.values() {
        let sql = format!("SELECT {ACCOUNT_COLUMNS} FROM users WHERE id = ?1");
        let stored = connection.query_row(&sql, [decided.id], account).optional()?;
        if stored.as_ref() != Some(decided.as_ref()) {
            return Ok(Some(false));
        }
    }
    Ok((!decided.is_empty()).then_some(true))
}

/// Moves committed pages from the write-ahead log into the database file, as far as readers allow.
pub fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
