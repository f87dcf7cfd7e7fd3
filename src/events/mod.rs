//! Events: a change as a CloudEvent, its way to Kafka through the sidecar, and back.

pub mod dapr;
pub mod dedupe;
pub mod dispatcher;
pub mod event;
pub mod relay;
pub mod sidecar;
