//! What clients send about todos, parsed once into types that the rest of the service trusts.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::due::Due;
use super::field::{Field, FieldVersions};
use super::tags::{MAX_TAG_LEN, MAX_TAGS, Tags, TagsChange, TooManyTags, normalized};
use super::{MAX_DESCRIPTION_LEN, MAX_PRIORITY, MAX_TITLE_LEN, Todo, TodoId, Version, schema, text_len};
use crate::domain::account::UserId;
use crate::domain::clock::Timestamp;
use crate::domain::validation::{Fields, ValidationError};

/// A todo to create, checked.
#[derive(Debug, Clone, PartialEq, Default, ToSchema)]
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
    /// When it is due: a date, or a time with its offset from UTC.
    #[schema(schema_with = schema::sent_due, required = false)]
    pub due_at: Option<Due>,
    /// How urgent it is, from 0 (lowest) to 4 (highest).
    #[schema(value_type = Option<u8>, required = false, maximum = 4)]
    pub priority: Option<u8>,
    /// Up to 20 tags of 1 to 50 characters.
    #[schema(schema_with = schema::sent_tags, required = false)]
    pub tags: Tags,
    /// Its place among others, for clients that sort by it: smaller is first.
    #[schema(value_type = Option<f64>, required = false)]
    pub order: Option<f64>,
    /// When it was created, if that was somewhere else.
    #[schema(ignore)]
    pub created_at: Option<Timestamp>,
}

impl NewTodo {
    /// Parses `{title, description?, completed?, due_at?, priority?, tags?, order?}`.
    pub fn parse(mut fields: Fields) -> Result<Self, Vec<ValidationError>> {
        fields.require(&["title"]);
        let title = fields.string("title", 1, MAX_TITLE_LEN);
        let description = description(&mut fields);
        let completed = fields.boolean("completed");
        let due_at = due_at(&mut fields);
        let priority = priority(&mut fields);
        let tags = fields.nullable("tags", tags);
        let order = fields.nullable("order", Fields::number);
        fields.finish()?;
        Ok(Self {
            title: title.unwrap_or_default().into(),
            description: description.flatten(),
            completed: completed.unwrap_or(false),
            due_at: due_at.flatten(),
            priority: priority.flatten(),
            tags: tags.flatten().unwrap_or_default(),
            order: order.flatten(),
            created_at: None,
        })
    }

    /// The todo that this creates.
    pub fn create(self, id: TodoId, owner: UserId, at: Timestamp) -> Todo {
        Todo {
            id,
            owner,
            version: Version::FIRST,
            field_versions: FieldVersions::default(),
            title: self.title,
            description: self.description,
            completed: self.completed,
            // Not in the future, whatever another clock says.
            created_at: self.created_at.unwrap_or(at).min(at),
            updated_at: at,
            due_at: self.due_at,
            priority: self.priority,
            tags: self.tags,
            order: self.order,
        }
    }

    /// How long its texts are, in bytes.
    pub fn text_len(&self) -> usize {
        text_len(&self.title, self.description.as_deref(), &self.tags)
    }

    /// The fields of the todo that this creates: those that every todo has, and those that were set.
    pub fn fields(&self) -> Vec<Field> {
        let is_set = |field: &Field| match field {
            Field::Title | Field::Description | Field::Completed => true,
            Field::DueAt => self.due_at.is_some(),
            Field::Priority => self.priority.is_some(),
            Field::Tags => !self.tags.is_empty(),
            Field::Order => self.order.is_some(),
        };
        Field::ALL.into_iter().filter(is_set).collect()
    }
}

/// What to change in a todo, checked: fields that were sent are replaced, the others stay as they are. Where a field
/// can be unset, `Some(None)` does. Serialized, it is a body of `PUT`, unless it edits tags.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TodoPatch {
    /// Another title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Box<str>>,
    /// Another description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Option<Box<str>>>,
    /// Whether it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Another time at which it is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Option<Due>>,
    /// Another priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Option<u8>>,
    /// Other tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagsChange>,
    /// Another place among others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Option<f64>>,
}

impl TodoPatch {
    /// Parses the fields of [`schema::TodoUpdate`].
    pub fn parse_update(mut fields: Fields) -> Result<Self, Vec<ValidationError>> {
        let patch = Self::read(&mut fields);
        fields.finish()?;
        Ok(patch)
    }

