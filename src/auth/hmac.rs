//! HMAC for tokens (RFC 7518, section 3.2) with ring: the provider of cryptography that `jsonwebtoken` asks for.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use ring::hmac;

/// Signs and verifies with HS256, HS384 and HS512, and nothing else. It has no functions for keys in JSON (JWK): they
/// are never read, not even if a token contains one.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key: &EncodingKey| {
        only_secrets(key.family())?;
        Ok(Box::new(Hmac::new(*algorithm, key.as_bytes())?))
    },
    verifier_factory: |algorithm, key: &DecodingKey| {
        only_secrets(key.family())?;
        Ok(Box::new(Hmac::new(*algorithm, key.try_get_as_bytes()?)?))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Installs it as the provider of this process.
pub fn install() {
    // An error if it is installed already.
    let _ = PROVIDER.install_default();
}

/// `jsonwebtoken` leaves this check to its providers: without it, a public key would serve as a secret that everybody
/// knows (RFC 8725, section 2.1).
fn only_secrets(family: AlgorithmFamily) -> Result<(), Error> {
    if family == AlgorithmFamily::Hmac { Ok(()) } else { Err(ErrorKind::InvalidKeyFormat.into()) }
}

struct Hmac {
    algorithm: Algorithm,
    key: hmac::Key,
}

impl Hmac {
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, Error> {
        let hash = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return Err(ErrorKind::InvalidAlgorithm.into()),
        };
        Ok(Self { algorithm, key: hmac::Key::new(hash, key) })
    }
}

impl Signer<Vec<u8>> for Hmac {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.key, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hmac {
    /// Compares in constant time.
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        hmac::verify(&self.key, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for Hmac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtVerifier for Hmac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Header, Validation};

    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn signatures_are_those_of_the_rfc_and_only_those_verify() {
        let (key, message) = (b"Jefe", b"what do ya want for nothing?");
        for (algorithm, expected) in [
            (Algorithm::HS256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Algorithm::HS384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Algorithm::HS512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ] {
            let hmac = Hmac::new(algorithm, key).unwrap();
            let mut signature = hmac.sign(message);
            assert_eq!(signature.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
            assert!(hmac.verify(message, &signature).is_ok());
            assert!(hmac.verify(&message[1..], &signature).is_err());
            signature[7] ^= 1;
            assert!(hmac.verify(message, &signature).is_err());
            assert!(hmac.verify(message, &Vec::new()).is_err());
        }
        assert!(Hmac::new(Algorithm::RS256, key).is_err());
    }

    #[test]
    fn a_key_of_another_family_never_becomes_an_hmac_secret() {
        install();
        let public = b"a public key, which everybody knows";
        let claims = serde_json::json!({ "exp": i64::MAX });
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(public));
        let forged = forged.unwrap();
        let decode = |key| {
            jsonwebtoken::decode::<serde_json::Value>(&forged, &key, &Validation::new(Algorithm::HS256)).map(|_| ())
        };
        assert!(decode(DecodingKey::from_secret(public)).is_ok());
        for key in
            [DecodingKey::from_ec_der(public), DecodingKey::from_ed_der(public), DecodingKey::from_rsa_der(public)]
        {
            assert_eq!(decode(key).unwrap_err().kind(), &ErrorKind::InvalidKeyFormat);
        }
    }
}
