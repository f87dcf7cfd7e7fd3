//! How often passwords and refresh tokens can be tried, accounts created and requests sent.
//!
//! Whoever guesses passwords must not keep the account's owner out: a network from which somebody has logged in to the
//! account lately has a limit of its own, which others can't use up.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use crate::config::RateLimits;
use crate::domain::account::{UserId, name_key};
use crate::domain::network::Network;
use crate::domain::session::SessionId;

/// With fewer keys than this, none are removed from a limiter.
const MIN_KEYS_TO_SWEEP: usize = 1024;
/// How many seconds' worth of requests can be sent at once.
const REQUEST_BURST: u32 = 10;

/// A limit: so many at once, and one more after each interval.
#[derive(Debug, Clone, Copy)]
struct Policy {
    /// What clients and metrics call it.
    name: &'static str,
    /// At once.
    burst: u32,
    interval: Duration,
}

impl Policy {
    const fn per_minute(name: &'static str, burst: u32, per_minute: u64) -> Self {
        Self { name, burst, interval: Duration::from_millis(60_000 / per_minute) }
    }

    fn requests(name: &'static str, per_second: u32) -> Self {
        Self {
            name,
            burst: per_second.saturating_mul(REQUEST_BURST),
            interval: Duration::from_secs(1) / per_second.max(1),
        }
    }
}

/// Passwords from a network that is not known for the account.
const LOGINS_FROM_NETWORK: Policy = Policy::per_minute("logins-from-address", 30, 6);
/// Passwords for an account, from networks that are not known for it.
const LOGINS_TO_ACCOUNT: Policy = Policy::per_minute("logins-to-account", 20, 2);
/// Passwords for an account from a network that is known for it.
const LOGINS_FROM_KNOWN: Policy = Policy::per_minute("logins-from-known-address", 30, 6);
/// All passwords for an account from a network that is known for it: each costs a hash, also a right one.
const LOGINS: Policy = Policy::per_minute("logins", 60, 60);
/// Passwords of somebody who is logged in.
const CONFIRMATIONS: Policy = Policy::per_minute("confirmations", 10, 2);
/// Accounts created from a network.
const REGISTRATIONS: Policy = Policy::per_minute("registrations", 10, 1);
/// Refreshes of a session.
const REFRESHES: Policy = Policy::per_minute("refreshes", 30, 6);

/// Requests of an account, as configured.
const REQUESTS_OF_ACCOUNT: &str = "requests-of-account";
/// Requests from a network, as configured.
const REQUESTS_FROM_NETWORK: &str = "requests-from-address";

/// The names of all limits.
pub const NAMES: [&str; 9] = [
    REQUESTS_OF_ACCOUNT,
    REQUESTS_FROM_NETWORK,
    LOGINS_FROM_NETWORK.name,
    LOGINS_TO_ACCOUNT.name,
    LOGINS_FROM_KNOWN.name,
    LOGINS.name,
    CONFIRMATIONS.name,
    REGISTRATIONS.name,
    REFRESHES.name,
];

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// The limit's name.
    pub policy: &'static str,
    /// How many it allows at once.
    pub quota: u32,
    /// The time, in seconds, after which it allows as many again.
    pub window: u64,
    /// When to try again, in seconds; at least 1.
    pub retry_after: u64,
}

/// All limits. In memory: a restart begins anew.
pub struct Limits {
    users: Option<Limiter<UserId>>,
    networks: Option<Limiter<Network>>,
    logins: Option<LoginLimits>,
}

struct LoginLimits {
    from_network: Limiter<Network>,
    /// By a hash of the name, so that unknown names are limited the same.
    to_account: Limiter<u64>,
    from_known: Limiter<(UserId, Network)>,
    all_from_known: Limiter<(UserId, Network)>,
    confirmations: Limiter<UserId>,
    registrations: Limiter<Network>,
    refreshes: Limiter<SessionId>,
    hasher: RandomState,
}

/// Where a password comes from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// A network that is known for the account.
    Known(UserId, Network),
    /// Any other; `None`: it is this machine, so nobody knows where the client is.
    Stranger(Option<Network>),
}

