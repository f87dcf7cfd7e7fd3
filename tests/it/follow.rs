//! Clients that follow a user's changes.

use actix_web::rt::time::timeout;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::app::{PATIENCE, TestApp};
use crate::client::RequestExt;
use crate::replica::{Event, Received, Replica};

/// A stream that is being read.
pub struct Stream {
    response: Response,
    received: Received,
}

impl Stream {
    /// Opens one that is answered 200.
    pub async fn open(call: RequestBuilder) -> Self {
        let response = call.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, received: Received::default() }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.received.next() {
                return Some(event);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("an event in time");
            let Some(chunk) = chunk.unwrap() else {
                assert!(self.received.is_empty(), "it ends between events");
                return None;
            };
            self.received.add(&chunk);
        }
    }

    /// The next event, which is of this kind.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> impl Future<Output = Event> {
        let caller = std::panic::Location::caller();
        async move {
            let event = self.next().await;
            assert_eq!(event.as_ref().map(|event| event.kind.as_str()), Some(kind), "{caller}: {event:?}");
            event.unwrap()
        }
    }

    /// That it ends, after an event that says why.
    #[track_caller]
    pub fn expect_end(&mut self, kind: &str, reason: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let last = self.next().await.expect("a last event");
            assert_eq!((last.kind.as_str(), &last.data["reason"]), (kind, &Value::from(reason)), "{caller}: {last:?}");
            assert_eq!(self.next().await, None, "{caller}");
        }
    }
}

/// What there is.
pub async fn current(app: &TestApp, user: &str) -> Replica {
    let answer = app.get("/todos?etags=true").bearer_auth(app.token(user)).answer().await;
    Replica::new(&answer.json(), answer.header("sync-token").unwrap())
}

/// Asks for what was missed until there is no more; returns how many entries there were.
pub async fn catch_up(replica: &mut Replica, app: &TestApp, user: &str, query: &str) -> usize {
    let mut entries = 0;
    loop {
        let path = format!("/changes?since={}{query}", replica.token);
        let answer = app.get(&path).bearer_auth(app.token(user)).answer().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let (count, has_more) = replica.read(&answer.json());
        assert_eq!(answer.header("sync-token"), Some(&*replica.token));
        entries += count;
        if !has_more {
            return entries;
        }
    }
}

/// Reads a stream until the replica has come to this token.
pub async fn follow(replica: &mut Replica, stream: &mut Stream, until: &str) {
    while replica.token != until {
        let event = stream.next().await.expect("more events");
        assert!(!["reset", "end"].contains(&event.kind.as_str()), "{event:?}");
        replica.hear(&event);
    }
}
