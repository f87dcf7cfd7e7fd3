//! Access tokens: signed JWTs (RFC 7519) with HMAC (RFC 7518, section 3.2). Pure: the time is passed in.

use std::collections::HashMap;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::config::{Config, SigningKeys};
use crate::domain::account::{Role, TokenEpoch, User, UserId};
use crate::domain::change::Epoch;
use crate::domain::session::SessionId;

/// How long after `exp` a token is still accepted: clocks differ a little (RFC 7519, section 4.1.4).
const EXPIRY_LEEWAY_SECONDS: i64 = 5;
/// How long before `iat` and `nbf` a token is already accepted: a machine that was asleep resumes with a clock that is
/// behind until it is set again.
const START_LEEWAY_SECONDS: i64 = 60;

/// Who issued a token is this and the epoch of the database: after a backup is restored, tokens are not valid any more.
const ISSUER_PREFIX: &str = "todo-backend/";
/// Whom tokens are for.
const AUDIENCE: &str = "todo-backend";
/// The longest token that is looked at, in bytes: ours have a tenth of that.
const MAX_LEN: usize = 4096;

/// What a token says. Times are NumericDates: seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The username, for people and for the original's clients.
    pub sub: String,
    /// When the token expires.
    pub exp: i64,
    /// When it was issued.
    pub iat: i64,
    /// By whom.
    pub iss: String,
    /// For whom.
    pub aud: String,
    /// The id of the account that the token is for; a username may change hands.
    pub uid: UserId,
    /// The account's role when the token was issued.
    pub role: Role,
    /// The epoch of the account's tokens when it was issued.
    pub epoch: TokenEpoch,
    /// The session that it belongs to; none after a login without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<SessionId>,
    /// Not valid before this time. We don't issue it, but honour it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
}

/// The token is not one of ours, or not valid now. Which of these is not disclosed.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidToken;

/// Issues and verifies tokens, with one algorithm: the first key signs, all verify.
pub struct Keys {
    header: Header,
    encoding: EncodingKey,
    /// By the `kid` of a token's header; the key without a name is for tokens without one.
    decoding: HashMap<Option<String>, DecodingKey>,
    validation: Validation,
    issuer: String,
    ttl: Duration,
}

impl Keys {
    /// The keys, algorithm and lifetime of the settings, for tokens of the database with this epoch.
    pub fn new(config: &Config, epoch: Epoch) -> Self {
        Self::from_keys(&config.signing_keys, epoch, config.algorithm, config.access_token_ttl)
    }

    fn from_keys(keys: &SigningKeys, epoch: Epoch, algorithm: Algorithm, ttl: Duration) -> Self {
        super::hmac::install();
        // Only this algorithm, whatever a token's header says (RFC 8725, section 3.1).
        let mut validation = Validation::new(algorithm);
        // `verify` checks the claims itself: the times against the time it is given, and that all are there.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoding = keys.all().map(|key| (key.id.clone(), DecodingKey::from_secret(key.expose())));
        Self {
            header: Header { kid: keys.first.id.clone(), ..Header::new(algorithm) },
            encoding: EncodingKey::from_secret(keys.first.expose()),
            decoding: decoding.collect(),
            validation,
            issuer: format!("{ISSUER_PREFIX}{epoch}"),
            ttl,
        }
    }

    /// How long a token is valid.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// A token for `user`, valid from `now` (seconds since 1970), and only as long as its session is.
    pub fn issue(
        &self,
        user: &User,
        session: Option<SessionId>,
        now: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims {
            sub: user.username.as_ref().to_owned(),
            exp: now.saturating_add_unsigned(self.ttl.as_secs()),
            iat: now,
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            uid: user.id,
            role: user.role,
            epoch: user.token_epoch,
            sid: session,
            nbf: None,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.encoding)
    }

