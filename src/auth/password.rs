//! Password hashes: argon2id with OWASP's parameters
//! (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>), off the async threads. Hashes
//! of other services are checked, too: bcrypt, and argon2 with other parameters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::try_generate_salt;
use argon2::{Algorithm, Argon2, Block, CustomizedPasswordHasher, Params, PasswordVerifier, Version};
use bcrypt::{BcryptError, HashParts};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use crate::domain::account::UserId;
use crate::telemetry::metrics::Metrics;

pub use argon2::password_hash::Error as HashError;

/// The cost of our hashes: memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// The most memory that a stored hash may need, in KiB: the highest recommendation of RFC 9106 (section 4). Imported
/// hashes can cost more than ours.
const MAX_MEMORY_KIB: u32 = 2 << 20;
/// The highest cost of an imported bcrypt hash: each step doubles the time, and 14 is a second or two.
const MAX_BCRYPT_COST: u32 = 14;
/// The most that an imported argon2id hash may cost: memory in KiB, lanes, and memory times passes. That is libsodium's
/// "moderate", about 20 times ours.
const MAX_IMPORTED: (u32, u32, u32) = (262_144, 16, 3 * 262_144);
/// OWASP's recommendations differ in memory and passes; the least product is that of 7 MiB and 5 passes.
const MIN_WORK: u32 = 7168 * 5;
/// How long a request waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Why a password was not checked.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Too many others are being checked.
    #[error("too many passwords are being checked")]
    Busy,
    /// The stored hash is malformed, or of a kind that isn't supported.
    #[error("the stored hash can't be used: {0}")]
    Hash(#[from] HashError),
    /// The same of a bcrypt hash.
    #[error("the stored hash can't be used: {0}")]
    Bcrypt(#[from] BcryptError),
    /// The check panicked.
    #[error(transparent)]
    Panicked(#[from] JoinError),
}

/// Why a hash can't be imported.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "Hash can't be used; send argon2id (PHC with v, at most m={}, p={}, m*t={}) or bcrypt ($2a$, $2b$, $2y$, cost 4 to {})",
    MAX_IMPORTED.0,
    MAX_IMPORTED.1,
    MAX_IMPORTED.2,
    MAX_BCRYPT_COST
)]
pub struct UnusableHash;

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is wrong, or there is no such user.
    Wrong,
    /// The password is right.
    Right {
        /// The stored hash is of a kind that we would not create today: it is to be replaced.
        is_weak: bool,
    },
}

/// Whose turn a hash takes: they don't wait for each other, so that neither can keep the other out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// That of somebody who is logged in to this account, or tries to log in to it where somebody has before. An account
    /// takes only one at a time, so that it can't keep others waiting.
    Known(UserId),
    /// That of anybody else who tries to log in.
    Stranger,
    /// That of anybody who creates one.
    Newcomer,
    /// That of an imported hash, which can take much longer than ours, where [`Turn::Known`] would do.
    Imported(UserId),
    /// The same for a stranger.
    ImportedStranger,
}

/// Hashes and checks passwords, a bounded number at a time: each occupies a core for a while, and 19 MiB that are kept
/// for the next one.
pub struct Passwords {
    /// Of accounts that wait for their turn or have it.
    accounts: Arc<Mutex<HashMap<UserId, Arc<Semaphore>>>>,
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    newcomers: Arc<Semaphore>,
    imported: Arc<Semaphore>,
    imported_strangers: Arc<Semaphore>,
    memory: Arc<MemoryPool>,
    metrics: Arc<Metrics>,
    /// Checked when there is no such user, so that the time doesn't reveal whether there is.
    dummy: Box<str>,
}

