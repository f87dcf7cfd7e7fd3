//! Reads the query of a request parameter by parameter, and collects every error.

use std::ops::RangeInclusive;

use super::fields::{check_length, too_long};
use super::{Location, ValidationError, location, not_an_integer, too_large, too_small};

/// The parameters of a query. Unknown ones are ignored, as FastAPI does.
#[derive(Debug, Default)]
pub struct Query {
    /// Names and values in the order in which they were sent, decoded.
    pairs: Vec<(String, String)>,
    errors: Vec<ValidationError>,
}

impl Query {
    /// The parameters of an encoded query.
    pub fn new(encoded: &str) -> Self {
        Self { pairs: serde_urlencoded::from_str(encoded).unwrap_or_default(), errors: Vec::new() }
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.pairs.iter().filter(|(sent, _)| sent == name).map(|(_, value)| value.clone()).collect()
    }

    /// The value of a parameter, if it was sent. Of several, the last one counts.
    pub fn last(&self, name: &str) -> Option<String> {
        self.pairs.iter().rfind(|(sent, _)| sent == name).map(|(_, value)| value.clone())
    }

    /// A whole number in this range, if it was sent.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let text = self.last(name)?;
        self.parse_integer(location(&["query", name]), text, range)
    }

    /// At most `max_items` values of a parameter, each read by `read`, which also gets its place.
    pub fn array<T>(
        &mut self,
        name: &'static str,
        max_items: usize,
        mut read: impl FnMut(&mut Self, Vec<Location>, String) -> Option<T>,
    ) -> Vec<T> {
        let values = self.all(name);
        if values.len() > max_items {
            self.errors.push(too_long(location(&["query", name]), max_items, values));
            return Vec::new();
        }
        let place = |index: usize| vec!["query".into(), name.into(), index.into()];
        values.into_iter().enumerate().filter_map(|(index, value)| read(self, place(index), value)).collect()
    }

    /// A whole number in this range.
    pub fn parse_integer(&mut self, loc: Vec<Location>, text: String, range: RangeInclusive<i64>) -> Option<i64> {
        let error = match text.parse::<i64>() {
            Ok(number) if number < *range.start() => too_small(loc, *range.start(), text),
            Ok(number) if number > *range.end() => too_large(loc, *range.end(), text),
            Ok(number) => return Some(number),
            Err(_) => not_an_integer(loc, text),
        };
        self.errors.push(error);
        None
    }

    /// `true` or `false`, if it was sent.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        match self.last(name)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let msg = "Input should be a valid boolean, unable to interpret input";
                self.errors.push(ValidationError::new("bool_parsing", &["query", name], msg, other));
                None
            }
        }
    }

    /// A text of `min..=max` characters.
    pub fn check_text(&mut self, loc: Vec<Location>, text: String, min: usize, max: usize) -> Option<String> {
        check_length(&mut self.errors, loc, text, min, max)
    }

    /// Refuses all parameters but these, and more than one of them.
    pub fn only_once(&mut self, names: &[&'static str]) {
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in &self.pairs {
            let error = match names.iter().find(|known| *known == name) {
                None => ("extra_forbidden", "Extra inputs are not permitted"),
                Some(_) if seen.contains(&name.as_str()) => ("value_error", "Should be sent once"),
                Some(known) => {
                    seen.push(known);
                    continue;
                }
            };
            let loc = vec!["query".into(), name.clone().into()];
            self.errors.push(ValidationError::at(error.0, loc, error.1, value.as_str()));
        }
    }

    /// Adds an error that the caller found.
    pub fn refuse(&mut self, error: ValidationError) {
        self.errors.push(error);
    }

    /// These parameters and their values, sorted by name, encoded: the same however they were encoded, and in whatever
    /// order the names came.
    pub fn canonical(&self, names: &[&str]) -> String {
        let mut pairs: Vec<&(String, String)> =
            self.pairs.iter().filter(|(name, _)| names.contains(&name.as_str())).collect();
        pairs.sort_by_key(|(name, _)| name);
        serde_urlencoded::to_string(pairs).unwrap_or_default()
    }

    /// Everything that is wrong with the query, or nothing.
    pub fn finish(self) -> Result<(), Vec<ValidationError>> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_refused_all_at_once() {
        let mut query = Query::new("a=1&b=true&a=7&d=%C3%A9+x&&e&n=1&n=2");
        assert_eq!(
            (query.integer("a", 0..=7), query.boolean("b"), query.integer("x", 0..=7)),
            (Some(7), Some(true), None)
        );
        assert_eq!((query.last("d"), query.last("e")), (Some("é x".to_owned()), Some(String::new())));
        assert_eq!(query.array("n", 2, |query, loc, text| query.parse_integer(loc, text, 0..=7)), [1, 2]);
        assert!(query.finish().is_ok());
        let mut query = Query::new("a=8&b=yes&d=&e=1.5&f=-1&n=7&n=&m=1&m=2");
        assert_eq!((query.integer("a", 0..=7), query.boolean("b")), (None, None));
        assert_eq!((query.integer("e", 0..=7), query.integer("f", 0..=7)), (None, None));
        let text = |query: &mut Query, loc, text| query.check_text(loc, text, 1, 5);
        assert_eq!(query.array("d", 1, text), Vec::<String>::new());
        assert_eq!(query.array("n", 2, text), ["7"]);
        assert_eq!(query.array("m", 1, text), Vec::<String>::new());
        let errors = query.finish().unwrap_err();
        let kinds: Vec<_> = errors.iter().map(|error| (error.kind, error.loc[1..].to_vec())).collect();
        assert_eq!(
            kinds,
            [
                ("less_than_equal", vec!["a".into()]),
                ("bool_parsing", vec!["b".into()]),
                ("int_parsing", vec!["e".into()]),
                ("greater_than_equal", vec!["f".into()]),
                ("string_too_short", vec!["d".into(), 0.into()]),
                ("string_too_short", vec!["n".into(), 1.into()]),
                ("too_long", vec!["m".into()]),
            ]
        );
    }

    #[test]
    fn parameters_have_one_form_however_they_were_sent() {
        let canonical = |encoded: &str| Query::new(encoded).canonical(&["a", "b"]);
        assert_eq!(canonical("b=%41&x=1&a=2&a=1"), "a=2&a=1&b=A");
        assert_eq!(canonical("a=2&b=A&a=1"), canonical("b=A&a=2&a=1"));
        assert_eq!(canonical("a=1+2"), "a=1+2");
    }
}
