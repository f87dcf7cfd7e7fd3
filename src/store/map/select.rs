//! Which of an owner's todos a list has, in which order, and on which page.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::todos::Todos;
use crate::domain::todo::filter::Filter;
use crate::domain::todo::sort::{Key, Sort};
use crate::domain::todo::{Todo, TodoId};

/// Todos among which it takes a short time to select, whatever is asked for, unless their texts are read.
const MAX_QUICK: usize = 1000;

/// A list, or a page of it.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Which todos it has.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// How many at most; at least 1.
    pub limit: Option<usize>,
    /// The place behind which the page begins.
    pub after: Option<Key>,
}

impl Selection {
    /// Whether it is all todos, by id.
    pub fn is_everything(&self) -> bool {
        let Self { filter, sort, limit, after } = self;
        filter.is_empty() && sort.is_by_id() && limit.is_none() && after.is_none()
    }

    /// Whether it takes a short time to select from `count` todos.
    pub fn is_quick(&self, count: usize) -> bool {
        // Of few todos, the texts may still be long.
        let reads_texts = self.filter.text.is_some() || self.sort.has_title();
        let is_page = self.filter.is_empty() && self.sort.is_by_id() && self.limit.is_some();
        !reads_texts && (is_page || count <= MAX_QUICK)
    }
}

/// What was selected.
#[derive(Debug)]
pub struct Page {
    /// The todos.
    pub todos: Vec<Arc<Todo>>,
    /// How many the whole list has.
    pub total: usize,
    /// The place of the last one, if others follow.
    pub next: Option<Key>,
}

/// Selects from todos. Off the async threads unless [`Selection::is_quick`].
pub fn select(todos: &Todos, selection: &Selection) -> Page {
    if selection.sort.is_by_id() { by_id(todos, selection) } else { sorted(todos, selection) }
}

/// Visits, by id, those that the filter lets through.
fn filtered(todos: &Todos, filter: &Filter, mut visit: impl FnMut(&Arc<Todo>)) {
    let mut matching = |todo: &Arc<Todo>| {
        if filter.matches(todo) {
            visit(todo);
        }
    };
    match &filter.text {
        Some(text) => todos.search(text, matching),
        None => todos.iter().for_each(&mut matching),
    }
}

fn by_id(todos: &Todos, Selection { filter, sort, limit, after }: &Selection) -> Page {
    let after = after.as_ref().map_or(TodoId(i64::MIN), |key| Sort::id(key));
    let (limit, mut selected, mut more) = (limit.unwrap_or(usize::MAX), Vec::new(), false);
    let mut add = |todo: &Arc<Todo>| {
        if selected.len() < limit {
            selected.push(Arc::clone(todo));
        } else {
            more = true;
        }
    };
    let total = if filter.is_empty() {
        todos.after(after).take(limit.saturating_add(1)).for_each(&mut add);
        todos.count()
    } else {
        let mut total = 0;
        filtered(todos, filter, |todo| {
            total += 1;
            if todo.id > after {
                add(todo);
            }
        });
        total
    };
    let next = selected.last().filter(|_| more).map(|last| sort.key(last));
    Page { todos: selected, total, next }
}

fn sorted(todos: &Todos, Selection { filter, sort, limit, after }: &Selection) -> Page {
    let limit = limit.unwrap_or(usize::MAX);
    let (mut total, mut more, mut key) = (0, false, Vec::new());
    // The first ones of those that were seen; the last of them on top.
    let mut first: BinaryHeap<Placed> = BinaryHeap::new();
    filtered(todos, filter, |todo| {
        total += 1;
        let end = first.peek().filter(|_| first.len() == limit).map(|last| &*last.key);
        if !sort.write_key(todo, end, &mut key) {
            more = true;
        } else if after.as_ref().is_none_or(|after| *key > **after) {
            if first.len() == limit {
                first.pop();
                more = true;
            }
            first.push(Placed { key: key.as_slice().into(), todo: Arc::clone(todo) });
        }
    });
    let sorted = first.into_sorted_vec();
    let next = sorted.last().filter(|_| more).map(|last| last.key.clone());
    Page { todos: sorted.into_iter().map(|placed| placed.todo).collect(), total, next }
}

/// A todo and its place, by which it is ordered.
struct Placed {
    key: Key,
    todo: Arc<Todo>,
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::filter::Needle;
    use crate::domain::todo::input::NewTodo;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use std::collections::BTreeMap;

    const SORTS: [&str; 9] = [
        "id",
        "-id",
        "title",
        "-title,id",
        "-completed,priority",
        "priority,-order",
        "-due_at",
        "updated_at",
        "-updated_at,order",
    ];

    fn random_todo(random: &mut SmallRng, id: i64, at: i64) -> Arc<Todo> {
        let pick = |random: &mut SmallRng| random.random_range(0..4u8);
        let new = NewTodo {
            title: ["a", "B", "ß", "long and longer"][usize::from(pick(random))].into(),
            completed: pick(random) == 0,
            priority: Some(pick(random)).filter(|priority| *priority > 0),
            order: Some(f64::from(pick(random))).filter(|order| *order > 0.0),
            ..NewTodo::default()
        };
        Arc::new(new.create(TodoId(id), UserId(1), Timestamp(at)))
    }

    fn random_filter(random: &mut SmallRng) -> Filter {
        match random.random_range(0..4) {
            0 => Filter { completed: Some(false), ..Filter::default() },
            1 => Filter { text: Some(Needle::new("long")), ..Filter::default() },
            2 => Filter { priorities: vec![1, 2], ..Filter::default() },
            _ => Filter::default(),
        }
    }

