//! What the process tells its operator.

pub mod admin;
pub mod exposition;
pub mod health;
mod json;
pub mod logs;
pub mod metrics;
pub mod traces;
mod truncate;

pub use health::Health;
pub use metrics::Metrics;
pub use traces::Traces;

/// Where a part of the process tells how it is and what it does. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// How it is.
    pub health: Health,
    /// What it does, in numbers.
    pub metrics: Metrics,
}
