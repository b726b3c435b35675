//! The engine: what turns specs into pixels. This file is the seam; nothing above it knows tensors.

mod events;
pub mod fake;
pub mod host;
pub mod pool;
pub mod prompt;
pub mod tokenizer;
#[cfg(feature = "torch")]
pub mod torch;

use std::time::Duration;

pub use crate::job::Picture;
use crate::job::{JobError, Spec};

/// Names one admitted job inside one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How far a job is, in evaluations of the UNet over all of its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Evaluations made.
    pub done: u32,
    /// Evaluations in all.
    pub total: u32,
}

/// Where a job's time went inside the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineTimings {
    /// Tokenizer and text encoder, and a LoRA merged before them.
    pub text: Duration,
    /// Autoencoder, pixels to latents.
    pub encode: Duration,
    /// From the first evaluation to the last, as the job saw it (other jobs may have shared them).
    pub denoise: Duration,
    /// Autoencoder, latents to pixels.
    pub decode: Duration,
    /// Evaluations of the UNet, summed over images.
    pub evaluations: u32,
}

/// What `advance` has to tell about one job.
#[derive(Debug)]
pub enum Event {
    /// The job has lanes. What was cut or changed on the way is told in warnings, for the job's result.
    Admitted {
        /// In line for the engine, until it was admitted.
        waited: Duration,
        /// Sentences for the job's `warnings`.
        warnings: Vec<String>,
    },
    /// The job moved on.
    Progress(Progress),
    /// A rough, small look at an unfinished image of the job, for one that asked for it.
    Preview(Picture),
    /// Image `index` of the job is done.
    Image {
        /// Position in the job, from 0.
        index: u32,
        /// The seed it was drawn from.
        seed: u64,
        /// The image.
        picture: Picture,
    },
    /// Every image was told of, and the engine tells no more of the job.
    Finished(EngineTimings),
    /// The job ended without all of its images, and the engine tells no more of it.
    Failed(JobError),
}

/// What an engine is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineLoad {
    /// Images being made.
    pub lanes: usize,
    /// Rows of the last call of [`Engine::advance`]; 0 if it evaluated nothing.
    pub rows: usize,
}

/// Memory of an engine's device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What is left to the engine and to others.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// The engine stops: its device is gone or it met a bug. Jobs in hand were not finished.
#[derive(Debug, thiserror::Error)]
#[error("the engine cannot go on: {reason}")]
pub struct Poisoned {
    /// What happened, for the log.
    pub reason: String,
}

/// A machine that draws. It is built, run and dropped on one thread and never blocks on its callers.
pub trait Engine {
    /// Takes a job in: encodes its text and adds a lane an image. Answers with warnings for the job's result.
    ///
    /// # Errors
    /// The job cannot be drawn here: the client is told why.
    fn admit(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError>;
    /// Makes one evaluation, shared by as many lanes as fit, and tells of the images that are there. Waits for one where there is nothing to
    /// evaluate.
    ///
    /// # Errors
    /// The engine cannot go on; it is not asked again.
    fn advance(&mut self) -> Result<Vec<(Ticket, Event)>, Poisoned>;
    /// Forgets a job; its lanes are free at once. Unknown tickets are nothing.
    fn cancel(&mut self, ticket: Ticket);
    /// Makes one evaluation that no job asked for, so that the first job of its shape does not wait for what is done only once; how many shapes
    /// are left then, and `None` where there is nothing to make ready. For who has nothing else to do: a job that is admitted ends it.
    ///
    /// # Errors
    /// As for [`Engine::advance`].
    fn warm_up(&mut self) -> Result<Option<usize>, Poisoned> {
        Ok(None)
    }
    /// Whether there is anything left to do: a lane to evaluate, or a picture under way.
    fn busy(&self) -> bool;
    /// Rows of an evaluation at the usual size beyond which nothing is gained.
    fn most_rows(&self) -> usize;
    /// What it is busy with now.
    fn load(&self) -> EngineLoad;
    /// Memory of its device now, where it has one that can be asked.
    fn memory(&self) -> Option<Memory>;
}
