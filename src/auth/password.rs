//! Password hashes: argon2id with OWASP's parameters
//! (<https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html>), off the async threads.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

/// Memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// How long a request waits for its turn.
const WAIT: Duration = Duration::from_secs(2);

/// Why a password was not checked.
#[derive(Debug, PartialEq, Eq)]
pub enum NotChecked {
    /// Too many others are being checked.
    Busy,
    /// A fault of ours.
    Failed,
}

/// Hashes and checks passwords, a bounded number at a time: each takes a core and 19 MiB for a while.
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// Checked against when there is no such user, so that both cases take as long.
    dummy: Box<str>,
}

impl Passwords {
    /// Leaves one core to everything else.
    pub fn new() -> Result<Self, argon2::password_hash::Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nobody: u128 = rand::random();
        Ok(Self {
            turns: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))),
            dummy: hash(&nobody.to_string())?.into(),
        })
    }

    /// Whether `password` is the one behind `stored` (a PHC string); no user, no stored hash: never.
    pub async fn check(&self, password: String, stored: Option<&str>) -> Result<bool, NotChecked> {
        let turn = tokio::time::timeout(WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| NotChecked::Busy)?.map_err(|_| NotChecked::Failed)?;
        let known = stored.is_some();
        let stored = stored.unwrap_or(&self.dummy).to_owned();
        let checked = tokio::task::spawn_blocking(move || {
            // Kept until the work is done, even if the client is gone by then.
            let _turn = turn;
            matches(&password, &stored)
        });
        match checked.await {
            Ok(Ok(same)) => Ok(known && same),
            Ok(Err(problem)) => {
                log::error!("a stored password hash can't be checked: {problem}");
                Err(NotChecked::Failed)
            }
            Err(problem) => {
                log::error!("checking a password failed: {problem}");
                Err(NotChecked::Failed)
            }
        }
    }
}

fn argon2() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// A PHC string with a random salt. Takes a while: call it off the async threads.
pub fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(argon2()?.hash_password(password.as_bytes())?.to_string())
}

fn matches(password: &str, stored: &str) -> Result<bool, argon2::password_hash::Error> {
    let stored = PasswordHash::new(stored)?;
    match argon2()?.verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn only_the_right_password_of_a_known_user_matches() {
        let passwords = Passwords::new().unwrap();
        let stored = hash("pässword").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_eq!(passwords.check("pässword".into(), Some(&stored)).await, Ok(true));
        assert_eq!(passwords.check("password".into(), Some(&stored)).await, Ok(false));
        assert_eq!(passwords.check("pässword".into(), None).await, Ok(false));
        assert_eq!(passwords.check("x".into(), Some("no hash")).await, Err(NotChecked::Failed));
    }

    #[test]
    fn the_dummy_costs_as_much_as_a_real_hash() {
        let passwords = Passwords::new().unwrap();
        let cost = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cost(&passwords.dummy), cost(&hash("x").unwrap()));
    }

    #[actix_web::test]
    async fn a_request_does_not_wait_for_its_turn_for_ever() {
        let passwords = Passwords::new().unwrap();
        let all = passwords.turns.available_permits() as u32;
        let _held = Arc::clone(&passwords.turns).acquire_many_owned(all).await.unwrap();
        assert_eq!(passwords.check("x".into(), None).await, Err(NotChecked::Busy));
    }
}
