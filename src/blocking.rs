//! Work that waits for a disk, or computes for long, off the runtime's threads. Once begun it ends, even if its caller is gone.

use std::future::pending;
use std::panic::resume_unwind;

use tokio::task::{JoinError, JoinSet};

/// What `work` comes to. Its panic is the caller's.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match ended(work).await {
        Ok(done) => done,
        Err(error) => resume_unwind(error.into_panic()),
    }
}

/// The same; `None` if it panicked, which the log tells.
pub async fn caught<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    ended(work).await.ok()
}

/// The error is a panic.
async fn ended<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let mut task = JoinSet::new();
    task.spawn_blocking(work);
    match task.join_next().await {
        Some(ended) if !ended.as_ref().is_err_and(JoinError::is_cancelled) => ended,
        // The runtime ends, and this task with it.
        _ => pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught_or_handed_on() {
        assert_eq!((blocking(|| 1).await, caught(|| 2).await), (1, Some(2)));
        assert_eq!(caught(|| panic!("in the work")).await, None::<()>);
        let mut task = JoinSet::new();
        task.spawn(blocking(|| panic!("in the work")));
        let error = task.join_next().await.and_then(Result::err);
        assert!(error.is_some_and(|error| error.is_panic()));
    }
}