impl Passwords {
    /// Checks on as many cores as there are, less one for everything else; those of strangers on as many more. One
    /// account is created at a time, and one imported hash checked, and one more for strangers.
    pub fn new(metrics: Arc<Metrics>) -> Result<Self, HashError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let most = || Arc::new(Semaphore::new(cores.saturating_sub(1).max(1)));
        let random: u128 = rand::random();
        let memory = Arc::new(MemoryPool::default());
        let dummy = memory.hash(&random.to_string())?.into();
        let one = || Arc::new(Semaphore::new(1));
        Ok(Self {
            accounts: Arc::default(),
            known: most(),
            strangers: most(),
            newcomers: one(),
            imported: one(),
            imported_strangers: one(),
            memory,
            metrics,
            dummy,
        })
    }

    /// A PHC string with a random salt. Takes a while: call it off the async threads.
    pub fn hash_now(&self, password: &str) -> Result<String, HashError> {
        self.memory.hash(password)
    }

    /// A PHC string with a random salt.
    pub async fn hash(&self, turn: Turn, password: String) -> Result<Box<str>, CheckError> {
        self.run(turn, move |memory| Ok(memory.hash(&password)?.into())).await
    }

    /// Whether `password` matches `stored`, a PHC string or a bcrypt hash. Without one, because there is no such user,
    /// it never does.
    pub async fn check(&self, turn: Turn, password: String, stored: Option<&str>) -> Result<Verdict, CheckError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or(&self.dummy).to_owned();
        let turn = match turn {
            turn if costs_as_ours(&stored) => turn,
            Turn::Known(user) | Turn::Imported(user) => Turn::Imported(user),
            Turn::Stranger | Turn::Newcomer | Turn::ImportedStranger => Turn::ImportedStranger,
        };
        self.run(turn, move |memory| {
            let matches = if is_bcrypt(&stored) {
                bcrypt_matches(&password, &stored)?
            } else {
                memory.matches(&password, &stored)?
            };
            let is_weak = !is_as_good_as_ours(&stored);
            Ok(if matches && known { Verdict::Right { is_weak } } else { Verdict::Wrong })
        })
        .await
    }

    /// The turn of an account, when its earlier ones have ended. `None` never comes: no semaphore is closed.
    async fn turn_of(&self, user: UserId) -> Option<AccountTurn> {
        let turns = Arc::clone(self.accounts.lock().entry(user).or_insert_with(|| Arc::new(Semaphore::new(1))));
        let mut turn = AccountTurn { user, accounts: Arc::clone(&self.accounts), permit: None };
        turn.permit = Some(turns.acquire_owned().await.ok()?);
        Some(turn)
    }

    async fn run<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&MemoryPool) -> Result<T, CheckError> + Send + 'static,
    ) -> Result<T, CheckError> {
        let (permits, account) = match turn {
            Turn::Known(user) => (&self.known, Some(user)),
            Turn::Stranger => (&self.strangers, None),
            Turn::Newcomer => (&self.newcomers, None),
            Turn::Imported(user) => (&self.imported, Some(user)),
            Turn::ImportedStranger => (&self.imported_strangers, None),
        };
        let permit = async {
            let of_account = match account {
                Some(user) => Some(self.turn_of(user).await?),
                None => None,
            };
            Some((Arc::clone(permits).acquire_owned().await.ok()?, of_account))
        };
        // `None` never comes: no semaphore is closed.
        let Ok(Some(permit)) = tokio::time::timeout(MAX_WAIT, permit).await else { return Err(CheckError::Busy) };
        let (memory, metrics) = (Arc::clone(&self.memory), Arc::clone(&self.metrics));
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even if the client has disconnected by then.
            let _permit = permit;
            let started = Instant::now();
            let worked = work(&memory);
            metrics.password_hashed(started.elapsed());
            worked
        });
        done.await?
    }
}

