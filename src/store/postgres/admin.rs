//! Operators' commands about events.

use deadpool_postgres::ClientWrapper;

use super::error::PostgresError;
use super::rows::get;
use crate::domain::change::{DeliveryState, Place, Revision};
use crate::store::command::OutboxCommand;

/// The changes that a command affects and their revisions, the latest first: at most `limit`, all below `below`.
pub async fn read_affected(
    client: &ClientWrapper,
    command: &OutboxCommand,
    below: Revision,
    limit: usize,
) -> Result<Vec<(Place, Revision)>, PostgresError> {
    let (sql, target): (&str, [i64; 2]) = match *command {
        OutboxCommand::Retry { todo, version } | OutboxCommand::Skip { todo, version } => (
            "SELECT seq, revision FROM outbox WHERE todo_id = $1 AND version = $2 AND state = 2
                 AND revision < $3 ORDER BY revision DESC LIMIT $4",
            [todo.0, version.0],
        ),
        // What has no row there is published.
        OutboxCommand::Republish { owner, from_revision } => (
            "SELECT seq, revision FROM changes AS c WHERE owner_id = $1 AND revision >= $2 AND revision < $3
                 AND NOT EXISTS (SELECT 1 FROM outbox AS o WHERE o.seq = c.seq)
             ORDER BY revision DESC LIMIT $4",
            [owner.0, from_revision.0],
        ),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(sql, &[&target[0], &target[1], &below, &limit]).await?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

/// Gives changes the state that the command asks for; returns how many. Those that were read may have been changed since.
pub async fn set_states(
    client: &ClientWrapper,
    command: &OutboxCommand,
    places: &[Place],
) -> Result<usize, PostgresError> {
    let sql = match command {
        OutboxCommand::Retry { .. } | OutboxCommand::Skip { .. } => {
            "UPDATE outbox SET state = $2 WHERE seq = ANY($1) AND state = 2"
        }
        OutboxCommand::Republish { .. } => {
            "INSERT INTO outbox (seq, todo_id, version, owner_id, revision, state)
             SELECT seq, todo_id, version, owner_id, revision, $2 FROM changes WHERE seq = ANY($1)
             ON CONFLICT DO NOTHING"
        }
    };
    let count = client.execute(sql, &[&places, &(command.state_after() as i16)]).await?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Whether a change has the state that the command asks for.
pub async fn is_done(client: &ClientWrapper, command: &OutboxCommand, place: Place) -> Result<bool, PostgresError> {
    let row = client.query_opt("SELECT state FROM outbox WHERE seq = $1", &[&place]).await?;
    let state = row.map(|row| get::<i16>(&row, 0)).transpose()?.unwrap_or(DeliveryState::Published as i16);
    Ok(state == command.state_after() as i16)
}
