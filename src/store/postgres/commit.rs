//! Commits: what one transaction writes. All of its statements are sent at once, so that it takes two round trips.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::Pin;

use deadpool_postgres::ClientWrapper;
use futures_util::future::join_all;
use tokio_postgres::types::ToSql;

use super::error::PostgresError;
use super::idempotency;
use super::rows::escaped;
use super::tail;
use crate::domain::change::{Change, DeliveryState, Kind, Place};
use crate::domain::todo::TodoId;
use crate::store::abort::abort;
use crate::store::backend::Commit;
use crate::store::decide::Next;
use crate::store::outbox::Marks;
use crate::store::stored;

/// The process's row, as it was before a transaction.
#[derive(Debug, Clone, Copy)]
pub struct ProcessRow {
    pub id: i32,
    /// The connection's number.
    pub fence: i64,
    /// Transactions that were committed.
    pub commits: i64,
}

/// Fails, and so aborts its transaction, if the process's row is not as it should be, because another connection of the process
/// has taken over, or the database was set back; or if it is not the transaction's turn any more.
const FENCE: &str = "WITH moved AS (UPDATE processes SET commits = commits + 1
         WHERE id = $1 AND fence = $2 AND commits = $3 RETURNING 1),
     turn AS (UPDATE meta SET turns = turns + 1 WHERE turns = $4 AND EXISTS (SELECT 1 FROM moved) RETURNING 1)
     SELECT 1 / count(*) FROM turn";

/// See [`FENCE`]; for transactions that write no group.
pub async fn fence(client: &ClientWrapper, process: ProcessRow, turn: i64) -> Result<(), PostgresError> {
    let statement = client.prepare_cached(FENCE).await?;
    client.execute(&statement, &[&process.id, &process.fence, &process.commits, &turn]).await?;
    Ok(())
}

/// The log, what waits for the relay, and the todos as their last changes leave them.
const CHANGES: &str = "WITH new AS (
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[],
             $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::boolean[], $14::bigint[],
             $15::bigint[], $16::text[], $17::smallint[], $18::text[], $19::double precision[], $20::text[],
             $21::boolean[], $22::bigint[], $23::text[], $24::text[])
         AS new (seq, owner_id, revision, todo_id, version, kind, at, actor, changed, trace, title, description,
             completed, created_at, updated_at, due_at, priority, tags, sort_order, field_versions, scrubbed, batch, op,
             before)
     ), logged AS (
         INSERT INTO changes (seq, owner_id, revision, todo_id, version, kind, at, actor, changed, trace, title,
             description, completed, created_at, updated_at, due_at, priority, tags, sort_order, field_versions, scrubbed,
             batch, op, before, uptime)
         SELECT *, $25::bigint FROM new
     ), waiting AS (
         INSERT INTO outbox (seq, todo_id, version, owner_id, revision)
         SELECT seq, todo_id, version, owner_id, revision FROM new
     )
     INSERT INTO todos (id, owner_id, version, title, description, completed, created_at, updated_at, due_at, priority,
         tags, sort_order, field_versions, deleted_uptime)
     SELECT DISTINCT ON (todo_id) todo_id, owner_id, version, title, description, completed, created_at, updated_at,
         due_at, priority, tags, sort_order, field_versions, CASE WHEN kind = $26 THEN $25 END
     FROM new WHERE NOT scrubbed ORDER BY todo_id, version DESC
     ON CONFLICT (id) DO UPDATE SET version = excluded.version, title = excluded.title,
         description = excluded.description, completed = excluded.completed, updated_at = excluded.updated_at,
         due_at = excluded.due_at, priority = excluded.priority, tags = excluded.tags,
         sort_order = excluded.sort_order, field_versions = excluded.field_versions,
         deleted_uptime = excluded.deleted_uptime";

const REMOVE_TODOS: &str = "DELETE FROM todos WHERE id = ANY($1)";

const HEADS: &str = "UPDATE users SET revision = new.revision, last_at = new.last_at
     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS new (id, revision, last_at) WHERE users.id = new.id";

