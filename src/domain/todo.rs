//! What a todo is. Input is parsed here once into types that the rest of the service trusts.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::account::UserId;
use crate::domain::clock::Timestamp;
use crate::domain::number::number;
use crate::domain::validation::{Fields, ValidationError};

/// Longest title, in characters.
pub const MAX_TITLE_LEN: usize = 200;
/// Longest description, in characters. With the title, an event stays far below Kafka's 1,000,000 bytes.
pub const MAX_DESCRIPTION_LEN: usize = 10_000;

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

/// A todo as the store and the log keep it. Serialized as clients see it, in the original's key order.
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
}

/// A field of a todo that a client can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// [`Todo::title`].
    Title,
    /// [`Todo::description`].
    Description,
    /// [`Todo::completed`].
    Completed,
}

impl Field {
    /// All fields, in the order in which events list them.
    pub const ALL: [Self; 3] = [Self::Title, Self::Description, Self::Completed];

    /// The field's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Description => "description",
            Self::Completed => "completed",
        }
    }
}

/// The body of `POST /todos`, checked.
#[derive(Debug, Clone, PartialEq, ToSchema)]
#[schema(description = "A todo to create.", example = json!({
    "title": "Learn Dapr", "description": "Publish and subscribe", "completed": false,
}))]
pub struct NewTodo {
    /// What is to be done: 1 to 200 characters.
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    pub title: Box<str>,
    /// Details: up to 10,000 characters.
    #[schema(value_type = Option<String>, max_length = 10_000)]
    pub description: Option<Box<str>>,
    /// Whether it is done; false if not sent.
    #[schema(required = false, default = false)]
    pub completed: bool,
}

impl NewTodo {
    /// Parses `{title, description?, completed?}`.
    pub fn parse(body: Map<String, Value>) -> Result<Self, Vec<ValidationError>> {
        let mut fields = Fields::new(body);
        fields.require(&["title"]);
        let title = fields.string("title", 1, MAX_TITLE_LEN);
        let description = fields.nullable_string("description", 0, MAX_DESCRIPTION_LEN);
        let completed = fields.boolean("completed");
        fields.finish()?;
        Ok(Self {
            title: title.unwrap_or_default().into(),
            description: description.flatten().map(Into::into),
            completed: completed.unwrap_or(false),
        })
    }
}

/// The body of `PUT /todos/{id}`, checked: fields that were sent are replaced, the others stay as they are.
#[derive(Debug, Clone, PartialEq, Default, ToSchema)]
#[schema(
    description = "What to change in a todo: fields that are sent are replaced, the others stay as they are.",
    example = json!({ "title": "Learn more Dapr", "description": null, "completed": true })
)]
pub struct TodoPatch {
    /// A new title: 1 to 200 characters.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    pub title: Option<Box<str>>,
    /// A new description, up to 10,000 characters; null clears it.
    // `Some(None)` is null.
    #[schema(value_type = Option<String>, max_length = 10_000)]
    pub description: Option<Option<Box<str>>>,
    /// Whether it is done.
    #[schema(value_type = bool, required = false)]
    pub completed: Option<bool>,
}

impl TodoPatch {
    /// Parses `{title?, description?, completed?}`; only the description can be null.
    pub fn parse(body: Map<String, Value>) -> Result<Self, Vec<ValidationError>> {
        let mut fields = Fields::new(body);
        let patch = Self {
            title: fields.string("title", 1, MAX_TITLE_LEN).map(Into::into),
            description: fields.nullable_string("description", 0, MAX_DESCRIPTION_LEN).map(|text| text.map(Into::into)),
            completed: fields.boolean("completed"),
        };
        fields.finish()?;
        Ok(patch)
    }

    /// Changes `todo`, and returns the fields that are different now.
    pub fn apply(self, todo: &mut Todo) -> Vec<Field> {
        let mut changed = Vec::new();
        if let Some(title) = self.title.filter(|title| *title != todo.title) {
            todo.title = title;
            changed.push(Field::Title);
        }
        if let Some(description) = self.description.filter(|description| *description != todo.description) {
            todo.description = description;
            changed.push(Field::Description);
        }
        if let Some(completed) = self.completed.filter(|&completed| completed != todo.completed) {
            todo.completed = completed;
            changed.push(Field::Completed);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn kinds(result: Result<impl Sized, Vec<ValidationError>>) -> Vec<(&'static str, Value)> {
        let errors = result.err().unwrap_or_default();
        errors.into_iter().map(|p| (p.kind, serde_json::to_value(p.loc).unwrap())).collect()
    }

    #[test]
    fn a_new_todo_needs_only_a_title() {
        let todo = NewTodo::parse(object(json!({"title": "x", "unknown": 1}))).unwrap();
        assert_eq!(todo, NewTodo { title: "x".into(), description: None, completed: false });
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let result = NewTodo::parse(object(json!({"title": "", "description": 5, "completed": "yes"})));
        assert_eq!(
            kinds(result),
            [
                ("string_too_short", json!(["body", "title"])),
                ("string_type", json!(["body", "description"])),
                ("bool_type", json!(["body", "completed"])),
            ]
        );
    }

    #[test]
    fn a_missing_title_shows_the_whole_body() {
        let errors = NewTodo::parse(object(json!({"completed": true}))).unwrap_err();
        assert_eq!(
            serde_json::to_value(errors).unwrap(),
            json!([{"type":"missing","loc":["body","title"],"msg":"Field required","input":{"completed":true}}])
        );
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert!(NewTodo::parse(object(json!({"title": "ü".repeat(200)}))).is_ok());
        let errors = NewTodo::parse(object(json!({"title": "ü".repeat(201)}))).unwrap_err();
        assert_eq!(errors[0].kind, "string_too_long");
        assert_eq!(errors[0].msg, "String should have at most 200 characters");
        assert_eq!(errors[0].ctx, Some(json!({"max_length": 200})));
    }

    #[test]
    fn a_patch_distinguishes_absent_from_null() {
        assert_eq!(TodoPatch::parse(object(json!({}))).unwrap(), TodoPatch::default());
        assert_eq!(TodoPatch::parse(object(json!({"description": null}))).unwrap().description, Some(None));
        assert_eq!(
            kinds(TodoPatch::parse(object(json!({"title": null, "completed": null})))),
            [("string_type", json!(["body", "title"])), ("bool_type", json!(["body", "completed"]))]
        );
    }

    #[test]
    fn a_patch_reports_only_what_is_different() {
        let mut todo = Todo {
            id: TodoId(1),
            owner: UserId(1),
            version: Version::FIRST,
            title: "a".into(),
            description: Some("d".into()),
            completed: false,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        };
        let patch = TodoPatch { title: Some("a".into()), description: Some(None), completed: Some(true) };
        assert_eq!(patch.apply(&mut todo), [Field::Description, Field::Completed]);
        assert_eq!((todo.description, todo.completed), (None, true));
    }

    #[test]
    fn a_todo_has_the_seeds_keys_in_the_seeds_order() {
        let todo = Todo {
            id: TodoId(1),
            owner: UserId(2),
            version: Version(3),
            title: "Learn".into(),
            description: None,
            completed: false,
            created_at: Timestamp(1_736_937_000_000),
            updated_at: Timestamp(1_736_937_000_000),
        };
        assert_eq!(
            serde_json::to_string(&todo).unwrap(),
            r#"{"id":1,"title":"Learn","description":null,"completed":false,"created_at":"2025-01-15T10:30:00.000Z","updated_at":"2025-01-15T10:30:00.000Z"}"#
        );
    }
}
