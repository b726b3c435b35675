//! Hears of jobs that are no longer wanted.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use super::queue::{BACK_OFF, POLL_RETRY, POLL_TIMEOUT, RunPodSource};
use super::wire;
use crate::net::{Call, FetchError, Reason, jitter};

/// Between polls, as in the SDK.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of an answer: many ids.
const MAX_STOPS_ANSWER: u64 = 1 << 20;

/// Polls again and again; `stop` is told each id.
pub(super) async fn watch(queue: &RunPodSource, stop: impl Fn(&str)) -> Infallible {
    let Some(url) = queue.urls.stop() else {
        warn!("jobs cannot be stopped: the take URL has no /job-take/ to make a stop URL of");
        return std::future::pending().await;
    };
    let mut failures = 0;
    loop {
        let headers = [("content-type", "application/json")];
        let call = Call { url: &url, body: None, headers: &headers, time: POLL_TIMEOUT, most: MAX_STOPS_ANSWER };
        let fault = match queue.http.call(call).await {
            Ok(answer) if answer.status == 200 => wire::stops(&answer.body).map_or_else(Some, |ids| {
                for id in &ids {
                    stop(id);
                }
                None
            }),
            Ok(answer) if (200..300).contains(&answer.status) => None,
            Ok(answer) if answer.status == 429 => {
                sleep(wished(answer.again)).await;
                continue;
            }
            Ok(answer) => Some(format!("the queue answered {}", answer.status)),
            Err(FetchError { reason: Reason::Deadline(_), .. }) => None,
            Err(cause) => Some(cause.to_string()),
        };
        let Some(why) = fault else {
            failures = 0;
            sleep(POLL_INTERVAL).await;
            continue;
        };
        failures += 1;
        // A queue without this route would fill the log.
        if failures == 1 {
            warn!("jobs cannot be stopped for now: {why}");
        } else {
            debug!(failures, "jobs cannot be stopped: {why}");
        }
        sleep(POLL_RETRY.after(failures, Duration::ZERO, jitter())).await;
    }
}

/// The pause that a queue asks for by 429, as far as it is reasonable: a job that is no longer wanted is drawn on meanwhile.
fn wished(again: Option<Duration>) -> Duration {
    POLL_RETRY.after(1, again.unwrap_or(BACK_OFF), jitter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_heard_within_reason() {
        let nine = Duration::from_secs(9);
        assert_eq!([wished(None), wished(Some(nine)), wished(Some(Duration::MAX))], [BACK_OFF, nine, POLL_RETRY.most]);
        assert!(wished(Some(Duration::ZERO)) >= POLL_RETRY.first / 2);
    }
}
