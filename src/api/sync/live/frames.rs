//! The format of an event stream (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::api::error::ApiError;
use crate::domain::sync_token::SyncToken;

/// Where a client goes on after an event.
#[derive(Debug, Clone, Copy)]
pub enum Position {
    /// Where it was.
    Same,
    /// After this.
    At(SyncToken),
    /// Nowhere: it has to start over.
    Lost,
}

/// Events, one after the other.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// Adds an event.
    pub fn event(&mut self, name: &str, position: Position, data: &impl Serialize) -> Result<(), ApiError> {
        match position {
            Position::Same => {}
            Position::At(token) => self.line("id", &token.to_string()),
            Position::Lost => self.line("id", ""),
        }
        self.line("event", name);
        self.0.extend_from_slice(b"data: ");
        // JSON as we write it has no line breaks.
        serde_json::to_writer(&mut self.0, data)
            .map_err(|error| ApiError::internal("an event can't be written as JSON", error))?;
        self.0.extend_from_slice(b"\n\n");
        Ok(())
    }

    /// With the next event, tells the client how long to wait before it connects again.
    pub fn retry(&mut self, after: Duration) {
        self.line("retry", &after.as_millis().to_string());
    }

    fn line(&mut self, field: &str, value: &str) {
        self.0.extend_from_slice(format!("{field}: {value}\n").as_bytes());
    }

    /// How long they are, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// As they are sent.
    pub fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::change::{Epoch, Revision};
    use serde_json::json;

    #[test]
    fn an_event_is_lines_that_end_with_an_empty_one() {
        let mut frames = Frames::default();
        frames.retry(Duration::from_millis(1500));
        let token = SyncToken { epoch: Epoch(0x1f), revision: Revision(2) };
        frames.event("ready", Position::At(token), &json!({ "a": "b\nc" })).unwrap();
        frames.event("heartbeat", Position::Same, &json!({})).unwrap();
        frames.event("reset", Position::Lost, &json!({})).unwrap();
        let expected = "retry: 1500\nid: 000000000000001f-2\nevent: ready\ndata: {\"a\":\"b\\nc\"}\n\n\
            event: heartbeat\ndata: {}\n\nid: \nevent: reset\ndata: {}\n\n";
        assert_eq!(String::from_utf8(frames.0).unwrap(), expected);
    }
}
