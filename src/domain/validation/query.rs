//! Reads the query of a request parameter by parameter, and collects every error.

use std::ops::RangeInclusive;

use super::fields::check_length;
use super::{ValidationError, location, not_an_integer, too_large, too_small};

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
        self.parse_integer(name, &text, range)
    }

    /// Whole numbers in this range.
    pub fn integers(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Vec<i64> {
        let texts = self.all(name);
        texts.iter().filter_map(|text| self.parse_integer(name, text, range.clone())).collect()
    }

    fn parse_integer(&mut self, name: &'static str, text: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let loc = ["query", name];
        let error = match text.parse::<i64>() {
            Ok(number) if number < *range.start() => too_small(location(&loc), *range.start(), text),
            Ok(number) if number > *range.end() => too_large(location(&loc), *range.end(), text),
            Ok(number) => return Some(number),
            Err(_) => not_an_integer(&loc, text),
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
    pub fn check_text(&mut self, name: &'static str, text: String, min: usize, max: usize) -> Option<String> {
        check_length(&mut self.errors, location(&["query", name]), text, min, max)
    }

    /// Adds an error that the caller found.
    pub fn refuse(&mut self, error: ValidationError) {
        self.errors.push(error);
    }

    /// These parameters and their values, sorted by name, encoded: the same for queries that mean the same.
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
        assert_eq!((query.all("n"), query.integers("n", 0..=7)), (vec!["1".to_owned(), "2".to_owned()], vec![1, 2]));
        assert!(query.finish().is_ok());
        let mut query = Query::new("a=8&b=yes&d=&e=1.5&f=-1");
        assert_eq!((query.integer("a", 0..=7), query.boolean("b")), (None, None));
        assert_eq!((query.integer("e", 0..=7), query.integer("f", 0..=7)), (None, None));
        let text = query.last("d").unwrap();
        assert_eq!(query.check_text("d", text, 1, 5), None);
        let errors = query.finish().unwrap_err();
        let kinds: Vec<_> = errors.iter().map(|error| (error.kind, error.loc[1].clone())).collect();
        assert_eq!(
            kinds,
            [
                ("less_than_equal", "a".into()),
                ("bool_parsing", "b".into()),
                ("int_parsing", "e".into()),
                ("greater_than_equal", "f".into()),
                ("string_too_short", "d".into()),
            ]
        );
    }

    #[test]
    fn queries_that_mean_the_same_have_one_form() {
        let canonical = |encoded: &str| Query::new(encoded).canonical(&["a", "b"]);
        assert_eq!(canonical("b=%41&x=1&a=2&a=1"), "a=2&a=1&b=A");
        assert_eq!(canonical("a=2&b=A&a=1"), canonical("b=A&a=2&a=1"));
        assert_eq!(canonical("a=1+2"), "a=1+2");
    }
}
