//! How far a client knows an owner's changes.

use std::fmt;

use serde::Serialize;

use crate::domain::change::{Change, Epoch, Revision};

/// Names one of an owner's changes in one database. Shown as `EPOCH-REVISION`; opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncToken {
    /// The database's epoch.
    pub epoch: Epoch,
    /// The last change that the client knows; 0: it knows that there was none.
    pub revision: Revision,
}

impl SyncToken {
    /// What whoever knows a change knows.
    pub fn of(change: &Change) -> Self {
        Self { epoch: change.epoch, revision: change.revision }
    }

    /// Reads what was shown.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, revision) = text.split_once('-')?;
        let token = Self { epoch: Epoch::parse(epoch)?, revision: Revision(revision.parse().ok()?) };
        // A number can be written in several ways; only ours counts.
        (token.revision >= Revision::default() && token.to_string() == text).then_some(token)
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.revision)
    }
}

impl Serialize for SyncToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_shown_and_not_otherwise() {
        let token = SyncToken { epoch: Epoch(0x1f), revision: Revision(12) };
        assert_eq!(token.to_string(), "000000000000001f-12");
        assert_eq!(SyncToken::parse("000000000000001f-12"), Some(token));
        assert_eq!(SyncToken::parse("000000000000001f-0").map(|token| token.revision), Some(Revision(0)));
        for bad in [
            "",
            "12",
            "1f-12",
            "000000000000001f-012",
            "000000000000001f--1",
            "000000000000001f-12-1",
            "000000000000001f-",
        ] {
            assert_eq!(SyncToken::parse(bad), None, "{bad}");
        }
    }
}
