//! The order of a list.

use super::fold::folded;
use super::{Todo, TodoId};

/// Characters of a folded title that are compared; what comes after them makes no difference.
const COMPARED_TITLE_LEN: usize = 100;

/// What a list can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortField {
    /// [`Todo::id`].
    Id,
    /// [`Todo::title`], [`folded`].
    Title,
    /// [`Todo::completed`]: what is not done is first.
    Completed,
    /// [`Todo::created_at`].
    CreatedAt,
    /// [`Todo::updated_at`].
    UpdatedAt,
    /// [`Todo::due_at`].
    DueAt,
    /// [`Todo::priority`].
    Priority,
    /// [`Todo::order`].
    Order,
}

impl SortField {
    /// All of them and their names.
    const NAMES: [(&'static str, Self); 8] = [
        ("id", Self::Id),
        ("title", Self::Title),
        ("completed", Self::Completed),
        ("created_at", Self::CreatedAt),
        ("updated_at", Self::UpdatedAt),
        ("due_at", Self::DueAt),
        ("priority", Self::Priority),
        ("order", Self::Order),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find_map(|&(known, field)| (known == name).then_some(field))
    }

    /// Adds the field's value to a key: smaller values have smaller bytes, and none begins like another. `false` if the
    /// todo has none.
    fn add_value(self, todo: &Todo, key: &mut Vec<u8>) -> bool {
        match self {
            Self::Id => key.extend(ordered(todo.id.0)),
            Self::Title => {
                let title = folded(&todo.title);
                // No byte of UTF-8 is 255. The end, 0, is before all that could be there instead.
                let end = title.char_indices().nth(COMPARED_TITLE_LEN).map_or(title.len(), |(end, _)| end);
                key.extend(title.bytes().take(end).map(|byte| byte + 1));
                key.push(0);
            }
            Self::Completed => key.push(u8::from(todo.completed)),
            Self::CreatedAt => key.extend(ordered(todo.created_at.0)),
            Self::UpdatedAt => key.extend(ordered(todo.updated_at.0)),
            Self::DueAt => {
                let Some(due) = todo.due_at else { return false };
                key.extend(ordered(due.time().0));
            }
            Self::Priority => {
                let Some(priority) = todo.priority else { return false };
                key.push(priority);
            }
            Self::Order => {
                let Some(order) = todo.order else { return false };
                // The order of IEEE 754's bits, but for the sign.
                let bits = order.to_bits();
                let ordered = if order.is_sign_negative() { !bits } else { bits ^ (1 << 63) };
                key.extend(ordered.to_be_bytes());
            }
        }
        true
    }
}

/// Bytes that are ordered as numbers are.
fn ordered(number: i64) -> [u8; 8] {
    (number ^ i64::MIN).to_be_bytes()
}

/// By what a list is sorted: by the first, then those that are equal by the second, and so on, at last by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sort(Vec<(SortField, Direction)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

/// Where a todo is in a list: those of a list are ordered as its todos are, byte by byte.
pub type Key = Box<[u8]>;

impl Sort {
    /// What [`Sort::parse`] takes, in words.
    pub const RULE: &'static str = "names of fields, each once, separated by commas, with or without '-' before them: 'id', \
        'title', 'completed', 'created_at', 'updated_at', 'due_at', 'priority', 'order'";

    /// Parses names of fields, separated by commas; `-` before a name is for descending.
    pub fn parse(text: &str) -> Option<Self> {
        let mut sort = Self::default();
        for name in text.split(',') {
            let (name, direction) = match name.strip_prefix('-') {
                Some(name) => (name, Direction::Descending),
                None => (name, Direction::Ascending),
            };
            let field = SortField::parse(name).filter(|field| sort.0.iter().all(|(other, _)| other != field))?;
            sort.0.push((field, direction));
        }
        Some(sort)
    }

    /// Whether titles are compared, which takes longer than the rest.
    pub fn has_title(&self) -> bool {
        self.0.iter().any(|(field, _)| *field == SortField::Title)
    }

    /// Whether todos are in the order of their ids.
    pub fn is_by_id(&self) -> bool {
        self.0.first().is_none_or(|first| *first == (SortField::Id, Direction::Ascending))
    }

    /// Where a todo is.
    pub fn key(&self, todo: &Todo) -> Key {
        let mut key = Vec::new();
        self.write_key(todo, None, &mut key);
        key.into()
    }

    /// Writes where a todo is to `key`. Before `end`, if there is one: otherwise `false`, as soon as that is certain, and
    /// the key is of no use.
    pub fn write_key(&self, todo: &Todo, end: Option<&[u8]>, key: &mut Vec<u8>) -> bool {
        key.clear();
        for &(field, direction) in &self.0 {
            let start = key.len();
            // What is absent is last in both directions.
            key.push(0);
            if !field.add_value(todo, key) {
                key[start] = 1;
            } else if direction == Direction::Descending {
                key[start + 1..].iter_mut().for_each(|byte| *byte = !*byte);
            }
            if end.is_some_and(|end| key.as_slice() > end) {
                return false;
            }
        }
        key.extend(ordered(todo.id.0));
        end.is_none_or(|end| key.as_slice() < end)
    }