impl Limits {
    /// Limits as configured.
    pub fn new(config: RateLimits) -> Self {
        let requests = |name, per_second| (per_second > 0).then(|| Policy::requests(name, per_second));
        Self {
            users: requests(REQUESTS_OF_ACCOUNT, config.per_user).map(Limiter::new),
            networks: requests(REQUESTS_FROM_NETWORK, config.per_address).map(Limiter::new),
            logins: config.logins.then(|| LoginLimits {
                from_network: Limiter::new(LOGINS_FROM_NETWORK),
                to_account: Limiter::new(LOGINS_TO_ACCOUNT),
                from_known: Limiter::new(LOGINS_FROM_KNOWN),
                all_from_known: Limiter::new(LOGINS),
                confirmations: Limiter::new(CONFIRMATIONS),
                registrations: Limiter::new(REGISTRATIONS),
                refreshes: Limiter::new(REFRESHES),
                hasher: RandomState::new(),
            }),
        }
    }

    /// Counts a request of an account.
    pub fn request_of(&self, user: UserId) -> Result<(), Limited> {
        self.users.as_ref().map_or(Ok(()), |users| users.take(&user))
    }

    /// Counts a request from a network.
    pub fn request_from(&self, network: Network) -> Result<(), Limited> {
        self.networks.as_ref().map_or(Ok(()), |networks| networks.take(&network))
    }

    /// Counts a password for the account `username`, which may not exist.
    pub fn login(&self, username: &str, origin: Origin) -> Result<Attempt, Limited> {
        let Some(logins) = &self.logins else { return Ok(Attempt::default()) };
        match origin {
            Origin::Known(user, network) => {
                logins.all_from_known.take(&(user, network))?;
                Ok(Attempt(vec![logins.from_known.lend((user, network))?]))
            }
            Origin::Stranger(network) => {
                let from_network = network.map(|network| logins.from_network.lend(network)).transpose()?;
                let mut attempt = Attempt(from_network.into_iter().collect());
                match logins.to_account.lend(logins.hasher.hash_one(name_key(username))) {
                    Ok(taken) => attempt.0.push(taken),
                    Err(limited) => {
                        // It is not tried: the network's other accounts must not pay for it.
                        attempt.give_back();
                        return Err(limited);
                    }
                }
                Ok(attempt)
            }
        }
    }

    /// Counts a password of somebody who is logged in.
    pub fn confirmation(&self, user: UserId) -> Result<Attempt, Limited> {
        let Some(logins) = &self.logins else { return Ok(Attempt::default()) };
        Ok(Attempt(vec![logins.confirmations.lend(user)?]))
    }

    /// Counts somebody who creates an account, or tries to.
    pub fn registration(&self, network: Option<Network>) -> Result<Attempt, Limited> {
        let Some((logins, network)) = self.logins.as_ref().zip(network) else { return Ok(Attempt::default()) };
        Ok(Attempt(vec![logins.registrations.lend(network)?]))
    }

    /// Counts a refresh.
    pub fn refresh(&self, session: SessionId) -> Result<(), Limited> {
        self.logins.as_ref().map_or(Ok(()), |logins| logins.refreshes.take(&session))
    }
}

/// Something that is being tried. It counts, whatever becomes of it, unless it is given back.
#[must_use]
#[derive(Default)]
pub struct Attempt(Vec<Taken>);

impl Attempt {
    /// It was right, or was not looked at at all: it does not count.
    pub fn give_back(self) {
        self.0.into_iter().for_each(|give_back| give_back());
    }
}

/// Gives back what was taken.
type Taken = Box<dyn FnOnce() + Send>;

/// One limit, for each key by itself.
struct Limiter<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    policy: Policy,
    limiter: RateLimiter<K, Buckets<K>, C, NoOpMiddleware<C::Instant>>,
    buckets: Buckets<K>,
}

impl<K: Hash + Eq + Clone + Send + 'static> Limiter<K> {
    fn new(policy: Policy) -> Self {
        Self::with_clock(policy, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, C: Clock> Limiter<K, C> {
    fn with_clock(policy: Policy, clock: C) -> Self {
        let buckets = Buckets::default();
        let burst = NonZeroU32::new(policy.burst).unwrap_or(NonZeroU32::MIN);
        // `None` for an interval of 0, which no policy has.
        let quota = Quota::with_period(policy.interval).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
        Self { policy, limiter: RateLimiter::new(quota, buckets.clone(), clock), buckets }
    }

    /// Takes one, if there is one, so that it can be given back.
    fn lend(&self, key: K) -> Result<Taken, Limited> {
        self.take(&key)?;
        let (buckets, interval) = (self.buckets.clone(), self.policy.interval);
        Ok(Box::new(move || buckets.give_back(&key, interval)))
    }

    /// Takes one, if there is one.
    fn take(&self, key: &K) -> Result<(), Limited> {
        if self.buckets.must_be_swept() {
            self.limiter.retain_recent();
            self.buckets.swept();
        }
        let Policy { name, burst, interval } = self.policy;
        self.limiter.check_key(key).map_err(|until| Limited {
            policy: name,
            quota: burst,
            // Up: intervals are whole nanoseconds.
            window: u64::try_from((interval * burst).as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX),
            // Up: a moment too early would be refused again.
            retry_after: until.wait_time_from(self.limiter.clock().now()).as_secs() + 1,
        })
    }
}

/// For each key, when its bucket is full again. governor's own store does not give back.
struct Buckets<K>(Arc<Mutex<Keys<K>>>);

struct Keys<K> {
    full_at: HashMap<K, Nanos>,
    /// At this size, keys with full buckets are removed.
    sweep_at: usize,
}

impl<K> Clone for Buckets<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Keys { full_at: HashMap::new(), sweep_at: MIN_KEYS_TO_SWEEP })))
    }
}

