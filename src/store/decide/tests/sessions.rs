//! Decisions about sessions and personal access tokens.

use super::*;
use crate::auth::opaque_tokens::RefreshToken;
use crate::domain::session::{Scope, SessionKey};
use crate::store::decide::sessions::SessionOutcome;
use crate::store::{AccountCommand, AccountUpdate, NewPersonalToken, NewSession, SessionCommand};

pub const KEY: SessionKey = SessionKey([7; 32]);
const SECOND: i64 = 1_000;
const DAY: i64 = 86_400 * SECOND;

impl Committed {
    fn session_command(&mut self, now: i64, command: SessionCommand) -> Result<SessionOutcome, Refusal> {
        self.commit(now, true, |group| group.decide_session(None, command))
    }

    /// Begins a session of a user; returns its first refresh token.
    fn start(&mut self, now: i64, user: i64) -> RefreshToken {
        match self.session_command(now, begin(user)) {
            Ok(SessionOutcome::Started(session)) => first_token(session.id),
            other => panic!("{other:?}"),
        }
    }

    /// Uses a refresh token: `+` it is good, `~` again after its grace, `-` it is not good, `!` its session ends.
    fn refresh(&mut self, now: i64, token: &RefreshToken) -> char {
        match self.session_command(now, SessionCommand::Refresh(token.clone())) {
            Ok(SessionOutcome::Refreshed { is_late, .. }) => {
                if is_late {
                    '~'
                } else {
                    '+'
                }
            }
            Ok(SessionOutcome::Reused(_)) => '!',
            Err(Refusal::InvalidGrant) => '-',
            other => panic!("{other:?}"),
        }
    }

    fn create_token(&mut self, user: i64) -> Result<SessionOutcome, Refusal> {
        self.session_command(0, create_token(user, self.next.personal_token.0))
    }

    fn update(&mut self, id: i64, update: AccountUpdate) {
        let command = AccountCommand::Update(UserId(id), update);
        self.commit(0, true, |group| group.decide_account(None, command)).unwrap();
    }

    /// The users of the sessions that are left, and of the personal access tokens.
    fn left(&self) -> (Vec<i64>, Vec<i64>) {
        let sessions = self.sessions.values().map(|session| session.user.0).collect();
        (sessions, self.personal_tokens.keys().map(|(user, _)| user.0).collect())
    }
}

/// Begins a session; its first refresh token is [`first_token`].
pub fn begin(user: i64) -> SessionCommand {
    let first = first_token(SessionId(0)).hash();
    SessionCommand::Start(NewSession { user: UserId(user), key: KEY, first, user_agent: None })
}

pub fn first_token(session: SessionId) -> RefreshToken {
    RefreshToken::first(session, &KEY, [5; 32])
}

/// Creates a personal access token that expires after 100 days; `n` is different for each.
pub fn create_token(user: i64, n: i64) -> SessionCommand {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    let (user, name, expires_at) = (UserId(user), "script".into(), Some(Timestamp(100 * DAY)));
    SessionCommand::CreateToken(NewPersonalToken { user, name, scope: Scope::Read, hash, expires_at })
}

/// The token and its successors.
fn chain(first: &RefreshToken, length: usize) -> Vec<RefreshToken> {
    std::iter::successors(Some(first.clone()), |token| Some(token.successor(&KEY))).take(length).collect()
}

#[test]
fn a_used_token_gives_the_same_successor_for_a_minute_and_then_three_times() {
    let mut state = Committed::nothing();
    let t = chain(&state.start(0, 1), 3);
    assert_eq!(state.refresh(10 * SECOND, &t[0]), '+');
    let rotated = state.sessions.clone();
    assert_eq!(state.refresh(70 * SECOND - 1, &t[0]), '+');
    assert_eq!(state.sessions, rotated, "nothing has to be remembered of that");
    for minute in 2..5 {
        assert_eq!(state.refresh(60 * minute * SECOND, &t[0]), '~');
        // The other tabs of a browser that has just woken up.
        assert_eq!([&t[0]; 4].map(|token| state.refresh((60 * minute + 59) * SECOND, token)), ['+'; 4]);
    }
    assert_eq!(state.refresh(300 * SECOND, &t[0]), '!', "the fourth time");
    assert_eq!([&t[0], &t[1]].map(|token| state.refresh(301 * SECOND, token)), ['-', '-']);
    assert_eq!(state.left().0, Vec::<i64>::new());
}

#[test]
fn the_three_times_are_of_the_whole_session() {
    let mut state = Committed::nothing();
    let t = chain(&state.start(0, 1), 6);
    let hour = 3_600 * SECOND;
    for (token, at) in t.iter().zip([0, 2 * hour, 4 * hour]) {
        assert_eq!(state.refresh(at, token), '+');
        assert_eq!(state.refresh(at + hour, token), '~', "its answer was lost");
    }
    assert_eq!(state.refresh(6 * hour, &t[3]), '+');
    assert_eq!(state.refresh(8 * hour, &t[3]), '!');
}

