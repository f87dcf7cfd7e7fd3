//! The entity tag of a todo (RFC 9110, section 8.8.3): which version of it a client has.

use std::fmt;

use crate::domain::change::Epoch;
use crate::domain::todo::{Todo, TodoId, Version};

/// Names one version of one todo of one database. Shown without the quotes that HTTP puts around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag {
    /// The database's epoch.
    pub epoch: Epoch,
    /// The todo.
    pub todo: TodoId,
    /// Its version.
    pub version: Version,
}

impl EntityTag {
    /// The tag of this state of a todo.
    pub fn of(epoch: Epoch, todo: &Todo) -> Self {
        Self { epoch, todo: todo.id, version: todo.version }
    }

    /// As it is sent in a header.
    pub fn quoted(&self) -> String {
        format!("\"{self}\"")
    }

    /// Reads what was shown.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let epoch = Epoch::parse(parts.next()?)?;
        let todo = TodoId(parts.next()?.parse().ok()?);
        let version = Version(parts.next()?.parse().ok()?);
        let tag = Self { epoch, todo, version };
        // A number can be written in several ways; only ours counts.
        (tag.to_string() == text).then_some(tag)
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.epoch, self.todo, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_is_shown_and_not_otherwise() {
        let tag = EntityTag { epoch: Epoch(0x1f), todo: TodoId(7), version: Version(12) };
        assert_eq!(tag.to_string(), "000000000000001f-7-12");
        assert_eq!(EntityTag::parse("000000000000001f-7-12"), Some(tag));
        for bad in ["", "1f-7-12", "000000000000001f-07-12", "000000000000001f-7", "000000000000001f-7-12-1", "a-b-c"] {
            assert_eq!(EntityTag::parse(bad), None, "{bad}");
        }
    }
}
