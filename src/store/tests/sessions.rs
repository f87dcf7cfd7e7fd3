//! Sessions and personal access tokens: durable when they are answered, and gone when they have ended.

use super::*;
use crate::auth::opaque_tokens::{PersonalSecret, RefreshToken};
use crate::domain::network::Network;
use crate::domain::session::{Scope, SessionKey};

const DAY: i64 = 86_400_000;

/// Sessions, and personal access tokens with their last use.
type Seen = (Vec<Arc<Session>>, Vec<(Arc<PersonalToken>, Option<Timestamp>)>);

impl Fixture {
    fn session_command(&self, command: SessionCommand) -> Result<SessionOutcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Session { authority: None, command, reply };
        assert!(self.queue.try_send(Job::Apply(request)).is_ok());
        answer.blocking_recv().unwrap()
    }

    fn start_session(&self, user: i64) -> RefreshToken {
        let (key, secret) = (SessionKey(rand::random()), rand::random());
        let command = start_session(user, &key, secret);
        match self.session_command(command) {
            Ok(SessionOutcome::Started(session)) => RefreshToken::first(session.id, &key, secret),
            other => panic!("{other:?}"),
        }
    }

    fn create_token(&self, user: i64) -> Result<SessionOutcome, StoreError> {
        let hash = PersonalSecret::new(rand::random()).hash();
        let (user, name) = (UserId(user), "script".into());
        let new = NewPersonalToken { user, name, scope: Scope::Write, hash, expires_at: Some(Timestamp(DAY)) };
        self.session_command(SessionCommand::CreateToken(new))
    }

    /// What is in memory of a user's sessions and tokens.
    fn seen(&self, user: i64) -> Seen {
        let sessions = Store::sessions(self, UserId(user)).now_or_never().unwrap().unwrap();
        (sessions, Store::personal_tokens(self, UserId(user)).now_or_never().unwrap().unwrap())
    }

    fn count(&self, table: &str) -> i64 {
        self.connection().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }
}

fn start_session(user: i64, key: &SessionKey, secret: [u8; 32]) -> SessionCommand {
    SessionCommand::Start(NewSession {
        user: UserId(user),
        key: key.clone(),
        first: RefreshToken::first(SessionId(0), key, secret).hash(),
        user_agent: Some("the tests".into()),
    })
}

