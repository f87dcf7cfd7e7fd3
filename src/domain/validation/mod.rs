//! Reads untrusted JSON field by field and collects every error in FastAPI's 422 format (pydantic v2 error types).

mod fields;
mod items;
mod query;

use std::borrow::Cow;
use std::io;

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

pub use fields::Fields;
pub use items::{Item, Items};
pub use query::Query;

/// The longest input that an error shows whole, in bytes: otherwise an answer could be several times as long as its
/// request.
const MAX_INPUT_LEN: usize = 1024;

/// One error of a request, as FastAPI describes it.
// An entry of a 422 body's `detail`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ValidationError {
    /// The kind of error, such as `missing`, `string_too_long` or `json_invalid`.
    // These are pydantic v2's types.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// Where: `["body", "title"]`, `["path", "id"]`, `["body", "tags", 3]` for the fourth tag, or an offset in characters:
    /// `["body", 17]`.
    pub loc: Vec<Location>,
    /// What is wrong, for people.
    #[schema(value_type = String)]
    pub msg: Cow<'static, str>,
    /// What was sent there; any JSON. If it is longer than 1,024 bytes: its beginning, as a string that ends in `…`. Null
    /// where it could be a password.
    pub input: Value,
    /// The values in `msg`, for programs; for a refused password, the `reason`: `too_short`, `too_long`, `common`,
    /// `context` or `repeated`.
    #[schema(required = false, value_type = HashMap<String, Value>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

/// A step of a location: a name, an index or an offset.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Location {
    /// A name.
    Name(Cow<'static, str>),
    /// An index from 0, or an offset in characters.
    Number(u64),
}

impl From<&'static str> for Location {
    fn from(name: &'static str) -> Self {
        Self::Name(name.into())
    }
}

impl From<String> for Location {
    fn from(name: String) -> Self {
        Self::Name(name.into())
    }
}

impl From<usize> for Location {
    fn from(index: usize) -> Self {
        Self::Number(index as u64)
    }
}

