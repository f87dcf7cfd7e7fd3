//! Requests that change todos, and how they can be sent twice: with an `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header-07).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use futures_util::future::LocalBoxFuture;
use ring::digest::{Context as Digest, SHA256};
use serde_json::{Map, Value};

use super::answer;
use crate::api::error::ApiError;
use crate::api::large_lists::LargeList;
use crate::api::state::AppState;
use crate::api::user::AuthUser;
use crate::domain::account::User;
use crate::domain::change::Epoch;
use crate::domain::trace::TraceParent;
use crate::domain::validation::ValidationError;
use crate::store::idempotency::{Answered, Fingerprint, Idempotency, KeptAnswer};
use crate::store::outcome::Applied;
use crate::store::{Command, Commands, Context};

/// The client's name for a request that it may send again.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// Longest key, in characters.
const MAX_KEY_LEN: usize = 255;

/// A request that changes todos.
pub struct Mutation {
    /// The shared state.
    pub state: web::Data<AppState>,
    caller: AuthUser,
    trace: TraceParent,
    method: Method,
    query: String,
    key: Option<Arc<str>>,
    is_batch: bool,
    /// What a large answer counts as.
    large: Option<LargeList>,
}

impl FromRequest for Mutation {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (caller, trace) = (AuthUser::from_request(request, payload), TraceParent::from_request(request, payload));
        let request = request.clone();
        Box::pin(async move {
            let caller = caller.await?;
            Ok(Self {
                state: web::Data::clone(AppState::shared(&request)?),
                caller,
                trace: trace.await?,
                method: request.method().clone(),
                query: request.query_string().to_owned(),
                key: key(request.headers())?,
                is_batch: false,
                large: None,
            })
        })
    }
}

/// The identity of a request that can be repeated; none if it has no key.
pub struct Identity(Option<(Arc<str>, Fingerprint)>);

impl Mutation {
    /// The epoch that the versions belong to.
    pub fn epoch(&self) -> Epoch {
        self.state.store.epoch()
    }

    /// Its commands are one for the client: see [`Commands::is_batch`]. The answer can be much larger than the request, so
    /// it counts as a large list from now on: later it can't be refused any more.
    pub fn batch(self) -> Result<Self, ApiError> {
        let large = self.state.lists.begin(self.caller.user.id).ok_or(ApiError::TooManyLists)?;
        Ok(Self { is_batch: true, large: Some(large), ..self })
    }

    /// What makes it the same request as another one: `path`, which is the same at the root and under `/v1`, and its body.
    pub fn identity(&self, path: &str, body: Option<&Map<String, Value>>) -> Identity {
        Identity(self.key.as_ref().map(|key| {
            let mut content = self.content(path);
            body.into_iter().for_each(|body| content.add(&mut Value::Object(body.clone())));
            self.named(path, key, content.fingerprint())
        }))
    }

    /// The same for a part of a request that is made in several commits, in the order of their numbers: so many `items` of
    /// it. `content`: of the whole request.
    pub fn identity_of_part(&self, path: &str, part: usize, items: Range<usize>, content: &Content) -> Identity {
        let mut content = content.clone();
        // A version that makes other parts must not take this one for its own.
        content.add_text(&format!("{items:?}"));
        let named = |key: &Arc<str>| self.named(&format!("{path}/{part}"), key, content.fingerprint());
        Identity(self.key.as_ref().map(named))
    }

    /// What makes the request the same as another one, but for its body.
    pub fn content(&self, path: &str) -> Content {
        let mut content = Content(self.key.as_ref().map(|_| Digest::new(&SHA256)));
        content.add_text(self.method.as_str());
        content.add_text(path);
        // However it is encoded.
        let query: Vec<(String, String)> = serde_urlencoded::from_str(&self.query).unwrap_or_default();
        query.iter().flat_map(|(name, value)| [name, value]).for_each(|text| content.add_text(text));
        content.add_text("");
        content
    }

    fn named(&self, path: &str, key: &str, fingerprint: Fingerprint) -> (Arc<str>, Fingerprint) {
        (format!("{} {path} {key}", self.method).into(), fingerprint)
    }

    /// Applies the commands, or finds out what was answered when the request came first.
    pub async fn apply(
        self,
        identity: Identity,
        commands: Vec<Command>,
        render: impl Render,
    ) -> Result<HttpResponse, ApiError> {
        let (answer, applied) = self.commit(identity, commands, 0, render).await?;
        if let Some(applied) = &applied {
            super::log_changes(applied, &self.user().username);
        }
        self.send(answer, applied.is_none())
    }

