//! What an operator does with a Postgres database besides what Postgres' own tools do: check it, renew its epoch.

use deadpool_postgres::ClientWrapper;

use super::backend::Session;
use super::connection::Connector;
use super::database::runtime;
use super::error::PostgresError;
use super::rows::get;
use super::schema;
use crate::domain::change::Epoch;
use crate::store::check::{self, ACCOUNT_RULE, BEFORE_RULE, MAX_LISTED, RULES, RULES_WITH_TRASH, Rule};
use crate::store::error::DatabaseError;

/// What only holds here, or what a foreign key or the column's place says elsewhere.
const OWN_RULES: [Rule; 4] = [
    (
        "what is in the log or waits is that of an account",
        "SELECT DISTINCT 'owner ' || owner_id FROM (SELECT owner_id FROM changes UNION ALL SELECT owner_id FROM todos
             UNION ALL SELECT owner_id FROM idempotency UNION ALL SELECT user_id FROM sessions
             UNION ALL SELECT user_id FROM personal_tokens UNION ALL SELECT user_id FROM login_networks) AS x
         WHERE NOT EXISTS (SELECT 1 FROM users WHERE users.id = x.owner_id)",
    ),
    (
        "what waits for the relay is in the log",
        "SELECT 'change ' || o.seq FROM outbox o LEFT JOIN changes c USING (seq)
         WHERE c.todo_id IS DISTINCT FROM o.todo_id OR c.version IS DISTINCT FROM o.version
             OR c.owner_id IS DISTINCT FROM o.owner_id OR c.revision IS DISTINCT FROM o.revision",
    ),
    (
        "there are no changes after the head, and no records",
        "SELECT 'meta' FROM meta WHERE head < (SELECT max(seq) FROM changes)
             OR records < (SELECT max(number) FROM records)",
    ),
    (
        "ids that are not used yet are greater than all others",
        "SELECT 'meta' FROM meta WHERE next_todo <= (SELECT coalesce(max(id), 0) FROM todos)
             OR next_todo <= (SELECT coalesce(max(todo_id), 0) FROM changes)
             OR next_user <= (SELECT coalesce(max(id), 0) FROM users)
             OR next_session <= (SELECT coalesce(max(id), 0) FROM sessions)
             OR next_personal_token <= (SELECT coalesce(max(id), 0) FROM personal_tokens)",
    ),
];

/// Holds except while events are republished: `check` reports it; it is no reason to refuse anything.
const DELIVERY_RULE: Rule = (
    "no published change of a todo comes after one that waits, but while events are published again",
    "SELECT 'todo ' || o.todo_id FROM (SELECT todo_id, min(version) AS version FROM outbox WHERE state = 0
         GROUP BY todo_id) AS o
     WHERE EXISTS (SELECT 1 FROM changes c WHERE c.todo_id = o.todo_id AND c.version > o.version
         AND NOT EXISTS (SELECT 1 FROM outbox w WHERE w.seq = c.seq))",
);

/// Checks the log's invariants; returns the violations. Works while the service runs.
pub fn check(connector: &Connector) -> Result<Vec<String>, DatabaseError> {
    let location = connector.location();
    let failed = DatabaseError::postgres(&location);
    runtime()?.block_on(async {
        let (client, _) = connector.connect().await.map_err(&failed)?.cached();
        as_it_should_be(&client, &location).await?;
        find_violations(&client, Some(&DELIVERY_RULE)).await.map_err(&failed)
    })
}

/// Gives the database a new epoch, and ends all sessions and personal access tokens. The service must not be running.
pub fn renew_epoch(connector: &Connector) -> Result<Epoch, DatabaseError> {
    let location = connector.location();
    let failed = DatabaseError::postgres(&location);
    runtime()?.block_on(async {
        let session = Session::alone(connector).await.map_err(&failed)?;
        refuse_bad(&session.client, &location).await?;
        let epoch = Epoch(rand::random());
        let sql = format!("BEGIN; {}; COMMIT", set_epoch(epoch));
        session.client.batch_execute(&sql).await.map_err(|error| failed(error.into()))?;
        Ok(epoch)
    })
}

/// Statements that give the database another epoch. Sessions and tokens may have been ended since the moment that it was restored to.
/// A service that only seemed to be stopped sees by the epoch that it was left behind.
pub fn set_epoch(epoch: Epoch) -> String {
    format!(
        "UPDATE meta SET epoch = '{epoch}'; DELETE FROM sessions; DELETE FROM personal_tokens; DELETE FROM processes"
    )
}

/// Refuses a database that is not one of this version, or that breaks a rule.
pub async fn refuse_bad(client: &ClientWrapper, location: &str) -> Result<(), DatabaseError> {
    as_it_should_be(client, location).await?;
    let violations = find_violations(client, None).await.map_err(DatabaseError::postgres(location))?;
    match violations.into_iter().next() {
        Some(violation) => Err(DatabaseError::BadDatabase { database: location.to_owned(), violation }),
        None => Ok(()),
    }
}

/// Refuses a database that is not one of this version, or not all of one.
async fn as_it_should_be(client: &ClientWrapper, location: &str) -> Result<(), DatabaseError> {
    let database = location.to_owned();
    match schema::version(client).await.map_err(DatabaseError::postgres(location))? {
        0 => Err(DatabaseError::Empty { database }),
        found if found > schema::VERSION => Err(DatabaseError::NewerSchema { database, found, known: schema::VERSION }),
        found if found < schema::VERSION => Err(DatabaseError::OlderSchema { database, found, known: schema::VERSION }),
        _ if schema::is_unfinished(client).await.map_err(DatabaseError::postgres(location))? => {
            Err(DatabaseError::Unfinished { database })
        }
        _ => Ok(()),
    }
}

/// Refuses a database if what was in it goes on elsewhere.
pub async fn refuse_moved(client: &ClientWrapper, location: &str) -> Result<(), DatabaseError> {
    match schema::moved_to(client).await.map_err(DatabaseError::postgres(location))? {
        Some(target) => {
            Err(DatabaseError::Moved { database: location.to_owned(), target, undo: "DROP TABLE moved_to".to_owned() })
        }
        None => Ok(()),
    }
}

/// Looks for what breaks a rule of the log, or one rule more.
pub async fn find_violations(client: &ClientWrapper, more: Option<&Rule>) -> Result<Vec<String>, PostgresError> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0";
    client.batch_execute(begin).await?;
    let mut violations = Vec::new();
    let rules =
        RULES.iter().chain(&RULES_WITH_TRASH).chain([&ACCOUNT_RULE, &BEFORE_RULE]).chain(&OWN_RULES).chain(more);
    for (rule, sql) in rules {
        for row in &client.query(&format!("{sql} LIMIT {MAX_LISTED}"), &[]).await? {
            violations.push(check::violation(rule, get(row, 0)?));
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(violations)
}
