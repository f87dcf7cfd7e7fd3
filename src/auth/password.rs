//! Password hashes: argon2id with OWASP's parameters
//! (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>), off the async threads.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::try_generate_salt;
use argon2::{Algorithm, Argon2, Block, CustomizedPasswordHasher, Params, PasswordVerifier, Version};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

pub use argon2::password_hash::Error as HashError;

/// The cost of our hashes: memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// The most memory that a stored hash may need, in KiB: the highest recommendation of RFC 9106 (section 4). Imported
/// hashes can cost more than ours.
const MAX_MEMORY_KIB: u32 = 2 << 20;
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
    /// The check panicked.
    #[error(transparent)]
    Panicked(#[from] JoinError),
}

/// Hashes and checks passwords, a bounded number at a time: each occupies a core for a while, and 19 MiB that are kept
/// for the next one.
pub struct Passwords {
    permits: Arc<Semaphore>,
    memory: Arc<MemoryPool>,
    /// Checked when there is no such user, so that the time doesn't reveal whether there is.
    dummy: Box<str>,
}

impl Passwords {
    /// Checks on as many cores as there are, less one for everything else.
    pub fn new() -> Result<Self, HashError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let permits = Arc::new(Semaphore::new(cores.saturating_sub(1).max(1)));
        let random: u128 = rand::random();
        let memory = Arc::new(MemoryPool::default());
        let dummy = memory.hash(&random.to_string())?.into();
        Ok(Self { permits, memory, dummy })
    }

    /// A PHC string with a random salt. Takes a while: call it off the async threads.
    pub fn hash(&self, password: &str) -> Result<String, HashError> {
        self.memory.hash(password)
    }

    /// Whether `password` matches `stored`, a PHC string. Without one, because there is no such user, it never does.
    pub async fn check(&self, password: String, stored: Option<&str>) -> Result<bool, CheckError> {
        // The semaphore is never closed.
        let permit = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(CheckError::Busy) };
        let known = stored.is_some();
        let stored = stored.unwrap_or(&self.dummy).to_owned();
        let memory = Arc::clone(&self.memory);
        let checked = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even if the client has disconnected by then.
            let _permit = permit;
            memory.matches(&password, &stored)
        });
        Ok(checked.await?? && known)
    }
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

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_matches() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords.hash("pässword").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.check("pässword".into(), Some(&stored)).await.unwrap());
        assert!(!passwords.check("password".into(), Some(&stored)).await.unwrap());
        assert!(!passwords.check("pässword".into(), None).await.unwrap());
        assert!(matches!(passwords.check("x".into(), Some("no hash")).await, Err(CheckError::Hash(_))));
    }

    #[test]
    fn the_dummy_costs_as_much_as_a_real_hash() {
        let passwords = Passwords::new().unwrap();
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&passwords.dummy), cost(&passwords.hash("x").unwrap()));
    }

    #[tokio::test]
    async fn a_request_does_not_wait_for_its_turn_for_ever() {
        let passwords = Passwords::new().unwrap();
        let all = passwords.permits.available_permits() as u32;
        let _held = Arc::clone(&passwords.permits).acquire_many_owned(all).await.unwrap();
        assert!(matches!(passwords.check("x".into(), None).await, Err(CheckError::Busy)));
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_checked_with_its_own_parameters() {
        let passwords = Passwords::new().unwrap();
        for (algorithm, version, (memory, passes, lanes), output) in [
            (Algorithm::Argon2id, Version::V0x13, (8, 1, 1), 32),
            (Algorithm::Argon2id, Version::V0x13, (65_536, 1, 4), 64),
            (Algorithm::Argon2i, Version::V0x10, (12_000, 3, 3), 16),
            (Algorithm::Argon2d, Version::V0x13, (19_456, 1, 1), 32),
        ] {
            let params = Params::new(memory, passes, lanes, Some(output)).unwrap();
            // As the crate itself hashes, with its own memory.
            let stored = Argon2::new(algorithm, version, params).hash_password(b"imported").unwrap().to_string();
            assert!(passwords.check("imported".into(), Some(&stored)).await.unwrap(), "{stored}");
            assert!(!passwords.check("Imported".into(), Some(&stored)).await.unwrap(), "{stored}");
        }
    }

    #[tokio::test]
    async fn a_hash_that_cannot_be_computed_is_no_match() {
        let passwords = Passwords::new().unwrap();
        let ours = passwords.hash("x").unwrap();
        let without_output = &ours[..ours.rfind('$').unwrap()];
        assert!(!passwords.check("x".into(), Some(without_output)).await.unwrap());
        for (from, to) in [("m=19456", "m=2097153"), ("m=19456", "m=7"), ("v=19", "v=20"), ("argon2id", "bcrypt")] {
            let stored = ours.replace(from, to);
            let checked = passwords.check("x".into(), Some(&stored)).await;
            assert!(matches!(checked, Err(CheckError::Hash(_))), "{stored}");
        }
        assert!(passwords.check("x".into(), Some(&ours)).await.unwrap());
    }

    #[tokio::test]
    async fn no_more_memory_is_kept_than_for_all_turns_whatever_was_checked() {
        let passwords = Passwords::new().unwrap();
        let permits = passwords.permits.available_permits();
        let costly = Params::new(2 * COST.0, 1, 1, None).unwrap();
        let costly = Argon2::from(costly).hash_password(b"imported").unwrap().to_string();
        let checks = (0..4 * permits).map(|n| passwords.check("x".into(), (n % 2 == 0).then_some(costly.as_str())));
        for checked in futures_util::future::join_all(checks).await {
            assert!(matches!(checked, Ok(false) | Err(CheckError::Busy)), "{checked:?}");
        }
        let kept = passwords.memory.0.lock();
        assert!((1..=permits).contains(&kept.len()), "{} for {permits} permits", kept.len());
        assert!(kept.iter().all(|blocks| blocks.capacity() == COST.0 as usize));
    }
}
