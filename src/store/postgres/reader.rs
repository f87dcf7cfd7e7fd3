//! What the relay and the metrics read from the log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use deadpool_postgres::{ClientWrapper, Transaction};
use tokio_postgres::IsolationLevel;

use super::error::PostgresError;
use super::rows::{CHANGE_COLUMNS, change, get};
use crate::domain::change::{Change, Cursor, DeliveryState, Epoch, Place};
use crate::domain::clock::Timestamp;
use crate::domain::todo::{TodoId, Version};
use crate::store::change_log::LogSamples;
use crate::store::outbox::{Discovered, Discovery, Fed, Found, MAX_DISCOVERY, Marks, Wanted};

/// Samples the log. The search for the oldest pending change starts at `from`.
pub async fn sample_log(client: &mut ClientWrapper, from: Place) -> Result<LogSamples, PostgresError> {
    let snapshot = snapshot(client).await?;
    let sql =
        "SELECT seq, (SELECT at FROM changes AS c WHERE c.seq = o.seq) FROM outbox AS o WHERE state = 0 AND seq >= $1
         AND NOT EXISTS (SELECT 1 FROM outbox AS parked WHERE parked.todo_id = o.todo_id AND parked.state = 2)
         ORDER BY seq LIMIT 1";
    let statement = snapshot.prepare_cached(sql).await?;
    let oldest = snapshot.query_opt(&statement, &[&from]).await?;
    let sql = "SELECT (SELECT count(*) FROM outbox WHERE state = 0), (SELECT count(*) FROM outbox WHERE state = 2),
         (SELECT coalesce(sum(revision - floor), 0)::bigint FROM users), pg_database_size(current_database())";
    let statement = snapshot.prepare_cached(sql).await?;
    let row = snapshot.query_one(&statement, &[]).await?;
    Ok(LogSamples {
        oldest_pending: oldest.as_ref().map(|row| get(row, 1).map(Timestamp)).transpose()?,
        oldest_from: match &oldest {
            Some(row) => get(row, 0)?,
            None => end(&snapshot).await?.place(),
        },
        pending: Some(get(&row, 0)?),
        parked: get(&row, 1)?,
        changes: get(&row, 2)?,
        database_bytes: get(&row, 3)?,
        wal_bytes: 0,
    })
}

async fn snapshot(client: &mut ClientWrapper) -> Result<Transaction<'_>, PostgresError> {
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    Ok(snapshot.start().await?)
}

/// The end of the log.
async fn end(snapshot: &Transaction<'_>) -> Result<Cursor, PostgresError> {
    let statement = snapshot.prepare_cached("SELECT head FROM meta").await?;
    Ok(Cursor::up_to(get(&snapshot.query_one(&statement, &[]).await?, 0)?))
}

/// See [`crate::store::Store::read_outbox`].
pub async fn read_outbox(
    client: &mut ClientWrapper,
    epoch: Epoch,
    wanted: &Wanted,
    marked: &Marks,
) -> Result<Found, PostgresError> {
    let snapshot = snapshot(client).await?;
    let mut found = Found { fed: read_wanted(&snapshot, epoch, wanted, marked).await?, discovered: None };
    if wanted.discover > 0 {
        found.discovered = Some(discover(&snapshot, wanted, marked).await?);
    }
    Ok(found)
}

