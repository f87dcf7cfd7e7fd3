//! The texts of some todos side by side, so that a search reads memory from its beginning to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::domain::todo::Todo;
use crate::domain::todo::filter::Needle;
use crate::domain::todo::fold::folded;

/// Between two texts: no byte of UTF-8, so that nothing is found across it.
const SEPARATOR: u8 = 0xff;
/// Longest texts that are kept together, in bytes. There are characters of which folding makes 18; what is longer than all
/// that people write is searched without being kept.
const MAX_LEN: usize = 16 << 20;

/// How much memory texts take, and may take.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(256 << 20)
    }
}

impl Budget {
    /// A budget of which nothing is taken, in bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// What is taken, in bytes.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What is taken of a budget, until it is dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    size: usize,
}

impl Share {
    /// Takes more, if it is there.
    fn grow(&mut self, size: usize) -> Option<()> {
        let grown = |used: usize| Some(used + size).filter(|used| *used <= self.budget.limit);
        self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).ok()?;
        self.size += size;
        Some(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// The folded titles and descriptions of some todos.
#[derive(Debug)]
pub struct Texts {
    bytes: Vec<u8>,
    /// Where the texts of each todo end.
    ends: Box<[u32]>,
    _share: Share,
}

impl Texts {
    /// The texts of these todos; none if they take more memory than there is for them.
    pub fn new(todos: &[Arc<Todo>], budget: &Arc<Budget>) -> Option<Self> {
        let mut share = Share { budget: Arc::clone(budget), size: 0 };
        share.grow(todos.len() * size_of::<u32>())?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(todos.len()));
        for todo in todos {
            let before = bytes.len();
            add(todo, &mut bytes);
            share.grow(bytes.len() - before)?;
            ends.push(u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_LEN)?);
        }
        bytes.shrink_to_fit();
        Some(Self { bytes, ends: ends.into(), _share: share })
    }

    /// The indexes of the todos in whose texts it is found.
    pub fn search(&self, needle: &Needle) -> Vec<usize> {
        let (mut found, mut start, mut index) = (Vec::new(), 0, 0);
        while let Some(at) = self.bytes.get(start..).and_then(|rest| needle.find(rest)) {
            let at = start + at;
            // Nothing is found at the very end, not even an empty text: each ends with a separator.
            while let Some(end) = self.ends.get(index).map(|end| *end as usize) {
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
}

/// The same as [`Texts::search`], without keeping anything.
pub fn search_each(todos: &[Arc<Todo>], needle: &Needle) -> Vec<usize> {
    let mut bytes = Vec::new();
    let mut is_found = |todo: &Arc<Todo>| {
        bytes.clear();
        add(todo, &mut bytes);
        needle.find(&bytes).is_some()
    };
    todos.iter().enumerate().filter_map(|(index, todo)| is_found(todo).then_some(index)).collect()
}

fn add(todo: &Todo, bytes: &mut Vec<u8>) {
    for text in [Some(&todo.title), todo.description.as_ref()].into_iter().flatten() {
        bytes.extend_from_slice(folded(text).as_bytes());
        bytes.push(SEPARATOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::TodoId;
    use crate::domain::todo::input::NewTodo;

    fn todos(texts: &[(&str, Option<&str>)]) -> Vec<Arc<Todo>> {
        let todo = |&(title, description): &(&str, Option<&str>)| {
            let new = NewTodo { title: title.into(), description: description.map(Into::into), ..NewTodo::default() };
            Arc::new(new.create(TodoId(1), UserId(1), Timestamp(0)))
        };
        texts.iter().map(todo).collect()
    }

    #[test]
    fn a_text_is_found_anywhere_in_a_title_or_a_description() {
        let todos = todos(&[
            ("Buy milk", Some("Two LITRES, oat")),
            ("牛乳を買う", None),
            ("Straße", Some("")),
            ("milk milk", Some("milk")),
            ("x", Some("İstanbul, ıspanak")),
        ]);
        let texts = Texts::new(&todos, &Arc::default()).unwrap();
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
            assert_eq!(texts.search(&Needle::new(text)), expected, "{text:?}");
            assert_eq!(search_each(&todos, &Needle::new(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn there_may_be_nothing_to_search() {
        for text in ["x", ""] {
            assert!(Texts::new(&[], &Arc::default()).unwrap().search(&Needle::new(text)).is_empty());
        }
    }

    #[test]
    fn no_more_is_taken_than_there_is() {
        let todos = todos(&[("abc", None), ("defgh", None)]);
        // Each text has a separator and an end.
        let needed = 8 + 2 + 2 * size_of::<u32>();
        let budget = Arc::new(Budget::new(needed));
        let texts = Texts::new(&todos, &budget).unwrap();
        assert_eq!(budget.used(), needed);
        assert!(Texts::new(&todos[..1], &budget).is_none());
        drop(texts);
        assert_eq!(budget.used(), 0);
        let less = Arc::new(Budget::new(needed - 1));
        assert!(Texts::new(&todos, &less).is_none());
        assert_eq!(less.used(), 0);
    }
}
