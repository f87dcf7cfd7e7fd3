//! What other processes have committed: read before each group, which is then decided on all of it, and all the time, for those
//! who read.
//!
//! Every transaction that writes locks the row of `meta` first, so they take turns, and the log has one order. Whoever sees a
//! commit sees all that were before it: the lock is held until a transaction is visible.

use std::collections::BTreeSet;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connection::Connector;
use super::error::PostgresError;
use super::rows::{
    ACCOUNT_COLUMNS, CHANGE_COLUMNS, PERSONAL_TOKEN_COLUMNS, SESSION_COLUMNS, account, change, get, personal_token,
    session,
};
use crate::domain::account::UserId;
use crate::domain::change::{Epoch, Place};
use crate::domain::session::{PersonalTokenId, SessionId};
use crate::domain::todo::TodoId;
use crate::store::abort::abort;
use crate::store::backend::{Missed, Position, Turn};
use crate::store::decide::{Decided, Next};

/// Begins a transaction, whatever the server's default is.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Where the log ends, and the unused numbers.
const END: &str =
    "SELECT epoch, head, records, turns, next_user, next_todo, next_session, next_personal_token FROM meta";

/// Changes, and records, that can be caught up with at once. Whoever has missed more reads everything again, which takes less
/// memory.
const MAX_MISSED: usize = 100_000;

/// What a row of `records` is about. The numbers are those in the database: only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Account = 0,
    Session = 1,
    PersonalToken = 2,
    /// A todo that was removed from the trash.
    Purged = 3,
    /// Delivery states that no relay has changed.
    States = 4,
}

/// A turn to write, and the number of turns before it.
pub struct Begun {
    pub turn: Turn,
    pub number: i64,
}

/// Begins a transaction, and waits for its turn.
pub async fn begin(client: &ClientWrapper, epoch: Epoch, seen: Position) -> Result<Begun, PostgresError> {
    let end = client.prepare_cached(&format!("{END} FOR UPDATE")).await?;
    let (records, changes) = statements(client).await?;
    let (records_of, changes_of): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) =
        ([&seen.record], [&seen.change]);
    // Sent at once, and done one after the other: what is read is read with the lock.
    let (begun, end, records, changes) = tokio::join!(
        client.batch_execute(BEGIN),
        client.query_one(&end, &[]),
        client.query(&records, &records_of),
        client.query(&changes, &changes_of),
    );
    // Without it, each of what follows would be a transaction of its own.
    begun?;
    let end = end?;
    let missed = missed(client, epoch, seen, &end, &records?, &changes?).await?;
    let next = Next {
        user: get(&end, "next_user")?,
        session: get(&end, "next_session")?,
        personal_token: get(&end, "next_personal_token")?,
        id: get(&end, "next_todo")?,
        place: Place(get::<i64>(&end, "head")? + 1),
    };
    Ok(Begun { turn: Turn { missed, next }, number: get(&end, "turns")? })
}

/// Begins a transaction that does not depend on what others have committed, and waits for its turn; returns its number.
pub async fn lock(client: &ClientWrapper) -> Result<i64, PostgresError> {
    let statement = client.prepare_cached("SELECT turns FROM meta FOR UPDATE").await?;
    client.batch_execute(BEGIN).await?;
    get(&client.query_one(&statement, &[]).await?, 0)
}

/// Ends the process if what is stored does not follow from what is in memory.
pub fn abort_if_left_behind(connector: &Connector, error: &PostgresError) {
    if let PostgresError::LeftBehind(why) = error {
        abort(format_args!(
            "{} {why}; aborting, a restart reads what is stored. After a restore, run `todo-backend renew-epoch` first",
            connector.location()
        ));
    }
}

/// What was committed since `seen`; `None`: nothing.
pub async fn poll(client: &ClientWrapper, epoch: Epoch, seen: Position) -> Result<Option<Missed>, PostgresError> {
    let end = client.prepare_cached(END).await?;
    let end = client.query_one(&end, &[]).await?;
    // Mostly there is nothing.
    if position(&end)? == seen {
        return missed(client, epoch, seen, &end, &[], &[]).await;
    }
    let (records, changes) = statements(client).await?;
    let (records_of, changes_of): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) =
        ([&seen.record], [&seen.change]);
    // After the end: all up to there is read.
    let (records, changes) =
        tokio::try_join!(client.query(&records, &records_of), client.query(&changes, &changes_of))?;
    missed(client, epoch, seen, &end, &records, &changes).await
}