    /// The claims of a token that is valid at `now` (seconds since 1970).
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, InvalidToken> {
        if token.len() > MAX_LEN {
            return Err(InvalidToken);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken)?;
        // The issuer demands that an extension is understood, and we understand none (RFC 7515, section 4.1.11), or
        // brings a key along: only our own count.
        if header.crit.is_some()
            || header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
            || header.x5t.is_some()
            || header.x5t_s256.is_some()
        {
            return Err(InvalidToken);
        }
        let key = self.decoding.get(&header.kid).ok_or(InvalidToken)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|_| InvalidToken)?.claims;
        let starts = claims.iat.max(claims.nbf.unwrap_or(claims.iat));
        let is_valid = claims.iss == self.issuer
            && claims.aud == AUDIENCE
            && now < claims.exp.saturating_add(EXPIRY_LEEWAY_SECONDS)
            && now >= starts.saturating_sub(START_LEEWAY_SECONDS);
        if is_valid { Ok(claims) } else { Err(InvalidToken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SigningKey;
    use crate::domain::account::AccountState;
    use crate::domain::clock::Timestamp;
    use serde_json::{Value, json};

    const NOW: i64 = 1_736_937_000;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    const EPOCH: Epoch = Epoch(0x1f);

    fn keys() -> Keys {
        keys_of(&SigningKeys::only(SECRET), Algorithm::HS256)
    }

    fn keys_of(keys: &SigningKeys, algorithm: Algorithm) -> Keys {
        Keys::from_keys(keys, EPOCH, algorithm, Duration::from_secs(1800))
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
        json!({
            "sub": "admin", "exp": NOW + 60, "iat": NOW, "iss": "todo-backend/000000000000001f", "aud": "todo-backend",
            "uid": 7, "role": "admin", "epoch": 3,
        })
    }

    /// A good token but for its header.
    fn in_header(change: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(Algorithm::HS256);
        change(&mut header);
        signed(&header, &claims(), SECRET)
    }

    fn jwk() -> Value {
        json!({"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"})
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
        let token = keys().issue(&user(), Some(SessionId(5)), NOW).unwrap();
        let claims = keys().verify(&token, NOW).unwrap();
        assert_eq!(claims.sid, Some(SessionId(5)));
        assert_eq!((claims.sub.as_str(), claims.uid, claims.role), ("admin", UserId(7), Role::Admin));
        assert_eq!((claims.iat, claims.exp, claims.epoch), (NOW, NOW + 1800, TokenEpoch(3)));
    }

    #[test]
    fn every_allowed_algorithm_works_and_only_with_itself() {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let keys = keys_of(&SigningKeys::only(SECRET), algorithm);
            let token = keys.issue(&user(), None, NOW).unwrap();
            assert!(keys.verify(&token, NOW).is_ok());
            for other in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let verified = keys_of(&SigningKeys::only(SECRET), other).verify(&token, NOW);
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
    fn the_first_key_signs_and_all_verify_by_their_names() {
        let key = |id: Option<&str>, secret: &[u8]| SigningKey::new(id.map(str::to_owned), secret);
        let before = SigningKeys { first: key(None, b"old"), others: vec![] };
        let between = SigningKeys { first: key(Some("new"), b"new"), others: vec![key(None, b"old")] };
        let after = SigningKeys { first: key(Some("new"), b"new"), others: vec![] };
        let [before, between, after] = [before, between, after].map(|keys| keys_of(&keys, Algorithm::HS256));
        let [old, new] = [&before, &between].map(|keys| keys.issue(&user(), None, NOW).unwrap());
        let valid = |token: &str| [&before, &between, &after].map(|keys| keys.verify(token, NOW).is_ok());
        assert_eq!(valid(&old), [true, true, false]);
        assert_eq!(valid(&new), [false, true, true]);
        // A name counts only for its own key.
        let stolen = Header { kid: Some("new".into()), ..Header::new(Algorithm::HS256) };
        assert_eq!(valid(&signed(&stolen, &claims(), b"old")), [false; 3]);
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
            ("for several audiences", with("aud", json!(["todo-backend", "someone else"]))),
            ("no audience", without("aud")),
            ("of another issuer", with("iss", json!("todo-backend"))),
            ("of the database before a restored backup", with("iss", json!("todo-backend/000000000000001e"))),
            ("no issuer", without("iss")),
            ("sid as text", with("sid", json!("5"))),
            ("a key of its own", in_header(|header| header.jwk = serde_json::from_value(jwk()).unwrap())),
            ("a place of keys", in_header(|header| header.jku = Some("https://example.org/keys".into()))),
            ("a place of a certificate", in_header(|header| header.x5u = Some("https://example.org/x5".into()))),
            ("a certificate", in_header(|header| header.x5c = Some(vec!["AAAA".into()]))),
            ("a certificate's hash", in_header(|header| header.x5t = Some("AAAA".into()))),
            ("the name of a key", in_header(|header| header.kid = Some("old".into()))),
            ("the empty name of a key", in_header(|header| header.kid = Some(String::new()))),
            ("longer than 4 KiB", with("note", json!("x".repeat(4000)))),
            ("very long", format!("{header}.{}.{signature}", "A".repeat(100_000))),
        ];
        assert!(bad.len() >= 50, "{}", bad.len());
        assert!(keys().verify(&good, NOW).is_ok());
        for (what, token) in bad {
            assert_eq!(keys().verify(&token, NOW), Err(InvalidToken), "{what}");
        }
    }
}
