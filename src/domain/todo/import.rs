//! Todos that come from somewhere else: from an export of this service, or from another service.

use std::collections::VecDeque;

use serde_json::Value;

use super::input::NewTodo;
use crate::domain::clock::Timestamp;
use crate::domain::validation::{Fields, Item, Items, ValidationError};

/// Todos that are created in one commit, at most.
const MAX_GROUP: usize = 500;
/// The same in bytes of their texts, but for the last one.
const MAX_GROUP_BYTES: usize = 1 << 20;
/// Errors that are collected, at most: then the rest is not looked at any more.
const MAX_ERRORS: usize = 100;

/// Collects the todos of an import as it arrives, or everything that is wrong with them.
#[derive(Debug, Default)]
pub struct Import {
    /// The todos that were collected and not taken yet.
    pub todos: VecDeque<NewTodo>,
    /// Items of an export that are no live todos: what is in the trash, and what happened.
    pub skipped: usize,
    items: Items,
    errors: Vec<ValidationError>,
}

impl Import {
    /// Takes in a piece of a body; none is its end. `seen` gets each item. The errors are all that there are, up to the
    /// first that leaves nothing more to be read.
    pub fn read(&mut self, piece: Option<&[u8]>, mut seen: impl FnMut(&mut Value)) -> Result<(), Vec<ValidationError>> {
        self.items.push(piece.unwrap_or_default());
        loop {
            match self.items.next(piece.is_none()) {
                Ok(Some(mut item)) => {
                    seen(&mut item.value);
                    self.add(item);
                }
                Ok(None) if piece.is_none() && !self.errors.is_empty() => return Err(std::mem::take(&mut self.errors)),
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.refused(*error)),
            }
            if self.errors.len() >= MAX_ERRORS {
                return Err(std::mem::take(&mut self.errors));
            }
        }
    }

    /// All errors, of which this is the last.
    pub fn refused(&mut self, last: ValidationError) -> Vec<ValidationError> {
        let mut errors = std::mem::take(&mut self.errors);
        errors.push(last);
        errors
    }

    /// The next todos that are created in one commit, if they have arrived: the same ones however the todos arrive.
    pub fn group(&mut self, is_all: bool) -> Option<Vec<NewTodo>> {
        let (mut bytes, mut count) = (0, 0);
        for todo in &self.todos {
            (bytes, count) = (bytes + todo.text_len(), count + 1);
            if count == MAX_GROUP || bytes >= MAX_GROUP_BYTES {
                return Some(self.todos.drain(..count).collect());
            }
        }
        (is_all && count > 0).then(|| self.todos.drain(..).collect())
    }

    fn add(&mut self, Item { index, line, value }: Item) {
        if is_no_live_todo(&value) {
            self.skipped += 1;
            return;
        }
        match Fields::of(vec!["body".into(), index.into()], value).and_then(parse) {
            Ok(todo) => self.todos.push_back(todo),
            Err(errors) => self.errors.extend(errors.into_iter().map(|error| error.and("line", line))),
        }
    }
}

/// Whether it is a line of an export about a change, or about a todo in the trash.
fn is_no_live_todo(item: &Value) -> bool {
    let is_change = item["revision"].is_number() && item["event"].is_string() && item["todo"].is_object();
    is_change || item["deleted_at"].is_string()
}

/// A todo to create, and since when it exists.
fn parse(mut fields: Fields) -> Result<NewTodo, Vec<ValidationError>> {
    let created_at = fields.nullable("created_at", created_at).flatten();
    Ok(NewTodo { created_at, ..NewTodo::parse(fields)? })
}

