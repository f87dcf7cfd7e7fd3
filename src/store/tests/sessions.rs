//! Sessions and personal access tokens: durable when they are answered, and gone when they have ended.

use super::*;
use crate::auth::opaque_tokens::{PersonalSecret, RefreshToken};
use crate::domain::network::Network;
use crate::domain::session::{Scope, SessionKey};

const DAY: i64 = 86_400_000;

/// Sessions, and personal access tokens with their last use.
type Seen = (Vec<Arc<Session>>, Vec<(Arc<PersonalToken>, Option<Timestamp>)>);

impl Fixture {
    pub fn session_command(&self, command: SessionCommand) -> Result<SessionOutcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Session { authority: None, command, reply };
        assert!(self.queue.try_send(Job::Apply(request)).is_ok());
        answer.blocking_recv().unwrap()
    }

    pub fn start_session(&self, user: i64) -> RefreshToken {
        let (key, secret) = (SessionKey(rand::random()), rand::random());
        let command = start_session(user, &key, secret);
        match self.session_command(command) {
            Ok(SessionOutcome::Started(session)) => RefreshToken::first(session.id, &key, secret),
            other => panic!("{other:?}"),
        }
    }

    pub fn create_token(&self, user: i64) -> Result<SessionOutcome, StoreError> {
        let hash = PersonalSecret::new(rand::random()).hash();
        let (user, name) = (UserId(user), "script".into());
        let new = NewPersonalToken { user, name, scope: Scope::Write, hash, expires_at: Some(Timestamp(DAY)) };
        self.session_command(SessionCommand::CreateToken(new))
    }

    /// What is in memory of a user's sessions and tokens.
    pub fn seen(&self, user: i64) -> Seen {
        let sessions = Store::sessions(self, UserId(user)).now_or_never().unwrap().unwrap();
        (sessions, Store::personal_tokens(self, UserId(user)).now_or_never().unwrap().unwrap())
    }

    pub fn count(&self, table: &str) -> i64 {
        self.database.number(&format!("SELECT count(*) FROM {table}"))
    }
}

pub fn start_session(user: i64, key: &SessionKey, secret: [u8; 32]) -> SessionCommand {
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
fn what_is_over_is_removed_and_the_last_use_of_tokens_is_saved() {
    let mut f = Fixture::new();
    f.start_session(1);
    let Ok(SessionOutcome::Created(token)) = f.create_token(1) else { panic!() };
    f.personal_token_used(token.id, Timestamp(5));
    f.a_minute_passes();
    let used_at = |f: &Fixture| f.database.rows("SELECT used_at FROM personal_tokens")[0][0].clone();
    f.wait_until("the last use is on disk", |f| used_at(f).as_deref() == Some("5"));
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
