//! Where the next page of a list begins. Opaque for clients.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::change::{Epoch, Revision};
use crate::domain::todo::sort::Key;

/// The first byte of a cursor: its format.
const FORMAT: u8 = 1;

/// The bytes that a list has in common with others of the same filter and order.
pub type ListId = [u8; 8];

/// The place behind which a page begins, and what the first page has said.
#[derive(Debug, PartialEq)]
pub struct Cursor {
    /// The epoch of the database at the first page.
    pub epoch: Epoch,
    /// How far the owner's changes had come at the first page.
    pub revision: Revision,
    /// The place of the last todo of the page before.
    pub after: Key,
}

impl Cursor {
    /// The longest cursor, in bytes: for titles of letters that take four bytes each.
    pub const MAX_LEN: usize = 768;

    /// The cursor as it is sent.
    pub fn encode(&self, list: ListId) -> String {
        let revision = self.revision.0.to_be_bytes();
        URL_SAFE_NO_PAD.encode([&[FORMAT], &list[..], &self.epoch.0.to_be_bytes(), &revision, &self.after].concat())
    }

    /// Reads a cursor of this list.
    pub fn decode(text: &str, list: ListId) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let after = bytes.strip_prefix(&[FORMAT])?.strip_prefix(&list)?;
        let (epoch, after) = after.split_first_chunk()?;
        let (revision, after) = after.split_first_chunk()?;
        let (epoch, revision) = (u64::from_be_bytes(*epoch), i64::from_be_bytes(*revision));
        Some(Self { epoch: Epoch(epoch), revision: Revision(revision), after: after.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::TodoId;
    use crate::domain::todo::input::NewTodo;
    use crate::domain::todo::sort::Sort;

    const LIST: ListId = *b"12345678";

    fn cursor(after: &[u8]) -> Cursor {
        Cursor { epoch: Epoch(7), revision: Revision(9), after: after.into() }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_for_its_list() {
        for after in [&b""[..], b"\0\xff", &[7; 500]] {
            let text = cursor(after).encode(LIST);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            assert_eq!(Cursor::decode(&text, LIST), Some(cursor(after)));
            assert_eq!(Cursor::decode(&text, *b"12345679"), None);
        }
    }

    #[test]
    fn nonsense_is_no_cursor() {
        let good = cursor(b"x").encode(LIST);
        for bad in ["", "x", "Ag", "%", &good[..20], &format!("{good}="), &format!(" {good}"), &format!("B{good}")] {
            assert_eq!(Cursor::decode(bad, LIST), None, "{bad:?}");
        }
    }

    #[test]
    fn no_cursor_is_longer_than_the_longest() {
        let sort = Sort::parse("title,-id,completed,created_at,updated_at,due_at,priority,order").unwrap();
        let new = NewTodo { title: "\u{1d11e}".repeat(200).into(), ..NewTodo::default() };
        let key = sort.key(&new.create(TodoId(1), UserId(1), Timestamp(0)));
        // The optional fields that it doesn't have.
        let longest = key.len() + 8 + 1 + 8;
        assert!(cursor(&vec![0; longest]).encode(LIST).len() <= Cursor::MAX_LEN);
    }
}
