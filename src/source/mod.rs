//! Where jobs come from.

pub mod runpod;

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::job::{Delivered, NotAJob};

/// A queue that hands out jobs.
pub trait JobSource: Send + Sync + 'static {
    /// Asks once for up to `most` jobs, at least one, and waits for the answer as long as the queue likes. `busy` says whether
    /// jobs are in hand. When `cancel` is cancelled, the wait ends at once, with nothing.
    ///
    /// # Errors
    /// No answer came that jobs could be in; the error says what to do about it.
    fn take(
        &self,
        most: usize,
        busy: bool,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Taken, TakeError>> + Send;

    /// Tells the queue that we live and which jobs we hold.
    fn heartbeat(&self, held: impl Fn() -> Vec<String> + Send + Sync) -> impl Future<Output = Infallible> + Send;

    /// Hears of jobs that are no longer wanted.
    fn watch_stops(&self, stop: impl Fn(&str) + Send + Sync) -> impl Future<Output = Infallible> + Send;
}

/// What a queue handed out: jobs, and what should have been one.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    /// One by one.
    pub jobs: Vec<Result<Delivered, NotAJob>>,
    /// What the answer says of its queue.
    pub queue: QueueInfo,
}

/// What a queue says of itself in an answer. RunPod's own says nothing, so the default is true of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueInfo {
    /// Whether it is a gateway of latentd, which takes larger results than others.
    pub gateway: bool,
    /// Whether it calls webhooks itself.
    pub calls_webhooks: bool,
}

/// There was no answer that jobs could be in.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct TakeError {
    /// What happened, without a secret.
    pub why: String,
    /// What to do about it.
    pub next: NextPoll,
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextPoll {
    /// Ask again after a pause, at the earliest when the queue wishes.
    Retry(Duration),
    /// Ask again as after an empty answer: nothing came that shows whether the queue knows us.
    Nothing,
    /// Ask again: the same question was put in another way.
    Again,
    /// Never ask again: there is no such queue.
    Stop,
}
