//! What commands change: the one place for these rules. Pure: no database, no thread, no lock, no clock.
//!
//! A group is what one commit makes durable. Each of its requests is decided on top of the committed [`State`] and of
//! what the group's earlier requests have decided; a request that is refused leaves no trace. Deciding the requests one
//! at a time, each in a group of its own, gives the same changes: the tests compare both.
//!
//! A store prepares what a group needs before it decides: the state of the owners that it names, and the [`Facts`]. So
//! nothing here ever waits, and each store fetches in its own way: SQLite's writer has everything in memory, one that
//! shares its database locks the owners first.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Command, Context};
use crate::domain::account::UserId;
use crate::domain::change::{Change, Epoch, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::{Field, Todo, TodoId, Version};

/// The committed state that a group is decided on.
pub trait State {
    /// Where the owner's part of the log ends.
    fn head(&self, owner: UserId) -> Head;

    /// A live todo of this owner.
    fn todo(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>>;
}

/// Where an owner's part of the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The last change's revision; 0 before the first.
    pub revision: Revision,
    /// The last change's time.
    pub last_at: Timestamp,
    /// Retention has removed the changes up to and including this revision.
    pub pruned_through: Revision,
}

/// The numbers that the next todo and the next change get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The id of the next todo.
    pub id: TodoId,
    /// The place of the next change.
    pub place: Place,
}

/// What a group is decided with, besides the state; the same for all its commands.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The database's epoch, which every change carries.
    pub epoch: Epoch,
    /// The wall clock's time. A change is never earlier than the owner's last one, whatever the clock says.
    pub now: Timestamp,
    /// The first unused numbers.
    pub next: Next,
}

/// Why a request changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The owner has no such todo; somebody else may.
    NotFound,
}

/// What a group has decided, and nobody else sees yet.
#[derive(Debug)]
pub struct Decided {
    /// In commit order.
    pub changes: Vec<Arc<Change>>,
    /// The owners' heads after these changes.
    pub heads: HashMap<UserId, Head>,
    /// The first numbers that are unused after these changes.
    pub next: Next,
    /// The changed todos; `None`: deleted.
    todos: HashMap<TodoId, Option<Arc<Todo>>>,
}

impl Decided {
    /// What a group without requests decides.
    pub fn nothing(next: Next) -> Self {
        Self { changes: Vec::new(), heads: HashMap::new(), next, todos: HashMap::new() }
    }

    fn merge(&mut self, later: Self) {
        self.changes.extend(later.changes);
        self.heads.extend(later.heads);
        self.next = later.next;
        self.todos.extend(later.todos);
    }
}

/// Decides the requests of one group, in their order.
pub struct Group<'a, S> {
    state: &'a S,
    facts: Facts,
    decided: Decided,
}

impl<'a, S: State> Group<'a, S> {
    /// A group on top of `state`.
    pub fn new(state: &'a S, facts: Facts) -> Self {
        Self { state, facts, decided: Decided::nothing(facts.next) }
    }

    /// What a request changes: all of its commands, or nothing.
    pub fn decide(&mut self, context: &Context, commands: Vec<Command>) -> Result<Vec<Arc<Change>>, Refusal> {
        let mut request = Decided::nothing(self.decided.next);
        for command in commands {
            self.decide_one(&mut request, context, command)?;
        }
        let changes = request.changes.clone();
        self.decided.merge(request);
        Ok(changes)
    }

    /// What the group has decided.
    pub fn finish(self) -> Decided {
        self.decided
    }

    fn decide_one(&self, request: &mut Decided, context: &Context, command: Command) -> Result<(), Refusal> {
        let owner = context.owner;
        let head = self.head(request, owner);
        let at = self.facts.now.max(head.last_at);
        let (kind, todo, changed) = match command {
            Command::Create(new) => {
                let id = request.next.id;
                request.next.id = TodoId(id.0 + 1);
                let todo = Todo {
                    id,
                    owner,
                    version: Version::FIRST,
                    title: new.title,
                    description: new.description,
                    completed: new.completed,
                    created_at: at,
                    updated_at: at,
                };
                (Kind::Created, todo, Field::ALL.to_vec())
            }
            Command::Update(id, patch) => {
                let mut todo = self.next_version(request, owner, id, at)?;
                let changed = patch.apply(&mut todo);
                (Kind::Updated, todo, changed)
            }
            Command::Delete(id) => (Kind::Deleted, self.next_version(request, owner, id, at)?, Vec::new()),
        };
        let (todo, revision) = (Arc::new(todo), head.revision.next());
        request.todos.insert(todo.id, (kind != Kind::Deleted).then(|| Arc::clone(&todo)));
        request.heads.insert(owner, Head { revision, last_at: at, ..head });
        request.changes.push(Arc::new(Change {
            place: request.next.place,
            epoch: self.facts.epoch,
            revision,
            kind,
            at,
            actor: Arc::clone(&context.actor),
            changed,
            trace: context.trace.clone(),
            todo,
        }));
        request.next.place = Place(request.next.place.0 + 1);
        Ok(())
    }

