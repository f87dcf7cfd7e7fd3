//! Loads a database into memory at start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::idempotency;
use super::rows::{
    ACCOUNT_COLUMNS, PERSONAL_TOKEN_COLUMNS, SESSION_COLUMNS, TODO_COLUMNS, account, invalid, personal_token, session,
    todo,
};
use crate::domain::account::{AccountState, UserId};
use crate::domain::change::{Epoch, Place};
use crate::domain::clock::Timestamp;
use crate::domain::session::{PersonalTokenId, SessionId};
use crate::domain::todo::TodoId;
use crate::store::backend::Position;
use crate::store::decide::{Head, Next};
use crate::store::loaded::Loaded;
use crate::store::map::TodoMap;
use crate::store::map::sessions::{PersonalTokens, Sessions};
use crate::store::map::users::Users;
use crate::store::writer::kept_sizes::KeptSizes;

/// Reads everything that is kept in memory. `demo_users`: whether they exist.
pub fn load(connection: &Connection, demo_users: bool) -> rusqlite::Result<Loaded> {
    let epoch: String = connection.query_row("SELECT epoch FROM meta", [], |row| row.get(0))?;
    let epoch = Epoch::parse(&epoch).ok_or_else(|| invalid("meta.epoch"))?;
    let mut users = Users::new(demo_users);
    let mut heads = HashMap::new();
    let mut erasing = Vec::new();
    let mut statement =
        connection.prepare(&format!("SELECT {ACCOUNT_COLUMNS}, revision, last_at, floor, erased FROM users"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let user = account(row)?;
        let head = Head {
            revision: row.get("revision")?,
            last_at: Timestamp(row.get("last_at")?),
            pruned_through: row.get("floor")?,
        };
        heads.insert(user.id, head);
        if user.state == AccountState::Deleted && !row.get::<_, bool>("erased")? {
            erasing.push(user.id);
        }
        users.put(Arc::new(user));
    }
    let mut sessions = Sessions::default();
    let mut statement = connection.prepare(&format!("SELECT {SESSION_COLUMNS} FROM sessions"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        sessions.put(Arc::new(session(row)?));
    }
    let (mut personal_tokens, mut used) = (PersonalTokens::default(), HashMap::new());
    let mut statement =
        connection.prepare(&format!("SELECT {PERSONAL_TOKEN_COLUMNS}, used_at FROM personal_tokens"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let token = personal_token(row)?;
        if let Some(used_at) = row.get::<_, Option<i64>>("used_at")? {
            used.insert(token.id, Timestamp(used_at));
        }
        personal_tokens.put(Arc::new(token));
    }
    let mut login_networks = BTreeMap::new();
    let mut statement = connection.prepare("SELECT user_id, network, used_at FROM login_networks")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        login_networks.insert((row.get(0)?, row.get(1)?), Timestamp(row.get(2)?));
    }
    let mut todos = TodoMap::default();
    for (owner, head) in &heads {
        todos.set_revision(*owner, head.revision);
    }
    let mut statement = connection.prepare(&format!("SELECT {TODO_COLUMNS}, deleted_uptime FROM todos"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let todo = Arc::new(todo(row)?);
        match row.get("deleted_uptime")? {
            None => todos.insert(todo),
            Some(uptime) => todos.insert_trashed(todo, uptime),
        }
    }
    Ok(Loaded {
        epoch,
        users,
        heads,
        sessions,
        personal_tokens,
        used,
        login_networks,
        erasing,
        kept: KeptSizes::new(idempotency::sizes(connection)?),
        todos,
        next: Next {
            user: UserId(next(connection, "users")?),
            session: SessionId(next(connection, "sessions")?),
            personal_token: PersonalTokenId(next(connection, "personal_tokens")?),
            id: TodoId(next(connection, "todos")?),
            place: Place(next(connection, "changes")?),
        },
        position: Position { change: Place(next(connection, "changes")? - 1), record: 0 },
        pending: connection.query_row("SELECT count(*) FROM changes WHERE state = 0", [], |row| row.get(0))?,
        uptime: uptime(connection)?,
    })
}

/// For how many seconds the service has run on the database. After a kill, meta can be older than the last change.
pub fn uptime(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT max(uptime, coalesce((SELECT uptime FROM changes ORDER BY seq DESC LIMIT 1), 0)) FROM meta";
    connection.query_row(sql, [], |row| row.get(0))
}

/// One more than the highest number that AUTOINCREMENT ever assigned in `table`.
pub fn next(connection: &Connection, table: &str) -> rusqlite::Result<i64> {
    let last: Option<i64> = connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = ?1", [table], |row| row.get(0))
        .optional()?;
    Ok(last.unwrap_or(0) + 1)
}