/// The location with these names.
pub fn location(names: &[&'static str]) -> Vec<Location> {
    names.iter().map(|&name| name.into()).collect()
}

impl ValidationError {
    /// An error without context.
    pub fn new(
        kind: &'static str,
        loc: &[&'static str],
        msg: impl Into<Cow<'static, str>>,
        input: impl Into<Value>,
    ) -> Self {
        Self::at(kind, location(loc), msg, input)
    }

    /// The same, for a location that has numbers in it.
    pub fn at(
        kind: &'static str,
        loc: Vec<Location>,
        msg: impl Into<Cow<'static, str>>,
        input: impl Into<Value>,
    ) -> Self {
        Self { kind, loc, msg: msg.into(), input: shown(input.into()), ctx: None }
    }

    /// A required value that was not sent.
    pub fn missing(loc: &[&'static str], input: impl Into<Value>) -> Self {
        Self::new("missing", loc, "Field required", input)
    }

    /// A value that is none of those that are `expected`.
    pub fn not_one_of(loc: Vec<Location>, expected: &'static str, input: impl Into<Value>) -> Self {
        Self::at("enum", loc, format!("Input should be {expected}"), input).with(json!({ "expected": expected }))
    }

    /// The error with one more number for programs.
    #[must_use]
    pub fn and(mut self, name: &str, number: usize) -> Self {
        self.ctx.get_or_insert_with(|| json!({}))[name] = number.into();
        self
    }

    /// The error with numbers or names for programs.
    #[must_use]
    pub fn with(mut self, ctx: Value) -> Self {
        self.ctx = Some(ctx);
        self
    }
}

/// What an error shows of `input`: a long string is cut, and so is the JSON text of a long array or object.
fn shown(input: Value) -> Value {
    match &input {
        Value::Null | Value::Bool(_) | Value::Number(_) => input,
        Value::String(text) if text.len() <= MAX_INPUT_LEN => input,
        Value::String(text) => cut(text.as_bytes()),
        Value::Array(_) | Value::Object(_) => cut_json(&input).unwrap_or(input),
    }
}

/// The beginning of `input`'s JSON text; `None` if it is short enough. Serializes no more than is shown.
fn cut_json(input: &impl Serialize) -> Option<Value> {
    let mut json = io::Cursor::new([0; MAX_INPUT_LEN]);
    serde_json::to_writer(&mut json, input).is_err().then(|| cut(json.get_ref()))
}

fn cut(text: &[u8]) -> Value {
    let beginning = &text[..MAX_INPUT_LEN.min(text.len())];
    let beginning = beginning.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    format!("{beginning}…").into()
}

/// Why a body could not be read as an object.
#[derive(Debug, PartialEq)]
pub enum BodyError {
    /// The bytes are not UTF-8: FastAPI answers 400 to these.
    NotText,
    /// Not JSON, or JSON but not an object.
    Invalid(Vec<ValidationError>),
}

/// Parses a body as a JSON object. Of duplicate keys, the last one wins. A body that was not sent as JSON (`is_json`)
/// is treated as a string, as FastAPI does: that also keeps simple cross-site forms out.
pub fn parse_object(body: &[u8], is_json: bool) -> Result<Map<String, Value>, BodyError> {
    if body.is_empty() {
        return Err(BodyError::Invalid(vec![ValidationError::missing(&["body"], Value::Null)]));
    }
    if !is_json {
        return Err(BodyError::Invalid(vec![not_an_object(location(&["body"]), String::from_utf8_lossy(body))]));
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyError::NotText)?;
    // A byte order mark may be ignored (RFC 8259, section 8.1).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(BodyError::Invalid(vec![not_an_object(location(&["body"]), other)])),
        Err(error) => Err(BodyError::Invalid(vec![no_json(offset_in(text, &error), &reason(&error))])),
    }
}

/// What is at `offset` in a body, in characters, is no JSON.
fn no_json(offset: usize, reason: &str) -> ValidationError {
    let loc = vec!["body".into(), offset.into()];
    ValidationError::at("json_invalid", loc, "JSON decode error", json!({})).with(json!({ "error": reason }))
}

/// The values of two parts of a request, or everything that is wrong with either.
pub fn both<A, B>(
    one: Result<A, Vec<ValidationError>>,
    other: Result<B, Vec<ValidationError>>,
) -> Result<(A, B), Vec<ValidationError>> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => Err([one.err(), other.err()].into_iter().flatten().flatten().collect()),
    }
}

/// serde_json's message without its position, which `loc` already gives.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// What is there is no object.
fn not_an_object(loc: Vec<Location>, input: impl Into<Value>) -> ValidationError {
    let msg = "Input should be a valid dictionary or object to extract fields from";
    ValidationError::at("model_attributes_type", loc, msg, input)
}

/// Whether a media type is one of these, whatever its parameters.
pub fn is_one_of(content_type: &str, types: &[&str]) -> bool {
    types.contains(&essence(content_type).as_str())
}

/// A media type without its parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type is JSON: `application/json` or `application/…+json`, whatever its parameters.
pub fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    subtype == "json" || subtype.ends_with("+json")
}

/// Where serde_json stopped, in characters. It counts lines and columns from 1, columns in bytes.
fn offset_in(text: &str, error: &serde_json::Error) -> usize {
    if error.is_eof() {
        return text.chars().count();
    }
    let (line, column) = (error.line(), error.column());
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let end = text.floor_char_boundary((before + column).saturating_sub(1).min(text.len()));
    text[..end].chars().count()
}

fn too_small(loc: Vec<Location>, min: i64, input: impl Into<Value>) -> ValidationError {
    let msg = format!("Input should be greater than or equal to {min}");
    ValidationError::at("greater_than_equal", loc, msg, input).with(json!({ "ge": min }))
}

fn too_large(loc: Vec<Location>, max: i64, input: impl Into<Value>) -> ValidationError {
    let msg = format!("Input should be less than or equal to {max}");
    ValidationError::at("less_than_equal", loc, msg, input).with(json!({ "le": max }))
}