    /// Parses the fields of [`schema::TodoMergePatch`].
    pub fn parse_merge_patch(mut fields: Fields) -> Result<Self, Vec<ValidationError>> {
        let (has_tags, has_edit) = (fields.has("tags"), fields.has("tags_add") || fields.has("tags_remove"));
        let mut patch = Self::read(&mut fields);
        let add = tags(&mut fields, "tags_add");
        let remove = tags(&mut fields, "tags_remove");
        if has_edit {
            if has_tags {
                let msg = "Send either tags, or tags_add and tags_remove";
                let error = ValidationError::at("value_error", fields.location("tags"), msg, Value::Null);
                fields.refuse(error);
            }
            patch.tags = Some(TagsChange::Edit { add: add.unwrap_or_default(), remove: remove.unwrap_or_default() });
        }
        fields.finish()?;
        Ok(patch)
    }

    fn read(fields: &mut Fields) -> Self {
        Self {
            title: fields.string("title", 1, MAX_TITLE_LEN).map(Into::into),
            description: description(fields),
            completed: fields.boolean("completed"),
            due_at: due_at(fields),
            priority: priority(fields),
            tags: fields.nullable("tags", tags).map(|tags| TagsChange::Replace(tags.unwrap_or_default())),
            order: fields.nullable("order", Fields::number),
        }
    }

    /// Gives a todo the values that these fields have in another one.
    pub fn to(other: &Todo, fields: &[Field]) -> Self {
        let mut patch = Self::default();
        for field in fields {
            match field {
                Field::Title => patch.title = Some(other.title.clone()),
                Field::Description => patch.description = Some(other.description.clone()),
                Field::Completed => patch.completed = Some(other.completed),
                Field::DueAt => patch.due_at = Some(other.due_at),
                Field::Priority => patch.priority = Some(other.priority),
                Field::Tags => patch.tags = Some(TagsChange::Replace(other.tags.clone())),
                Field::Order => patch.order = Some(other.order),
            }
        }
        patch
    }

    /// This patch, and what another one says about other fields.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            title: self.title.or(other.title),
            description: self.description.or(other.description),
            completed: self.completed.or(other.completed),
            due_at: self.due_at.or(other.due_at),
            priority: self.priority.or(other.priority),
            tags: self.tags.or(other.tags),
            order: self.order.or(other.order),
        }
    }

    /// The fields that were sent.
    pub fn fields(&self) -> Vec<Field> {
        let is_sent = |field: &Field| match field {
            Field::Title => self.title.is_some(),
            Field::Description => self.description.is_some(),
            Field::Completed => self.completed.is_some(),
            Field::DueAt => self.due_at.is_some(),
            Field::Priority => self.priority.is_some(),
            Field::Tags => self.tags.is_some(),
            Field::Order => self.order.is_some(),
        };
        Field::ALL.into_iter().filter(is_sent).collect()
    }

    /// Changes `todo`, and returns the fields that are different now.
    pub fn apply(self, todo: &mut Todo) -> Result<Vec<Field>, TooManyTags> {
        let tags = self.tags.map(|change| todo.tags.changed(change)).transpose()?;
        let mut changed = Vec::new();
        replace(&mut todo.title, self.title, Field::Title, &mut changed);
        replace(&mut todo.description, self.description, Field::Description, &mut changed);
        replace(&mut todo.completed, self.completed, Field::Completed, &mut changed);
        replace(&mut todo.due_at, self.due_at, Field::DueAt, &mut changed);
        replace(&mut todo.priority, self.priority, Field::Priority, &mut changed);
        replace(&mut todo.tags, tags, Field::Tags, &mut changed);
        replace(&mut todo.order, self.order, Field::Order, &mut changed);
        Ok(changed)
    }
}

fn replace<T: PartialEq>(old: &mut T, new: Option<T>, field: Field, changed: &mut Vec<Field>) {
    if let Some(new) = new.filter(|new| new != old) {
        *old = new;
        changed.push(field);
    }
}

fn description(fields: &mut Fields) -> Option<Option<Box<str>>> {
    let text = |fields: &mut Fields, name| fields.string(name, 0, MAX_DESCRIPTION_LEN);
    fields.nullable("description", text).map(|text| text.map(Into::into))
}

fn priority(fields: &mut Fields) -> Option<Option<u8>> {
    let number = |fields: &mut Fields, name| fields.integer(name, 0..=MAX_PRIORITY.into());
    // It is in range.
    fields.nullable("priority", number).map(|priority| priority.and_then(|number| u8::try_from(number).ok()))
}

