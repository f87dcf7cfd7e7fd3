//! Decisions about accounts, and about todos of accounts that are not as they were.

use super::sessions::{begin, create_token, first_token};
use super::*;
use crate::domain::account::Username;
use crate::domain::todo::tags::Tags;
use crate::store::decide::sessions::SessionOutcome;
use crate::store::{AccountCommand, AccountUpdate, NewAccount, SessionCommand};

/// A request of any kind.
#[derive(Clone)]
enum Any {
    Todos(Request),
    Account(Option<Authority>, AccountCommand),
    Session(Option<Authority>, SessionCommand),
}

#[derive(Debug, PartialEq)]
enum AnyAnswer {
    Todos(Answer),
    Account(Result<Arc<User>, Refusal>),
    Session(Result<SessionOutcome, Refusal>),
}

impl Committed {
    /// As [`Committed::apply`], for requests of any kind.
    fn apply_any(&mut self, now: i64, requests: &[Any]) -> Vec<AnyAnswer> {
        let decide = |group: &mut Group<'_, Self>, request: &Any| match request.clone() {
            Any::Todos((context, commands)) => {
                AnyAnswer::Todos(changes(group.decide(&context, commands.into(), Prior::default())))
            }
            Any::Account(authority, command) => AnyAnswer::Account(group.decide_account(authority, command)),
            Any::Session(authority, command) => AnyAnswer::Session(group.decide_session(authority, command)),
        };
        self.commit(now, true, |group| requests.iter().map(|request| decide(group, request)).collect())
    }

    fn account_command(&mut self, command: AccountCommand) -> Result<Arc<User>, Refusal> {
        self.commit(0, true, |group| group.decide_account(None, command))
    }

    /// A command that a token of this account and epoch allows.
    fn allowed_by(&mut self, id: i64, epoch: i64, command: AccountCommand) -> Result<Arc<User>, Refusal> {
        let authority = Authority { account: UserId(id), epoch: TokenEpoch(epoch), means: Means::Login };
        self.commit(0, true, |group| group.decide_account(Some(authority), command))
    }

    pub fn set(&mut self, id: i64, change: impl FnOnce(&mut User)) {
        let mut user = User::clone(&self.accounts[&UserId(id)]);
        change(&mut user);
        self.accounts.insert(UserId(id), Arc::new(user));
    }

    fn with_admins(ids: &[i64]) -> Self {
        let mut state = Self::nothing();
        for id in ids {
            state.set(*id, |user| user.role = Role::Admin);
        }
        state
    }
}

fn register(name: &str) -> AccountCommand {
    let username = Username::parse(name).unwrap();
    AccountCommand::Create(NewAccount { username, password_hash: "hash".into(), role: Role::User })
}

fn set_password(id: i64, hash: &str) -> AccountCommand {
    let update = AccountUpdate { password_hash: Some(hash.into()), ..AccountUpdate::default() };
    AccountCommand::Update(UserId(id), update)
}

fn set_role(id: i64, role: Role) -> AccountCommand {
    AccountCommand::Update(UserId(id), AccountUpdate { role: Some(role), ..AccountUpdate::default() })
}

fn enable(id: i64, enabled: bool) -> AccountCommand {
    AccountCommand::Update(UserId(id), AccountUpdate { enabled: Some(enabled), ..AccountUpdate::default() })
}

fn remove(id: i64) -> AccountCommand {
    AccountCommand::Delete(UserId(id))
}

/// What is left of a deleted account goes.
fn erasing(owner: i64) -> Context {
    let actor = Arc::clone(&user(owner).username);
    Context { owner: UserId(owner), actor, authority: None, trace: TraceParent::random() }
}