/// In the order of their ids: a demo user makes room before its successor takes the name. What belongs to their part of the log,
/// such as the revision, is written elsewhere.
const ACCOUNTS: &str = "INSERT INTO users (id, username, password_hash, role, state, token_epoch, created_at, demo,
         deleted_by, revision, last_at, floor)
     SELECT *, 0, 0, 0 FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::bigint[],
         $7::bigint[], $8::boolean[], $9::text[])
     ON CONFLICT (id) DO UPDATE SET password_hash = excluded.password_hash, role = excluded.role,
         state = excluded.state, token_epoch = excluded.token_epoch, deleted_by = excluded.deleted_by";

const SESSIONS: &str = "INSERT INTO sessions (id, user_id, created_at, user_agent, key, latest, rotated_at, repeats)
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[], $6::bytea[], $7::text[],
         $8::bigint[])
     ON CONFLICT (id) DO UPDATE SET latest = excluded.latest, rotated_at = excluded.rotated_at,
         repeats = excluded.repeats";

const END_SESSIONS: &str = "DELETE FROM sessions WHERE id = ANY($1)";

const PERSONAL_TOKENS: &str = "INSERT INTO personal_tokens (id, user_id, name, scope, hash, created_at, expires_at)
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[])";

const REVOKE_PERSONAL_TOKENS: &str = "DELETE FROM personal_tokens WHERE id = ANY($1)";

const PUBLISHED: &str = "DELETE FROM outbox WHERE seq = ANY($1) AND state = 0";

/// Only by whoever publishes the todo's events now: somebody else may have got further.
const MARKED: &str = "UPDATE outbox SET state = $2 WHERE seq = ANY($1) AND state = 0
     AND EXISTS (SELECT 1 FROM leases WHERE part = todo_id % 64 AND process = $3 AND until > clock_timestamp())";

/// See `tail::records`.
const RECORDS: &str = "INSERT INTO records (number, kind, id, user_id)
     SELECT records + nth, kind, new.id, user_id FROM meta, unnest($1::smallint[], $2::bigint[], $3::bigint[])
         WITH ORDINALITY AS new (kind, id, user_id, nth)";

/// Where the log ends after a group, and the ids that are not used then.
const END: &str = "UPDATE meta SET head = greatest(head, $1), records = records + $2, next_user = $3, next_todo = $4,
     next_session = $5, next_personal_token = $6";

const UPTIME: &str = "UPDATE meta SET uptime = greatest(uptime, $1)";

type Parameter<'a> = Box<dyn ToSql + Sync + Send + 'a>;
type Sending<'a> = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + 'a>>;

/// What became of a transaction.
#[derive(Debug)]
pub enum Failed {
    /// Nothing of it is in the database.
    NotApplied(PostgresError),
    /// It may be in the database. The session is over.
    Unknown(PostgresError),
}

/// How many of these marks are stored only by whoever publishes the events.
pub fn guarded(marks: &Marks) -> usize {
    marks.values().filter(|state| **state != DeliveryState::Published).count()
}

/// What became of a group's marks.
#[derive(Debug, Clone, Copy)]
pub struct Marked {
    /// All that are stored only by whoever publishes the events were.
    pub guarded: bool,
    /// Nobody else has said of any of the events that it is published, or what else became of it.
    pub alone: bool,
}

/// Commits a group, in a transaction that has begun and whose turn it is.
pub async fn commit(
    client: &ClientWrapper,
    group: &Commit<'_>,
    process: ProcessRow,
    turn: i64,
) -> Result<Marked, Failed> {
    let statements = statements(group, process, turn).map_err(|error| Failed::NotApplied(error.into()))?;
    let (mut prepared, mut sent) = (Vec::with_capacity(statements.len()), Vec::with_capacity(statements.len()));
    for (sql, parameters) in statements {
        let statement = client.prepare_cached(sql).await.map_err(not_applied)?;
        prepared.push((statement, parameters));
        sent.push(sql);
    }
    let mut sending: Vec<Sending<'_>> = Vec::with_capacity(prepared.len() + 1);
    for (statement, parameters) in &prepared {
        sending.push(Box::pin(async move {
            let parameters = parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync));
            client.execute_raw(statement, parameters).await
        }));
    }
    sending.push(Box::pin(async { client.batch_execute("COMMIT").await.map(|()| 0) }));
    // The first poll of each sends it, in this order.
    let mut answers = join_all(sending).await;
    let committed = answers.pop().unwrap_or(Ok(0));
    let rows_of = |sql: &str| {
        let rows = answers.iter().zip(&sent).filter(|(_, is)| **is == sql).filter_map(|(rows, _)| rows.as_ref().ok());
        usize::try_from(rows.sum::<u64>()).unwrap_or(usize::MAX)
    };
    let (guarded, published) = (guarded(group.marks), group.marks.len() - guarded(group.marks));
    let marked = Marked { guarded: rows_of(MARKED) == guarded, alone: rows_of(PUBLISHED) == published };
    // COMMIT is no error after one: it answers ROLLBACK. So each of them counts.
    if let Some(error) = answers.into_iter().find_map(Result::err).map(PostgresError::from) {
        if committed.is_ok() && error.code().is_none() {
            abort(format_args!(
                "a group was committed without one of its statements, which could not be sent: {error}"
            ));
        }
        return Err(if error.is_refusal() { Failed::NotApplied(error) } else { Failed::Unknown(error) });
    }
    match committed.map_err(PostgresError::from) {
        Ok(_) => Ok(marked),
        Err(error) if error.is_conflict() => Err(Failed::NotApplied(error)),
        Err(error) => Err(Failed::Unknown(error)),
    }
}

