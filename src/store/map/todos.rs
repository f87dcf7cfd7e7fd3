//! One owner's todos, by id, of which a reader can take all as they are without copying them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::texts::{Budget, Texts, search_each};
use crate::domain::todo::filter::Needle;
use crate::domain::todo::{Todo, TodoId};

/// Most todos of a block. To take all of 100,000 todos is to count 400 references; to change one that a reader has taken
/// is to copy 256.
const BLOCK_LEN: usize = 256;

/// Todos by id. A clone shares their blocks with the original, until one of both changes them.
#[derive(Debug, Clone, Default)]
pub struct Todos {
    /// None is empty.
    blocks: Vec<Arc<Block>>,
    count: usize,
    /// For the texts of all owners' todos.
    budget: Arc<Budget>,
}

/// Some todos, by id.
#[derive(Debug, Default)]
struct Block {
    todos: Vec<Arc<Todo>>,
    /// Their texts, since somebody searched them.
    texts: Mutex<Option<Arc<Texts>>>,
    /// Whether somebody has searched them since [`Todos::forget_texts`].
    was_searched: AtomicBool,
}

impl Todos {
    /// None, whose texts will be within a budget.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), ..Self::default() }
    }

    /// The number of them.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The todo with this id.
    pub fn get(&self, id: TodoId) -> Option<&Arc<Todo>> {
        let block = self.blocks.get(self.block_of(id))?;
        block.todos.get(block.position(id).ok()?)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Todo>> {
        self.blocks.iter().flat_map(|block| &block.todos)
    }

    /// All of them, by id, one after the other: nothing is copied before it is taken.
    pub fn into_todos(self) -> impl Iterator<Item = Arc<Todo>> {
        let todos = |block: Arc<Block>| (0..block.todos.len()).filter_map(move |at| block.todos.get(at).cloned());
        self.blocks.into_iter().flat_map(todos)
    }

    /// Those with a greater id, by id.
    pub fn after(&self, id: TodoId) -> impl Iterator<Item = &Arc<Todo>> {
        let blocks = self.blocks.get(self.block_of(id)..).unwrap_or_default();
        blocks.iter().flat_map(|block| &block.todos).skip_while(move |todo| todo.id <= id)
    }

    /// Visits those with a text in their titles or descriptions, by id.
    pub fn search(&self, needle: &Needle, mut visit: impl FnMut(&Arc<Todo>)) {
        for block in &self.blocks {
            block.search(needle, &self.budget).into_iter().filter_map(|at| block.todos.get(at)).for_each(&mut visit);
        }
    }

    /// Adds a todo, or puts it in the place of the one with its id.
    pub fn insert(&mut self, todo: Arc<Todo>) {
        // Ids grow: most are added at the end.
        let at = self.block_of(todo.id).min(self.blocks.len().saturating_sub(1));
        let Some(block) = self.blocks.get_mut(at) else {
            return self.push(vec![todo]);
        };
        match block.position(todo.id) {
            Ok(position) => {
                if let Some(before) = Block::change(block).get_mut(position) {
                    *before = todo;
                }
                return;
            }
            Err(position) if block.todos.len() < BLOCK_LEN => Block::change(block).insert(position, todo),
            Err(BLOCK_LEN) => {
                // Behind the last of all. Full blocks stay full.
                return self.push(vec![todo]);
            }
            Err(position) => {
                let todos = Block::change(block);
                todos.insert(position, todo);
                let second = todos.split_off(BLOCK_LEN / 2);
                self.blocks.insert(at + 1, Block::new(second));
            }
        }
        self.count += 1;
    }

    /// Removes a todo, if it is there.
    pub fn remove(&mut self, id: TodoId) {
        let at = self.block_of(id);
        let Some(block) = self.blocks.get_mut(at) else { return };
        let Ok(position) = block.position(id) else { return };
        let todos = Block::change(block);
        todos.remove(position);
        self.count -= 1;
        if todos.is_empty() {
            self.blocks.remove(at);
            return;
        }
        // Small neighbours become one.
        for first in [at, at.wrapping_sub(1)] {
            if let Some([one, other]) = self.blocks.get(first..first.wrapping_add(2))
                && one.todos.len() + other.todos.len() <= BLOCK_LEN / 2
            {
                let other = std::mem::take(Block::change(&mut self.blocks.remove(first + 1)));
                if let Some(one) = self.blocks.get_mut(first) {
                    Block::change(one).extend(other);
                }
            }
        }
    }

    /// Forgets the texts of what nobody has searched since the last call.
    pub fn forget_texts(&self) {
        for block in &self.blocks {
            if !block.was_searched.swap(false, Ordering::Relaxed) {
                *block.texts.lock() = None;
            }
        }
    }

    fn push(&mut self, todos: Vec<Arc<Todo>>) {
        self.count += todos.len();
        self.blocks.push(Block::new(todos));
    }

    /// The index of the block that has this id or would have it; of none behind the last.
    fn block_of(&self, id: TodoId) -> usize {
        self.blocks.partition_point(|block| block.todos.last().is_some_and(|last| last.id < id))
    }
}