fn due_at(fields: &mut Fields) -> Option<Option<Due>> {
    fields.nullable("due_at", |fields, name| {
        let text = fields.string(name, 0, usize::MAX)?;
        let due = Due::parse(&text);
        if due.is_none() {
            fields.refuse(Due::error(fields.location(name), text));
        }
        due
    })
}

/// The tags are measured as they are kept.
fn tags(fields: &mut Fields, name: &'static str) -> Option<Tags> {
    let sent = fields.array(name, MAX_TAGS)?;
    let mut kept = Vec::with_capacity(sent.len());
    for (index, tag) in sent.into_iter().enumerate() {
        let mut loc = fields.location(name);
        loc.push(index.into());
        let tag = match tag {
            Value::String(tag) => normalized(&tag).into(),
            other => other,
        };
        kept.extend(fields.check_string(loc, tag, 1, MAX_TAG_LEN));
    }
    Some(Tags::new(kept.into_iter().map(Into::into)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::new(value.as_object().unwrap().clone())
    }

    fn todo() -> Todo {
        let new = NewTodo { title: "a".into(), description: Some("d".into()), ..NewTodo::default() };
        new.create(TodoId(1), UserId(1), Timestamp(0))
    }

    /// The kind and location of each error.
    fn errors<T>(result: Result<T, Vec<ValidationError>>) -> Vec<(&'static str, Value)> {
        let errors = result.err().unwrap_or_default();
        errors.into_iter().map(|error| (error.kind, serde_json::to_value(error.loc).unwrap())).collect()
    }

    #[test]
    fn a_new_todo_needs_only_a_title() {
        let todo = NewTodo::parse(fields(json!({"title": "x", "unknown": 1}))).unwrap();
        assert_eq!(todo, NewTodo { title: "x".into(), ..NewTodo::default() });
        assert_eq!(todo.fields(), [Field::Title, Field::Description, Field::Completed]);
        let nothing_more = json!({"title": "x", "due_at": null, "priority": null, "tags": null, "order": null});
        assert_eq!(NewTodo::parse(fields(nothing_more)).unwrap(), todo);
        assert_eq!(NewTodo::parse(fields(json!({"title": "x", "tags": []}))).unwrap(), todo);
    }

    #[test]
    fn a_new_todo_can_have_everything() {
        let everything = json!({
            "title": "x", "description": "y", "completed": true, "due_at": "2025-01-31T10:00:00+01:00", "priority": 4,
            "tags": [" a ", "b", "a"], "order": -1.5,
        });
        let new = NewTodo::parse(fields(everything)).unwrap();
        assert_eq!(new.fields(), Field::ALL);
        let todo = serde_json::to_value(new.create(TodoId(1), UserId(1), Timestamp(0))).unwrap();
        let keys: Vec<_> = todo.as_object().unwrap().keys().skip(6).map(String::as_str).collect();
        assert_eq!(keys, ["due_at", "priority", "tags", "order"]);
        let optional = json!(["2025-01-31T09:00:00.000Z", 4, ["a", "b"], -1.5]);
        assert_eq!(keys.iter().map(|key| todo[key].clone()).collect::<Value>(), optional);
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let bad = json!({
            "title": "", "description": 5, "completed": "yes", "due_at": "soon", "priority": 5, "tags": ["a", " ", 7],
            "order": "first",
        });
        let expected = [
            ("string_too_short", json!(["body", "title"])),
            ("string_type", json!(["body", "description"])),
            ("bool_type", json!(["body", "completed"])),
            ("datetime_parsing", json!(["body", "due_at"])),
            ("less_than_equal", json!(["body", "priority"])),
            ("string_too_short", json!(["body", "tags", 1])),
            ("string_type", json!(["body", "tags", 2])),
            ("float_type", json!(["body", "order"])),
        ];
        assert_eq!(errors(NewTodo::parse(fields(bad.clone()))), expected);
        assert_eq!(errors(TodoPatch::parse_update(fields(bad.clone()))), expected);
        assert_eq!(errors(TodoPatch::parse_merge_patch(fields(bad))), expected);
    }

    #[test]
    fn tags_are_few_short_and_not_empty() {
        let tags = |tags: Value| errors(TodoPatch::parse_update(fields(json!({ "tags": tags }))));
        let (long, many) = ("ü".repeat(50), vec!["x"; MAX_TAGS]);
        assert_eq!(tags(json!([long, many[0]])), []);
        assert_eq!(tags(json!(many)), []);
        assert_eq!(tags(json!(["a", " \t"])), [("string_too_short", json!(["body", "tags", 1]))]);
        assert_eq!(tags(json!(["ü".repeat(51)])), [("string_too_long", json!(["body", "tags", 0]))]);
        // As they are kept: one of these becomes shorter, one longer.
        assert_eq!(tags(json!([format!("  {}  ", "u\u{308}".repeat(50))])), []);
        assert_eq!(tags(json!(["\u{958}".repeat(26)])), [("string_too_long", json!(["body", "tags", 0]))]);
        assert_eq!(tags(json!(vec!["x"; MAX_TAGS + 1])), [("too_long", json!(["body", "tags"]))]);
        assert_eq!(tags(json!("a")), [("list_type", json!(["body", "tags"]))]);
    }

    #[test]
    fn tags_are_replaced_or_edited() {
        let parse = |value| TodoPatch::parse_merge_patch(fields(value));
        let tags = |names: &[&str]| Tags::new(names.iter().map(|&name| name.into()));
        let edit = parse(json!({"tags_add": ["a"]})).unwrap();
        assert_eq!(edit.tags, Some(TagsChange::Edit { add: tags(&["a"]), remove: Tags::default() }));
        assert_eq!(edit.fields(), [Field::Tags]);
        assert_eq!(parse(json!({"tags": null})).unwrap().tags, Some(TagsChange::Replace(Tags::default())));
        for both in [json!({"tags": [], "tags_add": []}), json!({"tags": null, "tags_remove": ["a"]})] {
            assert_eq!(errors(parse(both)), [("value_error", json!(["body", "tags"]))]);
        }
        assert_eq!(errors(parse(json!({"tags_add": null}))), [("list_type", json!(["body", "tags_add"]))]);
        // PUT has no such fields, and ignores what it doesn't know.
        let put = TodoPatch::parse_update(fields(json!({"tags_add": 7}))).unwrap();
        assert_eq!(put, TodoPatch::default());
    }

    #[test]
    fn a_missing_title_shows_the_whole_body() {
        let errors = NewTodo::parse(fields(json!({"completed": true}))).unwrap_err();
        assert_eq!(
            serde_json::to_value(errors).unwrap(),
            json!([{"type":"missing","loc":["body","title"],"msg":"Field required","input":{"completed":true}}])
        );
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert!(NewTodo::parse(fields(json!({"title": "ü".repeat(200)}))).is_ok());
        let errors = NewTodo::parse(fields(json!({"title": "ü".repeat(201)}))).unwrap_err();
        assert_eq!(errors[0].kind, "string_too_long");
        assert_eq!(errors[0].msg, "String should have at most 200 characters");
        assert_eq!(errors[0].ctx, Some(json!({"max_length": 200})));
    }

    #[test]
    fn a_patch_distinguishes_absent_from_null() {
        assert_eq!(TodoPatch::parse_update(fields(json!({}))).unwrap(), TodoPatch::default());
        let cleared = json!({"description": null, "due_at": null, "priority": null, "tags": null, "order": null});
        let patch = TodoPatch::parse_update(fields(cleared)).unwrap();
        assert_eq!(
            (patch.description, patch.due_at, patch.priority, patch.order),
            (Some(None), Some(None), Some(None), Some(None))
        );
        assert_eq!(patch.tags, Some(TagsChange::Replace(Tags::default())));
        assert_eq!(
            errors(TodoPatch::parse_update(fields(json!({"title": null, "completed": null})))),
            [("string_type", json!(["body", "title"])), ("bool_type", json!(["body", "completed"]))]
        );
    }

    #[test]
    fn a_patch_reports_only_what_is_different() {
        let mut todo = todo();
        let patch = TodoPatch {
            title: Some("a".into()),
            description: Some(None),
            completed: Some(true),
            priority: Some(None),
            order: Some(Some(1.0)),
            ..TodoPatch::default()
        };
        assert_eq!(patch.apply(&mut todo).unwrap(), [Field::Description, Field::Completed, Field::Order]);
        assert_eq!((todo.description, todo.completed, todo.order), (None, true, Some(1.0)));
    }

    #[test]
    fn a_patch_that_gives_too_many_tags_changes_nothing() {
        let mut todo = todo();
        todo.tags = Tags::new((0..MAX_TAGS).map(|n| n.to_string().into()));
        let before = todo.clone();
        let patch = json!({"title": "b", "tags_add": ["new"]});
        let patch = TodoPatch::parse_merge_patch(fields(patch)).unwrap();
        assert_eq!(patch.apply(&mut todo), Err(TooManyTags));
        assert_eq!(todo, before);
    }
}