/// Before COMMIT is sent, nothing is stored.
fn not_applied(error: tokio_postgres::Error) -> Failed {
    Failed::NotApplied(error.into())
}

/// What a group writes, in this order.
fn statements<'a>(
    group: &Commit<'a>,
    process: ProcessRow,
    turn: i64,
) -> serde_json::Result<Vec<(&'static str, Vec<Parameter<'a>>)>> {
    let &Commit { decided, marks, uptime, save_uptime } = group;
    let mut all = vec![(FENCE, list([b(process.id), b(process.fence), b(process.commits), b(turn)]))];
    if !decided.accounts.is_empty() {
        let accounts = || decided.accounts.values();
        all.push((
            ACCOUNTS,
            list([
                column(accounts(), |account| account.id),
                column(accounts(), |account| &*account.username),
                column(accounts(), |account| &*account.password_hash),
                column(accounts(), |account| account.role.name()),
                column(accounts(), |account| account.state as i16),
                column(accounts(), |account| account.token_epoch),
                column(accounts(), |account| account.created_at.0),
                column(accounts(), |account| account.is_demo),
                column(accounts(), |account| account.deleted_by.as_deref()),
            ]),
        ));
    }
    if !decided.sessions.is_empty() {
        let sessions = || decided.sessions.values().flatten();
        all.push((
            SESSIONS,
            list([
                column(sessions(), |session| session.id),
                column(sessions(), |session| session.user),
                column(sessions(), |session| session.created_at.0),
                column(sessions(), |session| session.user_agent.as_deref()),
                column(sessions(), |session| &session.key.0[..]),
                column(sessions(), |session| &session.latest[..]),
                column(sessions(), |session| stored::times_to_text(&session.rotated_at)),
                column(sessions(), |session| i64::from(session.repeats)),
            ]),
        ));
        all.push((END_SESSIONS, list([b(ended(&decided.sessions).copied().collect::<Vec<_>>())])));
    }
    if !decided.personal_tokens.is_empty() {
        let tokens = || decided.personal_tokens.values().flatten();
        all.push((
            PERSONAL_TOKENS,
            list([
                column(tokens(), |token| token.id),
                column(tokens(), |token| token.user),
                column(tokens(), |token| escaped(&token.name)),
                column(tokens(), |token| token.scope.name()),
                column(tokens(), |token| &token.hash[..]),
                column(tokens(), |token| token.created_at.0),
                column(tokens(), |token| token.expires_at.map(|at| at.0)),
            ]),
        ));
        let revoked: Vec<_> = ended(&decided.personal_tokens).map(|(_, id)| *id).collect();
        all.push((REVOKE_PERSONAL_TOKENS, list([b(revoked)])));
    }
    if !decided.changes.is_empty() {
        all.push((CHANGES, changes(group)?));
    }
    let scrubbed = decided.changes.iter().filter(|change| change.scrubbed).map(|change| change.todo.id);
    let removed: Vec<TodoId> = scrubbed.chain(decided.purged.iter().map(|(_, id)| *id)).collect();
    if !removed.is_empty() {
        all.push((REMOVE_TODOS, list([b(removed)])));
    }
    if !decided.answers.is_empty() {
        all.push((idempotency::WRITE, idempotency::written(&decided.answers, uptime)?));
    }
    if !decided.heads.is_empty() {
        let heads = || decided.heads.iter();
        all.push((
            HEADS,
            list([
                column(heads(), |(owner, _)| *owner),
                column(heads(), |(_, head)| head.revision),
                column(heads(), |(_, head)| head.last_at.0),
            ]),
        ));
    }
    let marked = |state: DeliveryState| -> Vec<Place> {
        marks.iter().filter(|(_, is)| **is == state).map(|(place, _)| *place).collect()
    };
    let published = marked(DeliveryState::Published);
    if !published.is_empty() {
        all.push((PUBLISHED, list([b(published)])));
    }
    for state in [DeliveryState::Parked, DeliveryState::Skipped] {
        let places = marked(state);
        if !places.is_empty() {
            all.push((MARKED, list([b(places), b(state as i16), b(process.id)])));
        }
    }
    if !decided.is_empty() {
        let (kinds, ids, users) = tail::records(decided);
        let count = i64::try_from(kinds.len()).unwrap_or(i64::MAX);
        if count > 0 {
            all.push((RECORDS, list([b(kinds), b(ids), b(users)])));
        }
        let head = decided.changes.last().map_or(Place(0), |change| change.place);
        let Next { user, session, personal_token, id, .. } = decided.next;
        all.push((END, list([b(head), b(count), b(user), b(id), b(session), b(personal_token)])));
    }
    if save_uptime {
        all.push((UPTIME, list([b(uptime)])));
    }
    Ok(all)
}