#[test]
fn a_name_is_taken_once_whatever_its_case_and_for_good() {
    let mut state = Committed::with_admins(&[1]);
    let two = [register("Alice"), register("aLICE")].map(|command| Any::Account(None, command));
    let answers = state.apply_any(5, &two);
    let AnyAnswer::Account(Ok(alice)) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!((alice.id, &*alice.username, alice.created_at), (UserId(4), "Alice", Timestamp(5)));
    assert_eq!(answers[1], AnyAnswer::Account(Err(Refusal::NameTaken)));
    state.account_command(remove(4)).unwrap();
    assert_eq!(state.account_command(register("ALICE")), Err(Refusal::NameTaken));
    assert_eq!(state.account_command(register("bob")).unwrap().id, UserId(5));
}

#[test]
fn a_command_whose_token_has_ended_is_refused_whatever_it_is() {
    let mut state = Committed::with_admins(&[1, 2]);
    let commands =
        || [register("late"), set_password(2, "late"), enable(3, false), set_role(3, Role::Admin), remove(3)];
    let ends = [set_password(2, "new"), enable(2, false), set_role(2, Role::User), remove(2)];
    for end in ends {
        let mut state = state.clone();
        // In one group: nobody has seen the end yet.
        let authority = Some(Authority { account: UserId(2), epoch: TokenEpoch(0), means: Means::Login });
        let late = commands().map(|command| Any::Account(authority, command));
        let todo = Any::Todos(request(2, vec![create("late")]));
        let before = state.accounts[&UserId(3)].clone();
        let requests: Vec<Any> = [Any::Account(None, end)].into_iter().chain(late).chain([todo]).collect();
        let answers = state.apply_any(1, &requests);
        let (todo, commands) = answers[1..].split_last().unwrap();
        assert!(commands.iter().all(|answer| *answer == AnyAnswer::Account(Err(Refusal::NoLongerAllowed))));
        assert_eq!(*todo, AnyAnswer::Todos(Err(Refusal::NoLongerAllowed)));
        assert_eq!((&state.accounts[&UserId(3)], state.accounts.len()), (&before, 3));
    }
    assert_eq!(state.allowed_by(9, 0, remove(3)), Err(Refusal::NoLongerAllowed), "nobody's");
    let deleted = state.allowed_by(2, 0, remove(3)).unwrap();
    assert_eq!((deleted.state, &*deleted.password_hash), (AccountState::Deleted, ""));
    assert_eq!(deleted.deleted_by.as_deref(), Some("user 2"));
    assert_eq!(state.allowed_by(2, 0, remove(2)).unwrap().deleted_by.as_deref(), Some("user 2"));
}

#[test]
fn a_demo_user_cannot_replace_the_last_admin_who_is_none() {
    let mut state = Committed::with_admins(&[1, 2]);
    state.set(2, |user| user.is_demo = true);
    for take in [remove(1), enable(1, false), set_role(1, Role::User)] {
        assert_eq!(state.account_command(take), Err(Refusal::LastAdmin));
    }
    assert!(state.account_command(remove(2)).is_ok());
}

#[test]
fn tokens_end_with_every_change_and_only_then() {
    let mut state = Committed::with_admins(&[1]);
    let epoch = |user: Arc<User>| user.token_epoch.0;
    assert_eq!(state.account_command(set_role(2, Role::User)).map(epoch), Ok(0), "it has that role");
    assert_eq!(state.account_command(enable(2, true)).map(epoch), Ok(0), "it is enabled");
    assert_eq!(state.account_command(set_role(2, Role::Admin)).map(epoch), Ok(1));
    assert_eq!(state.account_command(enable(2, false)).map(epoch), Ok(2));
    assert_eq!(state.account_command(enable(2, true)).map(epoch), Ok(3));
    assert_eq!(state.account_command(set_password(2, "another")).map(epoch), Ok(4));
    assert_eq!(state.account_command(remove(2)).map(epoch), Ok(5));
    let rehash = |old: &str| AccountCommand::Rehash { id: UserId(3), old: old.into(), new: "better".into() };
    let kept = state.account_command(rehash("not this one")).unwrap();
    assert_eq!((&*kept.password_hash, kept.token_epoch.0), ("hash", 0));
    let rehashed = state.account_command(rehash("hash")).unwrap();
    assert_eq!((&*rehashed.password_hash, rehashed.token_epoch.0), ("better", 0));
}

