//! Jobs: what is asked, checked, and answered. No I/O, no clock.
mod spec;
pub use spec::{Size, Spec};
/// Why a job failed: all that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// A stable word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The input field at fault, if one is.
    pub field: Option<String>,
}

impl JobError {
    /// The client or a signal ended the job.
    pub fn cancelled() -> Self {
        Self { code: "cancelled", message: "the job was cancelled".into(), field: None }
    }

    /// The engine stopped under the job; another engine can run it again.
    pub fn engine_lost(reason: &str) -> Self {
        Self { code: "engine_lost", message: format!("the engine was lost while the job ran: {reason}"), field: None }
    }
}