#[test]
fn a_token_that_was_replaced_long_before_ends_its_session_and_no_other() {
    let mut state = Committed::nothing();
    let t = chain(&state.start(0, 1), 4);
    let others = [state.start(0, 1), state.start(0, 2)];
    assert_eq!([&t[0], &t[1]].map(|token| state.refresh(SECOND, token)), ['+', '+']);
    // Two tabs that refresh one after the other find the same end.
    assert_eq!([&t[0], &t[1], &t[0]].map(|token| state.refresh(2 * SECOND, token)), ['+', '+', '+']);
    assert_eq!(state.refresh(62 * SECOND, &t[0]), '!');
    assert_eq!(state.left().0, [1, 2]);
    assert_eq!(state.refresh(62 * SECOND, &t[2]), '-');
    assert_eq!(others.map(|token| state.refresh(62 * SECOND, &token)), ['+', '+']);
}

#[test]
fn twenty_refreshes_with_one_token_in_one_group_leave_one_session_that_goes_on() {
    let mut state = Committed::nothing();
    let t = chain(&state.start(0, 1), 3);
    let outcomes = state.commit(SECOND, true, |group| {
        let refresh = |_| group.decide_session(None, SessionCommand::Refresh(t[0].clone()));
        (0..20).map(refresh).collect::<Vec<_>>()
    });
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(SessionOutcome::Refreshed { is_late: false, .. }))));
    assert_eq!(state.left().0, [1]);
    assert_eq!([&t[1], &t[2]].map(|token| state.refresh(2 * SECOND, token)), ['+', '+']);
}

#[test]
fn a_guess_never_ends_a_session() {
    let mut state = Committed::nothing();
    let first = state.start(0, 1);
    let guess = RefreshToken::first(first.session, &SessionKey([9; 32]), [5; 32]);
    assert_eq!(state.refresh(1, &guess), '-');
    assert_eq!(state.refresh(1, &first_token(SessionId(9))), '-', "no such session");
    assert_eq!(state.refresh(1, &first), '+');
}

#[test]
fn no_number_of_refreshes_makes_a_used_token_unknown() {
    let mut state = Committed::nothing();
    let t = chain(&state.start(0, 1), 30);
    // Whoever has copied it goes ahead.
    for token in &t[..29] {
        assert_eq!(state.refresh(1, token), '+');
    }
    assert_eq!(state.refresh(1, &t[0]), '!');
    assert_eq!(state.refresh(1, &t[29]), '-');
}

#[test]
fn sessions_end_by_themselves() {
    let mut state = Committed::nothing();
    let t = chain(&state.start(0, 1), 20);
    assert_eq!(
        [(29 * DAY, 0), (59 * DAY, 1), (58 * DAY, 1)].map(|(now, n)| state.refresh(now, &t[n])),
        ['+', '-', '+']
    );
    let mut now = 58 * DAY;
    for token in &t[2..7] {
        now += 24 * DAY;
        assert_eq!(state.refresh(now, token), '+');
    }
    assert_eq!(state.refresh(180 * DAY, &t[7]), '-', "after 180 days, however often it is used");
}

#[test]
fn what_ends_with_an_account_ends_in_the_same_commit() {
    let password = || AccountUpdate { password_hash: Some("new".into()), ..AccountUpdate::default() };
    let disable = || AccountUpdate { enabled: Some(false), ..AccountUpdate::default() };
    let role = || AccountUpdate { role: Some(Role::Admin), ..AccountUpdate::default() };
    let state = || {
        let mut state = Committed::nothing();
        for user in [1, 1, 2] {
            state.start(0, user);
            state.create_token(user).unwrap();
        }
        state
    };
    let after = |end: &dyn Fn(&mut Committed)| {
        let mut state = state();
        end(&mut state);
        state.left()
    };
    let account = |command: AccountCommand| {
        after(&move |state| drop(state.commit(0, true, |group| group.decide_account(None, command.clone())).unwrap()))
    };
    let all = (vec![1, 1, 2], vec![1, 1, 2]);
    assert_eq!(after(&|state| state.update(1, role())), all);
    assert_eq!(after(&|state| state.update(1, password())), (vec![2], vec![1, 1, 2]));
    assert_eq!(after(&|state| state.update(1, disable())), (vec![2], vec![2]));
    assert_eq!(account(AccountCommand::Delete(UserId(1))), (vec![2], vec![2]));
    assert_eq!(account(AccountCommand::LogOut(UserId(1))), (vec![2], vec![1, 1, 2]));
    let keep = |keep| AccountCommand::ChangePassword { id: UserId(1), password_hash: "new".into(), keep };
    assert_eq!(account(keep(Some(SessionId(2)))), (vec![1, 2], vec![1, 1, 2]));
    assert_eq!(account(keep(Some(SessionId(3)))), (vec![2], vec![1, 1, 2]), "another user's");
    assert_eq!(account(keep(None)), (vec![2], vec![1, 1, 2]));
}