fn created_at(fields: &mut Fields, name: &'static str) -> Option<Timestamp> {
    let text = fields.string(name, 0, usize::MAX)?;
    // The original writes times without an offset, and means UTC.
    let time = Timestamp::parse(&text).or_else(|| Timestamp::parse(&format!("{text}Z")));
    if time.is_none() {
        let msg = "Input should be a time (2025-01-31T10:30:00Z)";
        fields.refuse(ValidationError::at("datetime_parsing", fields.location(name), msg, text));
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn import(items: &Value) -> Result<Import, Vec<ValidationError>> {
        let (mut import, mut seen) = (Import::default(), 0);
        for piece in items.to_string().as_bytes().chunks(7) {
            import.read(Some(piece), |_| seen += 1)?;
        }
        import.read(None, |_| seen += 1)?;
        assert_eq!(Some(seen), items.as_array().map(Vec::len));
        Ok(import)
    }

    #[test]
    fn todos_of_an_export_and_of_the_original_are_read() {
        let read = import(&json!([
            {"id": 7, "title": "ours", "description": "d", "completed": true, "created_at": "2025-01-15T10:30:00.123Z",
             "updated_at": "2025-01-16T10:30:00.000Z", "priority": 2, "tags": ["a"], "etag": "\"x\""},
            {"id": 1, "title": "the original's", "description": null, "completed": false,
             "created_at": "2025-01-15T10:30:00.123456", "updated_at": "2025-01-15T10:30:00.123456"},
            {"title": "by hand", "deleted_at": null, "revision": 7, "event": "party", "created_at": null},
            {"id": 8, "title": "in the trash", "deleted_at": "2025-01-16T10:30:00.000Z"},
            {"revision": 9, "event": "created", "todo": {"title": "then"}},
        ]));
        let read = read.unwrap();
        let created = Some(Timestamp(1_736_937_000_123));
        let titles: Vec<_> = read.todos.iter().map(|todo| (&*todo.title, todo.created_at)).collect();
        assert_eq!(titles, [("ours", created), ("the original's", created), ("by hand", None)]);
        assert_eq!((read.todos[0].priority, read.todos[0].completed, read.skipped), (Some(2), true, 2));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_item() {
        let read = import(&json!([
            {"title": "good"},
            {"title": "", "created_at": "yesterday"},
            "no todo",
            {"title": "x", "created_at": 5},
        ]));
        let errors: Vec<_> = read.unwrap_err().into_iter().map(|error| (error.kind, error.loc)).collect();
        let at = |index: usize, name: &'static str| vec!["body".into(), index.into(), name.into()];
        assert_eq!(
            errors,
            [
                ("datetime_parsing", at(1, "created_at")),
                ("string_too_short", at(1, "title")),
                ("model_attributes_type", vec!["body".into(), 2.into()]),
                ("string_type", at(3, "created_at")),
            ]
        );
    }

    #[test]
    fn groups_are_the_same_however_the_todos_arrive() {
        let todo =
            |n: usize| json!({"title": n.to_string(), "description": "d".repeat(if n < 300 { 9_000 } else { 1 })});
        let body: String = (0..1_700).map(|n| format!("{}\n", todo(n))).collect();
        let groups = |piece: usize| {
            let (mut import, mut groups) = (Import::default(), Vec::new());
            for piece in body.as_bytes().chunks(piece).map(Some).chain([None]) {
                import.read(piece, |_| {}).unwrap();
                while let Some(group) = import.group(piece.is_none()) {
                    groups.push(group.len());
                }
            }
            groups
        };
        let all = groups(body.len());
        assert_eq!((all.iter().sum::<usize>(), all[0], all[all.len() - 2]), (1_700, 117, 500));
        assert_eq!((groups(1_000), groups(77_777)), (all.clone(), all));
    }

    #[test]
    fn errors_have_a_limit() {
        assert_eq!(import(&json!(vec![json!({}); MAX_ERRORS + 9])).unwrap_err().len(), MAX_ERRORS);
        let mut broken = Import::default();
        let kinds = broken.read(Some(b"[{}, 7, x"), |_| {}).unwrap_err();
        let kinds: Vec<_> = kinds.iter().map(|error| error.kind).collect();
        assert_eq!(kinds, ["missing", "model_attributes_type", "json_invalid"]);
    }
}
