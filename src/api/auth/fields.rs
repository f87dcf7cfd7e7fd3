//! Reads what accounts are made of from a body. Errors never show what was sent: it may contain a password.

use serde_json::{Map, Value, json};

use super::without_input;
use crate::auth::password_rules;
use crate::domain::account::{Role, Username};
use crate::domain::clock::Timestamp;
use crate::domain::session::Scope;
use crate::domain::validation::{BodyError, Fields, ValidationError};

/// The fields of a body, all of them or the errors of all of them.
pub struct AccountFields(Fields);

impl AccountFields {
    /// The fields of `body`, none of them read yet. Those of `required` must be there.
    pub fn new(body: Result<Map<String, Value>, BodyError>, required: &[&'static str]) -> Result<Self, BodyError> {
        let body = body.map_err(|error| match error {
            BodyError::Invalid(errors) => BodyError::Invalid(without_input(errors)),
            BodyError::NotText => BodyError::NotText,
        })?;
        let mut fields = Fields::new(body);
        fields.require(required);
        Ok(Self(fields))
    }

    /// The name of a new account.
    pub fn username(&mut self) -> Option<Username> {
        let text = self.0.string("username", 0, usize::MAX)?;
        let username = Username::parse(&text);
        if username.is_none() {
            let msg = format!("String should match pattern '{}'", Username::PATTERN);
            let error = ValidationError::new("string_pattern_mismatch", &["body", "username"], msg, Value::Null);
            self.0.refuse(error.with(json!({ "pattern": Username::PATTERN })));
        }
        username
    }

    /// A password that is only compared.
    pub fn password(&mut self, name: &'static str) -> Option<String> {
        self.0.string(name, 0, usize::MAX)
    }

    /// A password that the account `username` will have.
    pub fn new_password(&mut self, name: &'static str, username: &str) -> Option<String> {
        let password = self.0.string(name, 0, usize::MAX)?;
        match password_rules::check(&password, username) {
            Ok(()) => Some(password),
            Err(weak) => {
                let error = ValidationError::new("value_error", &["body", name], weak.to_string(), Value::Null);
                self.0.refuse(error.with(json!({ "reason": weak.reason() })));
                None
            }
        }
    }

    /// A hash of another service.
    pub fn password_hash(&mut self) -> Option<Box<str>> {
        let hash = self.0.string("password_hash", 0, usize::MAX)?;
        match crate::auth::password::validate_import(&hash) {
            Ok(()) => Some(hash.into()),
            Err(unusable) => {
                let loc = ["body", "password_hash"];
                self.0.refuse(ValidationError::new("value_error", &loc, unusable.to_string(), Value::Null));
                None
            }
        }
    }

    /// What the account may do.
    pub fn role(&mut self) -> Option<Role> {
        self.one_of("role", "'user' or 'admin'", Role::from_name)
    }

    /// Whether the account can be used: `active` or `disabled`.
    pub fn enabled(&mut self) -> Option<bool> {
        self.one_of("state", "'active' or 'disabled'", |state| match state {
            "active" => Some(true),
            "disabled" => Some(false),
            _ => None,
        })
    }

    /// What a personal access token is called.
    pub fn token_name(&mut self) -> Option<String> {
        let name = self.0.string("name", 1, 100)?;
        if name.trim().is_empty() {
            let msg = "Value error, should not be blank";
            self.0.refuse(ValidationError::new("value_error", &["body", "name"], msg, Value::Null));
            return None;
        }
        Some(name)
    }

    /// What a personal access token allows.
    pub fn scope(&mut self) -> Option<Scope> {
        self.one_of("scope", "'read' or 'write'", Scope::from_name)
    }

    /// A time after `now`, if it was sent.
    pub fn future_time(&mut self, name: &'static str, now: Timestamp) -> Option<Timestamp> {
        let text = self.0.nullable(name, |fields, name| fields.string(name, 0, usize::MAX))??;
        let (kind, msg) = match Timestamp::parse(&text) {
            Some(time) if time > now => return Some(time),
            Some(_) => ("datetime_future", "Input should be in the future"),
            None => ("datetime_parsing", "Input should be a valid datetime (RFC 3339)"),
        };
        self.0.refuse(ValidationError::new(kind, &["body", name], msg, Value::Null));
        None
    }

    fn one_of<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(&self.0.string(name, 0, usize::MAX)?);
        if value.is_none() {
            self.0.refuse(ValidationError::not_one_of(self.0.location(name), expected, Value::Null));
        }
        value
    }

    /// Whether a field was sent and is not read yet.
    pub fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    /// An error about one of the fields.
    pub fn refuse(&mut self, error: ValidationError) {
        self.0.refuse(error);
    }

    /// `values` if all of them are there, or everything that is wrong with the body.
    pub fn finish<T>(self, values: Option<T>) -> Result<T, Vec<ValidationError>> {
        self.0.finish().map_err(without_input)?;
        values.ok_or_else(|| vec![ValidationError::missing(&["body"], Value::Null)])
    }
}
