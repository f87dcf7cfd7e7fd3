//! Which passwords an account may be given: of at least 8 bytes, not one that everybody tries first, and no other rules
//! (NIST SP 800-63B-4, section 3.1.1.2, against rules of composition). They are used whole, and nobody has to change them
//! without a reason.

use std::collections::HashSet;
use std::sync::LazyLock;

use thiserror::Error;

use crate::domain::account::name_key;

/// The shortest password, in bytes of UTF-8.
pub const MIN_LEN: usize = 8;
/// The longest, in bytes of UTF-8.
pub const MAX_LEN: usize = 256;

/// Passwords that are found in many leaked lists, of at least 8 bytes, in lower case: from zxcvbn 4.4.2 (MIT, see
/// common_passwords/LICENSE.txt).
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common_passwords/list.txt").lines().collect());

/// What an attacker of this service would try, besides the account's own name.
const CONTEXT: [&str; 4] = ["todos", "todo", "todobackend", "password"];

/// Why a password is refused: a sentence for whoever chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WeakPassword {
    /// Too short.
    #[error("Password is too short: use at least {MIN_LEN} characters")]
    TooShort,
    /// Too long.
    #[error("Password is too long: use at most {MAX_LEN} bytes in UTF-8")]
    TooLong,
    /// In the list of common ones.
    #[error("Password is one of the most common ones: choose another")]
    Common,
    /// The name of the account or of the service, or the word itself, with some digits and signs around it.
    #[error(
        "Password is too easy to guess: it is your username, this service's name or the word password with a few \
         characters added; choose another"
    )]
    Context,
    /// One character over and over.
    #[error("Password is one character repeated: choose another")]
    Repeated,
}

impl WeakPassword {
    /// The reason for programs, which may have it in their own words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::Common => "common",
            Self::Context => "context",
            Self::Repeated => "repeated",
        }
    }
}

/// Whether the account `username` may have this password.
pub fn check(password: &str, username: &str) -> Result<(), WeakPassword> {
    if password.len() < MIN_LEN {
        return Err(WeakPassword::TooShort);
    }
    if password.len() > MAX_LEN {
        return Err(WeakPassword::TooLong);
    }
    let lower = password.to_lowercase();
    if COMMON.contains(lower.as_str()) {
        return Err(WeakPassword::Common);
    }
    let name = name_key(username);
    let letters = letters(&lower);
    let is_only = |word: &str| !letters.is_empty() && !word.is_empty() && letters.replace(word, "").is_empty();
    if lower == name || is_only(&self::letters(&name)) || CONTEXT.into_iter().any(is_only) {
        return Err(WeakPassword::Context);
    }
    let mut characters = lower.chars();
    let first = characters.next();
    if characters.all(|c| Some(c) == first) {
        return Err(WeakPassword::Repeated);
    }
    Ok(())
}

/// What is left of a text without digits and signs.
fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphabetic()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_are_refused_with_their_reason() {
        use WeakPassword::{Common, Context, Repeated, TooLong, TooShort};
        for (password, username, reason) in [
            ("", "alice", TooShort),
            ("1234567", "alice", TooShort),
            ("äää", "alice", TooShort),
            (&"x".repeat(257), "alice", TooLong),
            (&"ä".repeat(129), "alice", TooLong),
            ("password", "alice", Common),
            ("PassWord1", "alice", Common),
            ("1234567890", "alice", Common),
            ("qwertyuiop", "alice", Common),
            ("trustno1", "alice", Common),
            ("alice-2026!", "Alice", Context),
            ("ALICE1234567", "alice", Context),
            ("me@example.org", "me@example.org", Context),
            ("20261128", "20261128", Context),
            ("Alice&Alice", "alice", Context),
            ("todo-backend", "alice", Context),
            ("Todo!2026#", "alice", Context),
            ("P.a.s.s.w.o.r.d.9", "alice", Context),
            ("zzzzzzzzz", "alice", Repeated),
            ("        ", "alice", Repeated),
            ("ÄÄÄÄÄÄ", "alice", Repeated),
        ] {
            assert_eq!(check(password, username), Err(reason), "{password:?}");
        }
    }

    #[test]
    fn other_passwords_are_taken_whatever_they_consist_of() {
        for password in [
            "correct horse battery",
            "пароль-длинный",
            "🐎🔋",
            "alice likes todos",
            "94071823",
            "\u{0}\u{1}abc\n\tdef",
            &"xy".repeat(128),
        ] {
            assert_eq!(check(password, "alice"), Ok(()), "{password:?}");
        }
    }

    #[test]
    fn the_list_has_nothing_that_would_never_be_looked_up() {
        assert!(COMMON.len() > 10_000);
        for password in COMMON.iter() {
            assert!(password.len() >= MIN_LEN && password.to_lowercase() == *password, "{password:?}");
        }
    }
}