impl<K: Hash + Eq> Buckets<K> {
    fn give_back(&self, key: &K, interval: Duration) {
        if let Some(full_at) = self.0.lock().full_at.get_mut(key) {
            *full_at = full_at.as_u64().saturating_sub(Nanos::from(interval).as_u64()).into();
        }
    }

    fn must_be_swept(&self) -> bool {
        let keys = self.0.lock();
        keys.full_at.len() >= keys.sweep_at
    }

    /// At twice the size next time: each key pays for a constant share of all sweeps.
    fn swept(&self) {
        let mut keys = self.0.lock();
        keys.sweep_at = (2 * keys.full_at.len()).max(MIN_KEYS_TO_SWEEP);
        keys.full_at.shrink_to(MIN_KEYS_TO_SWEEP);
    }
}

impl<K: Hash + Eq + Clone> StateStore for Buckets<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut keys = self.0.lock();
        let (decision, full_at) = decide(keys.full_at.get(key).copied())?;
        keys.full_at.insert(key.clone(), full_at);
        Ok(decision)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Buckets<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.lock().full_at.retain(|_, full_at| *full_at >= drop_below);
    }

    fn len(&self) -> usize {
        self.0.lock().full_at.len()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().full_at.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    const POLICY: Policy = Policy::per_minute("test", 3, 6);

    fn limiter() -> (Limiter<u32, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiter::with_clock(POLICY, clock.clone()), clock)
    }

    #[test]
    fn a_key_gets_its_burst_and_then_one_after_each_interval() {
        let (limiter, clock) = limiter();
        for _ in 0..3 {
            assert!(limiter.take(&1).is_ok());
        }
        let limited = Limited { policy: "test", quota: 3, window: 30, retry_after: 11 };
        assert_eq!(limiter.take(&1).err(), Some(limited));
        assert!(limiter.take(&2).is_ok(), "another key has its own");
        clock.advance(Duration::from_secs(9));
        assert_eq!(limiter.take(&1).err().map(|limited| limited.retry_after), Some(2));
        clock.advance(Duration::from_secs(1));
        assert!(limiter.take(&1).is_ok());
        assert!(limiter.take(&1).is_err());
        clock.advance(Duration::from_secs(1000));
        assert_eq!((0..9).filter(|_| limiter.take(&1).is_ok()).count(), 3);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_but_no_more_than_that() {
        let (limiter, clock) = limiter();
        for _ in 0..100 {
            limiter.lend(1).expect("one is left")();
        }
        let taken: Vec<_> = (0..9).map_while(|_| limiter.lend(1).ok()).collect();
        assert_eq!(taken.len(), 3);
        clock.advance(Duration::from_secs(1000));
        taken.into_iter().for_each(|give_back| give_back());
        assert_eq!((0..9).filter(|_| limiter.take(&1).is_ok()).count(), 3, "a full bucket does not overflow");
    }

    #[test]
    fn keys_whose_buckets_are_full_are_forgotten() {
        let (limiter, clock) = limiter();
        for key in 0..5000 {
            assert!(limiter.take(&key).is_ok());
            clock.advance(Duration::from_millis(100));
        }
        // 100 keys a bucket's 10 s; the sweep comes at MIN_KEYS_TO_SWEEP.
        assert!(limiter.limiter.len() <= MIN_KEYS_TO_SWEEP, "{} keys", limiter.limiter.len());
        for key in 10_000..20_000 {
            assert!(limiter.take(&key).is_ok());
        }
        assert!(limiter.limiter.len() >= 10_000, "what is in use is kept");
    }

    fn network(address: &str) -> Option<Network> {
        Network::parse(address)
    }

    fn limits() -> Limits {
        Limits::new(RateLimits { logins: true, per_user: 1, per_address: 2 })
    }

    #[test]
    fn strangers_are_limited_by_network_and_by_account_whether_it_exists_or_not() {
        let limits = limits();
        let stranger = |address: &str| Origin::Stranger(network(address));
        let tries = |name: &dyn Fn(usize) -> String, address: &dyn Fn(usize) -> String| {
            let tried = |n| limits.login(&name(n), stranger(&address(n)));
            (0..100).map_while(|n| tried(n).ok()).count()
        };
        assert_eq!(tries(&|n| format!("user{n}"), &|_| "192.0.2.1".into()), 30);
        assert_eq!(
            limits.login("x", stranger("192.0.2.1")).err().map(|limited| limited.policy),
            Some("logins-from-address")
        );
        assert_eq!(tries(&|_| "alice".into(), &|n| format!("198.51.100.{n}")), 20);
        let limited = limits.login("ALICE", stranger("203.0.113.1")).err().unwrap();
        assert_eq!(
            limited,
            Limited { policy: "logins-to-account", quota: 20, window: 600, retry_after: limited.retry_after }
        );
        assert!((29..=31).contains(&limited.retry_after));
        // Tries that were refused for the account leave those of the network.
        for _ in 0..100 {
            assert!(limits.login("alice", stranger("203.0.113.9")).is_err());
        }
        assert!(limits.login("bob", stranger("203.0.113.9")).is_ok());
        // Where the client is nobody knows: only by account.
        assert!(limits.login("alice", Origin::Stranger(None)).is_err());
        assert_eq!((0..100).filter(|n| limits.login(&format!("x{n}"), Origin::Stranger(None)).is_ok()).count(), 100);
    }

    #[test]
    fn a_known_network_has_a_limit_that_strangers_cannot_use_up() {
        let limits = limits();
        while limits.login("alice", Origin::Stranger(network("192.0.2.1"))).is_ok() {}
        let known = Origin::Known(UserId(1), network("192.0.2.1").unwrap());
        assert_eq!((0..100).map_while(|_| limits.login("alice", known).ok()).count(), 30);
        assert_eq!(limits.login("alice", known).err().map(|limited| limited.policy), Some("logins-from-known-address"));
        assert!(limits.login("alice", Origin::Known(UserId(1), network("192.0.2.2").unwrap())).is_ok());
    }

    #[test]
    fn right_passwords_hardly_count() {
        let limits = limits();
        let known = Origin::Known(UserId(1), network("192.0.2.1").unwrap());
        assert_eq!((0..100).map_while(|_| limits.login("alice", known).ok().map(Attempt::give_back)).count(), 60);
        assert_eq!(limits.login("alice", known).err().map(|limited| limited.policy), Some("logins"));
        for _ in 0..100 {
            limits.login("alice", Origin::Stranger(network("192.0.2.1"))).expect("not limited").give_back();
            limits.confirmation(UserId(1)).expect("not limited").give_back();
        }
        assert_eq!((0..100).map_while(|_| limits.confirmation(UserId(1)).ok()).count(), 10);
    }

    #[test]
    fn requests_registrations_and_refreshes_have_limits_of_their_own() {
        let limits = limits();
        let home = network("2001:db8::/64").unwrap();
        assert_eq!((0..100).filter(|_| limits.request_of(UserId(1)).is_ok()).count(), 10);
        assert_eq!((0..100).filter(|_| limits.request_from(home).is_ok()).count(), 20);
        assert_eq!((0..100).filter(|_| limits.registration(Some(home)).is_ok()).count(), 10);
        assert_eq!((0..100).filter(|_| limits.registration(None).is_ok()).count(), 100);
        assert_eq!((0..100).filter(|_| limits.refresh(SessionId(1)).is_ok()).count(), 30);
        for per_user in [1, 2, 3, 7, 200, 300] {
            let limits = Limits::new(RateLimits { logins: true, per_user, per_address: 0 });
            let limited = (0..).find_map(|_| limits.request_of(UserId(1)).err()).unwrap();
            assert_eq!((limited.quota, limited.window), (10 * per_user, 10), "{per_user}");
        }
        let off = Limits::new(RateLimits { logins: false, per_user: 0, per_address: 0 });
        for _ in 0..100 {
            assert!(off.request_of(UserId(1)).is_ok() && off.request_from(home).is_ok());
            assert!(off.registration(Some(home)).is_ok() && off.refresh(SessionId(1)).is_ok());
            assert!(off.login("alice", Origin::Stranger(Some(home))).is_ok() && off.confirmation(UserId(1)).is_ok());
        }
    }
}
