//! Why a job has no images.

use crate::engine::host::HostError;
use crate::job::{Code, Complaints, JobError};

/// Why a job has no images.
#[derive(Debug)]
pub struct Failure {
    /// What the client is told.
    pub error: JobError,
    /// The complaints about the input, if that is what it failed of.
    pub errors: Vec<String>,
    /// What may be sent instead, as `field: hint`.
    pub hints: Vec<String>,
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self { error, errors: Vec::new(), hints: Vec::new() }
    }
}

impl From<Complaints> for Failure {
    fn from(complaints: Complaints) -> Self {
        Self { errors: complaints.texts(), hints: complaints.hints(), error: complaints.into() }
    }
}

impl From<HostError> for Failure {
    fn from(cause: HostError) -> Self {
        match cause {
            HostError::Build(message) => JobError { code: Code::NoEngine, message, field: None }.into(),
            HostError::Stopped => JobError::engine_lost("it had stopped before").into(),
        }
    }
}