type Statement = tokio_postgres::Statement;

/// Those that read records and changes.
async fn statements(client: &ClientWrapper) -> Result<(Statement, Statement), PostgresError> {
    // With both ends, whatever statistics there are, the planner takes them for few, and uses the index.
    let changes = format!(
        "SELECT {CHANGE_COLUMNS}, uptime FROM changes AS c WHERE seq > $1 AND seq <= $1 + {MAX_MISSED} ORDER BY seq"
    );
    let records = format!(
        "SELECT number, kind, id, user_id FROM records WHERE number > $1 AND number <= $1 + {MAX_MISSED} ORDER BY number"
    );
    Ok((client.prepare_cached(&records).await?, client.prepare_cached(&changes).await?))
}

fn position(end: &Row) -> Result<Position, PostgresError> {
    Ok(Position { change: get(end, "head")?, record: get(end, "records")? })
}

/// Checks that nothing is missing between what was seen and what was read, and reads what the records are about.
async fn missed(
    client: &ClientWrapper,
    epoch: Epoch,
    seen: Position,
    end: &Row,
    records: &[Row],
    changes: &[Row],
) -> Result<Option<Missed>, PostgresError> {
    if Epoch::parse(get(end, "epoch")?) != Some(epoch) {
        return Err(PostgresError::LeftBehind("has another epoch"));
    }
    let head = position(end)?;
    if head.change.0 < seen.change.0 || head.record < seen.record {
        return Err(PostgresError::LeftBehind("was set back"));
    }
    if head == seen {
        return Ok(None);
    }
    if changes.len() == MAX_MISSED || records.len() == MAX_MISSED {
        return Err(PostgresError::LeftBehind("was changed too much meanwhile"));
    }
    let mut through = seen;
    let mut found = Records::default();
    // No more than that: of two that were committed later, one may have been read and the other one not.
    for row in records {
        if through.record == head.record {
            break;
        }
        through.record += 1;
        if get::<i64>(row, 0)? != through.record {
            return Err(PostgresError::LeftBehind(FORGOTTEN));
        }
        found.add(row)?;
    }
    let mut decided = Decided::nothing(NO_NEXT);
    let mut uptimes = Vec::with_capacity(changes.len());
    for row in changes {
        if through.change == head.change {
            break;
        }
        through.change.0 += 1;
        let change = change(row, epoch)?;
        if change.place != through.change {
            return Err(PostgresError::LeftBehind(FORGOTTEN));
        }
        uptimes.push(get(row, "uptime")?);
        decided.changes.push(Arc::new(change));
    }
    if through != head {
        return Err(PostgresError::LeftBehind(FORGOTTEN));
    }
    found.read(client, &mut decided).await?;
    Ok(Some(Missed { decided, uptimes, through }))
}

const FORGOTTEN: &str = "does not have all of what was changed meanwhile any more";

/// What other processes have decided is not what a group is decided with.
const NO_NEXT: Next =
    Next { user: UserId(0), session: SessionId(0), personal_token: PersonalTokenId(0), id: TodoId(0), place: Place(0) };

/// What records are about.
#[derive(Default)]
struct Records {
    accounts: Vec<UserId>,
    sessions: BTreeSet<SessionId>,
    tokens: BTreeSet<(UserId, PersonalTokenId)>,
    purged: Vec<(UserId, TodoId)>,
    restarts_relays: bool,
}

impl Records {
    fn add(&mut self, row: &Row) -> Result<(), PostgresError> {
        let (kind, id, user): (i16, i64, UserId) = (get(row, 1)?, get(row, 2)?, get(row, 3)?);
        match kind {
            kind if kind == Kind::Account as i16 => self.accounts.push(UserId(id)),
            kind if kind == Kind::Session as i16 => _ = self.sessions.insert(SessionId(id)),
            kind if kind == Kind::PersonalToken as i16 => _ = self.tokens.insert((user, PersonalTokenId(id))),
            kind if kind == Kind::Purged as i16 => self.purged.push((user, TodoId(id))),
            kind if kind == Kind::States as i16 => self.restarts_relays = true,
            _ => return Err(PostgresError::LeftBehind("is written by a newer todo-backend")),
        }
        Ok(())
    }

