//! Saves when personal access tokens were used, and from where people have logged in.

use std::collections::HashMap;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;

use super::error::PostgresError;
use super::rows::{get, network};
use crate::domain::account::UserId;
use crate::domain::clock::Timestamp;
use crate::domain::session::PersonalTokenId;
use crate::store::backend::UsedElsewhere;
use crate::store::map::login_networks::Unsaved;

/// What was saved of both since a time.
pub async fn since(client: &ClientWrapper, since: Timestamp) -> Result<UsedElsewhere, PostgresError> {
    let tokens = client.query("SELECT id, used_at FROM personal_tokens WHERE used_at > $1", &[&since.0]).await?;
    let sql = "SELECT user_id, network, used_at FROM login_networks WHERE used_at > $1";
    let networks = client.query(sql, &[&since.0]).await?;
    let token = |row: &Row| Ok((get(row, 0)?, Timestamp(get(row, 1)?)));
    let of = |row: &Row| Ok(((get(row, 0)?, network(get(row, 1)?)?), Timestamp(get(row, 2)?)));
    Ok(UsedElsewhere {
        tokens: tokens.iter().map(token).collect::<Result<_, PostgresError>>()?,
        networks: networks.iter().map(of).collect::<Result<_, PostgresError>>()?,
    })
}

/// Saves both, and removes networks that are not known any more.
pub async fn save(
    client: &ClientWrapper,
    tokens: &HashMap<PersonalTokenId, Timestamp>,
    networks: &Unsaved,
) -> Result<(), PostgresError> {
    let (ids, at): (Vec<PersonalTokenId>, Vec<i64>) = tokens.iter().map(|(id, at)| (*id, at.0)).unzip();
    let sql = "UPDATE personal_tokens SET used_at = greatest(used_at, used.at) FROM unnest($1::bigint[], $2::bigint[]) AS used (id, at)
         WHERE personal_tokens.id = used.id";
    client.execute(sql, &[&ids, &at]).await?;
    let users: Vec<UserId> = networks.used.iter().map(|((user, _), _)| *user).collect();
    let names: Vec<String> = networks.used.iter().map(|((_, network), _)| network.to_string()).collect();
    let at: Vec<i64> = networks.used.iter().map(|(_, at)| at.0).collect();
    let sql = "INSERT INTO login_networks (user_id, network, used_at)
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])
         ON CONFLICT (user_id, network) DO UPDATE SET used_at = greatest(login_networks.used_at, excluded.used_at)";
    client.execute(sql, &[&users, &names, &at]).await?;
    let (users, names): (Vec<UserId>, Vec<String>) =
        networks.forgotten.iter().map(|(user, network)| (*user, network.to_string())).unzip();
    let sql = "DELETE FROM login_networks AS n USING unnest($1::bigint[], $2::text[]) AS gone (user_id, network)
         WHERE n.user_id = gone.user_id AND n.network = gone.network";
    client.execute(sql, &[&users, &names]).await?;
    Ok(())
}
