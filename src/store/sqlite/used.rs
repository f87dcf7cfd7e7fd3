//! Saves when personal access tokens were used, and from where people have logged in.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::commit::in_transaction;
use crate::domain::clock::Timestamp;
use crate::domain::session::PersonalTokenId;
use crate::store::backend::CommitError;
use crate::store::map::login_networks::Unsaved;

/// Saves both, and removes networks that are not known any more.
pub fn save(
    connection: &mut Connection,
    tokens: &HashMap<PersonalTokenId, Timestamp>,
    networks: &Unsaved,
) -> Result<(), CommitError> {
    in_transaction(connection, |transaction| {
        let mut save = transaction.prepare_cached("UPDATE personal_tokens SET used_at = ?2 WHERE id = ?1")?;
        tokens.iter().try_for_each(|(id, at)| save.execute(params![id, at.0]).map(drop))?;
        let mut save = transaction.prepare_cached(
            "INSERT INTO login_networks (user_id, network, used_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (user_id, network) DO UPDATE SET used_at = excluded.used_at",
        )?;
        for ((user, network), at) in &networks.used {
            save.execute(params![user, network, at.0])?;
        }
        let mut forget =
            transaction.prepare_cached("DELETE FROM login_networks WHERE user_id = ?1 AND network = ?2")?;
        networks.forgotten.iter().try_for_each(|(user, network)| forget.execute(params![user, network]).map(drop))
    })
}
