//! How the document describes what is not as its Rust types say: bodies that are parsed field by field, and fields.

// Bodies are parsed as a TodoPatch.
#![allow(dead_code, reason = "for the document")]

use utoipa::ToSchema;
use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};

use super::due::Due;
use super::tags::{MAX_TAG_LEN, MAX_TAGS};

/// The body of `PUT /todos/{id}`.
#[derive(ToSchema)]
#[schema(
    description = "What to change in a todo: fields that are sent are replaced, the others stay as they are.",
    example = json!({ "title": "Learn more Dapr", "description": null, "completed": true })
)]
pub struct TodoUpdate {
    /// A new title: 1 to 200 characters.
    #[schema(required = false, min_length = 1, max_length = 200)]
    title: String,
    /// A new description, up to 10,000 characters; null clears it.
    #[schema(max_length = 10_000)]
    description: Option<String>,
    /// Whether it is done.
    #[schema(required = false)]
    completed: bool,
    /// When it is due: a date, or a time with its offset from UTC; null clears it.
    #[schema(schema_with = sent_due, required = false)]
    due_at: Option<Due>,
    /// How urgent it is, from 0 (lowest) to 4 (highest); null clears it.
    #[schema(maximum = 4)]
    priority: Option<u8>,
    /// Up to 20 tags of 1 to 50 characters, which replace all it has; null clears them.
    #[schema(schema_with = sent_tags, required = false)]
    tags: Option<Vec<String>>,
    /// Its place among others, for clients that sort by it: smaller is first; null clears it.
    order: Option<f64>,
}

/// The body of `PATCH /todos/{id}`.
#[derive(ToSchema)]
#[schema(
    as = TodoPatch,
    description = "A JSON Merge Patch (RFC 7396): fields that are sent are replaced, null clears them, the others stay as \
        they are. With `tags_add` and `tags_remove` instead of `tags`, clients without a condition can change different tags at once.",
    example = json!({ "completed": true, "due_at": "2025-01-31", "tags_add": ["dapr"] })
)]
pub struct TodoMergePatch {
    #[serde(flatten)]
    update: TodoUpdate,
    #[schema(schema_with = added_tags, required = false)]
    tags_add: Vec<String>,
    #[schema(schema_with = removed_tags, required = false)]
    tags_remove: Vec<String>,
}

/// When a todo is due, as it is answered.
pub(super) fn due() -> Schema {
    date_or_time().description(Some("When it is due: a date, or a time in UTC.")).build().into()
}

/// When a todo is due, as it is sent.
pub(super) fn sent_due() -> Schema {
    date_or_time()
        .item(ObjectBuilder::new().schema_type(Type::Null).build())
        .description(Some("When it is due: a date, or a time with its offset from UTC; null: it has no such date."))
        .build()
        .into()
}

/// A date, or a time.
pub fn date_or_time() -> AnyOfBuilder {
    AnyOfBuilder::new().item(text(KnownFormat::Date)).item(text(KnownFormat::DateTime))
}

fn text(format: KnownFormat) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format))).build().into()
}

/// A todo's tags, as they are answered.
pub(super) fn tags() -> Schema {
    let tag = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_TAG_LEN)).build();
    let array = ArrayBuilder::new().items(tag).max_items(Some(MAX_TAGS));
    array.description(Some("Its tags.")).build().into()
}

/// A todo's tags, as they are sent.
pub(super) fn sent_tags() -> Schema {
    let about = "Up to 20 tags of 1 to 50 characters, not all of them white space; null: it has none.";
    sent(about).schema_type(SchemaType::from_iter([Type::Array, Type::Null])).build().into()
}

/// Tags that are added.
pub(super) fn added_tags() -> Schema {
    sent("Tags that it gets besides those it has. Not together with `tags`.").build().into()
}

/// Tags that are removed.
pub(super) fn removed_tags() -> Schema {
    sent("Tags that it loses, before it gets others. Not together with `tags`.").build().into()
}

fn sent(about: &str) -> ArrayBuilder {
    let tag = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_TAG_LEN))
        .pattern(Some(r"\S"))
        .build();
    ArrayBuilder::new().items(tag).max_items(Some(MAX_TAGS)).description(Some(about))
}