#[test]
fn a_refresh_of_an_account_that_cannot_be_used_is_refused() {
    let mut state = Committed::nothing();
    let tokens = [state.start(0, 1), state.start(0, 2)];
    // As if the session had been missed.
    state.set(1, |user| user.state = AccountState::Disabled);
    assert_eq!(state.refresh(1, &tokens[0]), '-');
    // In production.
    state.set(2, |user| user.is_demo = true);
    let login = Authority::of(&state.accounts[&UserId(2)], Means::Login);
    state.commit(1, false, |group| {
        let refresh = SessionCommand::Refresh(tokens[1].clone());
        assert_eq!(group.decide_session(None, refresh), Err(Refusal::InvalidGrant));
        assert_eq!(group.decide_session(Some(login), begin(2)), Err(Refusal::NoLongerAllowed));
    });
}

#[test]
fn a_login_that_was_checked_before_the_password_changed_begins_no_session() {
    let mut state = Committed::nothing();
    let login = Authority::of(&state.accounts[&UserId(1)].clone(), Means::Login);
    state.update(1, AccountUpdate { password_hash: Some("new".into()), ..AccountUpdate::default() });
    let begun = state.commit(0, true, |group| group.decide_session(Some(login), begin(1)));
    assert_eq!(begun, Err(Refusal::NoLongerAllowed));
}

#[test]
fn a_command_whose_session_or_token_has_expired_is_refused() {
    let mut state = Committed::nothing();
    let session = state.start(0, 1).session;
    let Ok(SessionOutcome::Created(token)) = state.create_token(1) else { panic!() };
    let account = state.accounts[&UserId(1)].clone();
    for (means, end) in [(Means::Session(session), 30 * DAY), (Means::Personal(token.id), 100 * DAY)] {
        let context = Context::of(&account, Authority::of(&account, means), TraceParent::random());
        let mut create = |now| {
            state
                .commit(now, true, |group| group.decide(&context, vec![create("late")].into(), Prior::default()))
                .is_ok()
        };
        assert_eq!([create(end - 1), create(end)], [true, false], "{means:?}");
    }
}

#[test]
fn only_ones_own_sessions_and_tokens_can_be_ended() {
    let mut state = Committed::nothing();
    let session = state.start(0, 1).session;
    let Ok(SessionOutcome::Created(token)) = state.create_token(1) else { panic!() };
    let end = |user| SessionCommand::End { user: UserId(user), session };
    let revoke = |user| SessionCommand::RevokeToken { user: UserId(user), token: token.id };
    assert_eq!(state.session_command(0, end(2)), Err(Refusal::SessionNotFound));
    assert_eq!(state.session_command(0, revoke(2)), Err(Refusal::TokenNotFound));
    for command in [end(1), revoke(1)] {
        assert_eq!(state.session_command(0, command), Ok(SessionOutcome::Ended));
    }
    assert_eq!(state.session_command(0, end(1)), Err(Refusal::SessionNotFound));
    assert_eq!(state.session_command(0, revoke(1)), Err(Refusal::TokenNotFound));
}

#[test]
fn a_command_whose_session_or_token_has_ended_is_refused() {
    let mut state = Committed::nothing();
    let session = state.start(0, 1).session;
    let Ok(SessionOutcome::Created(token)) = state.create_token(1) else { panic!() };
    let account = state.accounts[&UserId(1)].clone();
    let ends = [
        (Means::Session(session), SessionCommand::End { user: UserId(1), session }),
        (Means::Personal(token.id), SessionCommand::RevokeToken { user: UserId(1), token: token.id }),
    ];
    for (means, end) in ends {
        let authority = Authority::of(&account, means);
        let context = Context::of(&account, authority, TraceParent::random());
        let todo = |group: &mut Group<'_, Committed>| {
            changes(group.decide(&context, vec![create("late")].into(), Prior::default()))
        };
        assert!(state.commit(0, true, todo).is_ok());
        let late = state.commit(0, true, |group| {
            group.decide_session(None, end).unwrap();
            (todo(group), group.decide_account(Some(authority), AccountCommand::LogOut(UserId(1))))
        });
        assert_eq!(late, (Err(Refusal::NoLongerAllowed), Err(Refusal::NoLongerAllowed)));
    }
}

#[test]
fn there_are_at_most_100_of_each_and_the_oldest_session_makes_room() {
    let mut state = Committed::nothing();
    let first = state.start(0, 1);
    let second = state.start(1, 1);
    assert_eq!(state.refresh(2, &first), '+');
    for n in 2..100 {
        state.start(n, 1);
    }
    state.start(0, 2);
    assert_eq!(state.left().0.len(), 101);
    state.start(200, 1);
    assert_eq!(state.left().0.len(), 101);
    assert!(state.sessions.contains_key(&first.session) && !state.sessions.contains_key(&second.session));
    for _ in 0..100 {
        state.create_token(1).unwrap();
    }
    assert_eq!(state.create_token(1), Err(Refusal::TooManyTokens));
    assert!(state.create_token(2).is_ok());
    assert!(state.session_command(100 * DAY, create_token(1, 7)).is_ok(), "expired ones don't count");
}
