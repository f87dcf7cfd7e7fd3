//! Refresh tokens and personal access tokens: opaque, stored only as hashes.
//!
//! Refresh tokens of a session form a chain: the first is random, and each one's successor is its HMAC under the session's
//! key. So a lost answer can be given again without storing what was in it, and a used token shows by how many steps it
//! lies behind. All of them carry the same mark of their session, so that one from long ago is told from a guess.

use std::fmt;

use ring::{digest, hmac};

use subtle::ConstantTimeEq;

use crate::domain::session::{SessionId, SessionKey, TokenHash};

/// What refresh tokens begin with.
const REFRESH_PREFIX: &str = "tdr_";
/// What personal access tokens begin with.
const PERSONAL_PREFIX: &str = "tdb_";
/// How far back it is known how long ago a token was used.
pub const MAX_STEPS: usize = 16;
/// What a session's mark is the HMAC of.
const MARK: &[u8] = b"todo-backend: the mark of a session's refresh tokens";
/// The length of a mark, in bytes.
const MARK_LEN: usize = 16;

/// A refresh token: its session, the session's mark, and 256 bits that nobody can guess.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session that it belongs to.
    pub session: SessionId,
    mark: [u8; MARK_LEN],
    secret: [u8; 32],
}

impl RefreshToken {
    /// The first token of a session.
    pub fn first(session: SessionId, key: &SessionKey, secret: [u8; 32]) -> Self {
        Self { session, mark: mark(key), secret }
    }

    /// Reads a token; `None` if it is not written as ours are.
    pub fn parse(text: &str) -> Option<Self> {
        let (session, rest) = text.strip_prefix(REFRESH_PREFIX)?.split_once('_')?;
        let (mark, secret) = rest.split_at_checked(2 * MARK_LEN)?;
        let session = SessionId(session.parse().ok()?);
        let token = Self { session, mark: parse_hex(mark)?, secret: parse_hex(secret)? };
        // A number can be written in several ways; only ours counts.
        (token.to_string() == text).then_some(token)
    }

    /// The token that it is replaced by.
    #[must_use]
    pub fn successor(&self, key: &SessionKey) -> Self {
        Self { secret: sign(key, &self.secret), ..self.clone() }
    }

    /// Whether it is, or was, one of the session with this key. What isn't is a guess.
    pub fn belongs_to(&self, key: &SessionKey) -> bool {
        self.mark.ct_eq(&mark(key)).into()
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        hash(&self.secret)
    }

    /// How many successors lie between it and the latest token; 0: it is the latest. `None`: more than [`MAX_STEPS`], or
    /// it was never one of this session's.
    pub fn steps_to(&self, latest: &TokenHash, key: &SessionKey) -> Option<usize> {
        let mut token = self.clone();
        for steps in 0..=MAX_STEPS {
            if token.hash() == *latest {
                return Some(steps);
            }
            token = token.successor(key);
        }
        None
    }
}

/// Without the secret.
impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshToken({})", self.session)
    }
}

impl fmt::Display for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REFRESH_PREFIX}{}_{}{}", self.session, Hex(&self.mark), Hex(&self.secret))
    }
}

/// A personal access token's secret.
pub struct PersonalSecret([u8; 32]);

impl PersonalSecret {
    /// A token with these 256 random bits.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Reads a token; `None` if it is not written as ours are.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(parse_hex(text.strip_prefix(PERSONAL_PREFIX)?)?))
    }

    /// What is stored of it.
    pub fn hash(&self) -> TokenHash {
        hash(&self.0)
    }
}

impl fmt::Display for PersonalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PERSONAL_PREFIX}{}", Hex(&self.0))
    }
}

/// A plain hash: nobody can try all values of 256 random bits.
fn hash(secret: &[u8; 32]) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
    hash
}

fn sign(key: &SessionKey, message: &[u8]) -> [u8; 32] {
    let mut signature = [0; 32];
    signature.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.0), message).as_ref());
    signature
}

fn mark(key: &SessionKey) -> [u8; MARK_LEN] {
    let mut mark = [0; MARK_LEN];
    mark.copy_from_slice(&sign(key, MARK)[..MARK_LEN]);
    mark
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// Bytes as hex digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_only_as_they_are_written() {
        let token = RefreshToken { session: SessionId(7), mark: [0xcd; 16], secret: [0xab; 32] };
        let text = token.to_string();
        assert_eq!(text, format!("tdr_7_{}{}", "cd".repeat(16), "ab".repeat(32)));
        assert!(RefreshToken::parse(&text).is_some_and(|parsed| parsed == token));
        let personal = PersonalSecret::new([0x0f; 32]);
        assert_eq!(PersonalSecret::parse(&personal.to_string()).unwrap().hash(), personal.hash());
        let secret = format!("{}{}", "cd".repeat(16), "ab".repeat(32));
        for bad in [
            "",
            "tdr_",
            "tdr_7",
            "tdr_7_",
            &format!("tdr_07_{secret}"),
            &format!("tdr_+7_{secret}"),
            &format!("tdr__{secret}"),
            &format!("tdr_7_{}", secret.to_uppercase()),
            &format!("tdr_7_{secret}0"),
            &format!("tdr_7_{}", &secret[1..]),
            &format!("tdr_7_{secret} "),
            &format!("tdb_{secret}"),
            &format!("tdr_99999999999999999999_{secret}"),
            &format!("tdr_7_{}", "é".repeat(48)),
            &format!("tdr_7_{}", "ab".repeat(32)),
        ] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad:?}");
        }
        let secret = "ab".repeat(32);
        for bad in ["", "tdb_", &text, &format!("tdb_{}", &secret[2..]), &format!("tdb_{}g", &secret[1..])] {
            assert!(PersonalSecret::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_used_token_shows_how_far_it_lies_behind() {
        let key = SessionKey([1; 32]);
        let first = RefreshToken::first(SessionId(1), &key, [2; 32]);
        let mut latest = first.clone();
        for steps in 0..=MAX_STEPS {
            assert_eq!(first.steps_to(&latest.hash(), &key), Some(steps));
            assert_eq!(latest.steps_to(&latest.hash(), &key), Some(0));
            latest = latest.successor(&key);
        }
        assert_eq!(first.steps_to(&latest.hash(), &key), None, "long ago");
        assert_eq!(latest.steps_to(&first.hash(), &key), None, "never the other way round");
        assert_eq!(first.steps_to(&first.successor(&SessionKey([9; 32])).hash(), &key), None, "another key");
        assert_eq!(RefreshToken::first(SessionId(1), &key, [3; 32]).steps_to(&latest.hash(), &key), None, "another");
        assert!(first.belongs_to(&key) && latest.belongs_to(&key), "however long ago");
        assert!(!first.belongs_to(&SessionKey([9; 32])));
    }
}