    /// Reads them as they are now, which is not older than their records.
    async fn read(self, client: &ClientWrapper, decided: &mut Decided) -> Result<(), PostgresError> {
        decided.purged = self.purged.into_iter().collect();
        decided.restarts_relays = self.restarts_relays;
        if !self.accounts.is_empty() {
            let sql = format!("SELECT {ACCOUNT_COLUMNS} FROM users WHERE id = ANY($1)");
            let statement = client.prepare_cached(&sql).await?;
            for row in &client.query(&statement, &[&self.accounts]).await? {
                let account = account(row)?;
                decided.accounts.insert(account.id, Arc::new(account));
            }
        }
        if !self.sessions.is_empty() {
            let ids: Vec<SessionId> = self.sessions.into_iter().collect();
            decided.sessions = ids.iter().map(|id| (*id, None)).collect();
            let sql = format!("SELECT {SESSION_COLUMNS} FROM sessions WHERE id = ANY($1)");
            let statement = client.prepare_cached(&sql).await?;
            for row in &client.query(&statement, &[&ids]).await? {
                let session = session(row)?;
                decided.sessions.insert(session.id, Some(Arc::new(session)));
            }
        }
        if !self.tokens.is_empty() {
            let ids: Vec<PersonalTokenId> = self.tokens.iter().map(|(_, id)| *id).collect();
            decided.personal_tokens = self.tokens.into_iter().map(|key| (key, None)).collect();
            let sql = format!("SELECT {PERSONAL_TOKEN_COLUMNS} FROM personal_tokens WHERE id = ANY($1)");
            let statement = client.prepare_cached(&sql).await?;
            for row in &client.query(&statement, &[&ids]).await? {
                let token = personal_token(row)?;
                decided.personal_tokens.insert((token.user, token.id), Some(Arc::new(token)));
            }
        }
        Ok(())
    }
}

/// How long records are kept at least. Whoever has not heard of one by then starts again.
const KEPT_FOR: &str = "1 day";
/// Records that are removed at once, at most.
const MAX_FORGOTTEN: usize = 10_000;

/// The last one of some records that are old, if there are any.
pub async fn old_records(client: &ClientWrapper) -> Result<Option<i64>, PostgresError> {
    let sql = format!(
        "SELECT max(number) FROM (SELECT number FROM records WHERE at < clock_timestamp() - interval '{KEPT_FOR}'
             ORDER BY at LIMIT {MAX_FORGOTTEN}) AS old"
    );
    get(&client.query_one(&sql, &[]).await?, 0)
}

/// Removes records up to this one.
pub async fn forget_records(client: &ClientWrapper, last: i64) -> Result<(), PostgresError> {
    client.execute("DELETE FROM records WHERE number <= $1", &[&last]).await?;
    Ok(())
}

/// The records of a group: kinds, ids and users.
pub fn records(decided: &Decided) -> (Vec<i16>, Vec<i64>, Vec<UserId>) {
    let accounts = decided.accounts.keys().map(|id| (Kind::Account, id.0, *id));
    let sessions = decided.sessions.iter().map(|(id, session)| {
        let user = session.as_ref().map_or(UserId(0), |session| session.user);
        (Kind::Session, id.0, user)
    });
    let tokens = decided.personal_tokens.keys().map(|(user, id)| (Kind::PersonalToken, id.0, *user));
    let purged = decided.purged.iter().map(|(user, id)| (Kind::Purged, id.0, *user));
    let (mut kinds, mut ids, mut users) = (Vec::new(), Vec::new(), Vec::new());
    let states = decided.restarts_relays.then_some((Kind::States, 0, UserId(0)));
    for (kind, id, user) in accounts.chain(sessions).chain(tokens).chain(purged).chain(states) {
        kinds.push(kind as i16);
        ids.push(id);
        users.push(user);
    }
    (kinds, ids, users)
}
