//! Tells the queue that we live, and which jobs we hold.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::queue::RunPodSource;
use crate::net::Call;

/// Before each try of one ping, as in the SDK.
const PING_PAUSES: [Duration; 4] = [Duration::ZERO, Duration::ZERO, Duration::from_secs(2), Duration::from_secs(4)];

/// Bytes of an answer, which is not looked at.
const MAX_PING_ANSWER: u64 = 1 << 16;

/// For the last word of a worker that is not fit, as in the SDK.
const UNHEALTHY_TIMEOUT: Duration = Duration::from_secs(2);

/// Characters of its reason, as in the SDK, and the type that it begins with, where Python has that of an exception.
const MAX_REASON: usize = 256;
const REASON_TYPE: &str = "FitnessError";

/// Pings at once, and then again and again, with what `held` says at that moment.
pub(super) async fn run(queue: &RunPodSource, held: impl Fn() -> Vec<String>) -> Infallible {
    if !queue.urls.has_ping() {
        warn!("no heartbeat: RUNPOD_WEBHOOK_PING is not set");
        return std::future::pending().await;
    }
    let mut ticks = interval(queue.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(why) = ping(queue, &held).await {
            queue.metrics.heartbeat_failed();
            warn!("the queue hears no heartbeat: {why}");
        }
    }
}

/// Says once that the worker is not fit, and why, before it ends.
pub(super) async fn unhealthy(queue: &RunPodSource, check: &str, why: &str) {
    let reason: String = format!("{REASON_TYPE}: {why}").chars().take(MAX_REASON).collect();
    let url = match queue.urls.unhealthy(check, &reason) {
        Ok(Some(url)) => url,
        Ok(None) => return,
        Err(cause) => return warn!("the queue does not hear that the worker is not fit: {cause}"),
    };
    let call = Call { url: &url, body: None, headers: &[], time: UNHEALTHY_TIMEOUT, most: MAX_PING_ANSWER };
    match queue.http.call(call).await {
        Ok(answer) => debug!(status = answer.status, "the queue was told"),
        Err(cause) => warn!("the queue does not hear that the worker is not fit: {cause}"),
    }
}

async fn ping(queue: &RunPodSource, held: &impl Fn() -> Vec<String>) -> Result<(), String> {
    let mut why = String::new();
    for pause in PING_PAUSES {
        sleep(pause).await;
        // Asked again for each try: what was finished meanwhile must not be listed.
        let Some(url) = queue.urls.ping(&held()).map_err(|cause| cause.to_string())? else { return Ok(()) };
        let time = queue.interval * 2;
        match queue.http.call(Call { url: &url, body: None, headers: &[], time, most: MAX_PING_ANSWER }).await {
            Ok(answer) if matches!(answer.status, 429 | 500 | 502 | 503 | 504) => {
                why = format!("it answered {}", answer.status);
            }
            Ok(answer) => {
                debug!(status = answer.status, "ping");
                return Ok(());
            }
            Err(cause) => why = cause.to_string(),
        }
    }
    Err(why)
}