async fn read_wanted(
    snapshot: &Transaction<'_>,
    epoch: Epoch,
    wanted: &Wanted,
    marked: &Marks,
) -> Result<Vec<Fed>, PostgresError> {
    if wanted.wants.is_empty() || wanted.room == 0 {
        return Ok(Vec::new());
    }
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    // Of each todo one more than is wanted, to see whether there are more. In all, no more than there is room for.
    let sql = format!(
        "SELECT {CHANGE_COLUMNS}, state FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
             AS wanted (todo, above, most, nth)
         CROSS JOIN LATERAL (
             SELECT seq, state FROM outbox AS o
             WHERE todo_id = wanted.todo AND version > wanted.above AND state IN (0, 2) AND seq <= $4
                 AND seq NOT IN (SELECT unnest($5::bigint[]))
                 AND NOT EXISTS (SELECT 1 FROM outbox AS p WHERE p.todo_id = wanted.todo AND p.state = 2
                     AND p.version > wanted.above AND p.version < o.version)
             ORDER BY version LIMIT most + 1
         ) AS pending
         JOIN changes AS c USING (seq) ORDER BY nth, version LIMIT $6"
    );
    let statement = snapshot.prepare_cached(&sql).await?;
    let through = wanted.announced_through.place();
    let todos: Vec<TodoId> = wanted.wants.iter().map(|want| want.todo).collect();
    let above: Vec<Version> = wanted.wants.iter().map(|want| want.above).collect();
    let most: Vec<i64> = wanted.wants.iter().map(|want| number(want.limit)).collect();
    let marked: Vec<Place> = marked.keys().copied().collect();
    let room = number(wanted.room.saturating_add(wanted.wants.len()));
    let rows = snapshot.query(&statement, &[&todos, &above, &most, &through, &marked, &room]).await?;
    let mut pending: HashMap<TodoId, Vec<Arc<Change>>> = HashMap::new();
    let mut parked: HashSet<TodoId> = HashSet::new();
    for row in &rows {
        let todo = get(row, 0)?;
        // Another process may have parked it meanwhile: it is the last one, since nothing behind it is sent.
        if get::<i16>(row, "state")? == DeliveryState::Parked as i16 {
            parked.insert(todo);
        } else {
            pending.entry(todo).or_default().push(Arc::new(change(row, epoch)?));
        }
    }
    let (mut fed, mut room) = (Vec::new(), wanted.room);
    for want in &wanted.wants {
        if room == 0 {
            break;
        }
        let mut changes = pending.remove(&want.todo).unwrap_or_default();
        let limit = want.limit.min(room);
        let is_parked = parked.contains(&want.todo);
        let (more, parked) = (changes.len() > limit || is_parked, is_parked && changes.is_empty());
        changes.truncate(limit);
        room -= changes.len();
        fed.push(Fed { todo: want.todo, changes, more, parked });
    }
    Ok(fed)
}

/// Finds todos with pending changes beyond what was read. Looks at a bounded number of changes, at each only once.
async fn discover(snapshot: &Transaction<'_>, wanted: &Wanted, marked: &Marks) -> Result<Discovered, PostgresError> {
    let mut parked: HashSet<TodoId> = HashSet::new();
    // Each time: another process may have parked one since, and what is behind it would be found alone.
    let statement = snapshot.prepare_cached("SELECT DISTINCT todo_id FROM outbox WHERE state = 2").await?;
    for row in &snapshot.query(&statement, &[]).await? {
        parked.insert(get(row, 0)?);
    }
    if wanted.read_through == Cursor::START {
        // If such a mark is committed before a later discovery gets that far, neither of them would see it.
        let places = marked.iter().filter(|(_, state)| **state == DeliveryState::Parked).map(|(place, _)| *place);
        let places: Vec<Place> = places.collect();
        let statement = snapshot.prepare_cached("SELECT todo_id FROM changes WHERE seq = ANY($1)").await?;
        for row in &snapshot.query(&statement, &[&places]).await? {
            parked.insert(get(row, 0)?);
        }
    }
    let end = end(snapshot).await?;
    let sql = "SELECT seq, todo_id, version FROM outbox WHERE state = 0 AND seq > $1 AND todo_id % 64 = ANY($2)
         ORDER BY seq LIMIT $3";
    let statement = snapshot.prepare_cached(sql).await?;
    let parts: Vec<i64> = wanted.parts.numbers().map(i64::from).collect();
    let most = i64::try_from(MAX_DISCOVERY).unwrap_or(i64::MAX);
    let mut discovery = Discovery::new(wanted, marked, parked);
    for row in &snapshot.query(&statement, &[&wanted.read_through.place(), &parts, &most]).await? {
        if !discovery.look_at(get(row, 0)?, get(row, 1)?, get(row, 2)?) {
            break;
        }
    }
    Ok(discovery.finish(end))
}

/// Parked changes, oldest first.
pub async fn read_parked(client: &ClientWrapper, epoch: Epoch, limit: usize) -> Result<Vec<Change>, PostgresError> {
    let sql = format!(
        "SELECT {CHANGE_COLUMNS} FROM changes AS c
             JOIN (SELECT seq FROM outbox WHERE state = 2 ORDER BY seq LIMIT $1) AS parked USING (seq) ORDER BY seq"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(&sql, &[&limit]).await?;
    rows.iter().map(|row| change(row, epoch)).collect()
}
