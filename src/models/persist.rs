//! Asking a host again.

use std::time::Duration;

use tokio::time::sleep;

use crate::net::{Backoff, DownloadError, jitter};

/// Times that something small is asked for.
const SMALL_TRIES: u32 = 3;

/// Between tries.
pub(super) const PAUSES: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(15) };

/// Asks again a few times where that may help: for what is small, and comes whole or not at all.
pub(super) async fn persist<T>(call: impl AsyncFn() -> Result<T, DownloadError>) -> Result<T, DownloadError> {
    for failures in 1..SMALL_TRIES {
        match call().await.map_err(|cause| (cause.retry(), cause)) {
            Err((Some(pause), _)) => sleep(PAUSES.after(failures, pause, jitter())).await,
            ended => return ended.map_err(|(_, cause)| cause),
        }
    }
    call().await
}