#[test]
fn the_last_active_admin_stays_even_if_two_go_at_once() {
    for take in [|id| set_role(id, Role::User), |id| enable(id, false), remove] {
        let mut state = Committed::with_admins(&[1, 2]);
        let answers = state.apply_any(1, &[Any::Account(None, take(1)), Any::Account(None, take(2))]);
        assert!(matches!(&answers[..], [AnyAnswer::Account(Ok(_)), AnyAnswer::Account(Err(Refusal::LastAdmin))]));
        assert_eq!(state.active_admins().len(), 1);
        assert_eq!(state.account_command(take(2)), Err(Refusal::LastAdmin));
        // A disabled admin does not count.
        state.set(3, |user| (user.role, user.state) = (Role::Admin, AccountState::Disabled));
        assert_eq!(state.account_command(take(2)), Err(Refusal::LastAdmin));
        state.account_command(enable(3, true)).unwrap();
        state.account_command(take(2)).unwrap();
    }
}

#[test]
fn a_deleted_account_stays_deleted() {
    let mut state = Committed::nothing();
    state.account_command(remove(2)).unwrap();
    for command in [remove(2), enable(2, true), set_role(2, Role::User)] {
        assert_eq!(state.account_command(command), Err(Refusal::AccountDeleted));
    }
    assert_eq!(state.account_command(remove(9)), Err(Refusal::AccountNotFound));
}

#[test]
fn todos_of_an_account_that_cannot_be_used_do_not_change() {
    let mut state = Committed::nothing();
    state.apply(1, &[request(1, vec![create("kept")])]);
    for (command, may_erase) in [(enable(1, false), false), (remove(1), true)] {
        let requests = [
            Any::Account(None, command),
            Any::Todos(request(1, vec![create("late")])),
            Any::Todos(request(1, vec![rename(1, "late")])),
            Any::Todos(request(1, vec![delete(1)])),
        ];
        let before = state.todos.clone();
        // In one group: the account's command comes first, and nobody has seen it yet.
        let answers = state.apply_any(2, &requests);
        assert!(answers[1..].iter().all(|answer| *answer == AnyAnswer::Todos(Err(Refusal::NoLongerAllowed))));
        assert_eq!(state.todos, before);
        let erased = state.apply(3, &[(erasing(1), vec![Command::Erase(TodoId(1))])]).remove(0);
        assert_eq!(erased.is_ok(), may_erase);
    }
    assert!(state.todos.is_empty());
    assert_eq!(state.apply(4, &[(erasing(2), vec![Command::Erase(TodoId(1))])]), [Err(Refusal::NoLongerAllowed)]);
    assert_eq!(state.apply(4, &[request(77, vec![create("whose")])]), [Err(Refusal::NoLongerAllowed)]);
}

#[test]
fn an_erased_todo_says_who_had_it_and_not_what_was_in_it() {
    let mut state = Committed::nothing();
    let new = NewTodo {
        title: "secret".into(),
        description: Some("secret".into()),
        completed: true,
        priority: Some(4),
        tags: Tags::new(["secret".into()]),
        order: Some(1.0),
        ..NewTodo::default()
    };
    state.apply(1, &[request(1, vec![Command::Create(new)])]);
    state.account_command(remove(1)).unwrap();
    let context = Context { actor: "root".into(), ..erasing(1) };
    let erased = state.apply(2, &[(context, vec![Command::Erase(TodoId(1))])]).remove(0).unwrap().remove(0);
    assert_eq!((erased.kind, erased.scrubbed, erased.revision.0), (Kind::Deleted, true, 2));
    assert_eq!((&*erased.todo.title, &erased.todo.description), (SCRUBBED_TITLE, &None));
    assert_eq!((erased.todo.priority, erased.todo.tags.is_empty(), erased.todo.order), (None, true, None));
    assert_eq!((&*erased.created_by, &*erased.actor), ("user 1", "root"));
}

