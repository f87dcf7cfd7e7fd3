//! Where the next page of a list begins. Opaque for clients.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};

use crate::domain::change::{Epoch, Revision};
use crate::domain::todo::sort::Key;

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
    /// The longest cursor, in characters: for titles of letters that take four bytes each.
    pub const MAX_LEN: usize = 768;

    /// The cursor as it is sent. `list`: what the list is asked for with.
    pub fn encode(&self, list: &str) -> String {
        let (epoch, revision) = (self.epoch.0.to_be_bytes(), self.revision.0.to_be_bytes());
        let content = [&epoch[..], &revision, &self.after].concat();
        URL_SAFE_NO_PAD.encode([&short_hash(list, &content)[..], &content].concat())
    }

    /// Reads a cursor of this list.
    pub fn decode(text: &str, list: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (sent, content) = bytes.split_first_chunk()?;
        if *sent != short_hash(list, content) {
            return None;
        }
        let (epoch, rest) = content.split_first_chunk()?;
        let (revision, after) = rest.split_first_chunk()?;
        let (epoch, revision) = (u64::from_be_bytes(*epoch), i64::from_be_bytes(*revision));
        Some(Self { epoch: Epoch(epoch), revision: Revision(revision), after: after.into() })
    }
}

/// Tells lists and what belongs to them apart, such as damaged cursors and those of other lists. No secret: whoever makes
/// cursors up gets pages of their own todos.
pub fn short_hash(list: &str, content: &[u8]) -> [u8; 8] {
    let mut digest = Context::new(&SHA256);
    // The format of cursors: other versions of the service may have others.
    digest.update(b"1 ");
    digest.update(list.as_bytes());
    digest.update(&[0]);
    digest.update(content);
    let mut hash = [0; 8];
    hash.iter_mut().zip(digest.finish().as_ref()).for_each(|(to, byte)| *to = *byte);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::TodoId;
    use crate::domain::todo::input::NewTodo;
    use crate::domain::todo::sort::Sort;

    const LIST: &str = "q=a&sort=id";

    fn cursor(after: &[u8]) -> Cursor {
        Cursor { epoch: Epoch(7), revision: Revision(9), after: after.into() }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_for_its_list() {
        for after in [&b""[..], b"\0\xff", &[7; 500]] {
            let text = cursor(after).encode(LIST);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            assert_eq!(Cursor::decode(&text, LIST), Some(cursor(after)));
            assert_eq!(Cursor::decode(&text, "q=a&sort=-id"), None);
        }
    }

    #[test]
    fn nonsense_is_no_cursor() {
        let good = cursor(b"12345678").encode(LIST);
        for bad in ["", "x", "Ag", "%", &format!("{good}="), &format!(" {good}"), &format!("B{good}")] {
            assert_eq!(Cursor::decode(bad, LIST), None, "{bad:?}");
        }
        for length in 0..good.len() {
            assert_eq!(Cursor::decode(&good[..length], LIST), None, "{length}");
        }
        for at in 0..good.len() {
            let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
            let damaged = format!("{}{other}{}", &good[..at], &good[at + 1..]);
            assert_eq!(Cursor::decode(&damaged, LIST), None, "{damaged}");
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