impl Block {
    fn new(todos: Vec<Arc<Todo>>) -> Arc<Self> {
        Arc::new(Self { todos, ..Self::default() })
    }

    /// Its todos, to be changed. They are copied first if somebody has taken them.
    fn change(block: &mut Arc<Self>) -> &mut Vec<Arc<Todo>> {
        // Also of a block that only a reader has from now on.
        *block.texts.lock() = None;
        &mut Arc::make_mut(block).todos
    }

    /// Where the todo with this id is, or would be.
    fn position(&self, id: TodoId) -> Result<usize, usize> {
        self.todos.binary_search_by_key(&id, |todo| todo.id)
    }

    /// The indexes of the todos in whose texts it is found.
    fn search(&self, needle: &Needle, budget: &Arc<Budget>) -> Vec<usize> {
        self.was_searched.store(true, Ordering::Relaxed);
        let kept = self.texts.lock().clone();
        // Made without the lock: nobody waits for it. Two searches may make them at once.
        let Some(texts) = kept.or_else(|| Texts::new(&self.todos, budget).map(Arc::new)) else {
            return search_each(&self.todos, needle);
        };
        let found = texts.search(needle);
        *self.texts.lock() = Some(texts);
        found
    }
}

/// For [`Arc::make_mut`]: what is copied is about to change.
impl Clone for Block {
    fn clone(&self) -> Self {
        Self { todos: self.todos.clone(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::UserId;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::input::NewTodo;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use std::collections::BTreeMap;

    fn todo(id: i64, title: &str) -> Arc<Todo> {
        let new = NewTodo { title: title.into(), ..NewTodo::default() };
        Arc::new(new.create(TodoId(id), UserId(1), Timestamp(0)))
    }

    fn sequence(count: i64) -> Todos {
        let mut todos = Todos::default();
        (1..=count).for_each(|id| todos.insert(todo(id, &id.to_string())));
        todos
    }

    fn titles<'a>(todos: impl Iterator<Item = &'a Arc<Todo>>) -> Vec<(i64, String)> {
        todos.map(|todo| (todo.id.0, todo.title.to_string())).collect()
    }

    fn check(todos: &Todos, model: &BTreeMap<i64, String>) {
        let expected: Vec<(i64, String)> = model.iter().map(|(id, title)| (*id, title.clone())).collect();
        assert_eq!(titles(todos.iter()), expected);
        assert_eq!(todos.count(), expected.len());
        assert_eq!(titles(todos.clone().into_todos().collect::<Vec<_>>().iter()), expected);
        for block in &todos.blocks {
            assert!((1..=BLOCK_LEN).contains(&block.todos.len()));
        }
        for pair in todos.blocks.windows(2) {
            assert!(pair[0].todos.len() + pair[1].todos.len() > BLOCK_LEN / 2, "small neighbours");
        }
    }

    #[test]
    fn it_is_a_map_and_what_was_taken_from_it_stays_as_it_was() {
        for seed in 0..9 {
            let mut random = SmallRng::seed_from_u64(seed);
            let (mut todos, mut model, mut taken) = (Todos::default(), BTreeMap::new(), Vec::new());
            let range = [10, 1000, 3000][seed as usize % 3];
            for step in 0..3000 {
                let id = random.random_range(1..=range);
                // It grows first and shrinks then.
                if random.random_bool(if step < 2000 { 0.8 } else { 0.1 }) {
                    let title = format!("{step}");
                    todos.insert(todo(id, &title));
                    model.insert(id, title);
                } else {
                    todos.remove(TodoId(id));
                    model.remove(&id);
                }
                assert_eq!(todos.get(TodoId(id)).map(|todo| todo.title.to_string()), model.get(&id).cloned());
                if random.random_bool(0.01) {
                    check(&todos, &model);
                    let after = random.random_range(-1..=range + 1);
                    let expected: Vec<_> = model.range(after + 1..).map(|(id, title)| (*id, title.clone())).collect();
                    assert_eq!(titles(todos.after(TodoId(after))), expected, "after {after}");
                    taken.push((todos.clone(), model.clone()));
                }
            }
            for (todos, model) in taken {
                check(&todos, &model);
            }
        }
    }

    #[test]
    fn todos_that_are_added_in_order_fill_their_blocks() {
        let todos = sequence(3 * BLOCK_LEN as i64 + 1);
        assert_eq!(
            todos.blocks.iter().map(|block| block.todos.len()).collect::<Vec<_>>(),
            [BLOCK_LEN, BLOCK_LEN, BLOCK_LEN, 1]
        );
    }

    #[test]
    fn a_change_copies_one_block_and_only_if_somebody_has_taken_it() {
        let mut todos = sequence(1000);
        let blocks = |todos: &Todos| todos.blocks.iter().map(Arc::as_ptr).collect::<Vec<_>>();
        let before = blocks(&todos);
        todos.insert(todo(300, "x"));
        assert_eq!(blocks(&todos), before);
        let taken = todos.clone();
        todos.insert(todo(300, "y"));
        let shared: Vec<bool> = blocks(&todos).iter().zip(blocks(&taken)).map(|(one, other)| *one == other).collect();
        assert_eq!(shared, [true, false, true, true]);
        assert_eq!((&*taken.get(TodoId(300)).unwrap().title, &*todos.get(TodoId(300)).unwrap().title), ("x", "y"));
    }

    fn search(todos: &Todos, text: &str) -> Vec<i64> {
        let mut found = Vec::new();
        todos.search(&Needle::new(text), |todo| found.push(todo.id.0));
        found
    }

    #[test]
    fn a_search_finds_what_is_there_now() {
        let mut todos = sequence(1000);
        assert_eq!(
            search(&todos, "99"),
            [99, 199, 299, 399, 499, 599, 699, 799, 899, 990, 991, 992, 993, 994, 995, 996, 997, 998, 999]
        );
        let taken = todos.clone();
        todos.remove(TodoId(99));
        todos.insert(todo(300, "99"));
        assert_eq!(search(&todos, "99")[..4], [199, 299, 300, 399]);
        assert_eq!(search(&taken, "99")[..4], [99, 199, 299, 399]);
    }

    #[test]
    fn texts_are_kept_for_as_long_as_somebody_searches_them() {
        let mut todos = sequence(1000);
        let size = |todos: &Todos| todos.budget.used();
        assert_eq!(size(&todos), 0);
        search(&todos, "99");
        // Each of 1, 2, 3 or 4 digits, a separator, and where it ends.
        let all = 9 + 90 * 2 + 900 * 3 + 4 + 1000 * (1 + size_of::<u32>());
        assert_eq!(size(&todos), all);
        todos.insert(todo(1000, "x"));
        assert!(size(&todos) < all, "those of the changed block are gone");
        todos.forget_texts();
        assert!(size(&todos) > 0, "they were searched since the last time");
        search(&todos, "99");
        assert_eq!(size(&todos), all - 3);
        todos.forget_texts();
        todos.forget_texts();
        assert_eq!(size(&todos), 0);
    }

    #[test]
    fn texts_of_what_has_changed_are_forgotten_also_where_somebody_has_taken_it() {
        let mut todos = sequence(1000);
        search(&todos, "99");
        let taken = todos.clone();
        [1, 300, 600, 900].into_iter().for_each(|id| todos.insert(todo(id, "x")));
        assert_eq!((todos.budget.used(), taken.count()), (0, 1000));
    }

    #[test]
    fn without_room_a_search_finds_the_same() {
        let mut todos = Todos::new(&Arc::new(Budget::new(100)));
        (1..=1000).for_each(|id| todos.insert(todo(id, &id.to_string())));
        assert_eq!(search(&todos, "99"), search(&sequence(1000), "99"));
        assert_eq!(todos.budget.used(), 0);
    }

    #[test]
    fn searches_beside_changes_find_what_does_not_change() {
        let todos = Mutex::new(sequence(2000));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..30 {
                        let taken = todos.lock().clone();
                        let expected: Vec<i64> =
                            (1..=2000).filter(|id| id % 2 == 0 && id.to_string().contains('9')).collect();
                        let found: Vec<i64> = search(&taken, "9").into_iter().filter(|id| id % 2 == 0).collect();
                        assert_eq!(found, expected);
                        taken.forget_texts();
                    }
                });
            }
            for id in (1..2000).step_by(2) {
                todos.lock().insert(todo(id, "9"));
            }
        });
        let todos = todos.into_inner();
        assert_eq!(
            search(&todos, "9").len(),
            1000 + (1..=2000).filter(|id| id % 2 == 0 && id.to_string().contains('9')).count()
        );
    }
}
