//! What a todo is.

pub mod due;
pub mod field;
pub mod filter;
pub mod fold;
pub mod import;
pub mod input;
pub mod schema;
pub mod sort;
pub mod tags;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::account::UserId;
use crate::domain::clock::Timestamp;
use crate::domain::number::number;
use due::Due;
use field::FieldVersions;
use tags::Tags;

/// Longest title, in characters.
pub const MAX_TITLE_LEN: usize = 200;
/// Longest description, in characters. With the title and the tags, an event stays far below Kafka's 1,000,000 bytes.
pub const MAX_DESCRIPTION_LEN: usize = 10_000;
/// The highest priority: the most urgent. The lowest is 0.
pub const MAX_PRIORITY: u8 = 4;

number! {
    /// A todo's id. Never reused, not even after the todo is deleted.
    TodoId
}

number! {
    /// Counts the changes of one todo, from 1.
    Version
}

impl Version {
    /// The version of a todo that was just created.
    pub const FIRST: Self = Self(1);

    /// The version after the todo's next change.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The version before this one; 0 before the first.
    pub fn previous(self) -> Self {
        Self(self.0 - 1)
    }
}

/// A todo as the store and the log keep it. Serialized as clients see it: the original's keys in their order, then those
/// of the fields that it has besides.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(description = "A todo.", example = json!({
    "id": 1, "title": "Learn Dapr", "description": "Publish and subscribe", "completed": false,
    "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-15T10:30:00.000Z",
}))]
pub struct Todo {
    /// Unique over all users, never reused.
    #[schema(value_type = i64, minimum = 1)]
    pub id: TodoId,
    /// The account that owns it.
    #[serde(skip)]
    pub owner: UserId,
    /// Every change takes the next one, the deletion included.
    #[serde(skip)]
    pub version: Version,
    /// The version of each field.
    #[serde(skip)]
    pub field_versions: FieldVersions,
    /// What is to be done: 1 to 200 characters.
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    pub title: Box<str>,
    /// Details: up to 10,000 characters.
    #[schema(value_type = Option<String>, max_length = 10_000, required = true)]
    pub description: Option<Box<str>>,
    /// Whether it is done.
    pub completed: bool,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When it is due: a date, or a time in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::due, required = false)]
    pub due_at: Option<Due>,
    /// How urgent it is, from 0 (lowest) to 4 (highest).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u8, required = false, maximum = 4)]
    pub priority: Option<u8>,
    /// Its tags.
    #[serde(skip_serializing_if = "Tags::is_empty")]
    #[schema(schema_with = schema::tags, required = false)]
    pub tags: Tags,
    /// Its place among others, which clients choose: smaller is first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = f64, required = false)]
    pub order: Option<f64>,
}

impl Todo {
    /// How long its texts are, in bytes.
    pub fn text_len(&self) -> usize {
        text_len(&self.title, self.description.as_deref(), &self.tags)
    }
}

fn text_len(title: &str, description: Option<&str>, tags: &Tags) -> usize {
    title.len() + description.map_or(0, str::len) + tags.iter().map(str::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_todo_is_small() {
        // All of them are in memory, each beside the texts that it has.
        assert_eq!(size_of::<Todo>(), 136);
    }

    #[test]
    fn a_todo_has_the_seeds_keys_in_the_seeds_order() {
        let new = input::NewTodo { title: "Learn".into(), ..input::NewTodo::default() };
        let todo = new.create(TodoId(1), UserId(2), Timestamp(1_736_937_000_000));
        assert_eq!(
            serde_json::to_string(&todo).unwrap(),
            r#"{"id":1,"title":"Learn","description":null,"completed":false,"created_at":"2025-01-15T10:30:00.000Z","updated_at":"2025-01-15T10:30:00.000Z"}"#
        );
    }
}
