//! What a database has for memory, at start.

use std::collections::{BTreeMap, HashMap};

use super::backend::Position;
use super::decide::{Head, Next};
use super::map::TodoMap;
use super::map::login_networks::LoginNetwork;
use super::map::sessions::{PersonalTokens, Sessions};
use super::map::users::Users;
use super::writer::kept_sizes::KeptSizes;
use crate::domain::account::UserId;
use crate::domain::change::Epoch;
use crate::domain::clock::Timestamp;
use crate::domain::session::PersonalTokenId;

/// What the service keeps in memory.
pub struct Loaded {
    pub epoch: Epoch,
    pub users: Users,
    pub heads: HashMap<UserId, Head>,
    pub sessions: Sessions,
    pub personal_tokens: PersonalTokens,
    /// When personal access tokens were used last.
    pub used: HashMap<PersonalTokenId, Timestamp>,
    /// When networks were used for a login last.
    pub login_networks: BTreeMap<LoginNetwork, Timestamp>,
    /// Deleted accounts that still have something.
    pub erasing: Vec<UserId>,
    /// How much is kept of the users' answers.
    pub kept: KeptSizes,
    pub todos: TodoMap,
    pub next: Next,
    pub position: Position,
    pub pending: usize,
    /// Seconds that the service has been running on this database, over all starts.
    pub uptime: i64,
}
