//! Access tokens: signed JWTs (RFC 7519) with HMAC (RFC 7518, section 3.2). Pure: the time is passed in.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::domain::account::{Role, TokenEpoch, User, UserId};

/// How long after `exp` a token is still accepted: clocks differ a little (RFC 7519, section 4.1.4).
const EXPIRY_LEEWAY_SECONDS: i64 = 5;
/// How long before `iat` and `nbf` a token is already accepted: a machine that was asleep resumes with a clock that is
/// behind until it is set again.
const START_LEEWAY_SECONDS: i64 = 60;

/// What a token says. Times are NumericDates: seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The username, for people and for the original's clients.
    pub sub: String,
    /// When the token expires.
    pub exp: i64,
    /// When it was issued.
    pub iat: i64,
    /// The id of the account that the token is for; a username may change hands.
    pub uid: UserId,
    /// The account's role when the token was issued.
    pub role: Role,
    /// The epoch of the account's tokens when it was issued.
    pub epoch: TokenEpoch,
    /// Not valid before this time. We don't issue it, but honour it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
}

/// The token is not one of ours, or not valid now. Which of these is not disclosed.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidToken;

/// Issues and verifies tokens with one key and one algorithm.
pub struct Keys {
    header: Header,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    ttl: Duration,
}

impl Keys {
    /// The key, algorithm and lifetime of the settings.
    pub fn new(config: &Config) -> Self {
        Self::from_secret(config.secret_key.expose().as_bytes(), config.algorithm, config.access_token_ttl)
    }

