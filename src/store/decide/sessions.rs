//! Decisions about sessions and personal access tokens.

use std::sync::Arc;

use super::{Decided, Group, Refusal, State};
use crate::auth::opaque_tokens::{MAX_STEPS, RefreshToken};
use crate::domain::account::{User, UserId};
use crate::domain::clock::Timestamp;
use crate::domain::session::{PersonalToken, PersonalTokenId, Session, SessionId};
use crate::store::{Authority, NewPersonalToken, NewSession, SessionCommand};

/// How long a token can be used again for the answer that it had, in milliseconds: an answer was lost, or two tabs of a
/// browser refresh at once.
const GRACE: i64 = 60_000;
/// How often in a session's life the token before the latest can be used after that, as long as the latest was not used:
/// a client that never got it. Each time has its own grace. More often would let a thief and its victim go on side by
/// side.
const MAX_REPEATS: u8 = 3;
/// Sessions of one account; a new one ends the one that was not used for the longest time.
const MAX_SESSIONS: usize = 100;
/// Personal access tokens of one account.
const MAX_PERSONAL_TOKENS: usize = 100;

/// What became of a command about sessions or tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOutcome {
    /// The session began.
    Started(Arc<Session>),
    /// The successor of the token that was used is valid.
    Refreshed {
        /// For this account.
        user: Arc<User>,
        /// The token was used again after its grace.
        is_late: bool,
    },
    /// A token was used that had been replaced before: somebody else has it, too, so the session is over.
    Reused(Arc<User>),
    /// The personal access token exists.
    Created(Arc<PersonalToken>),
    /// It is over, now or before.
    Ended,
}

