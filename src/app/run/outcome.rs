//! What became of a job, and how that is told.

use super::{Drawn, Failure, Png};
use crate::app::Exit;
use crate::encode;
use crate::job::{Code, Image, JobError, Output, Report, Timings};

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

/// What the process ends with after a job that failed.
pub(super) fn exit(failure: &Failure) -> Exit {
    match failure.error.code {
        Code::NotBuilt => Exit::Usage,
        Code::Cancelled => Exit::Interrupted,
        _ => Exit::Failed,
    }
}

impl Outcome {
    /// A job that could not even be read.
    pub(super) fn unread(message: String) -> Self {
        let error = JobError { code: Code::NoJob, message, field: None };
        Self { id: crate::job::JobRequest::LOCAL_ID.into(), result: Err(error.into()), timings: Timings::default() }
    }

    /// The result object.
    pub fn report(self) -> Report {
        match self.result {
            Ok(drawn) => {
                let shape = drawn.shape;
                let image =
                    |png: &Png| Image { image: encode::base64_after(shape.prefix(), &png.file), seed: png.seed };
                let images = drawn.images.iter().map(image).collect();
                let output = Output { shape, images, generation: drawn.generation };
                Report::completed(self.id, output, self.timings, drawn.warnings)
            }
            Err(failure) => Report::failed(self.id, &failure.error, failure.errors, self.timings),
        }
    }
}
