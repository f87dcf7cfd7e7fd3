//! Conversions between rows and the domain's types.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use super::error::PostgresError;
use crate::domain::account::{AccountState, Role, TokenEpoch, User, UserId};
use crate::domain::change::{Before, Change, Epoch, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::network::Network;
use crate::domain::session::{PersonalToken, PersonalTokenId, Scope, Session, SessionId, SessionKey};
use crate::domain::todo::due::Due;
use crate::domain::todo::field::FieldVersions;
use crate::domain::todo::{Todo, TodoId, Version};
use crate::domain::trace::TraceParent;
use crate::store::stored;

/// What stands before a character that Postgres' texts can't hold (U+0000), and before itself. It is none: Unicode will
/// never assign it.
const ESCAPE: char = '\u{ffff}';

/// A text as it is stored.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(ESCAPE, "\u{ffff}1").replace('\0', "\u{ffff}0"))
}

/// A text that was stored.
pub fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(ESCAPE);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push(if part.starts_with('0') { '\0' } else { ESCAPE });
        whole.push_str(part.get(1..).unwrap_or_default());
    }
    Cow::Owned(whole)
}

/// The columns that [`todo()`] reads, after the id.
macro_rules! todo_columns {
    () => {
        "owner_id, version, title, description, completed, created_at, updated_at, due_at, priority, tags, sort_order, \
         field_versions"
    };
}

/// The columns of `todos` that [`todo()`] reads.
pub const TODO_COLUMNS: &str = concat!("id, ", todo_columns!());

/// Reads a todo from [`TODO_COLUMNS`], or from columns like them at the beginning of others.
pub fn todo(row: &Row) -> Result<Todo, PostgresError> {
    let text = |index| get::<Option<&str>>(row, index);
    Ok(Todo {
        id: get(row, 0)?,
        owner: get(row, 1)?,
        version: get(row, 2)?,
        title: unescaped(get(row, 3)?).into(),
        description: text(4)?.map(|text| unescaped(text).into()),
        completed: get(row, 5)?,
        created_at: Timestamp(get(row, 6)?),
        updated_at: Timestamp(get(row, 7)?),
        due_at: text(8)?.map(|text| Due::parse(text).ok_or_else(|| invalid("due_at"))).transpose()?,
        priority: number(get::<Option<i16>>(row, 9)?, "priority")?,
        tags: text(10)?
            .map(|text| stored::tags_from_text(text).map_err(|_| invalid("tags")))
            .transpose()?
            .unwrap_or_default(),
        order: get(row, 11)?,
        field_versions: text(12)?
            .map(|text| FieldVersions::parse(text).ok_or_else(|| invalid("field_versions")))
            .transpose()?
            .unwrap_or_default(),
    })
}

/// The columns that [`change`] reads, of `changes AS c`, in its order.
pub const CHANGE_COLUMNS: &str = concat!(
    "todo_id, ",
    todo_columns!(),
    ", seq, revision, kind, at, actor, changed, trace, scrubbed, \
     coalesce((SELECT username FROM users WHERE users.id = c.owner_id), actor) AS created_by, batch, op"
);

/// Reads a change from [`CHANGE_COLUMNS`].
pub fn change(row: &Row, epoch: Epoch) -> Result<Change, PostgresError> {
    let kind = number(Some(get::<i16>(row, "kind")?), "kind")?;
    Ok(Change {
        place: get(row, "seq")?,
        epoch,
        revision: get(row, "revision")?,
        kind: kind.and_then(|kind: usize| Kind::ALL.get(kind)).copied().ok_or_else(|| invalid("changes.kind"))?,
        at: Timestamp(get(row, "at")?),
        actor: get::<&str>(row, "actor")?.into(),
        changed: stored::fields_from_text(get(row, "changed")?),
        trace: TraceParent::parse(get(row, "trace")?).ok_or_else(|| invalid("changes.trace"))?,
        scrubbed: get(row, "scrubbed")?,
        created_by: get::<&str>(row, "created_by")?.into(),
        batch: get(row, "batch")?,
        op: get::<Option<&str>>(row, "op")?.map(Into::into),
        todo: Arc::new(todo(row)?),
    })
}

/// Reads what a change has replaced, from the column `before`.
pub fn before(row: &Row) -> Result<Option<Before>, PostgresError> {
    let text = get::<Option<&str>>(row, "before")?;
    text.map(|text| stored::before_from_text(text).ok_or_else(|| invalid("changes.before"))).transpose()
}

/// The columns that [`account`] reads.
pub const ACCOUNT_COLUMNS: &str = "id, username, password_hash, role, state, token_epoch, created_at, demo, deleted_by";

