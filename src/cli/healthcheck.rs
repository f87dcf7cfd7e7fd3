//! Asks a running service whether it is ready: a container's HEALTHCHECK without curl in the image.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::StatusCode;
use thiserror::Error;

use crate::config::{Config, authority};
use crate::events::dapr::http_client;

/// How long the answer may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the service is not ready, in one line.
#[derive(Debug, Error)]
pub enum HealthcheckError {
    #[error(transparent)]
    Client(reqwest::Error),
    #[error("{url} does not answer: {source}")]
    NoAnswer { url: String, source: reqwest::Error },
    #[error("{url} answered {status}")]
    NotReady { url: String, status: StatusCode },
}

/// Asks the service that runs with the same settings.
pub async fn check(config: &Config) -> Result<(), HealthcheckError> {
    let url = format!("http://{}/health/ready", authority(&reachable(&config.host), config.port));
    let client = http_client().timeout(RESPONSE_TIMEOUT).build().map_err(HealthcheckError::Client)?;
    match client.get(&url).send().await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(HealthcheckError::NotReady { url, status: response.status() }),
        Err(source) => Err(HealthcheckError::NoAnswer { url, source }),
    }
}

/// Where a service that listens on `host` is reached from the same machine.
fn reachable(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "::1".to_owned(),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_to_listen_on_can_be_reached() {
        for (host, reached) in
            [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("fe80::1", "fe80::1"), ("10.0.0.7", "10.0.0.7"), ("web", "web")]
        {
            assert_eq!(reachable(host), reached);
        }
    }
}
