//! What every route shares: methods with HEAD and a full `Allow`, bodies with a limit, and unknown paths.

use std::future::{Future, Ready, ready};
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::web::{self, Bytes, PayloadConfig};
use actix_web::{Error, FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, Route, guard};
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::error::ApiError;
use crate::connection;
use crate::domain::trace::{self, TraceParent};
use crate::domain::validation::{BodyError, is_json, is_one_of, parse_object};

/// Largest body that is read, in bytes, unless a route has its own limit.
pub const MAX_BODY_LEN: usize = 256 << 10;

/// Longest query that is read, in bytes.
pub const MAX_QUERY_LEN: usize = 8 << 10;

/// Longest pause between two pieces of a body that is read piece by piece.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A path and its methods. Other methods are answered 405, with an `Allow` of all it has; HEAD works where GET does.
pub struct Endpoint {
    resource: Resource,
    methods: Vec<Method>,
}

impl Endpoint {
    /// The endpoint at `path`.
    pub fn new(path: &str) -> Self {
        Self { resource: web::resource(path), methods: Vec::new() }
    }

    /// Adds the handler of GET and HEAD.
    pub fn get<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = Route::new().guard(guard::Any(guard::Get()).or(guard::Head())).to(handler);
        self.resource = self.resource.route(route);
        self.methods.extend([Method::GET, Method::HEAD]);
        self
    }

    /// Adds the handler of POST.
    pub fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.method(Method::POST, handler)
    }

    /// Adds the handler of PUT.
    pub fn put<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.method(Method::PUT, handler)
    }

    /// Adds the handler of PATCH.
    pub fn patch<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.method(Method::PATCH, handler)
    }

    /// Adds the handler of DELETE.
    pub fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.method(Method::DELETE, handler)
    }

    fn method<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.resource = self.resource.route(web::method(method.clone()).to(handler));
        self.methods.push(method);
        self
    }

    /// Accepts bodies of up to `bytes` instead of [`MAX_BODY_LEN`].
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.resource = self.resource.app_data(PayloadConfig::new(bytes)).app_data(BodyLimit(bytes));
        self
    }

    /// The finished endpoint, ready to be registered.
    pub fn build(self) -> Resource {
        let allow = self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        self.resource.default_service(web::to(move || {
            let allow = allow.clone();
            async move { Err::<HttpResponse, _>(ApiError::MethodNotAllowed { allow }) }
        }))
    }
}

/// Answers unknown paths: 404, or 307 to the path without its trailing slash if that exists. Redirects only GET and
/// HEAD: `DELETE /todos/`, with an empty id, must not become another request.
pub async fn unknown_path(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let path = request.path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() < path.len()
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && request.resource_map().has_resource(trimmed)
    {
        // Relative: a proxy may serve this under a prefix that it doesn't pass on. Not for more than one slash: clients
        // disagree about what is above an empty segment.
        let target = match (path.len() - trimmed.len(), trimmed.rsplit_once('/')) {
            (1, Some((_, last))) => format!("../{last}"),
            _ => trimmed.to_owned(),
        };
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let location = (header::LOCATION, format!("{target}{query}"));
        return Ok(HttpResponse::TemporaryRedirect().insert_header(location).finish());
    }
    Err(ApiError::NotFound)
}

/// Middleware: refuses a malformed `Host` (RFC 9112, section 3.2), which proxies and logs could each read differently, and
/// a query that is too long.
pub async fn valid_head(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    // HTTP/1.0 may omit it; actix itself refuses HTTP/1.1 without it.
    let error = if !request.headers().get(header::HOST).is_none_or(|host| is_host(host.as_bytes())) {
        ApiError::InvalidHost
    } else if request.query_string().len() > MAX_QUERY_LEN {
        ApiError::QueryTooLong { limit: MAX_QUERY_LEN }
    } else {
        return next.call(request).await.map(ServiceResponse::map_into_left_body);
    };
    Ok(request.error_response(error).map_into_right_body())
}

/// `uri-host [ ":" port ]` (RFC 9110, section 7.2; RFC 3986, section 3.2.2); empty where the target has no authority.
/// No `IPvFuture`: such addresses don't exist.
fn is_host(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let (is_good, port) = match value.strip_prefix('[').and_then(|value| value.split_once(']')) {
        Some((address, rest)) => match rest.strip_prefix(':') {
            None if !rest.is_empty() => return false,
            port => (address.parse::<Ipv6Addr>().is_ok(), port),
        },
        None => match value.split_once(':') {
            Some((name, port)) => (!name.is_empty() && is_name(name), Some(port)),
            None => (is_name(value), None),
        },
    };
    is_good && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A `reg-name`; IPv4 addresses have the same syntax.
fn is_name(name: &str) -> bool {
    let mut parts = name.split('%');
    let is_plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b));
    parts.next().is_none_or(is_plain)
        && parts.all(|part| match part.split_at_checked(2) {
            Some((encoded, rest)) => encoded.bytes().all(|b| b.is_ascii_hexdigit()) && is_plain(rest),
            None => false,
        })
}