/// Reads an account from [`ACCOUNT_COLUMNS`].
pub fn account(row: &Row) -> Result<User, PostgresError> {
    let state = number(Some(get::<i16>(row, "state")?), "users.state")?;
    Ok(User {
        id: get(row, "id")?,
        username: get::<&str>(row, "username")?.into(),
        password_hash: get::<&str>(row, "password_hash")?.into(),
        role: Role::from_name(get(row, "role")?).ok_or_else(|| invalid("users.role"))?,
        state: state
            .and_then(|state: usize| AccountState::ALL.get(state))
            .copied()
            .ok_or_else(|| invalid("users.state"))?,
        token_epoch: get(row, "token_epoch")?,
        created_at: Timestamp(get(row, "created_at")?),
        is_demo: get(row, "demo")?,
        deleted_by: get::<Option<&str>>(row, "deleted_by")?.map(Into::into),
    })
}

/// The columns that [`session`] reads.
pub const SESSION_COLUMNS: &str = "id, user_id, created_at, user_agent, key, latest, rotated_at, repeats";

/// Reads a session from [`SESSION_COLUMNS`].
pub fn session(row: &Row) -> Result<Session, PostgresError> {
    Ok(Session {
        id: get(row, "id")?,
        user: get(row, "user_id")?,
        created_at: Timestamp(get(row, "created_at")?),
        user_agent: get::<Option<&str>>(row, "user_agent")?.map(Into::into),
        key: SessionKey(bytes(row, "key")?),
        latest: bytes(row, "latest")?,
        rotated_at: stored::times_from_text(get(row, "rotated_at")?).ok_or_else(|| invalid("sessions.rotated_at"))?,
        repeats: number(Some(get::<i64>(row, "repeats")?), "sessions.repeats")?.unwrap_or_default(),
    })
}

/// The columns that [`personal_token`] reads.
pub const PERSONAL_TOKEN_COLUMNS: &str = "id, user_id, name, scope, hash, created_at, expires_at";

/// Reads a personal access token from [`PERSONAL_TOKEN_COLUMNS`].
pub fn personal_token(row: &Row) -> Result<PersonalToken, PostgresError> {
    Ok(PersonalToken {
        id: get(row, "id")?,
        user: get(row, "user_id")?,
        name: unescaped(get(row, "name")?).into(),
        scope: Scope::from_name(get(row, "scope")?).ok_or_else(|| invalid("personal_tokens.scope"))?,
        hash: bytes(row, "hash")?,
        created_at: Timestamp(get(row, "created_at")?),
        expires_at: get::<Option<i64>>(row, "expires_at")?.map(Timestamp),
    })
}

/// Reads a network.
pub fn network(text: &str) -> Result<Network, PostgresError> {
    Network::parse(text).ok_or_else(|| invalid("login_networks.network"))
}

/// A column's value.
pub fn get<'a, T: FromSql<'a>>(
    row: &'a Row,
    column: impl tokio_postgres::row::RowIndex + std::fmt::Display,
) -> Result<T, PostgresError> {
    row.try_get(column).map_err(PostgresError::Value)
}

/// 32 bytes.
pub fn bytes<T: From<[u8; 32]>>(row: &Row, column: &'static str) -> Result<T, PostgresError> {
    let bytes: &[u8] = get(row, column)?;
    <[u8; 32]>::try_from(bytes).map(T::from).map_err(|_| invalid(column))
}

/// A number that has to fit.
fn number<N, T: TryFrom<N>>(number: Option<N>, column: &'static str) -> Result<Option<T>, PostgresError> {
    number.map(T::try_from).transpose().map_err(|_| invalid(column))
}

/// The error for a value that no version up to this one writes.
pub fn invalid(column: &'static str) -> PostgresError {
    PostgresError::Invalid(column)
}

/// Stores the domain's numbers as bigint.
macro_rules! as_bigint {
    ($($number:ident),+) => {
        $(
            impl ToSql for $number {
                fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
                    self.0.to_sql(kind, out)
                }

                accepts!(INT8);
                to_sql_checked!();
            }

            impl<'a> FromSql<'a> for $number {
                fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
                    i64::from_sql(kind, raw).map($number)
                }

                accepts!(INT8);
            }
        )+
    };
}

as_bigint!(UserId, TokenEpoch, SessionId, PersonalTokenId, TodoId, Version, Revision, Place);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_can_have_what_postgres_can_not_store() {
        for text in ["", "a", "a\0b", "\0\0", "\u{ffff}", "\u{ffff}0", "\0\u{ffff}1\0", "1\u{ffff}\u{ffff}\0 0"] {
            let stored = escaped(text);
            assert!(!stored.contains('\0'), "{text:?}");
            assert_eq!(unescaped(&stored), text);
        }
        assert!(matches!(escaped("as it is"), Cow::Borrowed(_)));
    }
}
