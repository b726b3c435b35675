//! Where results go, and what keeps them until they have arrived.
//!
//! [`spool`] is what lasts: letters on disk, which the next process sends again. Webhooks lie in the [`outbox`] until they are taken, and
//! [`upload`] puts images into S3-compatible storage. The worker does not use the three yet: its results live in memory until they
//! are delivered.

mod body;
pub mod outbox;
pub mod runpod;
pub mod spool;
pub mod upload;
pub mod webhook;

use std::future::Future;
use std::time::Duration;

pub use body::{Done, Fault, fitting, progress};

/// A place that results are sent to.
pub trait Sink: Send + Sync + 'static {
    /// Sends the end of a job, again and again for as long as `parcel` has time.
    fn done(&self, parcel: Parcel) -> impl Future<Output = Result<(), Undelivered>> + Send;

    /// Sends how far a job is, once: what is lost is soon out of date.
    fn progress(&self, id: &str, body: Vec<u8>) -> impl Future<Output = Result<(), Undelivered>> + Send;

    /// Sends a part of a result, where parts are wanted.
    fn part(&self, parcel: Parcel) -> impl Future<Output = Result<(), Undelivered>> + Send;

    /// Whether parts of results are wanted.
    fn takes_parts(&self) -> bool;
}

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The job.
    pub id: String,
    /// JSON.
    pub body: Vec<u8>,
    /// Whether parts were sent before.
    pub streamed: bool,
    /// For all tries.
    pub time: Duration,
}

/// What was not delivered, and why; without a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Undelivered {
    /// What happened last.
    pub why: String,
    /// Tries that were made.
    pub tries: u32,
}
