//! A change as the CloudEvent that consumers see (CloudEvents 1.0.2, JSON format; the contract is docs/events.md).

use serde::Serialize;

use crate::clock::Timestamp;
use crate::store::{Change, Epoch};
use crate::todos::model::{Field, TodoId, UserId};

/// `type` of every event starts so: `todo.created`, `todo.updated`, `todo.deleted`.
const TYPE_PREFIX: &str = "todo.";

/// `source`: events of another database (epoch) have another one, so their versions don't mix.
pub fn source(epoch: Epoch) -> String {
    format!("/todo-backend/{epoch}")
}

/// The Kafka key: all events of a todo go to one partition, in order.
pub fn partition_key(change: &Change) -> TodoId {
    change.todo.id
}

/// The event's `id`, the same in every attempt to publish it.
pub fn id(change: &Change) -> String {
    format!("{}-{}", change.todo.id, change.todo.version)
}

/// What happened, as the seed names it: `todo_created`.
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

/// The seed's payload first, in its order, then what was added to it.
#[derive(Serialize)]
struct Data<'a> {
    id: TodoId,
    title: &'a str,
    description: Option<&'a str>,
    completed: bool,
    created_at: Timestamp,
    /// Only owners make todos, and only owners change them: the actor is the creator.
    created_by: &'a str,
    event: String,
    updated_at: Timestamp,
    owner: UserId,
    actor: &'a str,
    version: i64,
    revision: i64,
    changed: &'a [Field],
    schema: u32,
}

/// The event's JSON.
pub fn to_json(change: &Change) -> Result<String, serde_json::Error> {
    let todo = &change.todo;
    serde_json::to_string(&CloudEvent {
        specversion: "1.0",
        id: id(change),
        source: source(change.epoch),
        kind: format!("{TYPE_PREFIX}{}", change.kind.name()),
        subject: format!("todos/{}", todo.id),
        time: change.at,
        datacontenttype: "application/json",
        data: data(change),
    })
}

/// The event's `data` alone, as the seed logs it.
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
        created_by: &change.actor,
        event: name(change),
        updated_at: todo.updated_at,
        owner: todo.owner,
        actor: &change.actor,
        version: todo.version,
        revision: change.revision,
        changed: &change.changed,
        schema: 1,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::Kind;
    use crate::todos::model::Todo;
    use crate::trace::TraceParent;
    use std::sync::Arc;

    /// A change of the todo `todo_id`, of version `version`.
    pub fn change(seq: i64, todo_id: TodoId, version: i64) -> Change {
        let at = Timestamp(1_736_937_000_123);
        Change {
            seq,
            epoch: Epoch(0x1f),
            revision: seq,
            kind: if version == 1 { Kind::Created } else { Kind::Updated },
            at,
            actor: "admin".into(),
            changed: Field::ALL.to_vec(),
            trace: TraceParent::random(),
            todo: Arc::new(Todo {
                id: todo_id,
                owner: 7,
                version,
                title: "Learn".into(),
                description: None,
                completed: false,
                created_at: at,
                updated_at: at,
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
}
