//! Events: a change as a CloudEvent, its way to Kafka through the sidecar, and back.

pub mod admin;
pub mod dapr;
pub mod event;
pub mod lanes;
pub mod relay;
pub mod sidecar;
pub mod subscription;
