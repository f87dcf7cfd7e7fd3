//! What is read of the log: by clients that catch up, page by page, while it grows and is pruned.

use super::*;
use crate::store::history::Limit;

const ALL: Limit = Limit { changes: usize::MAX, bytes: usize::MAX };

/// Waits for a read that is made on another thread.
fn block_on<T>(read: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(read)
}

impl Fixture {
    fn token(&self, revision: i64) -> SyncToken {
        SyncToken { epoch: self.epoch(), revision: Revision(revision) }
    }

    fn since(&self, owner: i64, revision: i64, only_last: bool, limit: Limit) -> Result<Page, Gap> {
        match block_on(self.changes_since(UserId(owner), self.token(revision), only_last, limit)) {
            Ok(page) => Ok(page),
            Err(HistoryError::Gap(gap)) => Err(gap),
            Err(error) => panic!("{error}"),
        }
    }

    /// The todos of an owner, as clients know them.
    fn live_todos(&self, owner: i64) -> BTreeMap<TodoId, Arc<Todo>> {
        self.todos(owner).into_iter().map(|todo| (todo.id, todo)).collect()
    }
}

/// A client's copy of an owner's todos.
struct Copy {
    owner: i64,
    only_last: bool,
    revision: Revision,
    todos: BTreeMap<TodoId, Arc<Todo>>,
}

impl Copy {
    fn new(f: &Fixture, owner: i64, only_last: bool) -> Self {
        let view = f.view(UserId(owner)).now_or_never().unwrap().unwrap();
        Self { owner, only_last, revision: view.revision, todos: f.live_todos(owner) }
    }

    /// Applies one page, or starts over if it can't; returns whether there are more, and whether it could.
    fn step(&mut self, f: &Fixture, limit: Limit) -> (bool, bool) {
        let page = match f.since(self.owner, self.revision.0, self.only_last, limit) {
            Ok(page) => page,
            Err(gap) => {
                assert_eq!(gap, Gap::Pruned);
                *self = Self::new(f, self.owner, self.only_last);
                return (false, false);
            }
        };
        let mut last = self.revision;
        for change in page.changes {
            assert!(self.only_last || change.revision == last.next(), "none is missing");
            assert!(change.revision > last && change.revision <= page.through);
            last = change.revision;
            match change.kind {
                Kind::Deleted => _ = self.todos.remove(&change.todo.id),
                _ => _ = self.todos.insert(change.todo.id, change.todo),
            }
        }
        self.revision = page.through;
        (page.more, true)
    }
}

#[test]
fn copies_that_catch_up_in_any_way_are_equal_to_what_there_is() {
    let (mut steps, mut restarts) = (0, 0);
    for seed in 0..30 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut f = Fixture::new();
        let mut copies: Vec<Copy> =
            OWNERS.into_iter().flat_map(|owner| [false, true].map(|net| Copy::new(&f, owner, net))).collect();
        for _life in 0..random.random_range(1..4) {
            for _ in 0..random.random_range(1..60) {
                let owner = OWNERS[random.random_range(0..3)];
                let commands = match random.random_range(0..4) {
                    0 => vec![Command::Undo {
                        revision: Revision(random.random_range(1..=f.head(owner).max(1))),
                        whole_batch: random.random(),
                    }],
                    _ => lives::random_commands(&mut random, 12),
                };
                // What is refused is no change.
                let _ = f.apply(owner, commands);
                let copy = random.random_range(0..copies.len());
                let limit = Limit { changes: random.random_range(1..9), bytes: random.random_range(1..4000) };
                if random.random_bool(0.5) {
                    let (_, could) = copies[copy].step(&f, limit);
                    (steps, restarts) = (steps + 1, restarts + usize::from(!could));
                }
            }
            if random.random_bool(0.5) {
                f.reopen();
            }
            if random.random_bool(0.5) {
                // As retention removes them; when it does is another test's matter.
                for owner in OWNERS {
                    let floor = random.random_range(0..=f.head(owner));
                    f.database.execute(&format!("DELETE FROM changes WHERE owner_id = {owner} AND revision < {floor}"));
                    let floor = floor - 1;
                    f.database
                        .execute(&format!("UPDATE users SET floor = {floor} WHERE id = {owner} AND floor < {floor}"));
                }
                f.reopen();
            }
        }
        for copy in &mut copies {
            let mut more = true;
            while more {
                let (next, could) = copy.step(&f, Limit { changes: 3, bytes: 4000 });
                (more, restarts) = (next, restarts + usize::from(!could));
            }
            assert_eq!(copy.todos, f.live_todos(copy.owner), "seed {seed}");
            assert_eq!(copy.revision, f.view(UserId(copy.owner)).now_or_never().unwrap().unwrap().revision);
        }
    }
    assert!(steps > 500 && restarts > 10, "{steps} {restarts}");
}