    /// The same, for one of several commits. The answer, and what was done, unless that was before. `room`: see
    /// [`Commands::room`].
    pub async fn commit(
        &self,
        identity: Identity,
        commands: Vec<Command>,
        room: usize,
        render: impl Render,
    ) -> Result<(Arc<KeptAnswer>, Option<Applied>), ApiError> {
        let epoch = self.epoch();
        let idempotency = identity.0.zip(self.key.clone()).map(|((request, fingerprint), key)| {
            let render = render.clone();
            Idempotency { request, key, fingerprint, answer: Box::new(move |applied| render(epoch, applied)) }
        });
        let AuthUser { user, authority, .. } = &self.caller;
        let context = Context::of(user, *authority, self.trace.clone());
        let commands = Commands { commands, is_batch: self.is_batch, room, idempotency };
        Ok(match self.state.store.apply(context, commands).await? {
            Answered::Applied(applied, kept) => {
                let answer = kept.map_or_else(|| render(epoch, &applied).map(Arc::new), Ok);
                let answer = answer.map_err(|error| ApiError::internal("an answer can't be written", error))?;
                (answer, Some(applied))
            }
            Answered::Repeated(answer) => (answer, None),
        })
    }

    /// Sends an answer; `repeated`: it was given before.
    pub fn send(self, answer: Arc<KeptAnswer>, repeated: bool) -> Result<HttpResponse, ApiError> {
        answer::send(Arc::unwrap_or_clone(answer), repeated, self.large)
    }

    /// Whose todos they are.
    pub fn user(&self) -> &User {
        &self.caller.user
    }
}

/// Writes the answer to what was applied.
pub trait Render: Fn(Epoch, &Applied) -> serde_json::Result<KeptAnswer> + Clone + Send + 'static {}

impl<F: Fn(Epoch, &Applied) -> serde_json::Result<KeptAnswer> + Clone + Send + 'static> Render for F {}

/// What is in a request, as far as it makes a difference; only if it can be repeated.
#[derive(Clone)]
pub struct Content(Option<Digest>);

impl Content {
    /// Adds a body, or a part of one. Neither white space nor the order of keys makes a difference: they are sorted.
    pub fn add(&mut self, body: &mut Value) {
        if let Some(digest) = &mut self.0 {
            body.sort_all_objects();
            // Nothing of it fails.
            let _ = serde_json::to_writer(Hashed(digest), body);
        }
        self.add_text("");
    }

    fn add_text(&mut self, text: &str) {
        if let Some(digest) = &mut self.0 {
            digest.update(&text.len().to_be_bytes());
            digest.update(text.as_bytes());
        }
    }

    fn fingerprint(self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        if let Some(digest) = self.0 {
            fingerprint.copy_from_slice(digest.finish().as_ref());
        }
        fingerprint
    }
}

/// Takes in what is written to it.
struct Hashed<'a>(&'a mut Digest);

impl io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The key of a request, if it has one. The draft's syntax is a string in quotes; `"k"` and `k` are the same key.
fn key(headers: &HeaderMap) -> Result<Option<Arc<str>>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|_| values.next().is_none()).and_then(parse_key);
    match key {
        Some(key) => Ok(Some(key.into())),
        None => {
            let msg = format!("Should be sent once, with 1 to {MAX_KEY_LEN} printable ASCII characters");
            let input = String::from_utf8_lossy(value.as_bytes()).into_owned();
            Err(vec![ValidationError::new("value_error", &["header", IDEMPOTENCY_KEY], msg, input)].into())
        }
    }
}

fn parse_key(value: &str) -> Option<String> {
    let key = match value.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => value.to_owned(),
    };
    let is_printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    ((1..=MAX_KEY_LEN).contains(&key.len()) && is_printable).then_some(key)
}

/// The string that ends with the last quote (RFC 9651, section 3.3.3).
fn unquote(quoted: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(text),
            '\\' => text.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        let longest = "x".repeat(255);
        for (sent, key) in [
            ("k", "k"),
            ("\"k\"", "k"),
            (r#""a \"b\" \\""#, r#"a "b" \"#),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("a b,c", "a b,c"),
            (&longest, &longest),
            (&format!("\"{longest}\""), &longest),
        ] {
            assert_eq!(parse_key(sent).as_deref(), Some(key), "{sent}");
        }
    }

    #[test]
    fn a_malformed_key_is_none() {
        for bad in ["", "\"\"", "\"k", "\"k\";a=1", "\"k\", \"l\"", "\"a\\b\"", "a\tb", "\u{e4}", &"x".repeat(256)] {
            assert_eq!(parse_key(bad), None, "{bad}");
        }
    }
}
