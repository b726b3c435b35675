//! Where results go, and what keeps them until they have arrived.
//!
//! A worker has [`DeliveryParts`]. What must arrive is an entry in its [`spool`] before it is first sent, so that the next process sends it
//! again: the ends of jobs by [`results`], which a queue takes, and webhooks by the [`outbox`]. Images of jobs that name a bucket, or of
//! an operator who does, go into it by [`upload`], and links to them into the results.

mod body;
pub mod outbox;
mod parts;
pub mod results;
pub mod runpod;
pub mod spool;
pub mod upload;
pub mod webhook;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

pub use body::{FailureReason, FinalState, JobResult, StatusObject, fitting, part, progress};
pub use parts::{DeliveryParts, WorkerWebhooks};

/// A place that results are sent to.
pub trait Sink: Send + Sync + 'static {
    /// Sends the end of a job, again and again for as long as `payload` has time.
    ///
    /// # Errors
    /// Its time is over, or the queue will never take it.
    fn done(&self, payload: Payload) -> impl Future<Output = Result<(), Undelivered>> + Send;

    /// Sends how far a job is, once: what is lost is soon out of date.
    ///
    /// # Errors
    /// It did not arrive.
    fn progress(&self, id: &str, body: Vec<u8>) -> impl Future<Output = Result<(), Undelivered>> + Send;

    /// Sends a part of a result, where parts are wanted, as [`Sink::done`] does.
    ///
    /// # Errors
    /// As for [`Sink::done`].
    fn part(&self, payload: Payload) -> impl Future<Output = Result<(), Undelivered>> + Send;

    /// Whether parts of results are wanted.
    fn takes_parts(&self) -> bool;
}

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The job.
    pub id: String,
    /// JSON.
    pub body: Bytes,
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
    /// Whether the queue takes no body of that size; it would take a smaller one.
    pub too_large: bool,
}