    fn head(&self, request: &Decided, owner: UserId) -> Head {
        let decided = request.heads.get(&owner).or_else(|| self.decided.heads.get(&owner));
        decided.copied().unwrap_or_else(|| self.state.head(owner))
    }

    /// The owner's todo in its next version, still to be changed; its time is `at`.
    fn next_version(&self, request: &Decided, owner: UserId, id: TodoId, at: Timestamp) -> Result<Todo, Refusal> {
        let todo = match request.todos.get(&id).or_else(|| self.decided.todos.get(&id)) {
            Some(decided) => decided.clone().filter(|todo| todo.owner == owner),
            None => self.state.todo(owner, id),
        };
        let todo = todo.ok_or(Refusal::NotFound)?;
        Ok(Todo { version: todo.version.next(), updated_at: at, ..Todo::clone(&todo) })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::domain::todo::{NewTodo, TodoPatch};
    use crate::domain::trace::TraceParent;

    type Request = (Context, Vec<Command>);
    type Answer = Result<Vec<Arc<Change>>, Refusal>;

    /// The simplest state there is.
    #[derive(Debug, Clone, PartialEq)]
    struct Committed {
        heads: HashMap<UserId, Head>,
        todos: HashMap<TodoId, Arc<Todo>>,
        next: Next,
    }

    impl State for Committed {
        fn head(&self, owner: UserId) -> Head {
            self.heads.get(&owner).copied().unwrap_or_default()
        }

        fn todo(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>> {
            self.todos.get(&id).filter(|todo| todo.owner == owner).cloned()
        }
    }

    impl Committed {
        fn nothing() -> Self {
            let next = Next { id: TodoId(1), place: Place(1) };
            Self { heads: HashMap::new(), todos: HashMap::new(), next }
        }

        /// Decides requests as one group, and commits it.
        fn apply(&mut self, now: i64, requests: &[Request]) -> Vec<Answer> {
            let facts = Facts { epoch: Epoch(7), now: Timestamp(now), next: self.next };
            let mut group = Group::new(self, facts);
            let answers = requests.iter().map(|(context, commands)| group.decide(context, commands.clone())).collect();
            let decided = group.finish();
            self.heads.extend(decided.heads);
            self.next = decided.next;
            for change in decided.changes {
                match change.kind {
                    Kind::Created | Kind::Updated => drop(self.todos.insert(change.todo.id, Arc::clone(&change.todo))),
                    Kind::Deleted => drop(self.todos.remove(&change.todo.id)),
                }
            }
            answers
        }
    }

    fn request(owner: i64, commands: Vec<Command>) -> Request {
        (
            Context { owner: UserId(owner), actor: format!("user {owner}").into(), trace: TraceParent::random() },
            commands,
        )
    }

    fn create(title: &str) -> Command {
        Command::Create(NewTodo { title: title.into(), description: None, completed: false })
    }

    fn rename(id: i64, title: &str) -> Command {
        Command::Update(TodoId(id), TodoPatch { title: Some(title.into()), ..TodoPatch::default() })
    }

    fn delete(id: i64) -> Command {
        Command::Delete(TodoId(id))
    }

    /// A request of one of three owners, about any owner's todos and some that never existed.
    fn random_request(random: &mut SmallRng, ids: i64) -> Request {
        let count = if random.random_bool(0.7) { 1 } else { random.random_range(0..5) };
        let command = |_| {
            let id = random.random_range(1..=ids + 3);
            let title = random.random_range(0..9).to_string();
            match random.random_range(0..10) {
                0..3 => create(&title),
                3..5 => delete(id),
                5 => Command::Update(TodoId(id), TodoPatch { completed: Some(true), ..TodoPatch::default() }),
                _ => rename(id, &title),
            }
        };
        let commands = (0..count).map(command).collect();
        request(random.random_range(1..=3), commands)
    }

    #[test]
    fn a_group_decides_as_its_requests_would_one_at_a_time() {
        for seed in 0..300 {
            let mut random = SmallRng::seed_from_u64(seed);
            let (mut grouped, mut single) = (Committed::nothing(), Committed::nothing());
            for _ in 0..random.random_range(1..8) {
                // The clock may go back.
                let now = random.random_range(0..1_000);
                let size = random.random_range(0..30);
                let requests: Vec<_> = (0..size).map(|_| random_request(&mut random, grouped.next.id.0)).collect();
                let answers = grouped.apply(now, &requests);
                let expected: Vec<_> =
                    requests.iter().flat_map(|request| single.apply(now, std::slice::from_ref(request))).collect();
                assert_eq!(answers, expected, "seed {seed}");
                assert_eq!(grouped, single, "seed {seed}");
            }
        }
    }

    #[test]
    fn revisions_versions_and_places_have_no_gaps_and_time_does_not_go_back() {
        for seed in 0..100 {
            let mut random = SmallRng::seed_from_u64(seed);
            let (mut state, mut log) = (Committed::nothing(), Vec::new());
            for _ in 0..10 {
                let now = random.random_range(0..1_000);
                let requests: Vec<_> = (0..20).map(|_| random_request(&mut random, state.next.id.0)).collect();
                log.extend(state.apply(now, &requests).into_iter().flatten().flatten());
            }
            let places: Vec<i64> = log.iter().map(|change| change.place.0).collect();
            assert!(places.iter().copied().eq(1..state.next.place.0), "seed {seed}");
            for owner in (1..=3).map(UserId) {
                let of_owner: Vec<_> = log.iter().filter(|change| change.todo.owner == owner).collect();
                let revisions = of_owner.iter().map(|change| change.revision.0);
                assert!(revisions.eq(1..=state.head(owner).revision.0), "seed {seed}");
                assert!(of_owner.is_sorted_by_key(|change| change.at), "seed {seed}");
            }
            for todo in (1..state.next.id.0).map(TodoId) {
                let of_todo: Vec<_> = log.iter().filter(|change| change.todo.id == todo).collect();
                assert!(of_todo.iter().map(|change| change.todo.version.0).eq(1..=of_todo.len() as i64), "seed {seed}");
                let last = of_todo.last().filter(|last| last.kind != Kind::Deleted).map(|last| &last.todo);
                assert_eq!(state.todos.get(&todo), last, "seed {seed}");
                let ends = of_todo.iter().rev().skip(1).all(|change| change.kind != Kind::Deleted);
                assert!(ends, "seed {seed}: {todo} changes after its end");
            }
        }
    }

    #[test]
    fn a_request_that_is_refused_leaves_no_trace() {
        let mut state = Committed::nothing();
        state.apply(5, &[request(1, vec![create("mine")])]);
        let before = state.clone();
        let refused = request(1, vec![create("never"), rename(1, "never"), delete(1), rename(77, "was never there")]);
        assert_eq!(state.apply(6, &[refused]), [Err(Refusal::NotFound)]);
        assert_eq!(state, before);
    }

    #[test]
    fn another_owners_todo_is_not_found_wherever_it_was_decided() {
        let mut state = Committed::nothing();
        let theirs = [request(1, vec![create("committed")]), request(1, vec![create("of this group")])];
        state.apply(1, &theirs[..1]);
        let tries = [request(2, vec![rename(1, "x")]), request(2, vec![delete(2)])];
        let answers = state.apply(2, &[theirs[1].clone(), tries[0].clone(), tries[1].clone()]);
        assert!(answers[0].is_ok());
        assert_eq!(answers[1..], [Err(Refusal::NotFound), Err(Refusal::NotFound)]);
    }

    #[test]
    fn a_request_without_commands_changes_nothing() {
        let mut state = Committed::nothing();
        assert_eq!(state.apply(1, &[request(1, Vec::new())]), [Ok(Vec::new())]);
        assert_eq!(state, Committed::nothing());
    }
}