#[test]
fn a_page_ends_where_it_is_large_enough_or_has_looked_at_much() {
    let f = Fixture::new();
    let description = || Some("x".repeat(10_000).into_boxed_str());
    for _ in 0..10 {
        f.apply(
            1,
            vec![Command::Create(NewTodo { title: "x".into(), description: description(), ..NewTodo::default() })],
        )
        .unwrap();
    }
    let lengths = |bytes| f.since(1, 0, false, Limit { changes: 100, bytes }).unwrap().changes.len();
    // At least one, and what reaches the limit is the last.
    assert_eq!([0, 1, 20_000, 25_000, 1_000_000].map(lengths), [1, 1, 2, 3, 10]);
    let page = f.since(1, 4, false, Limit { changes: 6, bytes: usize::MAX }).unwrap();
    assert_eq!((page.changes.len(), page.through, page.more), (6, Revision(10), false));
    // Of a todo that was changed again and again, only the last is wanted.
    for part in [(); 12_000].chunks(500) {
        let first = f.todos(2).first().map_or_else(|| f.create(2, "busy").id, |todo| todo.id);
        f.apply(2, part.iter().map(|()| rename(first.0, "again")).collect()).unwrap();
    }
    let page = f.since(2, 0, true, ALL).unwrap();
    assert_eq!((page.changes.len(), page.through, page.more), (0, Revision(10_000), true));
    let page = f.since(2, 10_000, true, ALL).unwrap();
    assert_eq!((page.changes.len(), page.through, page.more), (1, Revision(12_001), false));
}

#[test]
fn only_what_can_be_known_is_known() {
    let f = Fixture::new();
    f.create(1, "a");
    assert_eq!(f.since(1, 2, false, ALL).unwrap_err(), Gap::Ahead);
    assert_eq!(f.since(2, 1, false, ALL).unwrap_err(), Gap::Ahead);
    let foreign = SyncToken { epoch: Epoch(f.epoch().0 ^ 1), revision: Revision(0) };
    let read = block_on(f.changes_since(UserId(1), foreign, false, ALL));
    assert!(matches!(read, Err(HistoryError::Gap(Gap::Foreign))), "{read:?}");
    // One that has no changes at all.
    assert!(f.since(7, 0, true, ALL).unwrap().changes.is_empty());
}

#[test]
fn a_follower_hears_of_what_can_be_seen() {
    let f = Fixture::new();
    let (mut follower, head) = f.follow(UserId(1)).now_or_never().unwrap().unwrap();
    assert_eq!(head, Revision(0));
    // The writer can't show what it has committed.
    let todos = f.shared.todos.read();
    let made = f.submit(1, vec![create("x")]);
    f.wait_until("the commit", |f| f.head(1) == 1);
    std::thread::sleep(Duration::from_millis(50));
    assert!(follower.try_next().is_none());
    assert_eq!(todos.revision(UserId(1)), Revision(0));
    drop(todos);
    made.blocking_recv().unwrap().unwrap();
    assert!(matches!(follower.try_next(), Some(News::Changed(change)) if change.revision == Revision(1)));
}

#[test]
fn a_store_that_is_closed_waits_for_its_readers_and_can_be_opened_again() {
    let mut f = Fixture::new();
    (0..1000).for_each(|_| drop(f.submit(1, vec![create("x")])));
    f.create(1, "the last");
    let store = f.store.take().map(Arc::new).unwrap();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (store, token) = (Arc::clone(&store), SyncToken { epoch: store.epoch(), revision: Revision(0) });
            std::thread::spawn(move || drop(block_on(store.changes_since(UserId(1), token, true, ALL))))
        })
        .collect();
    store.close();
    f.open();
    assert_eq!(f.todos(1).len(), 1001);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    if !f.database.is_sqlite() {
        return;
    }
    // The store that was closed has no descriptor of it: closing one later would end the locks of the new one.
    let open = |of: &Store| {
        let (path, descriptors) = (of.path().unwrap().to_owned(), std::fs::read_dir("/proc/self/fd").unwrap());
        descriptors.filter(|fd| std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == path)).count()
    };
    f.store = None;
    assert_eq!(open(&store), 0);
    f.open();
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}
