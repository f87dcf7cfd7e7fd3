//! Leases of the database's clock: renewed while this process lives, taken over when another one does not.
//!
//! They are for efficiency: whoever publishes a change of a todo has published the one before, or has read that somebody has, so
//! two that publish the same at once repeat events, and never turn them round.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper;

use super::error::PostgresError;
use super::rows::get;
use crate::store::leases::{Leases, Parts, share};

/// How often they are renewed. They last four times as long: whoever dies is replaced after the sum of both.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// The least time between two renewals.
pub const RENEW_PAUSE: Duration = Duration::from_millis(200);
/// After a renewal was sent, nothing is begun once so much time has passed by this machine's clock: well before they end by the
/// database's, which was read later.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// The number of the lease for keeping house.
const HOUSE: i16 = 64;

/// Says that this process is there.
const HERE: &str = "UPDATE processes SET seen_at = clock_timestamp(), relays = $2 WHERE id = $1";

/// Those that are there, and how many of them can publish.
const OTHERS: &str = "SELECT count(*), count(*) FILTER (WHERE relays) FROM processes
     WHERE seen_at > clock_timestamp() - interval '8 s'";

/// Given up: what is not used any more.
const RELEASE: &str = "UPDATE leases SET process = NULL, until = '-infinity'
     WHERE process = $1 AND part < 64 AND NOT part = ANY($2)";

const RENEW: &str = "UPDATE leases SET until = clock_timestamp() + interval '8 s' WHERE process = $1 RETURNING part";

/// Those that nobody has. A process that is stopping has no row any more.
const CLAIM: &str = "UPDATE leases SET process = $1, until = clock_timestamp() + interval '8 s'
     WHERE EXISTS (SELECT 1 FROM processes WHERE id = $1)
         AND part IN (SELECT part FROM leases WHERE until < clock_timestamp() AND part < 64 ORDER BY random() LIMIT $2
             FOR UPDATE SKIP LOCKED)
     RETURNING part";
const CLAIM_HOUSE: &str = "UPDATE leases SET process = $1, until = clock_timestamp() + interval '8 s'
     WHERE EXISTS (SELECT 1 FROM processes WHERE id = $1)
         AND part IN (SELECT part FROM leases WHERE until < clock_timestamp() AND part = 64 FOR UPDATE SKIP LOCKED)
     RETURNING part";

/// Renews the leases of a process, takes its share of those that nobody has, and gives up what is more. Returns how many events
/// wait, whoever publishes them.
pub async fn renew(client: &ClientWrapper, process: i32, leases: &Arc<Leases>) -> Result<usize, PostgresError> {
    let (used, can_publish) = leases.state();
    let sent = Instant::now();
    client.execute(&client.prepare_cached(HERE).await?, &[&process, &can_publish]).await?;
    let row = client.query_one(&client.prepare_cached(OTHERS).await?, &[]).await?;
    let count = |index| get::<i64>(&row, index).map(|count| usize::try_from(count).unwrap_or_default());
    let share = match (can_publish, count(0)?, count(1)?) {
        (_, all, 0) => share(all),
        (true, _, publishing) => share(publishing),
        (false, ..) => 0,
    };
    let kept: Vec<i16> = used.numbers().collect();
    client.execute(&client.prepare_cached(RELEASE).await?, &[&process, &kept]).await?;
    let mut held = numbers(client, RENEW, &[&process]).await?;
    let room = share.saturating_sub(held.iter().filter(|part| **part != HOUSE).count());
    if room > 0 {
        let room = i64::try_from(room).unwrap_or(i64::MAX);
        held.extend(numbers(client, CLAIM, &[&process, &room]).await?);
    }
    let keeps_house = held.contains(&HOUSE) || !numbers(client, CLAIM_HOUSE, &[&process]).await?.is_empty();
    let parts = held.into_iter().collect::<Parts>().at_most(share, used);
    leases.renewed(parts, keeps_house, sent + GOOD_FOR);
    let waiting = client.prepare_cached("SELECT count(*) FROM outbox WHERE state = 0").await?;
    let waiting: i64 = get(&client.query_one(&waiting, &[]).await?, 0)?;
    Ok(usize::try_from(waiting).unwrap_or_default())
}

async fn numbers(
    client: &ClientWrapper,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Vec<i16>, PostgresError> {
    let rows = client.query(&client.prepare_cached(sql).await?, parameters).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}
