//! What gateways on one store count together.

use std::time::Duration;

/// A request, and what its client may ask of all gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateCheck {
    /// Who asks what, as a digest.
    pub asked: [u8; 32],
    /// The gateway that is asked.
    pub gateway: String,
    /// Requests of the kind that are open there, but for this one.
    pub open: u64,
    /// What requests are counted over.
    pub window: Duration,
    /// Requests that may pass in it.
    pub rate: u64,
    /// Requests that may be open.
    pub at_once: u64,
    /// How long a gateway may be silent before what is open there is forgotten.
    pub silent: Duration,
}

/// Whether a request may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is counted.
    Yes,
    /// There were too many in the window.
    TooOften,
    /// Too many are open.
    TooMany,
}

/// What a gateway has seen of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// The gateway.
    pub gateway: String,
    /// The worker.
    pub worker: String,
    /// In words of the gateways' own; `None` if there is nothing left.
    pub seen: Option<String>,
}
