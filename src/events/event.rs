//! A change as the CloudEvent that consumers see (CloudEvents 1.0.2, JSON format; the contract is docs/events.md).

use serde::Serialize;

use crate::domain::account::UserId;
use crate::domain::change::{Change, Epoch, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::due::Due;
use crate::domain::todo::field::Field;
use crate::domain::todo::tags::Tags;
use crate::domain::todo::{TodoId, Version};

/// Every event's `type` starts with this: `todo.created`, `todo.updated`, `todo.deleted`, `todo.restored`.
const TYPE_PREFIX: &str = "todo.";

/// `source` is this and the epoch, so that versions of different databases don't mix.
const SOURCE_PREFIX: &str = "/todo-backend/";
/// `subject` is this and the todo's id.
const SUBJECT_PREFIX: &str = "todos/";

/// The event's `source`.
pub fn source(epoch: Epoch) -> String {
    format!("{SOURCE_PREFIX}{epoch}")
}

/// The event's `subject`.
fn subject(todo: TodoId) -> String {
    format!("{SUBJECT_PREFIX}{todo}")
}

/// Reads which todo of which database an event is about; `None` if this service would not have written it that way.
pub fn parse_todo(source: &str, subject: &str) -> Option<(Epoch, TodoId)> {
    let epoch = Epoch::parse(source.strip_prefix(SOURCE_PREFIX)?)?;
    let todo = TodoId(subject.strip_prefix(SUBJECT_PREFIX)?.parse().ok()?);
    // A number can be written in several ways; only ours counts.
    (self::source(epoch) == source && self::subject(todo) == subject).then_some((epoch, todo))
}

/// The Kafka key: all events of a todo go to one partition, in order.
pub fn partition_key(change: &Change) -> TodoId {
    change.todo.id
}

/// The event's `id`, the same in every attempt to publish it.
pub fn id(change: &Change) -> String {
    format!("{}-{}", change.todo.id, change.todo.version)
}

/// What happened, as the original names it: `todo_created`.
pub fn name(change: &Change) -> String {
    format!("todo_{}", change.kind.name())
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: Timestamp,
    datacontenttype: &'static str,
    data: Data<'a>,
}

/// The original's payload in its order, then our additions.
#[derive(Serialize)]
struct Data<'a> {
    id: TodoId,
    title: &'a str,
    description: Option<&'a str>,
    completed: bool,
    created_at: Timestamp,
    /// The owner: nobody else creates todos.
    created_by: &'a str,
    event: String,
    updated_at: Timestamp,
    owner: UserId,
    actor: &'a str,
    version: Version,
    revision: Revision,
    changed: &'a [Field],
    schema: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Due>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: &'a Tags,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<f64>,
    /// Only where it is true.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    scrubbed: bool,
}

/// The event's JSON.
pub fn to_json(change: &Change) -> Result<String, serde_json::Error> {
    let todo = &change.todo;
    serde_json::to_string(&CloudEvent {
        specversion: "1.0",
        id: id(change),
        source: source(change.epoch),
        kind: format!("{TYPE_PREFIX}{}", change.kind.name()),
        subject: subject(todo.id),
        time: change.at,
        datacontenttype: "application/json",
        data: data(change),
    })
}

/// The event's `data` alone, as the original logs it.
pub fn data_json(change: &Change) -> Result<String, serde_json::Error> {
    serde_json::to_string(&data(change))
}

fn data(change: &Change) -> Data<'_> {
    let todo = &change.todo;
    Data {
        id: todo.id,
        title: &todo.title,
        description: todo.description.as_deref(),
        completed: todo.completed,
        created_at: todo.created_at,
        created_by: &change.created_by,
        event: name(change),
        updated_at: todo.updated_at,
        owner: todo.owner,
        actor: &change.actor,
        version: todo.version,
        revision: change.revision,
        changed: &change.changed,
        schema: 1,
        due_at: todo.due_at,
        priority: todo.priority,
        tags: &todo.tags,
        order: todo.order,
        scrubbed: change.scrubbed,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::change::{Kind, Place};
    use crate::domain::todo::Todo;
    use crate::domain::todo::input::NewTodo;
    use crate::domain::trace::TraceParent;
    use std::sync::Arc;

    /// A change of the todo `todo`, of version `version`.
    pub fn change(place: i64, todo: i64, version: i64) -> Change {
        let at = Timestamp(1_736_937_000_123);
        Change {
            place: Place(place),
            epoch: Epoch(0x1f),
            revision: Revision(place),
            kind: if version == 1 { Kind::Created } else { Kind::Updated },
            at,
            actor: "admin".into(),
            created_by: "admin".into(),
            scrubbed: false,
            changed: vec![Field::Title, Field::Description, Field::Completed],
            batch: None,
            op: None,
            trace: TraceParent::random(),
            todo: Arc::new(Todo {
                version: Version(version),
                ..NewTodo { title: "Learn".into(), ..NewTodo::default() }.create(TodoId(todo), UserId(7), at)
            }),
        }
    }

    #[test]
    fn an_event_has_the_documented_shape() {
        let json = to_json(&change(5, 3, 1)).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"specversion":"1.0","id":"3-1","source":"/todo-backend/000000000000001f","type":"todo.created","#,
                r#""subject":"todos/3","time":"2025-01-15T10:30:00.123Z","datacontenttype":"application/json","data":{"#,
                r#""id":3,"title":"Learn","description":null,"completed":false,"created_at":"2025-01-15T10:30:00.123Z","#,
                r#""created_by":"admin","event":"todo_created","updated_at":"2025-01-15T10:30:00.123Z","owner":7,"#,
                r#""actor":"admin","version":1,"revision":5,"changed":["title","description","completed"],"schema":1}}"#
            )
        );
    }

    #[test]
    fn every_attempt_sends_the_same_bytes() {
        let change = change(1, 1, 2);
        assert_eq!(to_json(&change).unwrap(), to_json(&change.clone()).unwrap());
    }

    #[test]
    fn a_todo_is_read_from_what_was_written_and_from_nothing_else() {
        for (epoch, todo) in [(0x1f, 3), (0, 1), (u64::MAX, i64::MAX)] {
            let todo = TodoId(todo);
            assert_eq!(parse_todo(&source(Epoch(epoch)), &subject(todo)), Some((Epoch(epoch), todo)));
        }
        let ours = ("/todo-backend/000000000000001f", "todos/3");
        assert!(parse_todo(ours.0, ours.1).is_some());
        for (source, subject) in [
            ("", ours.1),
            ("/todo-backend/", ours.1),
            ("/todo-backend/1f", ours.1),
            ("/todo-backend/000000000000001F", ours.1),
            ("/todo-backend/+00000000000001f", ours.1),
            ("/todo-backend/000000000000001f0", ours.1),
            ("/other/000000000000001f", ours.1),
            (ours.0, ""),
            (ours.0, "3"),
            (ours.0, "todos/"),
            (ours.0, "todos/+3"),
            (ours.0, "todos/03"),
            (ours.0, "todos/3/"),
            (ours.0, "todos/9223372036854775808"),
        ] {
            assert_eq!(parse_todo(source, subject), None, "{source} {subject}");
        }
    }
}
