//! Which todos a list has.

use memchr::memmem::Finder;

use super::Todo;
use super::fold::folded;
use super::tags::Tags;
use crate::domain::clock::Timestamp;

/// What todos have in common: all that is set.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Their titles or descriptions have this in them.
    pub text: Option<Needle>,
    /// They are done, or not.
    pub completed: Option<bool>,
    /// They have one of these priorities.
    pub priorities: Vec<u8>,
    /// They have all of these tags.
    pub tags: Tags,
    /// They are due before this.
    pub due_before: Option<Timestamp>,
    /// They are due then or later.
    pub due_after: Option<Timestamp>,
    /// They changed then or later.
    pub updated_since: Option<Timestamp>,
}

impl Filter {
    /// Whether all todos match.
    pub fn is_empty(&self) -> bool {
        let Self { text, completed, priorities, tags, due_before, due_after, updated_since } = self;
        let times = [due_before, due_after, updated_since];
        text.is_none() && completed.is_none() && priorities.is_empty() && tags.is_empty() && times == [&None; 3]
    }

    /// Whether a todo has everything but the text, which is searched for in many todos at once.
    pub fn matches(&self, todo: &Todo) -> bool {
        let due = todo.due_at.map(|due| due.time());
        self.completed.is_none_or(|completed| todo.completed == completed)
            && (self.priorities.is_empty() || todo.priority.is_some_and(|priority| self.priorities.contains(&priority)))
            && self.tags.iter().all(|wanted| todo.tags.iter().any(|tag| tag == wanted))
            && self.due_before.is_none_or(|end| due.is_some_and(|due| due < end))
            && self.due_after.is_none_or(|start| due.is_some_and(|due| due >= start))
            && self.updated_since.is_none_or(|start| todo.updated_at >= start)
    }
}

/// A text that is searched for.
#[derive(Debug, Clone)]
pub struct Needle(Finder<'static>);

impl Needle {
    /// What is found where [`folded`] `text` is part of the folded text.
    pub fn new(text: &str) -> Self {
        Self(Finder::new(folded(text).as_bytes()).into_owned())
    }

    /// The first offset in `haystack`, in bytes, at which it is found.
    pub fn find(&self, haystack: &[u8]) -> Option<usize> {
        self.0.find(haystack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::todo::TodoId;
    use crate::domain::todo::due::Due;
    use crate::domain::todo::input::NewTodo;

    fn todo() -> Todo {
        let new = NewTodo {
            title: "x".into(),
            due_at: Due::parse("2025-01-31"),
            priority: Some(3),
            tags: Tags::new(["a".into(), "b".into()]),
            ..NewTodo::default()
        };
        new.create(TodoId(1), UserId(1), Timestamp(1000))
    }

    fn midnight() -> Timestamp {
        Timestamp::parse("2025-01-31T00:00:00Z").unwrap()
    }

    /// Whether the todo matches, and whether one without optional fields does.
    fn matches(filter: &Filter) -> (bool, bool) {
        let plain = NewTodo { title: "x".into(), ..NewTodo::default() };
        (filter.matches(&todo()), filter.matches(&plain.create(TodoId(2), UserId(1), Timestamp(1000))))
    }

    #[test]
    fn everything_that_is_set_must_hold() {
        assert_eq!(matches(&Filter::default()), (true, true));
        for (completed, expected) in [(false, true), (true, false)] {
            let filter = Filter { completed: Some(completed), ..Filter::default() };
            assert_eq!(matches(&filter), (expected, expected));
        }
        let tags = |tags: &[&str]| Tags::new(tags.iter().map(|&tag| tag.into()));
        for (wanted, expected) in [(tags(&["b"]), true), (tags(&["b", "a"]), true), (tags(&["a", "B"]), false)] {
            assert_eq!(matches(&Filter { tags: wanted, ..Filter::default() }), (expected, false));
        }
        for (wanted, expected) in [(vec![2, 3], true), (vec![0, 1, 2, 4], false)] {
            assert_eq!(matches(&Filter { priorities: wanted, ..Filter::default() }), (expected, false));
        }
        let both = Filter { completed: Some(true), tags: tags(&["a"]), ..Filter::default() };
        assert_eq!(matches(&both), (false, false));
    }

    #[test]
    fn the_end_of_a_span_is_not_in_it_and_its_start_is() {
        let (before, day, after) = (Timestamp(midnight().0 - 1), midnight(), Timestamp(midnight().0 + 1));
        for (end, expected) in [(before, false), (day, false), (after, true)] {
            assert_eq!(matches(&Filter { due_before: Some(end), ..Filter::default() }), (expected, false));
        }
        for (start, expected) in [(before, true), (day, true), (after, false)] {
            assert_eq!(matches(&Filter { due_after: Some(start), ..Filter::default() }), (expected, false));
        }
        for (start, expected) in [(Timestamp(999), true), (Timestamp(1000), true), (Timestamp(1001), false)] {
            assert_eq!(matches(&Filter { updated_since: Some(start), ..Filter::default() }), (expected, expected));
        }
    }
}