    fn from_secret(secret: &[u8], algorithm: Algorithm, ttl: Duration) -> Self {
        super::hmac::install();
        // Only this algorithm, whatever a token's header says (RFC 8725, section 3.1).
        let mut validation = Validation::new(algorithm);
        // `verify` checks the times itself, against the time it is given.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        Self {
            header: Header::new(algorithm),
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
            ttl,
        }
    }

    /// How long a token is valid.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A token for `user`, valid from `now` (seconds since 1970).
    pub fn issue(&self, user: &User, now: i64) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims {
            sub: user.username.as_ref().to_owned(),
            exp: now.saturating_add_unsigned(self.ttl.as_secs()),
            iat: now,
            uid: user.id,
            role: user.role,
            epoch: user.token_epoch,
            nbf: None,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.encoding)
    }

    /// The claims of a token that is valid at `now` (seconds since 1970).
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, InvalidToken> {
        let decoded =
            jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).map_err(|_| InvalidToken)?;
        let claims = decoded.claims;
        // The issuer demands that an extension is understood, and we understand none (RFC 7515, section 4.1.11).
        if decoded.header.crit.is_some() {
            return Err(InvalidToken);
        }
        let starts = claims.iat.max(claims.nbf.unwrap_or(claims.iat));
        if now < claims.exp.saturating_add(EXPIRY_LEEWAY_SECONDS) && now >= starts.saturating_sub(START_LEEWAY_SECONDS)
        {
            Ok(claims)
        } else {
            Err(InvalidToken)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::AccountState;
    use crate::domain::clock::Timestamp;
    use serde_json::{Value, json};

    const NOW: i64 = 1_736_937_000;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn keys() -> Keys {
        Keys::from_secret(SECRET, Algorithm::HS256, Duration::from_secs(1800))
    }

    fn user() -> User {
        User {
            id: UserId(7),
            username: "admin".into(),
            password_hash: "".into(),
            role: Role::Admin,
            state: AccountState::Active,
            token_epoch: TokenEpoch(3),
            created_at: Timestamp(0),
            is_demo: false,
            deleted_by: None,
        }
    }

    fn signed(header: &Header, claims: &Value, secret: &[u8]) -> String {
        crate::auth::hmac::install();
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    fn hs256(claims: &Value) -> String {
        signed(&Header::new(Algorithm::HS256), claims, SECRET)
    }

    fn claims() -> Value {
        json!({"sub": "admin", "exp": NOW + 60, "iat": NOW, "uid": 7, "role": "admin", "epoch": 3})
    }

    fn with(name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        hs256(&claims)
    }

    fn without(name: &str) -> String {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        hs256(&claims)
    }

    #[test]
    fn an_issued_token_verifies_and_names_its_account() {
        let token = keys().issue(&user(), NOW).unwrap();
        let claims = keys().verify(&token, NOW).unwrap();
        assert_eq!((claims.sub.as_str(), claims.uid, claims.role), ("admin", UserId(7), Role::Admin));
        assert_eq!((claims.iat, claims.exp, claims.epoch), (NOW, NOW + 1800, TokenEpoch(3)));
    }

    #[test]
    fn every_allowed_algorithm_works_and_only_with_itself() {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let keys = Keys::from_secret(SECRET, algorithm, Duration::from_secs(60));
            let token = keys.issue(&user(), NOW).unwrap();
            assert!(keys.verify(&token, NOW).is_ok());
            for other in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let verified = Keys::from_secret(SECRET, other, Duration::from_secs(60)).verify(&token, NOW);
                assert_eq!(verified.is_ok(), other == algorithm);
            }
        }
    }

    #[test]
    fn a_clock_may_be_a_minute_behind_and_five_seconds_ahead() {
        for token in [hs256(&claims()), with("nbf", json!(NOW))] {
            let valid = |now| keys().verify(&token, now).is_ok();
            assert_eq!([NOW - 61, NOW - 60, NOW + 64, NOW + 65].map(valid), [false, true, true, false]);
        }
    }

    #[test]
    fn a_token_that_demands_an_extension_is_refused() {
        for demanded in [json!(["exp"]), json!(["b64"]), json!([]), json!(["https://example.org/unheard-of"])] {
            let mut header = Header::new(Algorithm::HS256);
            header.crit = serde_json::from_value(demanded.clone()).unwrap();
            assert_eq!(keys().verify(&signed(&header, &claims(), SECRET), NOW), Err(InvalidToken), "{demanded}");
        }
    }

    #[test]
    fn claims_that_others_add_are_ignored() {
        assert!(keys().verify(&with("jti", json!("x")), NOW).is_ok());
    }

    #[test]
    fn bad_tokens_are_invalid() {
        let good = hs256(&claims());
        let parts: Vec<&str> = good.split('.').collect();
        let [header, payload, signature] = parts[..] else { panic!("{good}") };
        let unsigned_header = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        let flipped = if signature.starts_with('A') { "B" } else { "A" }.to_owned() + &signature[1..];
        let other_payload =
            hs256(&json!({"sub": "user", "exp": NOW + 60, "iat": NOW, "uid": 8, "role": "admin", "epoch": 3}));
        let other_payload = other_payload.split('.').nth(1).unwrap();
        let bad = [
            ("empty", String::new()),
            ("one part", "abc".into()),
            ("two parts", format!("{header}.{payload}")),
            ("four parts", format!("{good}.x")),
            ("only dots", "..".into()),
            ("no base64", "a b.c d.e f".into()),
            ("not ASCII", "ä.ö.ü".into()),
            ("no signature", format!("{header}.{payload}.")),
            ("a signature cut short", good[..good.len() - 2].to_owned()),
            ("a changed signature", format!("{header}.{payload}.{flipped}")),
            ("another payload", format!("{header}.{other_payload}.{signature}")),
            ("alg none", format!("{unsigned_header}.{payload}.")),
            ("alg none with a signature", format!("{unsigned_header}.{payload}.{signature}")),
            ("another secret", signed(&Header::new(Algorithm::HS256), &claims(), b"another")),
            ("an empty secret", signed(&Header::new(Algorithm::HS256), &claims(), b"")),
            ("another algorithm", signed(&Header::new(Algorithm::HS512), &claims(), SECRET)),
            ("padding", format!("{good}=")),
            ("white space", format!(" {good}")),
            ("a payload that is not an object", hs256(&json!("admin"))),
            ("expired", with("exp", json!(NOW - 6))),
            ("exp as text", with("exp", json!((NOW + 60).to_string()))),
            ("exp negative", with("exp", json!(-1))),
            ("exp null", with("exp", Value::Null)),
            ("exp beyond i64", with("exp", json!(1e300))),
            ("no exp", without("exp")),
            ("no iat", without("iat")),
            ("issued in the future", with("iat", json!(NOW + 61))),
            ("not valid yet", with("nbf", json!(NOW + 61))),
            ("no sub", without("sub")),
            ("sub as number", with("sub", json!(7))),
            ("no uid: a token of the original", without("uid")),
            ("uid as text", with("uid", json!("7"))),
            ("no role", without("role")),
            ("an unknown role", with("role", json!("root"))),
            ("no epoch", without("epoch")),
            ("epoch as text", with("epoch", json!("3"))),
            ("epoch null", with("epoch", Value::Null)),
            ("for another audience", with("aud", json!("someone else"))),
            ("very long", format!("{header}.{}.{signature}", "A".repeat(100_000))),
        ];
        assert!(bad.len() >= 25);
        assert!(keys().verify(&good, NOW).is_ok());
        for (what, token) in bad {
            assert_eq!(keys().verify(&token, NOW), Err(InvalidToken), "{what}");
        }
    }
}