fn changes<'a>(group: &Commit<'a>) -> serde_json::Result<Vec<Parameter<'a>>> {
    let changes = || group.decided.changes.iter().map(|change| &**change);
    let todos = || changes().map(|change| &*change.todo);
    let tags = todos().map(|todo| stored::tags_to_text(&todo.tags)).collect::<Result<Vec<_>, _>>()?;
    let before = changes()
        .zip(&group.decided.before)
        .map(|(change, before)| before.as_ref().filter(|_| !change.scrubbed).map(stored::before_to_text).transpose());
    let before = before.collect::<Result<Vec<_>, _>>()?;
    Ok(list([
        column(changes(), |change| change.place),
        column(todos(), |todo| todo.owner),
        column(changes(), |change| change.revision),
        column(todos(), |todo| todo.id),
        column(todos(), |todo| todo.version),
        column(changes(), |change| change.kind as i16),
        column(changes(), |change| change.at.0),
        column(changes(), |change| &*change.actor),
        column(changes(), |change| stored::fields_to_text(&change.changed)),
        column(changes(), |change: &Change| change.trace.as_str()),
        column(todos(), |todo| escaped(&todo.title)),
        column(todos(), |todo| todo.description.as_deref().map(escaped)),
        column(todos(), |todo| todo.completed),
        column(todos(), |todo| todo.created_at.0),
        column(todos(), |todo| todo.updated_at.0),
        column(todos(), |todo| todo.due_at.as_ref().map(ToString::to_string)),
        column(todos(), |todo| todo.priority.map(i16::from)),
        b(tags),
        column(todos(), |todo| todo.order),
        column(todos(), |todo| todo.field_versions.to_text()),
        column(changes(), |change| change.scrubbed),
        column(changes(), |change| change.batch),
        column(changes(), |change| change.op.as_deref().map(Cow::Borrowed)),
        b(before),
        b(group.uptime),
        b(Kind::Deleted as i16),
    ]))
}

/// The keys of what is over.
fn ended<K, V>(all: &BTreeMap<K, Option<V>>) -> impl Iterator<Item = &K> {
    all.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key)
}

/// A parameter.
pub fn b<'a>(value: impl ToSql + Sync + Send + 'a) -> Parameter<'a> {
    Box::new(value)
}

/// A parameter that is an array: a value of each row.
pub fn column<'a, R, T>(rows: impl Iterator<Item = R>, value: impl FnMut(R) -> T) -> Parameter<'a>
where
    T: ToSql + Sync + Send + 'a,
{
    Box::new(rows.map(value).collect::<Vec<T>>())
}

fn list<'a, const N: usize>(parameters: [Parameter<'a>; N]) -> Vec<Parameter<'a>> {
    parameters.into()
}
