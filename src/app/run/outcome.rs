//! What became of a job, and how that is told.

use super::draw::Drawn;
use crate::app::Exit;
use crate::encode;
use crate::engine::host::HostError;
use crate::job::{Complaints, Image, JobError, Report, Timings};

/// A job that was run, or could not be.
#[derive(Debug)]
pub struct Outcome {
    /// The job's id.
    pub id: String,
    /// Its images, or why there are none.
    pub result: Result<Drawn, Failure>,
    /// Where its time went.
    pub timings: Timings,
}

/// Why a job has no images.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    /// What the client is told.
    pub error: JobError,
    /// The complaints about the input, if that is what it failed of.
    pub errors: Vec<String>,
}

impl Failure {
    /// The command line asks for what is not there.
    pub(in crate::app) fn usage(message: String) -> Self {
        Self { exit: Exit::Usage, ..JobError { code: "usage", message, field: None }.into() }
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let exit = if error == JobError::cancelled() { Exit::Interrupted } else { Exit::Failed };
        Self { exit, error, errors: Vec::new() }
    }
}

impl From<Complaints> for Failure {
    fn from(complaints: Complaints) -> Self {
        let errors = complaints.texts();
        Self { errors, ..JobError::from(complaints).into() }
    }
}

impl From<HostError> for Failure {
    fn from(cause: HostError) -> Self {
        match cause {
            HostError::Build(message) => JobError { code: "no_engine", message, field: None }.into(),
            HostError::Stopped => JobError::engine_lost("it had stopped before").into(),
        }
    }
}

impl Outcome {
    /// A job that could not even be read.
    pub(super) fn unread(message: String) -> Self {
        let error = JobError { code: "no_job", message, field: None };
        Self { id: crate::job::Request::LOCAL_ID.into(), result: Err(error.into()), timings: Timings::default() }
    }

    /// The result object.
    pub fn report(self) -> Report {
        match self.result {
            Ok(drawn) => {
                let image = |png: &super::Png| Image { image: encode::base64(&png.file), seed: png.seed };
                let images = drawn.images.iter().map(image).collect();
                Report::completed(self.id, images, self.timings, drawn.warnings)
            }
            Err(failure) => Report::failed(self.id, &failure.error, failure.errors, self.timings),
        }
    }
}
