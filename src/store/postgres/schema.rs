//! The schema: migrations, and the demo users of development.

use deadpool_postgres::ClientWrapper;

use super::error::PostgresError;
use super::rows::get;
use crate::domain::account::DemoUser;
use crate::domain::change::Epoch;
use crate::domain::clock::Timestamp;

/// Migrations in order; `meta.version` is the number of those that a database has had. Append only. A new version works beside
/// the one before it: what it needs is added first, what nobody needs any more is removed a version later.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];

/// The version of the schema that this program knows.
pub const VERSION: usize = MIGRATIONS.len();

/// The schema's version in the database; 0: there is none yet.
pub async fn version(client: &ClientWrapper) -> Result<usize, PostgresError> {
    let sql = "SELECT current_schema()::text, to_regclass(quote_ident(current_schema()) || '.meta') IS NOT NULL,
             current_setting('server_encoding')";
    let row = client.query_one(sql, &[]).await?;
    let encoding: String = get(&row, 2)?;
    if encoding != "UTF8" {
        return Err(PostgresError::Encoding(encoding));
    }
    if get::<Option<&str>>(&row, 0)?.is_none() {
        return Err(PostgresError::NoSchema);
    }
    if !get::<bool>(&row, 1)? {
        return Ok(0);
    }
    let row = client.query_one("SELECT version FROM meta", &[]).await?;
    Ok(usize::try_from(get::<i32>(&row, 0)?).unwrap_or(usize::MAX))
}

/// Creates the schema or brings it up to date from `version`, in one transaction.
pub async fn migrate(client: &ClientWrapper, version: usize) -> Result<(), PostgresError> {
    if version >= VERSION {
        return Ok(());
    }
    client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'").await?;
    // After an error, the connection is given up, and with it the transaction.
    for migration in MIGRATIONS.iter().skip(version) {
        client.batch_execute(migration).await?;
    }
    if version == 0 {
        let epoch = Epoch(rand::random()).to_string();
        client.execute("INSERT INTO meta (version, epoch) VALUES (0, $1)", &[&epoch]).await?;
    }
    let version = i32::try_from(VERSION).unwrap_or(i32::MAX);
    client.execute("UPDATE meta SET version = $1", &[&version]).await?;
    Ok(client.batch_execute("COMMIT").await?)
}

/// Marks a database into which another one is being copied.
pub const UNFINISHED: &str = "CREATE TABLE unfinished_copy (source text NOT NULL, shift bigint NOT NULL)";
/// The copy is complete.
pub const FINISHED: &str = "DROP TABLE unfinished_copy";

/// Whether another database was being copied into this one, and not all of it is there.
pub async fn is_unfinished(client: &ClientWrapper) -> Result<bool, PostgresError> {
    let sql = "SELECT to_regclass(quote_ident(current_schema()) || '.unfinished_copy') IS NOT NULL";
    get(&client.query_one(sql, &[]).await?, 0)
}

/// Where what is in it was copied to, if it was, and is to go on.
pub async fn moved_to(client: &ClientWrapper) -> Result<Option<String>, PostgresError> {
    let sql = "SELECT to_regclass(quote_ident(current_schema()) || '.moved_to') IS NOT NULL";
    if !get(&client.query_one(sql, &[]).await?, 0)? {
        return Ok(None);
    }
    let row = client.query_opt("SELECT target FROM moved_to", &[]).await?;
    row.map(|row| get(&row, 0)).transpose()
}

/// Records that what is in it goes on elsewhere.
pub async fn mark_moved(client: &ClientWrapper, target: &str) -> Result<(), PostgresError> {
    client.batch_execute("BEGIN; DROP TABLE IF EXISTS moved_to; CREATE TABLE moved_to (target text NOT NULL)").await?;
    client.execute("INSERT INTO moved_to (target) VALUES ($1)", &[&target]).await?;
    Ok(client.batch_execute("COMMIT").await?)
}

/// Whether the database has been used with DEBUG=False, by people with accounts of their own.
pub async fn is_production(client: &ClientWrapper) -> Result<bool, PostgresError> {
    let sql = "SELECT production AND EXISTS (SELECT 1 FROM users WHERE NOT demo AND state <> 2) FROM meta";
    get(&client.query_one(sql, &[]).await?, 0)
}

/// Records that the database is used with DEBUG=False.
pub async fn set_production(client: &ClientWrapper) -> Result<(), PostgresError> {
    client.execute("UPDATE meta SET production = true WHERE NOT production", &[]).await?;
    Ok(())
}

/// Creates the demo users whose names are not taken.
pub async fn add_demo_users(
    client: &ClientWrapper,
    demo_users: &[DemoUser],
    hash: &(dyn Fn(&str) -> String + Sync),
    now: Timestamp,
) -> Result<(), PostgresError> {
    for user in demo_users {
        let sql = "SELECT 1 FROM users WHERE lower(username COLLATE \"C\") = lower($1 COLLATE \"C\")";
        if client.query_opt(sql, &[&user.username]).await?.is_some() {
            continue;
        }
        // Made before: it takes a while.
        let hash = hash(user.password);
        // Other processes hear of it as of any other account.
        let sql = "WITH id AS (UPDATE meta SET next_user = next_user + 1, records = records + 1, turns = turns + 1
                 RETURNING next_user - 1 AS id, records),
             told AS (INSERT INTO records (number, kind, id, user_id) SELECT records, 0, id, id FROM id)
             INSERT INTO users (id, username, password_hash, role, demo, created_at, revision, last_at, floor, state, token_epoch)
             SELECT id, $1, $2, $3, true, $4, 0, 0, 0, 0, 0 FROM id";
        client.execute(sql, &[&user.username, &hash, &user.role.name(), &now.0]).await?;
    }
    Ok(())
}
