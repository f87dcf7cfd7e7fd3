//! From where accounts were logged in to.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::ops::Bound;

use crate::domain::account::UserId;
use crate::domain::clock::Timestamp;
use crate::domain::network::Network;

/// Networks of one account; a new one replaces the one that was not used for the longest time.
const MAX_PER_USER: usize = 100;
/// How long a network is known, in milliseconds.
const KNOWN_FOR: i64 = 30 * 86_400_000;

/// A network of an account.
pub type LoginNetwork = (UserId, Network);

/// When each network was used last. It is not worth a commit of its own: the writer saves it now and then.
#[derive(Debug, Default)]
pub struct LoginNetworks {
    used_at: BTreeMap<LoginNetwork, Timestamp>,
    /// What is not stored as it is here.
    unsaved: HashSet<LoginNetwork>,
    /// What may still be stored.
    forgotten: HashSet<LoginNetwork>,
    /// How far the search for what is over has come.
    searched_to: Option<LoginNetwork>,
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Unsaved {
    /// Networks, and when they were used.
    pub used: Vec<(LoginNetwork, Timestamp)>,
    /// Networks that are not known any more.
    pub forgotten: Vec<LoginNetwork>,
}

impl LoginNetworks {
    /// What the database has.
    pub fn new(used_at: BTreeMap<LoginNetwork, Timestamp>) -> Self {
        Self { used_at, ..Self::default() }
    }

    /// Whether an account was logged in to from there lately.
    pub fn is_known(&self, network: LoginNetwork, now: Timestamp) -> bool {
        self.used_at.get(&network).is_some_and(|at| !is_over(*at, now))
    }

    /// An account is logged in to from there now.
    pub fn put(&mut self, network: LoginNetwork, now: Timestamp) {
        self.insert(network, now);
        self.unsaved.insert(network);
    }

    /// Another process says that an account was logged in to from there.
    pub fn heard(&mut self, network: LoginNetwork, at: Timestamp) {
        let is_news = self.used_at.get(&network).is_none_or(|known| *known < at);
        if is_news && !self.forgotten.contains(&network) {
            self.insert(network, at);
        }
    }

    fn insert(&mut self, network: LoginNetwork, now: Timestamp) {
        if self.used_at.insert(network, now).is_none() {
            self.forgotten.remove(&network);
            let others = || self.of(network.0).filter(|(other, _)| *other != network);
            if others().count() >= MAX_PER_USER
                && let Some((oldest, _)) = others().min_by_key(|(_, at)| *at)
            {
                self.forget(oldest);
            }
        }
    }

    /// Forgets those of an account.
    pub fn remove(&mut self, user: UserId) {
        let all: Vec<_> = self.of(user).collect();
        all.into_iter().for_each(|(network, _)| self.forget(network));
    }

    /// Looks at up to `limit` networks, and forgets those that were not used lately. The next call goes on behind them.
    pub fn expire(&mut self, limit: usize, now: Timestamp) {
        let from = self.searched_to.map_or(Bound::Unbounded, Bound::Excluded);
        let part: Vec<_> =
            self.used_at.range((from, Bound::Unbounded)).take(limit).map(|(key, at)| (*key, *at)).collect();
        self.searched_to = part.last().filter(|_| part.len() == limit).map(|(key, _)| *key);
        part.into_iter().filter(|(_, at)| is_over(*at, now)).for_each(|(network, _)| self.forget(network));
    }

    /// Takes what is to be written, at most `limit` of either; from now on it counts as written.
    pub fn take_unsaved(&mut self, limit: usize) -> Unsaved {
        let used = take(&mut self.unsaved, limit);
        let forgotten = take(&mut self.forgotten, limit);
        let used = used.into_iter().filter_map(|network| Some((network, *self.used_at.get(&network)?))).collect();
        Unsaved { used, forgotten }
    }

    /// It could not be written.
    pub fn still_unsaved(&mut self, unsaved: Unsaved) {
        let is_there = |network: &LoginNetwork| self.used_at.contains_key(network);
        self.unsaved.extend(unsaved.used.into_iter().map(|(network, _)| network).filter(is_there));
        self.forgotten.extend(unsaved.forgotten.into_iter().filter(|network| !is_there(network)));
    }

    fn of(&self, user: UserId) -> impl Iterator<Item = (LoginNetwork, Timestamp)> {
        let first = (user, Network::V4(Ipv4Addr::UNSPECIFIED));
        self.used_at.range(first..=(user, Network::V6(u64::MAX))).map(|(network, at)| (*network, *at))
    }

    fn forget(&mut self, network: LoginNetwork) {
        self.used_at.remove(&network);
        self.unsaved.remove(&network);
        self.forgotten.insert(network);
    }
}

fn take(networks: &mut HashSet<LoginNetwork>, limit: usize) -> Vec<LoginNetwork> {
    let taken: Vec<_> = networks.iter().take(limit).copied().collect();
    for network in &taken {
        networks.remove(network);
    }
    taken
}

/// Whether a network that was used then is not known any more.
fn is_over(used_at: Timestamp, now: Timestamp) -> bool {
    now.0.saturating_sub(used_at.0) > KNOWN_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(user: i64, n: u64) -> LoginNetwork {
        (UserId(user), Network::V6(n))
    }

    #[test]
    fn an_account_has_a_hundred_networks_the_last_ones() {
        let mut networks = LoginNetworks::default();
        networks.put((UserId(1), Network::V4(Ipv4Addr::BROADCAST)), Timestamp(0));
        networks.put(network(2, 7), Timestamp(0));
        for n in 0..150 {
            networks.put(network(1, n), Timestamp(1 + n as i64));
            networks.put(network(1, 0), Timestamp(1 + n as i64));
        }
        let known = |n| networks.is_known(network(1, n), Timestamp(200));
        assert_eq!((0..150).filter(|n| known(*n)).collect::<Vec<_>>(), [&[0][..], &Vec::from_iter(51..150)].concat());
        assert!(networks.is_known(network(2, 7), Timestamp(200)), "another account's");
        let unsaved = networks.take_unsaved(1000);
        assert_eq!((unsaved.used.len(), unsaved.forgotten.len()), (101, 51));
    }

    #[test]
    fn what_is_over_is_found_a_part_at_a_time_and_what_comes_back_is_kept() {
        let mut networks = LoginNetworks::new((0..10).map(|n| (network(1, n), Timestamp(n as i64))).collect());
        let now = Timestamp(KNOWN_FOR + 5);
        networks.expire(3, now);
        assert_eq!(networks.take_unsaved(2).forgotten.len(), 2, "no more than the limit");
        networks.put(network(1, 3), now);
        networks.expire(3, now);
        networks.expire(3, now);
        networks.put(network(1, 4), now);
        let unsaved = networks.take_unsaved(100);
        assert_eq!(BTreeMap::from_iter(unsaved.used.clone()), [3, 4].map(|n| (network(1, n), now)).into());
        assert_eq!(unsaved.forgotten.len(), 1, "one was left of the first part, and none of those that came back");
        networks.still_unsaved(unsaved);
        networks.remove(UserId(1));
        let unsaved = networks.take_unsaved(100);
        assert_eq!((unsaved.used.len(), unsaved.forgotten.len()), (0, 8));
    }
}
