//! Decisions about todos on the simplest state there is.

mod accounts;
mod sessions;
mod todos;

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::todos::Refused;
use super::*;
use crate::domain::account::{AccountState, Role, TokenEpoch};
use crate::domain::change::{Kind, SCRUBBED_TITLE};
use crate::domain::todo::Version;
use crate::domain::todo::input::{NewTodo, TodoPatch};
use crate::domain::trace::TraceParent;
use crate::store::idempotency::Answered;
use crate::store::{Authority, Command, Condition, Context, Means, Merge, Versions};

/// Live todos of an owner, at most: few, so that some requests are refused for it.
const MAX_TODOS: usize = 12;

type Request = (Context, Vec<Command>);
type Answer = Result<Vec<Arc<Change>>, Refusal>;

/// The simplest state there is.
#[derive(Debug, Clone, PartialEq)]
struct Committed {
    heads: HashMap<UserId, Head>,
    todos: HashMap<TodoId, Arc<Todo>>,
    trash: BTreeMap<TodoId, Arc<Todo>>,
    answers: KeptAnswers,
    accounts: BTreeMap<UserId, Arc<User>>,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    personal_tokens: BTreeMap<(UserId, PersonalTokenId), Arc<PersonalToken>>,
    next: Next,
}

impl State for Committed {
    fn head(&self, owner: UserId) -> Head {
        self.heads.get(&owner).copied().unwrap_or_default()
    }

    fn todo(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>> {
        self.todos.get(&id).filter(|todo| todo.owner == owner).cloned()
    }

    fn trashed(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>> {
        self.trash.get(&id).filter(|todo| todo.owner == owner).cloned()
    }

    fn todo_count(&self, owner: UserId) -> usize {
        self.todos.values().filter(|todo| todo.owner == owner).count()
    }

    fn account(&self, id: UserId) -> Option<Arc<User>> {
        self.accounts.get(&id).cloned()
    }

    fn account_named(&self, username: &str) -> Option<Arc<User>> {
        // The last one: a demo user may have made room for it.
        self.accounts.values().rfind(|user| user.username.eq_ignore_ascii_case(username)).cloned()
    }

    fn active_admins(&self) -> Vec<Arc<User>> {
        self.accounts.values().filter(|user| user.is_active_admin()).cloned().collect()
    }

    fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.get(&id).cloned()
    }

    fn sessions(&self, user: UserId) -> Vec<Arc<Session>> {
        self.sessions.values().filter(|session| session.user == user).cloned().collect()
    }

    fn personal_token(&self, user: UserId, id: PersonalTokenId) -> Option<Arc<PersonalToken>> {
        self.personal_tokens.get(&(user, id)).cloned()
    }

    fn personal_tokens(&self, user: UserId) -> Vec<Arc<PersonalToken>> {
        self.personal_tokens.values().filter(|token| token.user == user).cloned().collect()
    }
}

impl Committed {
    /// Three accounts without todos.
    fn nothing() -> Self {
        let (session, personal_token) = (SessionId(1), PersonalTokenId(1));
        let next = Next { user: UserId(4), session, personal_token, id: TodoId(1), place: Place(1) };
        let accounts = (1..=3).map(|id| (UserId(id), Arc::new(user(id)))).collect();
        let (sessions, personal_tokens) = (BTreeMap::new(), BTreeMap::new());
        Self {
            heads: HashMap::new(),
            todos: HashMap::new(),
            trash: BTreeMap::new(),
            answers: KeptAnswers::new(),
            accounts,
            sessions,
            personal_tokens,
            next,
        }
    }

    /// Decides requests as one group, and commits it.
    fn apply(&mut self, now: i64, requests: &[Request]) -> Vec<Answer> {
        let decide = |group: &mut Group<'_, Self>, (context, commands): &Request| {
            changes(group.decide(context, commands.clone().into(), Prior::default()))
        };
        self.commit(now, true, |group| requests.iter().map(|request| decide(group, request)).collect())
    }

