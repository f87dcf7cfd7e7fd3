//! How values of the domain are stored as text, in whatever database.

use serde_json::{Map, Value};

use crate::domain::change::Before;
use crate::domain::clock::Timestamp;
use crate::domain::todo::field::{Field, FieldVersions};
use crate::domain::todo::input::TodoPatch;
use crate::domain::todo::tags::Tags;
use crate::domain::validation::Fields;

/// Names of fields, separated by commas.
pub fn fields_to_text(fields: &[Field]) -> String {
    fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(",")
}

/// Reads what [`fields_to_text`] wrote. A field that this version does not know is left out.
pub fn fields_from_text(text: &str) -> Vec<Field> {
    Field::ALL.into_iter().filter(|field| text.split(',').any(|name| name == field.name())).collect()
}

/// Times in milliseconds, separated by commas.
pub fn times_to_text(times: &[Timestamp]) -> String {
    times.iter().map(|at| at.0.to_string()).collect::<Vec<_>>().join(",")
}

/// Reads what [`times_to_text`] wrote.
pub fn times_from_text(text: &str) -> Option<Vec<Timestamp>> {
    text.split(',').filter(|time| !time.is_empty()).map(|time| time.parse().ok().map(Timestamp)).collect()
}

/// A JSON array; `None`: there are none.
pub fn tags_to_text(tags: &Tags) -> serde_json::Result<Option<String>> {
    if tags.is_empty() { Ok(None) } else { serde_json::to_string(tags).map(Some) }
}

/// Reads what [`tags_to_text`] wrote.
pub fn tags_from_text(text: &str) -> serde_json::Result<Tags> {
    serde_json::from_str(text).map(|tags: Vec<Box<str>>| Tags::new(tags))
}

const VERSIONS: &str = "versions";

/// A JSON object: the values that the changed fields had and, as `versions`, the versions of the todo's fields.
pub fn before_to_text(before: &Before) -> serde_json::Result<String> {
    let mut object = serde_json::to_value(&before.values)?;
    if let Some(versions) = before.versions.to_text() {
        object[VERSIONS] = versions.into();
    }
    Ok(object.to_string())
}

/// Reads what [`before_to_text`] wrote, as a body of `PUT` is read: what is stricter some day makes older changes ones that
/// can't be undone.
pub fn before_from_text(text: &str) -> Option<Before> {
    let mut object: Map<String, Value> = serde_json::from_str(text).ok()?;
    let versions = match object.remove(VERSIONS) {
        None => FieldVersions::default(),
        Some(text) => text.as_str().and_then(FieldVersions::parse)?,
    };
    Some(Before { values: TodoPatch::parse_update(Fields::new(object)).ok()?, versions })
}