/// A route's own limit, in bytes: [`PayloadConfig`] applies it, but does not expose it.
struct BodyLimit(usize);

/// A request's body, read up to the route's limit.
pub struct RawBody(pub Bytes);

/// A request's body, read piece by piece up to the route's limit.
pub struct StreamedBody {
    request: HttpRequest,
    payload: Payload,
    limit: usize,
    read: usize,
}

impl FromRequest for StreamedBody {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (limit, length) = (body_limit(request), request.headers().get(header::CONTENT_LENGTH));
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        ready(if length.is_some_and(|length| length > limit as u64) {
            Err(ApiError::PayloadTooLarge { limit })
        } else {
            Ok(Self { request: request.clone(), payload: payload.take(), limit, read: 0 })
        })
    }
}

impl StreamedBody {
    /// The `Content-Type` as it was sent, or an empty string.
    pub fn content_type(&self) -> &str {
        content_type(&self.request)
    }

    /// The next piece; none after the end. What is in memory meanwhile must not wait for hours for a client that is gone.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let piece = timeout(MAX_PAUSE, self.payload.next()).await.map_err(|_| ApiError::TooSlow)?;
        let Some(piece) = piece else { return Ok(None) };
        let piece = piece.map_err(|error| body_error(&self.request, Some(&error), self.limit))?;
        self.read += piece.len();
        if self.read > self.limit { Err(ApiError::PayloadTooLarge { limit: self.limit }) } else { Ok(Some(piece)) }
    }
}

/// A request's JSON object, read up to the route's limit. The handler reports what is wrong with it, together with what
/// else is wrong.
pub struct JsonBody(pub Result<Map<String, Value>, BodyError>);

impl FromRequest for JsonBody {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = is_json(content_type(request));
        let body = RawBody::from_request(request, payload);
        Box::pin(async move { Ok(Self(parse_object(&body.await?.0, is_json))) })
    }
}

/// A JSON Merge Patch (RFC 7396), read up to the route's limit. Any other kind of patch is refused, as RFC 5789 asks for.
pub struct MergePatch(pub Result<Map<String, Value>, BodyError>);

impl FromRequest for MergePatch {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_patch = is_one_of(content_type(request), &["application/merge-patch+json", "application/json"]);
        let body = RawBody::from_request(request, payload);
        Box::pin(async move {
            if is_patch { Ok(Self(parse_object(&body.await?.0, true))) } else { Err(ApiError::NotMergePatch) }
        })
    }
}

/// The `Content-Type` as it was sent, or an empty string.
pub fn content_type(request: &HttpRequest) -> &str {
    request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl FromRequest for RawBody {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let limit = body_limit(request);
        let body = Bytes::from_request(request, payload);
        let request = request.clone();
        Box::pin(async move { body.await.map(Self).map_err(|error| body_error(&request, error.as_error(), limit)) })
    }
}

/// The largest body that the request may have, in bytes.
fn body_limit(request: &HttpRequest) -> usize {
    request.app_data::<BodyLimit>().map_or(MAX_BODY_LEN, |limit| limit.0)
}

/// Why a body can't be read.
fn body_error(request: &HttpRequest, error: Option<&PayloadError>, limit: usize) -> ApiError {
    match error {
        Some(PayloadError::Overflow) => ApiError::PayloadTooLarge { limit },
        _ if connection::is_too_slow(request) => ApiError::TooSlow,
        _ => ApiError::UnreadableBody,
    }
}

/// The trace context of a request: the one it sent, or a new one.
impl FromRequest for TraceParent {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let sent = request.headers().get(trace::HEADER).and_then(|value| value.to_str().ok());
        ready(Ok(sent.and_then(Self::parse).unwrap_or_else(Self::random)))
    }
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for good in [
            "",
            "localhost",
            "localhost:8000",
            "a.b-c_d:1",
            "[::1]",
            "[::1]:8000",
            "10.0.0.1:80",
            "a:",
            "a%41b%2e",
            "a_b",
        ] {
            assert!(is_host(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "a b@c", "a@b", "a b", "a/b", "a:b", "a:1:2", "[::1", "::1", "a\tb", "\u{e4}", "http://a", "[zz]", "[]",
            "[::1]x", "[::1]:x", ":80", ":", "a%4", "a%4g", "%", "a\"b", "a\\b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_host(b"\xff"));
    }
}