    /// The id of the todo that has this key, whatever its other fields are. An id that no todo has if there is none.
    pub fn id(key: &[u8]) -> TodoId {
        let id = key.last_chunk().map_or(i64::MIN, |id| i64::from_be_bytes(*id) ^ i64::MIN);
        TodoId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::due::Due;
    use crate::domain::todo::input::NewTodo;

    fn sort(text: &str) -> Sort {
        Sort::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// The ids of the todos, which count from 1, when they are sorted.
    fn sorted(by: &str, todos: Vec<NewTodo>) -> Vec<i64> {
        let todo = |(id, new): (i64, NewTodo)| new.create(TodoId(id), UserId(1), Timestamp(0));
        let mut keys: Vec<Key> = (1..).zip(todos).map(todo).map(|todo| sort(by).key(&todo)).collect();
        keys.sort();
        keys.iter().map(|key| Sort::id(key).0).collect()
    }

    fn titled(title: &str) -> NewTodo {
        NewTodo { title: title.into(), ..NewTodo::default() }
    }

    #[test]
    fn only_names_of_fields_are_orders() {
        for bad in ["", ",", "id,", "id,-id", "-", "--id", "+id", " id", "ID", "description", "tags", "id;title"] {
            assert_eq!(Sort::parse(bad), None, "{bad:?}");
        }
        for (name, field) in SortField::NAMES {
            assert!(Sort::RULE.contains(&format!("'{name}'")), "{field:?}");
        }
    }

    #[test]
    fn titles_are_compared_without_case_and_a_beginning_is_before_the_whole() {
        let titles = ["b", "B a", "ä", "A", "a", "aa", "Ab", "a\u{0}", "Z", "é"];
        assert_eq!(sorted("title", titles.map(titled).into()), [4, 5, 8, 6, 7, 1, 2, 9, 3, 10]);
        assert_eq!(sorted("-title", titles.map(titled).into()), [10, 3, 9, 2, 1, 7, 6, 8, 4, 5]);
        // What is not compared makes no difference.
        let long = |last: &str| titled(&format!("{}{last}", "ß".repeat(COMPARED_TITLE_LEN / 2)));
        assert_eq!(sorted("title", vec![long("b"), long("a")]), [1, 2]);
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_what_is_absent_is_last() {
        let orders = [Some(1.0), None, Some(-1.5), Some(0.0), Some(-1e300), Some(1e-300), Some(10.0), Some(f64::MAX)];
        let todos = || orders.map(|order| NewTodo { order, ..titled("x") }).into();
        assert_eq!(sorted("order", todos()), [5, 3, 4, 6, 1, 7, 8, 2]);
        assert_eq!(sorted("-order", todos()), [8, 7, 1, 6, 4, 3, 5, 2]);
        let priorities =
            || [None, Some(0), Some(4), Some(2)].map(|priority| NewTodo { priority, ..titled("x") }).into();
        assert_eq!(sorted("priority", priorities()), [2, 4, 3, 1]);
        assert_eq!(sorted("-priority", priorities()), [3, 4, 2, 1]);
    }

    #[test]
    fn a_day_is_compared_as_its_beginning() {
        let due = [
            Some("2025-01-31T00:00:00.001Z"),
            Some("2025-01-31"),
            None,
            Some("2025-01-30T23:59:59Z"),
            Some("0001-01-01"),
        ];
        let todos = || due.map(|due| NewTodo { due_at: due.and_then(Due::parse), ..titled("x") }).into();
        assert_eq!(sorted("due_at", todos()), [5, 4, 2, 1, 3]);
        assert_eq!(sorted("-due_at", todos()), [1, 2, 4, 5, 3]);
    }

    #[test]
    fn ties_are_broken_by_what_comes_next_and_at_last_by_id() {
        let todo = |completed, priority| NewTodo { completed, priority: Some(priority), ..titled("x") };
        let todos = || vec![todo(true, 1), todo(false, 2), todo(false, 1), todo(true, 2), todo(false, 2)];
        assert_eq!(sorted("completed,-priority", todos()), [2, 5, 3, 4, 1]);
        assert_eq!(sorted("-completed", todos()), [1, 4, 2, 3, 5]);
        assert_eq!(sorted("-id", todos()), [5, 4, 3, 2, 1]);
        assert_eq!(sorted("created_at,updated_at", todos()), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn any_bytes_have_an_id() {
        assert_eq!(Sort::id(&[]), TodoId(i64::MIN));
        assert_eq!(Sort::id(&[0xff; 8]), TodoId(i64::MAX));
    }
}
