//! The one client of the Dapr sidecar's HTTP API (<https://docs.dapr.io/reference/api/pubsub_api/>).

use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use serde::Deserialize;

use super::event;
use crate::config::{Config, Secret};
use crate::domain::change::Change;
use crate::domain::trace;

/// How long one publish may take. A frozen broker was seen to hold one for 181 s.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request about the sidecar's state may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an error body is read and logged, in bytes.
const MAX_ERROR_BODY: usize = 300;

/// The outcome of an attempt to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 204: stored in Kafka.
    Stored,
    /// The sidecar refused this event: it is not stored, and may never be.
    Refused(String),
    /// Refused for a reason that is not in this event: no sidecar, a wrong token, an unknown component. Not stored.
    Unavailable(String),
    /// No answer in time. It may be stored.
    Unknown(String),
}

impl Outcome {
    /// The label in the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// The client of the sidecar. Clones share their connections.
#[derive(Clone)]
pub struct DaprClient {
    http: Client,
    sidecar_url: String,
    publish_url: String,
    token: Option<Secret>,
}

/// The parts of `/v1.0/metadata` that are used (<https://docs.dapr.io/reference/api/metadata_api/>).
#[derive(Debug, Default, Deserialize)]
pub struct Metadata {
    /// The application's id, which is also the default consumer group.
    #[serde(default)]
    pub id: String,
    /// The components that were loaded.
    #[serde(default)]
    pub components: Vec<Component>,
    /// The topics that are delivered to the application.
    #[serde(default)]
    pub subscriptions: Vec<Subscription>,
}

/// A loaded component.
#[derive(Debug, Deserialize)]
pub struct Component {
    /// Its name, such as `kafka-pubsub`.
    pub name: String,
}

/// A subscription of the application.
#[derive(Debug, Deserialize)]
pub struct Subscription {
    /// The component that delivers.
    #[serde(default, alias = "pubsubName")]
    pub pubsubname: String,
    /// The topic that is delivered.
    pub topic: String,
}

/// The HTTP client can't be created, for example on a machine without any root certificate.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for the sidecar can't be created: {}", root_cause(.0))]
pub struct ClientError(#[source] reqwest::Error);

/// Builds a client that ignores HTTP_PROXY, which would capture calls to the sidecar, and can speak TLS.
pub fn http_client() -> reqwest::ClientBuilder {
    // An error if it is installed already. reqwest is built without one: the provider that it prefers takes
    // a third of the first build.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy()
}

impl DaprClient {
    /// A client for the sidecar that the settings name.
    pub fn new(config: &Config) -> Result<Self, ClientError> {
        // No redirects: the sidecar never sends any.
        let http = http_client()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(PROBE_TIMEOUT)
            .build()
            .map_err(ClientError)?;
        let sidecar_url = config.sidecar_url.clone();
        let publish_url = format!("{sidecar_url}/v1.0/publish/{}/{}", config.pubsub, config.topic);
        Ok(Self { http, sidecar_url, publish_url, token: config.dapr_api_token.clone() })
    }

    /// The sidecar's address.
    pub fn sidecar_url(&self) -> &str {
        &self.sidecar_url
    }

    /// Publishes one change.
    pub async fn publish(&self, change: &Change) -> Outcome {
        let body = match event::to_json(change) {
            Ok(body) => body,
            Err(error) => return Outcome::Refused(format!("the event can't be written as JSON: {error}")),
        };
        let url = format!("{}?metadata.partitionKey={}", self.publish_url, event::partition_key(change));
        let request = self
            .with_token(self.http.post(url))
            .timeout(PUBLISH_TIMEOUT)
            .header(header::CONTENT_TYPE, "application/cloudevents+json")
            .header(trace::HEADER, change.trace.as_str())
            .body(body);
        match request.send().await {
            Ok(response) if response.status() == StatusCode::NO_CONTENT => Outcome::Stored,
            Ok(response) => refusal(response).await,
            Err(error) if error.is_connect() => Outcome::Unavailable(root_cause(&error)),
            Err(error) => Outcome::Unknown(root_cause(&error)),
        }
    }

    /// Asks for the sidecar's outbound health: whether it can publish. (`/v1.0/healthz` would wait for this service's
    /// port.)
    pub async fn ready(&self) -> Result<(), String> {
        let url = format!("{}/v1.0/healthz/outbound", self.sidecar_url);
        match self.http.get(url).timeout(PROBE_TIMEOUT).send().await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("its health is {}", response.status())),
            Err(error) => Err(root_cause(&error)),
        }
    }

    /// Asks what the sidecar has loaded.
    pub async fn metadata(&self) -> Result<Metadata, String> {
        let url = format!("{}/v1.0/metadata", self.sidecar_url);
        let request = self.with_token(self.http.get(url)).timeout(PROBE_TIMEOUT);
        let response = request.send().await.map_err(|error| root_cause(&error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(explain(status, &excerpt(response).await));
        }
        let body = response.bytes().await.map_err(|error| root_cause(&error))?;
        serde_json::from_slice(&body).map_err(|error| format!("its metadata can't be read: {error}"))
    }

    fn with_token(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.header("dapr-api-token", token.expose()),
            None => request,
        }
    }
}

/// Classifies an answer other than 204 (docs/operations.md lists daprd's).
async fn refusal(response: reqwest::Response) -> Outcome {
    let status = response.status();
    let why = explain(status, &excerpt(response).await);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::Unavailable(why)
        }
        _ => Outcome::Refused(why),
    }
}

fn explain(status: StatusCode, body: &str) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED => "set DAPR_API_TOKEN to the token that the sidecar was started with; ",
        StatusCode::FORBIDDEN => "the component's scopes or allowed topics leave this topic out; ",
        StatusCode::NOT_FOUND => {
            "the sidecar has no such pub/sub component: check --resources-path and DAPR_PUBSUB_NAME; "
        }
        _ => "",
    };
    format!("{hint}the sidecar answered {status}: {body}")
}

/// The beginning of an answer's body.
async fn excerpt(mut response: reqwest::Response) -> String {
    let mut body = Vec::new();
    while body.len() < MAX_ERROR_BODY {
        match tokio::time::timeout(PROBE_TIMEOUT, response.chunk()).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    body.truncate(MAX_ERROR_BODY);
    String::from_utf8_lossy(&body).trim().to_owned()
}

/// The innermost error, which names the cause: `Connection refused (os error 111)`.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
