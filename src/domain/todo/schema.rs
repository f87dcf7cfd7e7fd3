//! How the document describes fields whose JSON is not that of their Rust types.

use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};

use super::tags::{MAX_TAG_LEN, MAX_TAGS};

/// When a todo is due, as it is answered.
pub(super) fn due() -> Schema {
    AnyOfBuilder::new()
        .item(text(KnownFormat::Date))
        .item(text(KnownFormat::DateTime))
        .description(Some("When it is due: a date, or a time in UTC."))
        .build()
        .into()
}

/// When a todo is due, as it is sent.
pub(super) fn sent_due() -> Schema {
    AnyOfBuilder::new()
        .item(text(KnownFormat::Date))
        .item(text(KnownFormat::DateTime))
        .item(ObjectBuilder::new().schema_type(Type::Null).build())
        .description(Some("When it is due: a date, or a time with its offset from UTC; null: it has no such date."))
        .build()
        .into()
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
