//! Loads a database into memory at start.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use futures_util::StreamExt;
use tokio_postgres::Row;

use super::error::PostgresError;
use super::idempotency;
use super::rows::{
    ACCOUNT_COLUMNS, PERSONAL_TOKEN_COLUMNS, SESSION_COLUMNS, TODO_COLUMNS, account, get, invalid, network,
    personal_token, session, todo,
};
use crate::domain::account::{AccountState, UserId};
use crate::domain::change::{Epoch, Place};
use crate::domain::clock::Timestamp;
use crate::store::backend::Position;
use crate::store::decide::{Head, Next};
use crate::store::loaded::Loaded;
use crate::store::map::TodoMap;
use crate::store::map::sessions::{PersonalTokens, Sessions};
use crate::store::map::users::Users;
use crate::store::writer::kept_sizes::KeptSizes;

/// Reads everything that is kept in memory, as of one moment. `demo_users`: whether they exist.
pub async fn load(client: &ClientWrapper, demo_users: bool) -> Result<Loaded, PostgresError> {
    // Nothing else is asked before it is over.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0;
        SET LOCAL idle_in_transaction_session_timeout = 0";
    client.batch_execute(begin).await?;
    let loaded = load_all(client, demo_users).await?;
    client.batch_execute("COMMIT").await?;
    Ok(loaded)
}

async fn load_all(client: &ClientWrapper, demo_users: bool) -> Result<Loaded, PostgresError> {
    let meta = client
        .query_one(
            "SELECT epoch, head, records, next_user, next_todo, next_session, next_personal_token, greatest(uptime, \
             extract(epoch FROM clock_timestamp())::bigint, (SELECT uptime FROM changes ORDER BY seq DESC \
             LIMIT 1)) AS uptime FROM meta",
            &[],
        )
        .await?;
    let mut users = Users::new(demo_users);
    let mut heads = HashMap::new();
    let mut erasing = Vec::new();
    let sql = format!("SELECT {ACCOUNT_COLUMNS}, revision, last_at, floor, erased FROM users");
    each(client, &sql, |row| {
        let user = account(row)?;
        let head = Head {
            revision: get(row, "revision")?,
            last_at: Timestamp(get(row, "last_at")?),
            pruned_through: get(row, "floor")?,
        };
        heads.insert(user.id, head);
        if user.state == AccountState::Deleted && !get::<bool>(row, "erased")? {
            erasing.push(user.id);
        }
        users.put(Arc::new(user));
        Ok(())
    })
    .await?;
    let mut sessions = Sessions::default();
    let sql = format!("SELECT {SESSION_COLUMNS} FROM sessions");
    each(client, &sql, |row| {
        sessions.put(Arc::new(session(row)?));
        Ok(())
    })
    .await?;
    let (mut personal_tokens, mut used) = (PersonalTokens::default(), HashMap::new());
    let sql = format!("SELECT {PERSONAL_TOKEN_COLUMNS}, used_at FROM personal_tokens");
    each(client, &sql, |row| {
        let token = personal_token(row)?;
        if let Some(used_at) = get::<Option<i64>>(row, "used_at")? {
            used.insert(token.id, Timestamp(used_at));
        }
        personal_tokens.put(Arc::new(token));
        Ok(())
    })
    .await?;
    let mut login_networks = BTreeMap::new();
    each(client, "SELECT user_id, network, used_at FROM login_networks", |row| {
        login_networks.insert((get::<UserId>(row, 0)?, network(get(row, 1)?)?), Timestamp(get(row, 2)?));
        Ok(())
    })
    .await?;
    let mut todos = TodoMap::default();
    for (owner, head) in &heads {
        todos.set_revision(*owner, head.revision);
    }
    let sql = format!("SELECT {TODO_COLUMNS}, deleted_uptime FROM todos");
    each(client, &sql, |row| {
        let todo = Arc::new(todo(row)?);
        match get(row, "deleted_uptime")? {
            None => todos.insert(todo),
            Some(uptime) => todos.insert_trashed(todo, uptime),
        }
        Ok(())
    })
    .await?;
    let pending: i64 = get(&client.query_one("SELECT count(*) FROM outbox WHERE state = 0", &[]).await?, 0)?;
    Ok(Loaded {
        epoch: Epoch::parse(get(&meta, "epoch")?).ok_or_else(|| invalid("meta.epoch"))?,
        users,
        heads,
        sessions,
        personal_tokens,
        used,
        login_networks,
        erasing,
        kept: KeptSizes::new(idempotency::sizes(client).await?),
        todos,
        next: Next {
            user: get(&meta, "next_user")?,
            session: get(&meta, "next_session")?,
            personal_token: get(&meta, "next_personal_token")?,
            id: get(&meta, "next_todo")?,
            place: Place(get::<i64>(&meta, "head")? + 1),
        },
        position: Position { change: get(&meta, "head")?, record: get(&meta, "records")? },
        pending: usize::try_from(pending).unwrap_or_default(),
        uptime: get(&meta, "uptime")?,
    })
}

/// Reads rows one after the other, and not all at once.
async fn each(
    client: &ClientWrapper,
    sql: &str,
    mut take: impl FnMut(&Row) -> Result<(), PostgresError>,
) -> Result<(), PostgresError> {
    let none: [&str; 0] = [];
    let mut rows = pin!(client.query_raw(sql, none).await?);
    while let Some(row) = rows.next().await {
        take(&row?)?;
    }
    Ok(())
}