impl<S: State> Group<'_, S> {
    /// What a command does. `authority`: the access token that allows it, if one has to.
    pub fn decide_session(
        &mut self,
        authority: Option<Authority>,
        command: SessionCommand,
    ) -> Result<SessionOutcome, Refusal> {
        if let Some(authority) = authority {
            self.still_valid(authority)?;
        }
        let mut request = Decided::nothing(self.decided.next);
        let outcome = match command {
            SessionCommand::Start(new) => self.start_session(&mut request, new),
            SessionCommand::Refresh(token) => self.refresh(&mut request, &token)?,
            SessionCommand::End { user, session } => {
                let session = self.session(session).filter(|session| session.user == user);
                end(&mut request, &[session.ok_or(Refusal::SessionNotFound)?]);
                SessionOutcome::Ended
            }
            SessionCommand::CreateToken(new) => self.create_token(&mut request, new)?,
            SessionCommand::RevokeToken { user, token } => {
                self.personal_token(user, token).ok_or(Refusal::TokenNotFound)?;
                request.personal_tokens.insert((user, token), None);
                SessionOutcome::Ended
            }
        };
        self.decided.merge(request);
        Ok(outcome)
    }

    fn start_session(&self, request: &mut Decided, new: NewSession) -> SessionOutcome {
        let user = new.user;
        let mut sessions = self.sessions(user);
        sessions.sort_unstable_by_key(|session| (session.used_at(), session.id));
        let too_many = (sessions.len() + 1).saturating_sub(MAX_SESSIONS);
        end(request, &sessions[..too_many]);
        let id = request.next.session;
        request.next.session = SessionId(id.0 + 1);
        let session = Arc::new(Session {
            id,
            user,
            created_at: self.facts.now,
            user_agent: new.user_agent,
            key: new.key,
            latest: new.first,
            rotated_at: Vec::new(),
            repeats: 0,
        });
        request.sessions.insert(id, Some(Arc::clone(&session)));
        SessionOutcome::Started(session)
    }

    fn refresh(&self, request: &mut Decided, token: &RefreshToken) -> Result<SessionOutcome, Refusal> {
        let now = self.facts.now;
        let is_one = |session: &Arc<Session>| !session.is_expired(now) && token.belongs_to(&session.key);
        let session = self.session(token.session).filter(is_one).ok_or(Refusal::InvalidGrant)?;
        let is_usable = |user: &Arc<User>| user.is_active() && self.exists(user);
        let user = self.account(session.user).filter(is_usable).ok_or(Refusal::InvalidGrant)?;
        let mut changed = Session::clone(&session);
        let is_late = match token.steps_to(&session.latest, &session.key) {
            Some(0) => {
                changed.latest = token.successor(&session.key).hash();
                changed.rotated_at.insert(0, now);
                changed.rotated_at.truncate(MAX_STEPS);
                false
            }
            Some(steps) if session.rotated_at.get(steps - 1).is_some_and(|&at| is_recent(at, now)) => {
                return Ok(SessionOutcome::Refreshed { user, is_late: false });
            }
            Some(1) if session.repeats < MAX_REPEATS => {
                changed.repeats += 1;
                // Several tabs can be late together.
                changed.rotated_at[0] = now;
                true
            }
            Some(_) | None => {
                end(request, &[session]);
                return Ok(SessionOutcome::Reused(user));
            }
        };
        request.sessions.insert(session.id, Some(Arc::new(changed)));
        Ok(SessionOutcome::Refreshed { user, is_late })
    }

    fn create_token(&self, request: &mut Decided, new: NewPersonalToken) -> Result<SessionOutcome, Refusal> {
        let alive = self.personal_tokens(new.user).into_iter().filter(|token| !token.is_expired(self.facts.now));
        if alive.count() >= MAX_PERSONAL_TOKENS {
            return Err(Refusal::TooManyTokens);
        }
        let id = request.next.personal_token;
        request.next.personal_token = PersonalTokenId(id.0 + 1);
        let token = Arc::new(PersonalToken {
            id,
            user: new.user,
            name: new.name,
            scope: new.scope,
            hash: new.hash,
            created_at: self.facts.now,
            expires_at: new.expires_at,
        });
        request.personal_tokens.insert((new.user, id), Some(Arc::clone(&token)));
        Ok(SessionOutcome::Created(token))
    }

    /// Ends the sessions of an account, but for `keep`.
    pub(super) fn end_sessions(&self, request: &mut Decided, user: UserId, keep: Option<SessionId>) {
        let sessions = self.sessions(user).into_iter().filter(|session| Some(session.id) != keep);
        end(request, &sessions.collect::<Vec<_>>());
    }

    /// Revokes the personal access tokens of an account.
    pub(super) fn revoke_tokens(&self, request: &mut Decided, user: UserId) {
        for token in self.personal_tokens(user) {
            request.personal_tokens.insert((user, token.id), None);
        }
    }

    pub(super) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        match self.decided.sessions.get(&id) {
            Some(decided) => decided.clone(),
            None => self.state.session(id),
        }
    }

    fn sessions(&self, user: UserId) -> Vec<Arc<Session>> {
        let committed = self.state.sessions(user).into_iter();
        let unchanged = committed.filter(|session| !self.decided.sessions.contains_key(&session.id));
        let decided = self.decided.sessions.values().flatten().filter(|session| session.user == user).cloned();
        unchanged.chain(decided).collect()
    }

    pub(super) fn personal_token(&self, user: UserId, id: PersonalTokenId) -> Option<Arc<PersonalToken>> {
        match self.decided.personal_tokens.get(&(user, id)) {
            Some(decided) => decided.clone(),
            None => self.state.personal_token(user, id),
        }
    }

    fn personal_tokens(&self, user: UserId) -> Vec<Arc<PersonalToken>> {
        let committed = self.state.personal_tokens(user).into_iter();
        let unchanged = committed.filter(|token| !self.decided.personal_tokens.contains_key(&(user, token.id)));
        let decided = self.decided.personal_tokens.values().flatten().filter(|token| token.user == user).cloned();
        unchanged.chain(decided).collect()
    }
}

fn end(request: &mut Decided, sessions: &[Arc<Session>]) {
    for session in sessions {
        request.sessions.insert(session.id, None);
    }
}

/// Whether a time is less than the grace ago. A clock that went back makes nothing older.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.0.saturating_sub(at.0) < GRACE
}
