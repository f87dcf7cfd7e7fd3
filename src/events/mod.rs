//! Events: a change as a CloudEvent, and its way to Kafka through the sidecar.

pub mod dapr;
pub mod dedupe;
pub mod dispatcher;
pub mod event;
pub mod relay;
pub mod sidecar;