fn not_an_integer(loc: Vec<Location>, text: impl Into<Value>) -> ValidationError {
    let msg = "Input should be a valid integer, unable to parse string as an integer";
    ValidationError::at("int_parsing", loc, msg, text)
}

/// An id in the path. Digits beyond i64 are an id that no todo has (`Ok(None)`, a 404), not a bad request.
pub fn parse_id(text: &str) -> Result<Option<i64>, Vec<ValidationError>> {
    parse_number("id", text)
}

/// The same for a number that has another name.
pub fn parse_number(name: &'static str, text: &str) -> Result<Option<i64>, Vec<ValidationError>> {
    if let Ok(id) = text.parse() {
        return Ok(Some(id));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    Err(vec![not_an_integer(location(&["path", name]), text)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> ValidationError {
        match parse_object(body.as_bytes(), true) {
            Err(BodyError::Invalid(errors)) => errors[0].clone(),
            other => panic!("{body:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_last_of_two_equal_keys_wins() {
        assert_eq!(parse_object(br#"{"a":1,"a":2}"#, true).unwrap()["a"], 2);
    }

    #[test]
    fn bad_json_says_where_in_characters() {
        let bad = error("{\"é\": \"ü\",\n  x}");
        assert_eq!((bad.kind, bad.loc), ("json_invalid", vec!["body".into(), Location::Number(13)]));
        assert_eq!(error("{").loc, vec!["body".into(), Location::Number(1)]);
    }

    #[test]
    fn a_lone_surrogate_and_deep_nesting_are_bad_json() {
        assert_eq!(error(r#"{"title":"\ud800"}"#).kind, "json_invalid");
        assert_eq!(error(&"[".repeat(100_000)).kind, "json_invalid");
    }

    #[test]
    fn json_that_is_not_an_object_is_reported_as_such() {
        for body in ["null", "[]", "\"x\"", "1"] {
            assert_eq!(error(body).kind, "model_attributes_type", "{body}");
        }
        assert_eq!(error("").kind, "missing");
        assert_eq!(parse_object(b"\xff{}", true), Err(BodyError::NotText));
    }

    #[test]
    fn only_json_media_types_are_json() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "json", "text/json", "application/jsonp", "text/plain, application/json"] {
            assert!(!is_json(other), "{other}");
        }
        let error = match parse_object(b"{}\xff", false) {
            Err(BodyError::Invalid(errors)) => errors[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!((error.kind, error.input), ("model_attributes_type", "{}\u{fffd}".into()));
    }

    #[test]
    fn what_is_longer_than_1024_bytes_is_shown_as_its_beginning() {
        let shown = |input: Value| ValidationError::missing(&["body"], input).input;
        let string = |length: usize| Value::from("x".repeat(length));
        for short in [string(1024), json!(["x".repeat(1020)]), json!({ "ü": [1, null] }), json!(1e300), Value::Null] {
            assert_eq!(shown(short.clone()), short);
        }
        assert_eq!(shown(string(1025)), format!("{}…", "x".repeat(1024)));
        // Between characters.
        assert_eq!(shown(format!("x{}", "ü".repeat(512)).into()), format!("x{}…", "ü".repeat(511)));
        assert_eq!(shown(json!(["x".repeat(1021)])), format!("[\"{}\"…", "x".repeat(1021)));
        assert_eq!(shown(json!(["ü".repeat(9999)])), format!("[\"{}…", "ü".repeat(511)));
        assert_eq!(shown(json!({ "a": vec![7; 9999] })), format!("{{\"a\":[{}…", "7,".repeat(509)));
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        assert!(parse_object("\u{feff}{}".as_bytes(), true).is_ok());
    }

    #[test]
    fn ids_are_integers_and_no_todo_has_one_that_is_too_large() {
        assert_eq!(parse_id("7"), Ok(Some(7)));
        assert_eq!(parse_id("-1"), Ok(Some(-1)));
        assert_eq!(parse_id("99999999999999999999"), Ok(None));
        for text in ["abc", "1.5", "", "1e3", "0x1", " 1", "-"] {
            assert_eq!(parse_id(text).unwrap_err()[0].kind, "int_parsing", "{text:?}");
        }
    }
}