    /// Commits what `decide` decides as one group.
    fn commit<T>(&mut self, now: i64, demo_users: bool, decide: impl FnOnce(&mut Group<'_, Self>) -> T) -> T {
        let facts = Facts { epoch: Epoch(7), now: Timestamp(now), next: self.next, demo_users, max_todos: MAX_TODOS };
        let mut group = Group::new(&*self, facts);
        let answers = decide(&mut group);
        let decided = group.finish();
        self.heads.extend(decided.heads);
        self.accounts.extend(decided.accounts);
        for (id, session) in decided.sessions {
            match session {
                Some(session) => drop(self.sessions.insert(id, session)),
                None => drop(self.sessions.remove(&id)),
            }
        }
        for (id, token) in decided.personal_tokens {
            match token {
                Some(token) => drop(self.personal_tokens.insert(id, token)),
                None => drop(self.personal_tokens.remove(&id)),
            }
        }
        self.next = decided.next;
        for change in decided.changes {
            let (id, todo) = (change.todo.id, Arc::clone(&change.todo));
            self.trash.remove(&id);
            self.todos.remove(&id);
            match change.kind {
                Kind::Deleted if change.scrubbed => {}
                Kind::Deleted => drop(self.trash.insert(id, todo)),
                Kind::Created | Kind::Updated | Kind::Restored => drop(self.todos.insert(id, todo)),
            }
        }
        for (_, id) in decided.purged {
            self.trash.remove(&id);
        }
        self.answers.extend(decided.answers);
        answers
    }
}

/// The changes of an answer, or why there are none.
fn changes(answered: Result<Answered, Refused>) -> Answer {
    match answered.map_err(|refused| refused.refusal)? {
        Answered::Applied(applied, _) => {
            Ok(applied.outcomes.iter().flat_map(|outcome| outcome.changes().to_vec()).collect())
        }
        Answered::Repeated(_) => panic!("no request is repeated"),
    }
}

fn user(id: i64) -> User {
    User {
        id: UserId(id),
        username: format!("user {id}").into(),
        password_hash: "hash".into(),
        role: Role::User,
        state: AccountState::Active,
        token_epoch: TokenEpoch::default(),
        created_at: Timestamp(0),
        is_demo: false,
        deleted_by: None,
    }
}

fn request(owner: i64, commands: Vec<Command>) -> Request {
    let user = user(owner);
    (Context::of(&user, Authority::of(&user, Means::Login), TraceParent::random()), commands)
}

fn create(title: &str) -> Command {
    Command::Create(NewTodo { title: title.into(), ..NewTodo::default() })
}

/// As PUT does.
fn put(id: i64, patch: TodoPatch) -> Command {
    Command::Update { todo: TodoId(id).into(), patch, always: true, condition: Condition::default() }
}

fn rename(id: i64, title: &str) -> Command {
    put(id, TodoPatch { title: Some(title.into()), ..TodoPatch::default() })
}

fn delete(id: i64) -> Command {
    Command::Delete(TodoId(id).into(), Condition::default())
}

fn restore(id: i64) -> Command {
    Command::Restore(TodoId(id), Condition::default())
}

fn purge(id: i64) -> Command {
    Command::Purge(TodoId(id), Condition::default())
}

/// A request of one of three owners, about any owner's todos and some that never existed.
fn random_request(random: &mut SmallRng, ids: i64) -> Request {
    let count = if random.random_bool(0.7) { 1 } else { random.random_range(0..5) };
    let command = |_| {
        let id = random.random_range(1..=ids + 3);
        let title = random.random_range(0..9).to_string();
        match random.random_range(0..16) {
            0..3 => create(&title),
            3..5 => delete(id),
            5 => put(id, TodoPatch { completed: Some(true), ..TodoPatch::default() }),
            6..9 => restore(id),
            9 => purge(id),
            10 if random.random_bool(0.2) => Command::EmptyTrash {
                todos: (1..=ids).filter(|_| random.random_bool(0.3)).map(TodoId).collect(),
                more: false,
                condition: Condition::default(),
            },
            10 if random.random_bool(0.2) => Command::DeleteMany {
                todos: (1..=ids).filter(|_| random.random_bool(0.3)).map(TodoId).collect(),
                completed: [None, Some(true), Some(false)][random.random_range(0..3)],
                more: false,
                condition: Condition::default(),
            },
            11..13 => random_patch(random, id),
            _ => rename(id, &title),
        }
    };
    let commands = (0..count).map(command).collect();
    request(random.random_range(1..=3), commands)
}

/// As PATCH does, with or without conditions that hold or don't.
fn random_patch(random: &mut SmallRng, id: i64) -> Command {
    let merge = [Merge::No, Merge::Asked, Merge::Impossible][random.random_range(0..3)];
    let mut versions = || match random.random_range(0..4) {
        0 => Some(Versions::Any),
        1 => Some(Versions::Of(vec![Version(random.random_range(1..4))])),
        _ => None,
    };
    let condition = Condition { if_match: versions(), if_none_match: versions(), merge };
    let patch = TodoPatch {
        completed: random.random_bool(0.5).then_some(true),
        priority: random.random_bool(0.5).then(|| Some(random.random_range(0..3))),
        ..TodoPatch::default()
    };
    Command::Update { todo: TodoId(id).into(), patch, always: false, condition }
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
            let of_todo: Vec<&Arc<Change>> = log.iter().filter(|change| change.todo.id == todo).collect();
            assert!(of_todo.iter().map(|change| change.todo.version.0).eq(1..=of_todo.len() as i64), "seed {seed}");
            let last = of_todo.last().filter(|last| last.kind != Kind::Deleted).map(|last| &last.todo);
            assert_eq!(state.todos.get(&todo), last, "seed {seed}");
            let restored = |pair: &[&Arc<Change>]| (pair[0].kind == Kind::Deleted) == (pair[1].kind == Kind::Restored);
            assert!(
                of_todo.windows(2).all(restored),
                "seed {seed}: only what is deleted is restored, and nothing else"
            );
        }
    }
}

#[test]
fn a_request_that_is_refused_leaves_no_trace() {
    let mut state = Committed::nothing();
    state.apply(5, &[request(1, vec![create("mine")])]);
    let before = state.clone();
    let refused = request(1, vec![create("never"), rename(1, "never"), delete(1), rename(77, "was never there")]);
    assert_eq!(state.apply(6, &[refused]), [Err(Refusal::TodoNotFound)]);
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
    assert_eq!(answers[1..], [Err(Refusal::TodoNotFound), Err(Refusal::TodoNotFound)]);
}

#[test]
fn a_request_without_commands_changes_nothing() {
    let mut state = Committed::nothing();
    assert_eq!(state.apply(1, &[request(1, Vec::new())]), [Ok(Vec::new())]);
    assert_eq!(state, Committed::nothing());
}
