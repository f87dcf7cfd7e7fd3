//! The fields of an object, parsed one by one.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::{Location, ValidationError, cut_json, location, not_an_object, too_large, too_small};

/// Beyond 2^53, floats are not exact.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Parses the fields of an object one by one, and collects what is wrong; unknown fields are ignored.
pub struct Fields {
    /// Where the object is.
    at: Vec<Location>,
    map: Map<String, Value>,
    errors: Vec<ValidationError>,
}

impl Fields {
    /// The fields of a body's object, none of them parsed yet.
    pub fn new(map: Map<String, Value>) -> Self {
        Self { at: location(&["body"]), map, errors: Vec::new() }
    }

    /// The fields of what is at `at`, if it is an object.
    pub fn of(at: Vec<Location>, value: Value) -> Result<Self, Vec<ValidationError>> {
        match value {
            Value::Object(map) => Ok(Self { at, map, errors: Vec::new() }),
            other => Err(vec![not_an_object(at, other)]),
        }
    }

    /// Where a field is.
    pub fn location(&self, name: &'static str) -> Vec<Location> {
        self.at.iter().cloned().chain([name.into()]).collect()
    }

    /// Adds a `missing` error for each of `names` that was not sent. Call it before taking any field:
    /// the error shows the whole body.
    pub fn require(&mut self, names: &[&'static str]) {
        for &name in names {
            if !self.map.contains_key(name) {
                // Copies only a short body.
                let input = cut_json(&self.map).unwrap_or_else(|| self.map.clone().into());
                self.errors.push(ValidationError::at("missing", self.location(name), "Field required", input));
            }
        }
    }

    /// Whether a field was sent and is not taken yet.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// A string, if it was sent as one; it stays there.
    pub fn peek_string(&self, name: &str) -> Option<&str> {
        self.map.get(name)?.as_str()
    }

    /// A field as it was sent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name)
    }

    /// Adds an error that the caller found.
    pub fn refuse(&mut self, error: ValidationError) {
        self.errors.push(error);
    }

    /// Adds errors that the caller found.
    pub fn refuse_all(&mut self, errors: Vec<ValidationError>) {
        self.errors.extend(errors);
    }

    /// A field that may be null, if it was sent: `Some(None)` is null, anything else is what `read` makes of it.
    pub fn nullable<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.map.get(name)?.is_null() {
            self.map.remove(name);
            return Some(None);
        }
        read(self, name).map(Some)
    }

    /// A string of `min..=max` characters, if it was sent.
    pub fn string(&mut self, name: &'static str, min: usize, max: usize) -> Option<String> {
        let value = self.map.remove(name)?;
        self.check_string(self.location(name), value, min, max)
    }

    /// An array of at most `max_items`, if it was sent.
    pub fn array(&mut self, name: &'static str, max_items: usize) -> Option<Vec<Value>> {
        match self.map.remove(name)? {
            Value::Array(items) if items.len() <= max_items => return Some(items),
            Value::Array(items) => {
                self.errors.push(too_long(self.location(name), max_items, items));
            }
            other => {
                let msg = "Input should be a valid list";
                self.errors.push(ValidationError::at("list_type", self.location(name), msg, other));
            }
        }
        None
    }

    /// `true` or `false`, if it was sent.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        match self.map.remove(name)? {
            Value::Bool(value) => Some(value),
            other => {
                let msg = "Input should be a valid boolean";
                self.errors.push(ValidationError::at("bool_type", self.location(name), msg, other));
                None
            }
        }
    }

    /// A whole number in this range, if it was sent.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.map.remove(name)?;
        let loc = self.location(name);
        // JSON Schema and pydantic accept 5.0 as an integer.
        let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= MAX_EXACT;
        let error = match value.as_i64().or_else(|| value.as_f64().filter(whole).map(|number| number as i64)) {
            Some(number) if range.contains(&number) => return Some(number),
            Some(number) if number < *range.start() => too_small(loc, *range.start(), value),
            Some(_) => too_large(loc, *range.end(), value),
            None => ValidationError::at("int_type", loc, "Input should be a valid integer", value),
        };
        self.errors.push(error);
        None
    }

    /// An id, if it was sent. Whole numbers that are too large to be exact, or for i64, are ids that nothing has: 0.
    pub fn id(&mut self, name: &'static str) -> Option<i64> {
        let is_beyond = |number: f64| number.fract() == 0.0 && number.abs() > MAX_EXACT;
        let value = self.map.get(name)?;
        if value.as_i64().is_none() && value.as_f64().is_some_and(is_beyond) {
            self.map.remove(name);
            return Some(0);
        }
        self.integer(name, i64::MIN..=i64::MAX)
    }

    /// A number, if it was sent, as the nearest that 64 bits can hold (IEEE 754). JSON has none that is not finite.
    pub fn number(&mut self, name: &'static str) -> Option<f64> {
        let value = self.map.remove(name)?;
        match value.as_f64() {
            // One zero is enough.
            Some(number) => Some(number + 0.0),
            None => {
                let msg = "Input should be a valid number";
                self.errors.push(ValidationError::at("float_type", self.location(name), msg, value));
                None
            }
        }
    }

    /// Everything that is wrong with the object, or nothing.
    pub fn finish(self) -> Result<(), Vec<ValidationError>> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }

    /// A string of `min..=max` characters that is at `loc`.
    pub fn check_string(&mut self, loc: Vec<Location>, value: Value, min: usize, max: usize) -> Option<String> {
        let text = match value {
            Value::String(text) => text,
            other => {
                self.errors.push(ValidationError::at("string_type", loc, "Input should be a valid string", other));
                return None;
            }
        };
        check_length(&mut self.errors, loc, text, min, max)
    }
}

pub(super) fn too_long<T: Into<Value>>(loc: Vec<Location>, max_items: usize, items: Vec<T>) -> ValidationError {
    let msg = format!("List should have at most {max_items} items");
    let ctx = json!({ "field_type": "List", "max_length": max_items, "actual_length": items.len() });
    ValidationError::at("too_long", loc, msg, items).with(ctx)
}

/// The text, if it has `min..=max` characters.
pub(super) fn check_length(
    errors: &mut Vec<ValidationError>,
    loc: Vec<Location>,
    text: String,
    min: usize,
    max: usize,
) -> Option<String> {
    let characters = text.chars().count();
    let error = if characters < min {
        let msg = format!("String should have at least {min} {}", plural(min));
        ValidationError::at("string_too_short", loc, msg, text).with(json!({ "min_length": min }))
    } else if characters > max {
        let msg = format!("String should have at most {max} {}", plural(max));
        ValidationError::at("string_too_long", loc, msg, text).with(json!({ "max_length": max }))
    } else {
        return Some(text);
    };
    errors.push(error);
    None
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "character" } else { "characters" }
}
