//! The texts of some todos side by side, so that a search reads memory from its beginning to its end.

use std::sync::Arc;

use crate::domain::todo::Todo;
use crate::domain::todo::filter::Needle;
use crate::domain::todo::fold::folded;

/// Between two texts: no byte of UTF-8, so that nothing is found across it.
const SEPARATOR: u8 = 0xff;

/// The folded titles and descriptions of some todos.
#[derive(Debug)]
pub struct Texts {
    bytes: Box<[u8]>,
    /// Where the texts of each todo end.
    ends: Box<[usize]>,
}

impl Texts {
    /// The texts of these todos.
    pub fn new(todos: &[Arc<Todo>]) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(todos.len()));
        for todo in todos {
            for text in [Some(&todo.title), todo.description.as_ref()].into_iter().flatten() {
                bytes.extend_from_slice(folded(text).as_bytes());
                bytes.push(SEPARATOR);
            }
            ends.push(bytes.len());
        }
        Self { bytes: bytes.into(), ends: ends.into() }
    }

    /// The indexes of the todos in whose texts it is found.
    pub fn search(&self, needle: &Needle) -> Vec<usize> {
        let (mut found, mut start, mut index) = (Vec::new(), 0, 0);
        while let Some(at) = self.bytes.get(start..).and_then(|rest| needle.find(rest)) {
            let at = start + at;
            // Nothing is found at the very end, not even an empty text: each ends with a separator.
            while let Some(&end) = self.ends.get(index) {
                index += 1;
                if at < end {
                    found.push(index - 1);
                    start = end;
                    break;
                }
            }
            if index == self.ends.len() {
                break;
            }
        }
        found
    }

    /// How much memory they take, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::TodoId;
    use crate::domain::todo::input::NewTodo;

    fn texts(texts: &[(&str, Option<&str>)]) -> Texts {
        let todo = |&(title, description): &(&str, Option<&str>)| {
            let new = NewTodo { title: title.into(), description: description.map(Into::into), ..NewTodo::default() };
            Arc::new(new.create(TodoId(1), UserId(1), Timestamp(0)))
        };
        Texts::new(&texts.iter().map(todo).collect::<Vec<_>>())
    }

    #[test]
    fn a_text_is_found_anywhere_in_a_title_or_a_description() {
        let texts = texts(&[
            ("Buy milk", Some("Two LITRES, oat")),
            ("牛乳を買う", None),
            ("Straße", Some("")),
            ("milk milk", Some("milk")),
            ("x", Some("İstanbul, ıspanak")),
        ]);
        let search = |text: &str| texts.search(&Needle::new(text));
        for (text, expected) in [
            ("MILK", &[0, 3][..]),
            ("litres, o", &[0]),
            ("乳を", &[1]),
            ("STRASSE", &[2]),
            ("ß", &[2]),
            ("ss", &[2]),
            ("İSTANBUL", &[4]),
            ("istanbul", &[]),
            ("stanbul", &[4]),
            ("ı", &[4]),
            ("ISPANAK", &[]),
            // Not from one text into the next.
            ("milktwo", &[]),
            ("oat牛", &[]),
            ("xİ", &[]),
            ("", &[0, 1, 2, 3, 4]),
            ("nothing", &[]),
        ] {
            assert_eq!(search(text), expected, "{text:?}");
        }
    }

    #[test]
    fn there_may_be_nothing_to_search() {
        assert!(texts(&[]).search(&Needle::new("x")).is_empty());
        assert!(texts(&[]).search(&Needle::new("")).is_empty());
    }
}
