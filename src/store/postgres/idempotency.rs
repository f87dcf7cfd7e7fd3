//! The answers that are kept of requests that can be repeated.

use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::ToSql;

use super::commit::{b, column};
use super::error::PostgresError;
use super::rows::{get, invalid};
use crate::domain::account::UserId;
use crate::store::backend::{Answers, MAX_ANSWERS};
use crate::store::decide::KeptAnswers;
use crate::store::idempotency::{Idempotency, KeptAnswer, Known};
use crate::store::writer::kept_sizes::size;

/// How much is kept of each user's answers, in bytes.
pub async fn sizes(client: &ClientWrapper) -> Result<Vec<(UserId, u64)>, PostgresError> {
    let sql = "SELECT owner_id, sum(size)::bigint FROM idempotency GROUP BY owner_id";
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((get(row, 0)?, get::<i64>(row, 1)?.unsigned_abs()))).collect()
}

/// How much is kept of the answers of a user, in bytes.
pub async fn size_of(client: &ClientWrapper, owner: UserId) -> Result<u64, PostgresError> {
    let sql = "SELECT coalesce(sum(size), 0)::bigint FROM idempotency WHERE owner_id = $1";
    Ok(get::<i64>(&client.query_one(sql, &[&owner]).await?, 0)?.unsigned_abs())
}

/// What the database has of a request that can be repeated. Reads the body only if it is to be repeated.
pub async fn find(
    client: &ClientWrapper,
    owner: UserId,
    request: &Idempotency,
) -> Result<Option<Known>, PostgresError> {
    let sql = "SELECT fingerprint = $3, status, headers, CASE WHEN fingerprint = $3 THEN body END
         FROM idempotency WHERE owner_id = $1 AND request = $2";
    let statement = client.prepare_cached(sql).await?;
    let fingerprint = &request.fingerprint[..];
    let Some(row) = client.query_opt(&statement, &[&owner, &&*request.request, &fingerprint]).await? else {
        return Ok(None);
    };
    if !get::<bool>(&row, 0)? {
        return Ok(Some(Known::Other));
    }
    let headers = serde_json::from_str(get(&row, 2)?).map_err(|_| invalid("idempotency.headers"))?;
    let status = u16::try_from(get::<i16>(&row, 1)?).map_err(|_| invalid("idempotency.status"))?;
    Ok(Some(Known::Answered(Arc::new(KeptAnswer { status, headers, body: get(&row, 3)? }))))
}

/// Keeps answers.
pub const WRITE: &str = "INSERT INTO idempotency (owner_id, request, fingerprint, status, headers, body, size, uptime)
     SELECT *, $8::bigint FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::smallint[], $5::text[], $6::bytea[],
         $7::bigint[])";

/// The parameters of [`WRITE`].
pub fn written(answers: &KeptAnswers, uptime: i64) -> serde_json::Result<Vec<Box<dyn ToSql + Sync + Send + '_>>> {
    let all = || answers.iter();
    let headers = all().map(|(_, kept)| serde_json::to_string(&kept.answer.headers)).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![
        column(all(), |((owner, _), _)| *owner),
        column(all(), |((_, request), _)| &**request),
        column(all(), |(_, kept)| &kept.fingerprint[..]),
        // All of them are between 200 and 599.
        column(all(), |(_, kept)| i16::try_from(kept.answer.status).unwrap_or(i16::MAX)),
        b(headers),
        column(all(), |(_, kept)| &kept.answer.body[..]),
        column(all(), |((_, request), kept)| i64::try_from(size(request, &kept.answer)).unwrap_or(i64::MAX)),
        b(uptime),
    ])
}

/// Removes some answers; returns whose they were, and their sizes.
pub async fn remove(client: &ClientWrapper, which: Answers) -> Result<Vec<(UserId, u64)>, PostgresError> {
    let columns = "SELECT id, owner_id, size FROM idempotency WHERE";
    let rows = match which {
        Answers::Before(uptime) => {
            let sql = format!("{columns} uptime < $1 ORDER BY uptime LIMIT {MAX_ANSWERS}");
            client.query(&sql, &[&uptime]).await?
        }
        Answers::Of(owner, _) => {
            let sql = format!("{columns} owner_id = $1 ORDER BY id LIMIT {MAX_ANSWERS}");
            client.query(&sql, &[&owner]).await?
        }
    };
    let (mut ids, mut removed, mut bytes) = (Vec::new(), Vec::new(), 0);
    for row in &rows {
        let size = get::<i64>(row, 2)?.unsigned_abs();
        ids.push(get::<i64>(row, 0)?);
        removed.push((get(row, 1)?, size));
        bytes += size;
        if bytes >= which.enough() {
            break;
        }
    }
    if !ids.is_empty() {
        client.execute("DELETE FROM idempotency WHERE id = ANY($1)", &[&ids]).await?;
    }
    Ok(removed)
}
