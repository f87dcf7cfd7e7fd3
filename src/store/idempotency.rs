//! Requests that can safely be sent twice: their answers are kept, in the same commit as what they changed
//! (draft-ietf-httpapi-idempotency-key-header-07).

use std::fmt;
use std::sync::Arc;

use super::outcome::Applied;

/// What makes a request one that can be repeated.
pub struct Idempotency {
    /// Names the request among all of its user: what it is about, and the client's key.
    pub request: Arc<str>,
    /// The client's key alone.
    pub key: Arc<str>,
    /// A hash of the whole request: with the same name, another one is not answered.
    pub fingerprint: Fingerprint,
    /// Writes the answer that is kept.
    pub answer: Render,
}

/// The SHA-256 of a request.
pub type Fingerprint = [u8; 32];

/// Writes the answer to what was applied. It runs in the writer: it must not wait for anything.
pub type Render = Box<dyn Fn(&Applied) -> serde_json::Result<KeptAnswer> + Send>;

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Idempotency({})", self.request)
    }
}

/// An answer as it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Names and values of the headers that belong to it.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// What was answered.
    pub answer: Arc<KeptAnswer>,
}

/// What is answered to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// What it did, and how that is repeated if it can be.
    Applied(Applied, Option<Arc<KeptAnswer>>),
    /// What was answered when it came first.
    Repeated(Arc<KeptAnswer>),
}

/// What is known, from earlier groups, of a request that has the same name.
#[derive(Debug, Clone)]
pub enum Known {
    /// It was the same, and answered like this.
    Answered(Arc<KeptAnswer>),
    /// It was another one.
    Other,
    /// It was the same, but what was answered can't be read.
    Unreadable,
}

impl Kept {
    /// What this says about a request with this fingerprint.
    pub fn known(&self, fingerprint: &Fingerprint) -> Known {
        if self.fingerprint == *fingerprint { Known::Answered(Arc::clone(&self.answer)) } else { Known::Other }
    }
}