    /// What a list has, found in the simplest way.
    fn expected(todos: &BTreeMap<i64, Arc<Todo>>, Selection { filter, sort, .. }: &Selection) -> Vec<Arc<Todo>> {
        let matches =
            |todo: &&Arc<Todo>| filter.matches(todo) && (filter.text.is_none() || todo.title.contains("long"));
        let mut list: Vec<_> = todos.values().filter(matches).cloned().collect();
        list.sort_by_key(|todo| sort.key(todo));
        list
    }

    #[test]
    fn a_todo_that_does_not_change_is_on_exactly_one_page_whatever_happens_to_the_others() {
        for seed in 0..100 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut model: BTreeMap<i64, Arc<Todo>> =
                (1..random.random_range(1..300)).map(|id| (id, random_todo(&mut random, id, id % 7))).collect();
            let mut todos = Todos::default();
            model.values().for_each(|todo| todos.insert(Arc::clone(todo)));
            let mut selection = Selection {
                filter: random_filter(&mut random),
                sort: Sort::parse(SORTS[seed as usize % SORTS.len()]).unwrap(),
                limit: Some(random.random_range(1..60)),
                after: None,
            };
            let mut unchanged: Vec<_> = expected(&model, &selection);
            let (mut seen, mut pages, mut next_id) = (Vec::new(), 0, 1000);
            loop {
                let page = select(&todos, &selection);
                assert_eq!(page.total, expected(&model, &selection).len(), "seed {seed}");
                assert!(page.todos.len() <= selection.limit.unwrap());
                assert!(page.next.is_none() || page.todos.len() == selection.limit.unwrap(), "only the last is short");
                seen.extend(page.todos);
                let Some(next) = page.next else { break };
                assert!(selection.after.as_ref().is_none_or(|after| next > *after), "it goes on");
                selection.after = Some(next);
                pages += 1;
                for _ in 0..random.random_range(0..6) {
                    // Changes one, adds one behind all, or removes one; the one at the end of the page in particular.
                    let last = seen.last().map_or(1, |todo| todo.id.0);
                    let id = if random.random_bool(0.3) { last } else { random.random_range(1..300) };
                    let id = if random.random_bool(0.3) {
                        next_id += 1;
                        next_id
                    } else {
                        id
                    };
                    if random.random_bool(0.5) && model.contains_key(&id) || id >= 1000 {
                        let todo = random_todo(&mut random, id, 100 + pages);
                        model.insert(id, Arc::clone(&todo));
                        todos.insert(todo);
                    } else {
                        model.remove(&id);
                        todos.remove(TodoId(id));
                    }
                    unchanged.retain(|todo| todo.id.0 != id);
                }
            }
            for todo in &unchanged {
                let times = seen.iter().filter(|seen| seen.id == todo.id).count();
                assert_eq!(times, 1, "seed {seed}: {todo:?}");
            }
            let in_order: Vec<_> = seen.iter().filter(|todo| unchanged.contains(todo)).cloned().collect();
            assert_eq!(in_order, unchanged, "seed {seed}");
        }
    }

    #[test]
    fn a_list_without_a_limit_is_all_pages_together() {
        let mut random = SmallRng::seed_from_u64(1);
        let model: BTreeMap<i64, Arc<Todo>> = (1..700).map(|id| (id, random_todo(&mut random, id, id % 7))).collect();
        let mut todos = Todos::default();
        model.values().for_each(|todo| todos.insert(Arc::clone(todo)));
        for sort in SORTS {
            let filter = random_filter(&mut random);
            let selection = Selection { filter, sort: Sort::parse(sort).unwrap(), ..Selection::default() };
            let page = select(&todos, &selection);
            assert_eq!((page.todos, page.next), (expected(&model, &selection), None), "{sort}");
        }
    }

    #[test]
    fn what_reads_texts_or_many_todos_is_not_quick() {
        let by = |sort: &str| Selection { sort: Sort::parse(sort).unwrap(), ..Selection::default() };
        let page = |selection| Selection { limit: Some(1000), ..selection };
        let search = Selection { filter: Filter { text: Some(Needle::new("x")), ..Filter::default() }, ..by("id") };
        let done = Selection { filter: Filter { completed: Some(true), ..Filter::default() }, ..by("id") };
        for (selection, quick_of_few, quick_of_many) in [
            (page(by("id")), true, true),
            (page(by("priority")), true, false),
            (page(done.clone()), true, false),
            (done, true, false),
            (by("-id"), true, false),
            (page(by("title")), false, false),
            (page(by("-priority,title")), false, false),
            (page(search.clone()), false, false),
            (search, false, false),
        ] {
            let is_quick = (selection.is_quick(1000), selection.is_quick(1001));
            assert_eq!(is_quick, (quick_of_few, quick_of_many), "{selection:?}");
        }
        assert!(!page(by("title")).is_quick(1), "it may be long");
    }

    #[test]
    fn a_place_that_nobody_gave_is_one_too() {
        let mut todos = Todos::default();
        todos.insert(random_todo(&mut SmallRng::seed_from_u64(1), 1, 0));
        for sort in SORTS {
            for after in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
                let sort = Sort::parse(sort).unwrap();
                let selection = Selection { sort, limit: Some(1), after: Some(after.into()), ..Selection::default() };
                assert_eq!(select(&todos, &selection).total, 1);
            }
        }
    }
}