/// The turn of an account.
struct AccountTurn {
    user: UserId,
    accounts: Arc<Mutex<HashMap<UserId, Arc<Semaphore>>>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for AccountTurn {
    fn drop(&mut self) {
        let mut accounts = self.accounts.lock();
        self.permit = None;
        // Whoever waits has a copy of it.
        if accounts.get(&self.user).is_some_and(|turns| Arc::strong_count(turns) == 1) {
            accounts.remove(&self.user);
        }
    }
}

/// Whether a hash of another service can be taken over.
pub fn validate_import(hash: &str) -> Result<(), UnusableHash> {
    if is_bcrypt(hash) {
        let parts: HashParts = hash.parse().map_err(|_| UnusableHash)?;
        return if (4..=MAX_BCRYPT_COST).contains(&parts.get_cost()) { Ok(()) } else { Err(UnusableHash) };
    }
    let parsed = PasswordHash::new(hash).map_err(|_| UnusableHash)?;
    let params = Params::try_from(&parsed).map_err(|_| UnusableHash)?;
    let (memory, lanes, work) = MAX_IMPORTED;
    let is_usable = parsed.algorithm == Algorithm::Argon2id.ident()
        && parsed.salt.is_some()
        && parsed.hash.is_some()
        // Without one it is version 16 to some programs, and 19 to others.
        && parsed.version.is_some_and(|version| Version::try_from(version).is_ok())
        // Only what we use, and nothing twice.
        && params.keyid().is_empty()
        && params.data().is_empty()
        && ParamsString::try_from(&params).is_ok_and(|canonical| canonical == parsed.params)
        && params.m_cost() <= memory
        && params.p_cost() <= lanes
        && params.m_cost().saturating_mul(params.t_cost()) <= work;
    if is_usable { Ok(()) } else { Err(UnusableHash) }
}

/// The prefixes of bcrypt hashes: all of one algorithm, written by different programs.
fn is_bcrypt(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix))
}

/// As everything with bcrypt does, this looks at the first 72 bytes of a password.
fn bcrypt_matches(password: &str, stored: &str) -> Result<bool, BcryptError> {
    let cost = stored.parse::<HashParts>()?.get_cost();
    if cost > MAX_BCRYPT_COST { Err(BcryptError::CostNotAllowed(cost)) } else { bcrypt::verify(password, stored) }
}

/// Whether checking a hash takes what checking ours does.
fn costs_as_ours(hash: &str) -> bool {
    let (memory, passes, lanes) = COST;
    hash.starts_with(&format!("$argon2id$v=19$m={memory},t={passes},p={lanes}$"))
}

/// Whether a hash needs not be replaced when its password is known.
fn is_as_good_as_ours(hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    let Ok(params) = Params::try_from(&hash) else { return false };
    hash.algorithm == Algorithm::Argon2id.ident()
        && hash.version == Some(Version::V0x13.into())
        && params.m_cost().saturating_mul(params.t_cost()) >= MIN_WORK
}

/// Memory for hashing, reused by the next hash. Freeing it would not return it to the system: glibc keeps it for each
/// thread that has ever hashed.
#[derive(Default)]
struct MemoryPool(Mutex<Vec<Vec<Block>>>);

impl MemoryPool {
    fn hash(&self, password: &str) -> Result<String, HashError> {
        let (memory, passes, lanes) = COST;
        let params = Params::new(memory, passes, lanes, None)?;
        Ok(self.hash_password_with_params(password.as_bytes(), &try_generate_salt()?, params)?.to_string())
    }

