//! Waiting for something to come of a job.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::queue::JobState;
use crate::store::Store;

use super::memory_budget::{Reservation, UNCOUNTED_BYTES};
use super::reply::ApiError;
use super::{Endpoint, Gateway};

/// Bytes of chunks in one reply, unless one alone has more.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Chunks that were taken off a stream, whether there are more, and the memory that they hold.
pub(super) type ReservedChunks = (Vec<Bytes>, bool, Reservation);

impl<S: Store> Gateway<S> {
    /// The next chunks of a job's stream, and how to say that it stands: at once if there are any or can be no more, else as soon as
    /// there are; none when the time is over.
    pub(super) async fn chunks_of(
        &self,
        endpoint: &Endpoint,
        id: &str,
        wait: Duration,
    ) -> Result<(JobState, Vec<Bytes>, Reservation), ApiError> {
        let until = Instant::now() + wait;
        let waiter = self.notifier.job(&endpoint.id, id);
        loop {
            let notified = waiter.notified();
            // First how it stands, then what is there: whoever has ended brings no more.
            let record = self.visible(endpoint, id).await?;
            let (chunks, more, held) = self.next_chunks(endpoint, id).await?;
            if !chunks.is_empty() || record.state.is_end() || !self.woken(notified, until).await {
                // Clients stop at an end, so it is told with the last chunk at the earliest.
                return Ok((if more { JobState::InProgress } else { record.state }, chunks, held));
            }
        }
    }

    /// Takes the next chunks off a job's stream, once there is memory for them.
    pub(super) async fn next_chunks(&self, endpoint: &Endpoint, id: &str) -> Result<ReservedChunks, ApiError> {
        let (mut most, mut held) = (UNCOUNTED_BYTES, Reservation::default());
        loop {
            let (chunks, next) = self.store.take_chunks(&endpoint.id, id, most).await?;
            match next {
                Some(bytes) if chunks.is_empty() => {
                    drop(held);
                    most = bytes.max(MAX_REPLY_BYTES);
                    held = self.budgets.answers.reserve(most).await?;
                }
                _ => {
                    held.shrink(chunks.iter().map(Bytes::len).sum());
                    return Ok((chunks, next.is_some(), held));
                }
            }
        }
    }
}