#[test]
fn every_command_is_on_disk_when_it_is_answered() {
    let mut f = Fixture::new();
    let refresh = f.start_session(1);
    let another = f.start_session(1);
    let Ok(SessionOutcome::Created(token)) = f.create_token(1) else { panic!() };
    let (user, session) = (UserId(1), another.session);
    let commands = [
        SessionCommand::Refresh(refresh.clone()),
        SessionCommand::Refresh(refresh),
        SessionCommand::End { user, session },
        SessionCommand::RevokeToken { user, token: token.id },
    ];
    for command in commands {
        f.session_command(command).unwrap();
        let before = f.seen(1);
        f.reopen();
        assert_eq!(f.seen(1), before);
    }
    assert_eq!((f.count("sessions"), f.count("personal_tokens")), (1, 0));
    // Ids are not used again: a token of a session that has ended must not belong to another.
    assert_eq!(f.start_session(2).session.0, 3);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_commit_with_an_open_outcome_is_resolved_by_what_is_on_disk() {
    let mut f = Fixture::new();
    let refresh = f.start_session(1);
    let before = (f.seen(1), f.dump());
    let refresh_it = || f.session_command(SessionCommand::Refresh(refresh.clone()));
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    assert_eq!(refresh_it(), Err(StoreError::Unknown));
    assert_eq!(f.create_token(1), Err(StoreError::Unknown));
    assert_eq!((f.seen(1), f.dump()), before);
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    f.inject_fault(fails_after_commits);
    assert_eq!(refresh_it(), Err(StoreError::Unknown));
    assert_eq!(f.create_token(1), Err(StoreError::Unknown));
    f.inject_fault(|connection| connection.wal_hook(None::<WalHook>).unwrap());
    let after = f.seen(1);
    assert_eq!((after.0[0].rotated_at.len(), after.1.len()), (1, 1));
    f.reopen();
    assert_eq!(f.seen(1), after);
}

#[test]
fn what_began_and_ended_in_one_group_hides_nothing_of_a_commit_with_an_open_outcome() {
    let mut f = Fixture::new();
    let before = (f.seen(1), f.dump());
    let in_one_group = |f: &Fixture| {
        let (held, _) = f.hold();
        let (session, began) = oneshot::channel();
        let command = start_session(1, &SessionKey([1; 32]), [2; 32]);
        let start = Request::Session { authority: None, command, reply: session };
        let (account, ended) = oneshot::channel();
        let end = Request::Account { authority: None, command: AccountCommand::LogOut(UserId(1)), reply: account };
        for request in [start, end] {
            assert!(f.queue.try_send(Job::Apply(request)).is_ok());
        }
        drop(held);
        (began.blocking_recv().unwrap().is_ok(), ended.blocking_recv().unwrap())
    };
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    assert_eq!(in_one_group(&f), (false, Err(StoreError::Unknown)));
    assert_eq!((f.seen(1), f.dump()), before);
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    assert_eq!(f.account("admin").unwrap().token_epoch, TokenEpoch(0), "nothing of it happened");
    let (began, ended) = in_one_group(&f);
    assert!(began && ended.is_ok());
    f.reopen();
    // The id that nobody has a token of is not used again either.
    assert_eq!(f.start_session(1).session.0, 2);
}

#[test]
fn what_is_over_is_removed_and_the_last_use_of_tokens_is_saved() {
    let mut f = Fixture::new();
    f.start_session(1);
    let Ok(SessionOutcome::Created(token)) = f.create_token(1) else { panic!() };
    f.personal_token_used(token.id, Timestamp(5));
    f.a_minute_passes();
    let used_at = |f: &Fixture| f.connection().query_row("SELECT used_at FROM personal_tokens", [], |row| row.get(0));
    f.wait_until("the last use is on disk", |f| used_at(f) == Ok(Some(5)));
    f.reopen();
    assert_eq!(f.seen(1).1[0].1, Some(Timestamp(5)));
    f.clock.set(30 * DAY);
    let kept = f.start_session(2);
    f.a_minute_passes();
    f.wait_until("what is over is gone", |f| (f.count("sessions"), f.count("personal_tokens")) == (1, 0));
    assert_eq!(f.seen(1), (vec![], vec![]));
    assert_eq!(f.seen(2).0[0].id, kept.session);
    f.personal_token_used(token.id, Timestamp(7));
    // A clean stop does the same.
    f.clock.set(60 * DAY);
    f.reopen();
    assert_eq!(f.count("sessions"), 0);
}

#[test]
fn where_somebody_has_logged_in_is_remembered_for_30_days() {
    let mut f = Fixture::new();
    let network = |text| Network::parse(text).unwrap();
    let (home, office) = (network("2001:db8::/64"), network("192.0.2.1"));
    let is_known = |f: &Fixture, user, network| {
        f.is_known_there(UserId(user), network, Timestamp(f.clock.now.load(Ordering::Relaxed)))
    };
    f.logged_in(UserId(2), home, Timestamp(0));
    f.logged_in(UserId(2), office, Timestamp(5));
    f.logged_in(UserId(3), office, Timestamp(5));
    assert!(is_known(&f, 2, home) && is_known(&f, 2, office) && !is_known(&f, 3, home));
    f.a_minute_passes();
    f.wait_until("it is on disk", |f| f.count("login_networks") == 3);
    f.reopen();
    assert!(is_known(&f, 2, home) && is_known(&f, 2, office) && !is_known(&f, 3, home));
    // Another login there, which is only saved by the stop.
    f.logged_in(UserId(2), office, Timestamp(9));
    f.clock.set(30 * DAY);
    assert!(is_known(&f, 2, home));
    f.clock.set(30 * DAY + 9);
    f.reopen();
    assert!(!is_known(&f, 2, home) && is_known(&f, 2, office) && !is_known(&f, 3, office));
    assert_eq!(f.count("login_networks"), 1);
    f.apply_to_account(AccountCommand::LogOut(UserId(2))).unwrap();
    assert!(!is_known(&f, 2, office), "with its tokens, an account forgets that");
    f.logged_in(UserId(2), home, Timestamp(30 * DAY));
    f.apply_to_account(AccountCommand::Delete(UserId(2))).unwrap();
    f.a_minute_passes();
    f.wait_until("it is gone with the account", |f| f.count("login_networks") == 0);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_restored_backup_has_no_sessions_and_no_personal_tokens() {
    let mut f = Fixture::new();
    f.start_session(1);
    f.create_token(1).unwrap();
    f.create(1, "kept");
    let backup = f.directory.path().join("backup.db");
    maintenance::backup(&f.database_path(), &backup).unwrap();
    f.store = None;
    maintenance::restore(&f.database_path(), &backup).unwrap();
    f.open();
    assert_eq!((f.count("sessions"), f.count("personal_tokens"), f.todos(1).len()), (0, 0, 1));
}