    fn matches(&self, password: &str, stored: &str) -> Result<bool, HashError> {
        match self.verify_password(password.as_bytes(), &PasswordHash::new(stored)?) {
            Ok(()) => Ok(true),
            Err(HashError::PasswordInvalid) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// argon2's own implementation, except that the memory comes from the pool. It also provides the verifier, which takes
/// the parameters of the stored hash and compares in constant time.
impl CustomizedPasswordHasher<PasswordHash> for MemoryPool {
    type Params = Params;

    fn hash_password_customized(
        &self,
        password: &[u8],
        salt: &[u8],
        algorithm: Option<&str>,
        version: Option<u32>,
        params: Params,
    ) -> Result<PasswordHash, HashError> {
        let algorithm = algorithm.map(Algorithm::try_from).transpose()?.unwrap_or_default();
        let version = version.map(Version::try_from).transpose()?.unwrap_or_default();
        if params.m_cost() > MAX_MEMORY_KIB {
            return Err(argon2::Error::MemoryTooMuch.into());
        }
        let mut output = vec![0; params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
        let argon2 = Argon2::new(algorithm, version, params);
        let mut blocks = self.0.lock().pop().unwrap_or_default();
        let hashed = grow(&mut blocks, argon2.params().block_count())
            .and_then(|()| argon2.hash_password_into_with_memory(password, salt, &mut output, &mut blocks));
        // Memory that only a costlier hash needed is not kept.
        blocks.truncate(COST.0 as usize);
        blocks.shrink_to_fit();
        self.0.lock().push(blocks);
        hashed?;
        Ok(PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(argon2.params())?,
            salt: Some(Salt::new(salt)?),
            hash: Some(Output::new(&output)?),
        })
    }
}

/// Grows `blocks` to at least `len`. Their content doesn't matter: argon2 writes each before it reads it.
fn grow(blocks: &mut Vec<Block>, len: usize) -> Result<(), argon2::Error> {
    let missing = len.saturating_sub(blocks.len());
    blocks.try_reserve_exact(missing).map_err(|_| argon2::Error::OutOfMemory)?;
    blocks.resize(blocks.len() + missing, Block::new());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::PasswordHasher;

    const USER: UserId = UserId(1);

    fn passwords() -> Passwords {
        Passwords::new(Arc::default()).unwrap()
    }

    impl Passwords {
        async fn is_right(&self, password: &str, stored: Option<&str>) -> bool {
            self.check(Turn::Stranger, password.into(), stored).await.unwrap() != Verdict::Wrong
        }
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_matches() {
        let passwords = passwords();
        let stored = passwords.hash_now("pässword").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.is_right("pässword", Some(&stored)).await);
        assert!(!passwords.is_right("password", Some(&stored)).await);
        assert!(!passwords.is_right("pässword", None).await);
        assert!(matches!(passwords.check(Turn::Stranger, "x".into(), Some("no hash")).await, Err(CheckError::Hash(_))));
    }

    #[test]
    fn the_dummy_costs_as_much_as_a_real_hash() {
        let passwords = passwords();
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&passwords.dummy), cost(&passwords.hash_now("x").unwrap()));
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_its_turn_for_ever() {
        let passwords = passwords();
        let all = passwords.strangers.available_permits() as u32;
        let _held = Arc::clone(&passwords.strangers).acquire_many_owned(all).await.unwrap();
        assert!(matches!(passwords.check(Turn::Stranger, "x".into(), None).await, Err(CheckError::Busy)));
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_checked_with_its_own_parameters() {
        let passwords = passwords();
        for (algorithm, version, (memory, passes, lanes), output) in [
            (Algorithm::Argon2id, Version::V0x13, (8, 1, 1), 32),
            (Algorithm::Argon2id, Version::V0x13, (65_536, 1, 4), 64),
            (Algorithm::Argon2i, Version::V0x10, (12_000, 3, 3), 16),
            (Algorithm::Argon2d, Version::V0x13, (19_456, 1, 1), 32),
        ] {
            let params = Params::new(memory, passes, lanes, Some(output)).unwrap();
            // As the crate itself hashes, with its own memory.
            let stored = Argon2::new(algorithm, version, params).hash_password(b"imported").unwrap().to_string();
            assert!(passwords.is_right("imported", Some(&stored)).await, "{stored}");
            assert!(!passwords.is_right("Imported", Some(&stored)).await, "{stored}");
        }
    }

    #[tokio::test]
    async fn a_hash_that_cannot_be_computed_is_no_match() {
        let passwords = passwords();
        let ours = passwords.hash_now("x").unwrap();
        let without_output = &ours[..ours.rfind('$').unwrap()];
        assert!(!passwords.is_right("x", Some(without_output)).await);
        for (from, to) in [("m=19456", "m=2097153"), ("m=19456", "m=7"), ("v=19", "v=20"), ("argon2id", "bcrypt")] {
            let stored = ours.replace(from, to);
            let checked = passwords.check(Turn::Stranger, "x".into(), Some(&stored)).await;
            assert!(matches!(checked, Err(CheckError::Hash(_))), "{stored}");
        }
        assert!(passwords.is_right("x", Some(&ours)).await);
    }

    #[tokio::test]
    async fn no_more_memory_is_kept_than_for_all_turns_whatever_was_checked() {
        let passwords = passwords();
        // And one for imported hashes.
        let permits = passwords.strangers.available_permits() + 1;
        let costly = Params::new(2 * COST.0, 1, 1, None).unwrap();
        let costly = Argon2::from(costly).hash_password(b"imported").unwrap().to_string();
        let checks = (0..4 * permits)
            .map(|n| passwords.check(Turn::Stranger, "x".into(), (n % 2 == 0).then_some(costly.as_str())));
        for checked in futures_util::future::join_all(checks).await {
            assert!(matches!(checked, Ok(Verdict::Wrong) | Err(CheckError::Busy)), "{checked:?}");
        }
        let kept = passwords.memory.0.lock();
        assert!((1..=permits).contains(&kept.len()), "{} for {permits} permits", kept.len());
        assert!(kept.iter().all(|blocks| blocks.capacity() == COST.0 as usize));
    }

    /// Of "correct horse", made by Python's bcrypt 5.0.0.
    const BCRYPT: [&str; 4] = [
        "$2a$04$eXgAykqE4974kG.BQBvb6ei6MMbgnhcabkBmPaQbVuufXto4nKsc2",
        "$2b$04$aTcaaH/EUrZPkXnSD7AiS.KfZGE1ZWd0KuOBXyQD/4a7Y4S8IJY.G",
        "$2y$04$SV4tpwJt3NhN2UXn0gWzl.tD7LnTveiMPH3rEYD2gyojbrc8lGh8u",
        "$2b$12$WTZWKG7g63Bw9Wa14NG1NeqajGfyYqNb47.kj0WrthF6OZKWSlK9.",
    ];

    #[tokio::test]
    async fn bcrypt_hashes_of_other_services_are_checked() {
        let passwords = passwords();
        for stored in BCRYPT {
            assert_eq!(validate_import(stored), Ok(()));
            assert_eq!(
                passwords.check(Turn::Stranger, "Correct horse".into(), Some(stored)).await.unwrap(),
                Verdict::Wrong
            );
            let verdict = passwords.check(Turn::Stranger, "correct horse".into(), Some(stored)).await.unwrap();
            assert_eq!(verdict, Verdict::Right { is_weak: true });
        }
    }

    #[tokio::test]
    async fn weaker_hashes_are_told_from_others() {
        let passwords = passwords();
        for (algorithm, version, (memory, passes), kept) in [
            (Algorithm::Argon2id, Version::V0x13, (COST.0, COST.1), true),
            (Algorithm::Argon2id, Version::V0x13, (47_104, 1), true),
            (Algorithm::Argon2id, Version::V0x13, (7_168, 5), true),
            (Algorithm::Argon2id, Version::V0x13, (19_456, 1), false),
            (Algorithm::Argon2id, Version::V0x13, (8, 1), false),
            (Algorithm::Argon2id, Version::V0x10, (COST.0, COST.1), false),
            (Algorithm::Argon2i, Version::V0x13, (65_536, 3), false),
        ] {
            let params = Params::new(memory, passes, 1, None).unwrap();
            let stored = Argon2::new(algorithm, version, params).hash_password(b"imported").unwrap().to_string();
            let verdict = passwords.check(Turn::Stranger, "imported".into(), Some(&stored)).await.unwrap();
            assert_eq!(verdict, Verdict::Right { is_weak: !kept }, "{stored}");
        }
    }

    #[test]
    fn only_hashes_that_can_be_checked_in_bounded_time_are_imported() {
        let ours = passwords().hash_now("x").unwrap();
        let [output, salt] = ours.rsplitn(3, '$').take(2).collect::<Vec<_>>()[..] else { panic!() };
        let phc = |prefix: &str| format!("{prefix}${salt}${output}");
        assert_eq!(validate_import(&ours), Ok(()));
        for good in ["m=262144,t=3,p=16", "m=65536,t=3,p=4", "m=102400,t=2,p=8", "m=8,t=1,p=1"] {
            assert_eq!(validate_import(&phc(&format!("$argon2id$v=19${good}"))), Ok(()), "{good}");
        }
        let bcrypt = BCRYPT[0];
        for bad in [
            "",
            "plain text",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "$argon2id$v=19$m=19456,t=2,p=1",
            &ours[..ours.rfind('$').unwrap()],
            &phc("$argon2i$v=19$m=19456,t=2,p=1"),
            &phc("$argon2d$v=19$m=19456,t=2,p=1"),
            &phc("$argon2id$v=18$m=19456,t=2,p=1"),
            &phc("$argon2id$v=19$m=262145,t=2,p=1"),
            &phc("$argon2id$v=19$m=262144,t=4,p=1"),
            &phc("$argon2id$v=19$m=19456,t=41,p=1"),
            &phc("$argon2id$m=19456,t=2,p=1"),
            &phc("$argon2id$v=19$m=64,t=2,p=1,m=19456"),
            &phc("$argon2id$v=19$m=19456,t=2,p=1,keyid=aaaa"),
            &phc("$argon2id$v=19$m=19456,t=2,p=17"),
            &phc("$argon2id$v=19$m=4,t=2,p=1"),
            &phc("$pbkdf2-sha256$i=600000,l=32"),
            &bcrypt.replace("$04$", "$15$"),
            &bcrypt.replace("$04$", "$03$"),
            &bcrypt.replace("$04$", "$x4$"),
            &bcrypt.replace("$2a$", "$2x$"),
            &bcrypt[..59],
            &format!("{bcrypt}."),
            &format!("{bcrypt}\n"),
        ] {
            assert_eq!(validate_import(bad), Err(UnusableHash), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_another_kind_of_turn() {
        let passwords = passwords();
        let kinds = [Turn::Known(USER), Turn::Stranger, Turn::Newcomer, Turn::Imported(USER), Turn::ImportedStranger];
        let Passwords { known, strangers, newcomers, imported, imported_strangers, .. } = &passwords;
        let permits = [known, strangers, newcomers, imported, imported_strangers];
        for (taken, permits) in kinds.into_iter().zip(permits) {
            let all = permits.available_permits() as u32;
            let _held = Arc::clone(permits).acquire_many_owned(all).await.unwrap();
            for turn in kinds {
                let hashed = passwords.hash(turn, "x".into()).await;
                assert_eq!(hashed.is_err(), turn == taken, "{turn:?} while all of {taken:?} are taken");
            }
        }
    }

    #[tokio::test]
    async fn an_account_that_hashes_without_pause_hardly_delays_others() {
        let passwords = passwords();
        let mine = futures_util::future::join_all((0..100).map(|_| passwords.hash(Turn::Known(USER), "x".into())));
        let others = async {
            tokio::task::yield_now().await;
            for _ in 0..5 {
                // At most two hashes are before it: one that runs, and one that waits.
                assert!(passwords.hash(Turn::Known(UserId(2)), "x".into()).await.is_ok());
            }
            passwords.accounts.lock().len()
        };
        let started = Instant::now();
        let counted = tokio::select! {
            accounts = others => accounts,
            _ = mine => panic!("all of one account's came before another's"),
        };
        assert_eq!(counted, 1, "after {:?}, only the first one waits", started.elapsed());
        // A hash that runs ends by itself.
        while !passwords.accounts.lock().is_empty() {
            assert!(started.elapsed() < 30 * MAX_WAIT, "nothing is kept of accounts that don't wait");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn imported_hashes_take_turns_of_their_own() {
        let passwords = passwords();
        let _strangers = Arc::clone(&passwords.imported_strangers).acquire_owned().await.unwrap();
        let checked = passwords.check(Turn::Stranger, "x".into(), Some(BCRYPT[0])).await;
        assert!(matches!(checked, Err(CheckError::Busy)));
        assert!(passwords.check(Turn::Known(USER), "x".into(), Some(BCRYPT[0])).await.is_ok());
        let ours = passwords.hash_now("x").unwrap();
        assert!(passwords.is_right("x", Some(&ours)).await);
    }
}
