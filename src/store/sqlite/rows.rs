//! Conversions between rows and the domain's types.

use std::sync::Arc;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::domain::account::{AccountState, Role, TokenEpoch, User, UserId};
use crate::domain::change::{Before, Change, DeliveryState, Epoch, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::network::Network;
use crate::domain::session::{PersonalToken, PersonalTokenId, Scope, Session, SessionId, SessionKey};
use crate::domain::todo::due::Due;
use crate::domain::todo::field::FieldVersions;
use crate::domain::todo::tags::Tags;
use crate::domain::todo::{Todo, TodoId, Version};
use crate::domain::trace::TraceParent;
use crate::store::stored;

/// The columns that [`todo()`] reads, in its order, after the id.
macro_rules! todo_columns {
    () => {
        "owner_id, version, title, description, completed, created_at, updated_at, due_at, priority, tags, sort_order, \
         field_versions"
    };
}

/// The columns of `todos` that [`todo()`] reads.
pub const TODO_COLUMNS: &str = concat!("id, ", todo_columns!());

/// Reads a todo from [`TODO_COLUMNS`], or from columns like them at the beginning of others.
pub fn todo(row: &Row<'_>) -> rusqlite::Result<Todo> {
    Ok(Todo {
        id: row.get(0)?,
        owner: row.get(1)?,
        version: row.get(2)?,
        title: row.get::<_, Box<str>>(3)?,
        description: row.get::<_, Option<Box<str>>>(4)?,
        completed: row.get(5)?,
        created_at: Timestamp(row.get(6)?),
        updated_at: Timestamp(row.get(7)?),
        due_at: row.get(8)?,
        priority: row.get(9)?,
        tags: row.get::<_, Option<Tags>>(10)?.unwrap_or_default(),
        order: row.get(11)?,
        field_versions: row.get::<_, Option<FieldVersions>>(12)?.unwrap_or_default(),
    })
}

/// The columns that [`change`] reads, in its order.
pub const CHANGE_COLUMNS: &str = concat!(
    "todo_id, ",
    todo_columns!(),
    ", seq, revision, kind, at, actor, changed, trace, scrubbed, \
     coalesce((SELECT username FROM users WHERE users.id = changes.owner_id), actor) AS created_by, batch, op"
);

/// Reads a change from [`CHANGE_COLUMNS`].
pub fn change(row: &Row<'_>, epoch: Epoch) -> rusqlite::Result<Change> {
    let kind: usize = row.get("kind")?;
    let changed: String = row.get("changed")?;
    let trace: String = row.get("trace")?;
    Ok(Change {
        place: row.get("seq")?,
        epoch,
        revision: row.get("revision")?,
        kind: *Kind::ALL.get(kind).ok_or_else(|| invalid("changes.kind"))?,
        at: Timestamp(row.get("at")?),
        actor: row.get::<_, String>("actor")?.into(),
        changed: stored::fields_from_text(&changed),
        trace: TraceParent::parse(&trace).ok_or_else(|| invalid("changes.trace"))?,
        scrubbed: row.get("scrubbed")?,
        created_by: row.get::<_, String>("created_by")?.into(),
        batch: row.get("batch")?,
        op: row.get::<_, Option<String>>("op")?.map(Into::into),
        todo: Arc::new(todo(row)?),
    })
}

/// The columns that [`account`] reads.
pub const ACCOUNT_COLUMNS: &str = "id, username, password_hash, role, state, token_epoch, created_at, demo, deleted_by";

/// Reads an account from [`ACCOUNT_COLUMNS`].
pub fn account(row: &Row<'_>) -> rusqlite::Result<User> {
    let (role, state): (String, usize) = (row.get("role")?, row.get("state")?);
    Ok(User {
        id: row.get("id")?,
        username: row.get::<_, String>("username")?.into(),
        password_hash: row.get::<_, Box<str>>("password_hash")?,
        role: Role::from_name(&role).ok_or_else(|| invalid("users.role"))?,
        state: *AccountState::ALL.get(state).ok_or_else(|| invalid("users.state"))?,
        token_epoch: row.get("token_epoch")?,
        created_at: Timestamp(row.get("created_at")?),
        is_demo: row.get("demo")?,
        deleted_by: row.get::<_, Option<String>>("deleted_by")?.map(Into::into),
    })
}

/// The columns that [`session`] reads.
pub const SESSION_COLUMNS: &str = "id, user_id, created_at, user_agent, key, latest, rotated_at, repeats";

/// Reads a session from [`SESSION_COLUMNS`].
pub fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let rotated_at: String = row.get("rotated_at")?;
    Ok(Session {
        id: row.get("id")?,
        user: row.get("user_id")?,
        created_at: Timestamp(row.get("created_at")?),
        user_agent: row.get::<_, Option<String>>("user_agent")?.map(Into::into),
        key: SessionKey(row.get("key")?),
        latest: row.get("latest")?,
        rotated_at: stored::times_from_text(&rotated_at).ok_or_else(|| invalid("sessions.rotated_at"))?,
        repeats: row.get("repeats")?,
    })
}

/// The columns that [`personal_token`] reads.
pub const PERSONAL_TOKEN_COLUMNS: &str = "id, user_id, name, scope, hash, created_at, expires_at";

/// Reads a personal access token from [`PERSONAL_TOKEN_COLUMNS`].
pub fn personal_token(row: &Row<'_>) -> rusqlite::Result<PersonalToken> {
    let scope: String = row.get("scope")?;
    Ok(PersonalToken {
        id: row.get("id")?,
        user: row.get("user_id")?,
        name: row.get::<_, String>("name")?.into(),
        scope: Scope::from_name(&scope).ok_or_else(|| invalid("personal_tokens.scope"))?,
        hash: row.get("hash")?,
        created_at: Timestamp(row.get("created_at")?),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Timestamp),
    })
}

/// The error for a value that no version up to this one writes.
pub fn invalid(column: &str) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnName(format!("{column} holds a value that this version does not know"))
}

/// Stores the domain's numbers as SQLite's integers.
macro_rules! as_integer {
    ($($number:ident),+) => {
        $(
            impl ToSql for $number {
                fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                    self.0.to_sql()
                }
            }

            impl FromSql for $number {
                fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                    i64::column_result(value).map($number)
                }
            }
        )+
    };
}

as_integer!(UserId, TokenEpoch, SessionId, PersonalTokenId, TodoId, Version, Revision, Place);

/// Stores values of the domain as the text that they are shown as.
macro_rules! as_text {
    ($($value:ident),+) => {
        $(
            impl ToSql for $value {
                fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                    Ok(self.to_string().into())
                }
            }

            impl FromSql for $value {
                fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                    Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
                }
            }
        )+
    };
}

as_text!(Network, Due);

/// NULL: none.
impl ToSql for Tags {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = stored::tags_to_text(self).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(text.map_or(rusqlite::types::Null.into(), ToSqlOutput::from))
    }
}

impl FromSql for Tags {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        stored::tags_from_text(value.as_str()?).map_err(FromSqlError::other)
    }
}

/// As text; NULL: all are the first.
impl ToSql for FieldVersions {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_text().map_or(rusqlite::types::Null.into(), ToSqlOutput::from))
    }
}

impl FromSql for FieldVersions {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Before {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text =
            stored::before_to_text(self).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(text.into())
    }
}

impl FromSql for Before {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        stored::before_from_text(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for DeliveryState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for DeliveryState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = i64::column_result(value)?;
        Self::ALL.into_iter().find(|state| *state as i64 == number).ok_or(FromSqlError::OutOfRange(number))
    }
}