#[test]
fn a_demo_user_makes_room_in_production_only() {
    let mut state = Committed::nothing();
    state.set(1, |user| (user.is_demo, user.role, user.username) = (true, Role::Admin, "admin".into()));
    let take = |state: &mut Committed, demo_users| {
        state.commit(0, demo_users, |group| {
            let first = group.decide_account(None, register("Admin"));
            (first, group.decide_account(None, register("admin")))
        })
    };
    let taken = (Err(Refusal::NameTaken), Err(Refusal::NameTaken));
    assert_eq!(take(&mut state, true), taken);
    let (first, second) = take(&mut state, false);
    assert_eq!((first.unwrap().id, second), (UserId(4), Err(Refusal::NameTaken)));
    let gone = &state.accounts[&UserId(1)];
    assert_eq!((gone.state, gone.deleted_by.as_deref()), (AccountState::Deleted, Some("admin")));
    assert_eq!(take(&mut state, false), taken);
    assert_eq!(take(&mut state, true), taken);
    // Nobody can do anything about a demo user that doesn't exist.
    state.set(2, |user| user.is_demo = true);
    let hidden = state.commit(0, false, |group| group.decide_account(None, set_role(2, Role::Admin)));
    assert_eq!(hidden, Err(Refusal::AccountNotFound));
}

fn random_any(random: &mut SmallRng, state: &Committed) -> Any {
    let id = random.random_range(1..state.next.user.0 + 2);
    let user = UserId(id);
    let session = SessionId(random.random_range(1..state.next.session.0 + 2));
    let token = PersonalTokenId(random.random_range(1..state.next.personal_token.0 + 2));
    let authority = random.random_bool(0.5).then(|| {
        let epoch = state.accounts.get(&user).map_or(TokenEpoch(0), |user| user.token_epoch);
        let means = [Means::Login, Means::Session(session), Means::Personal(token)];
        Authority { account: user, epoch, means: means[random.random_range(0..3)] }
    });
    if random.random_bool(0.5) {
        let command = match random.random_range(0..8) {
            0..2 => begin(id),
            2 => SessionCommand::End { user, session },
            3 => create_token(id, random.random_range(0..1_000_000)),
            4 => SessionCommand::RevokeToken { user, token },
            _ => {
                let first = first_token(session);
                let used = std::iter::successors(Some(first), |token| Some(token.successor(&super::sessions::KEY)));
                SessionCommand::Refresh(used.take(random.random_range(1..5)).last().unwrap())
            }
        };
        return Any::Session(authority, command);
    }
    Any::Account(
        authority,
        match random.random_range(0..20) {
            0 => register(["a", "A", "b", "c"][random.random_range(0..4)]),
            1 => set_password(id, "another"),
            2 => enable(id, random.random()),
            3 => set_role(id, if random.random() { Role::Admin } else { Role::User }),
            4 => remove(id),
            5 => AccountCommand::LogOut(user),
            6 => AccountCommand::ChangePassword { id: user, password_hash: "own".into(), keep: Some(session) },
            _ => return Any::Todos(random_request(random, state.next.id.0)),
        },
    )
}

#[test]
fn a_group_of_all_kinds_decides_as_its_requests_would_one_at_a_time() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut grouped, mut single) = (Committed::with_admins(&[1]), Committed::with_admins(&[1]));
        for _ in 0..random.random_range(1..8) {
            let size = random.random_range(0..30);
            let now = random.random_range(0..200_000);
            let requests: Vec<_> = (0..size).map(|_| random_any(&mut random, &grouped)).collect();
            let answers = grouped.apply_any(now, &requests);
            let expected: Vec<_> =
                requests.iter().flat_map(|request| single.apply_any(now, std::slice::from_ref(request))).collect();
            assert_eq!(answers, expected, "seed {seed}");
            assert_eq!(grouped, single, "seed {seed}");
            assert!(!grouped.active_admins().is_empty(), "seed {seed}");
        }
    }
}
