//! Sessions and personal access tokens in memory: every request looks at them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::account::UserId;
use crate::domain::clock::Timestamp;
use crate::domain::session::{PersonalToken, PersonalTokenId, Session, SessionId, TokenHash};

/// The sessions that are not over, by id and by user.
#[derive(Debug, Default)]
pub struct Sessions {
    by_id: HashMap<SessionId, Arc<Session>>,
    by_user: HashMap<UserId, BTreeMap<SessionId, Arc<Session>>>,
}

impl Sessions {
    /// The session with this id.
    pub fn get(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.by_id.get(&id)
    }

    /// The sessions of a user, by id.
    pub fn of(&self, user: UserId) -> impl Iterator<Item = &Arc<Session>> {
        self.by_user.get(&user).into_iter().flat_map(BTreeMap::values)
    }

    /// All sessions.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.by_id.values()
    }

    /// Adds a session, or replaces it by what it is now.
    pub fn put(&mut self, session: Arc<Session>) {
        self.by_user.entry(session.user).or_default().insert(session.id, Arc::clone(&session));
        self.by_id.insert(session.id, session);
    }

    /// Removes a session.
    pub fn remove(&mut self, id: SessionId) {
        let Some(session) = self.by_id.remove(&id) else { return };
        if let Some(sessions) = self.by_user.get_mut(&session.user) {
            sessions.remove(&id);
            if sessions.is_empty() {
                self.by_user.remove(&session.user);
            }
        }
    }
}

/// When personal access tokens were used last.
#[derive(Debug, Default)]
pub struct Used {
    at: HashMap<PersonalTokenId, Timestamp>,
    /// What is not stored yet.
    pub unsaved: HashMap<PersonalTokenId, Timestamp>,
}

impl Used {
    /// What the database has.
    pub fn new(at: HashMap<PersonalTokenId, Timestamp>) -> Self {
        Self { at, unsaved: HashMap::new() }
    }

    /// When this token was used last.
    pub fn get(&self, id: PersonalTokenId) -> Option<Timestamp> {
        self.at.get(&id).copied()
    }

    /// A token is used now.
    pub fn put(&mut self, id: PersonalTokenId, now: Timestamp) {
        self.at.insert(id, now);
        self.unsaved.insert(id, now);
    }

    /// Another process says that a token was used.
    pub fn heard(&mut self, id: PersonalTokenId, at: Timestamp) {
        let used = self.at.entry(id).or_insert(at);
        *used = at.max(*used);
    }

    /// Forgets a token that is revoked.
    pub fn remove(&mut self, id: PersonalTokenId) {
        self.at.remove(&id);
        self.unsaved.remove(&id);
    }
}

/// The personal access tokens, by hash and by user.
#[derive(Debug, Default)]
pub struct PersonalTokens {
    by_hash: HashMap<TokenHash, Arc<PersonalToken>>,
    by_user: HashMap<UserId, BTreeMap<PersonalTokenId, Arc<PersonalToken>>>,
}

impl PersonalTokens {
    /// The token with this hash.
    pub fn get(&self, hash: &TokenHash) -> Option<&Arc<PersonalToken>> {
        self.by_hash.get(hash)
    }

    /// A token of a user.
    pub fn one_of(&self, user: UserId, id: PersonalTokenId) -> Option<&Arc<PersonalToken>> {
        self.by_user.get(&user)?.get(&id)
    }

    /// The tokens of a user, by id.
    pub fn of(&self, user: UserId) -> impl Iterator<Item = &Arc<PersonalToken>> {
        self.by_user.get(&user).into_iter().flat_map(BTreeMap::values)
    }

    /// All tokens.
    pub fn all(&self) -> impl Iterator<Item = &Arc<PersonalToken>> {
        self.by_hash.values()
    }

    /// Adds a token.
    pub fn put(&mut self, token: Arc<PersonalToken>) {
        self.by_user.entry(token.user).or_default().insert(token.id, Arc::clone(&token));
        self.by_hash.insert(token.hash, token);
    }

    /// Removes a token of a user.
    pub fn remove(&mut self, user: UserId, id: PersonalTokenId) {
        let Some(tokens) = self.by_user.get_mut(&user) else { return };
        if let Some(token) = tokens.remove(&id) {
            self.by_hash.remove(&token.hash);
        }
        if tokens.is_empty() {
            self.by_user.remove(&user);
        }
    }
}
