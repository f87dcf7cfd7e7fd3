//! Watches the sidecar: logs when it comes and goes and what its set-up lacks, and wakes the relay.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::dapr::{DaprClient, Metadata};
use crate::config::Config;

/// How often an absent sidecar is looked for.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often a sidecar that is there is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// daprd asks for subscriptions after it has seen our port; its metadata is complete a moment later.
const SETTLE_DELAY: Duration = Duration::from_secs(3);

/// Watches until `stop` is cancelled; `ready` follows the sidecar's outbound health.
pub async fn watch(dapr: DaprClient, config: Config, ready: watch::Sender<bool>, stop: CancellationToken) {
    let mut last_logged: Option<String> = None;
    let mut first = true;
    while !stop.is_cancelled() {
        let health = tokio::select! {
            health = dapr.ready() => health,
            () = stop.cancelled() => return,
        };
        let wait = match health {
            Ok(()) if *ready.borrow() => CHECK_INTERVAL,
            Ok(()) => {
                log::info!("the Dapr sidecar at {} is ready", dapr.sidecar_url());
                last_logged = None;
                ready.send_replace(true);
                let settled = async {
                    tokio::time::sleep(SETTLE_DELAY).await;
                    check_setup(&dapr, &config).await;
                };
                tokio::select! {
                    () = settled => {}
                    () = stop.cancelled() => return,
                }
                CHECK_INTERVAL
            }
            Err(why) => {
                ready.send_replace(false);
                if last_logged.as_deref() != Some(&why) {
                    let how = if first { "; start everything with `make dapr`, or see README.md" } else { "" };
                    log::warn!(
                        "no Dapr sidecar at {} ({why}): changes are stored, and published when it is there{how}",
                        dapr.sidecar_url()
                    );
                    last_logged = Some(why);
                }
                SEARCH_INTERVAL
            }
        };
        first = false;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Warns about a sidecar that runs without our component or doesn't deliver our topic.
async fn check_setup(dapr: &DaprClient, config: &Config) {
    match dapr.metadata().await {
        Ok(metadata) => {
            for problem in problems(&metadata, &config.pubsub, &config.topic) {
                log::warn!("{problem}");
            }
        }
        Err(why) => log::warn!("cannot ask the sidecar what it has loaded: {why}"),
    }
}

fn problems(metadata: &Metadata, pubsub: &str, topic: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !metadata.components.iter().any(|component| component.name == pubsub) {
        problems.push(format!(
            "the sidecar has not loaded the component {pubsub:?}: start it with --resources-path components, or set \
             DAPR_PUBSUB_NAME to one of its pub/sub components"
        ));
    }
    if !metadata.subscriptions.iter().any(|s| s.pubsubname == pubsub && s.topic == topic) {
        problems.push(format!(
            "the sidecar does not deliver {pubsub}/{topic} to this service: start it with --app-port and the port \
             this service listens on"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(json: &str) -> Metadata {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_complete_setup_has_no_problems() {
        let metadata = metadata(
            r#"{"id":"todo-backend","components":[{"name":"kafka-pubsub","type":"pubsub.kafka","version":"v1"}],
                "subscriptions":[{"pubsubname":"kafka-pubsub","topic":"todos","rules":[{"path":"/events/todos"}]}]}"#,
        );
        assert!(problems(&metadata, "kafka-pubsub", "todos").is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let problems = problems(&metadata("{}"), "kafka-pubsub", "todos");
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("--resources-path") && problems[1].contains("--app-port"));
    }
}
