//! What the service reports about itself: log lines and metrics.

pub mod logging;
pub mod metrics;
