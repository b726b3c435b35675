//! Tells the queue how a job comes along: progress now and then, images of several as they are done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{Png, Seen};
use crate::deliver::{Parcel, Sink, progress};
use crate::encode;
use crate::engine::Progress;
use crate::job::Image;

/// Between progress updates, and before the first.
const PACE: Duration = Duration::from_secs(1);

/// For one image, whatever its job has.
const PART: Duration = Duration::from_secs(30);

/// Images that may wait to be sent: all that a job can have.
const WAITING: usize = 16;

/// The end that a job speaks into; it never waits.
pub(super) struct Mouth {
    progress: watch::Sender<Progress>,
    images: mpsc::Sender<Arc<Png>>,
}

/// The end that is sent on.
pub(super) struct Ear {
    progress: watch::Receiver<Progress>,
    images: mpsc::Receiver<Arc<Png>>,
}

/// A way from a job to its queue.
pub(super) fn way() -> (Mouth, Ear) {
    let (progress, progress_heard) = watch::channel(Progress::default());
    let (images, images_heard) = mpsc::channel(WAITING);
    (Mouth { progress, images }, Ear { progress: progress_heard, images: images_heard })
}

impl Mouth {
    pub(super) fn say(&self, news: Seen) {
        match news {
            Seen::Progress(progress) => drop(self.progress.send_replace(progress)),
            // The image of a job of one is its result.
            Seen::Image(_, 1) => {}
            // A job has at most ten.
            Seen::Image(png, _) => drop(self.images.try_send(png)),
        }
    }
}

/// Sends on what is heard until the mouth is dropped; whether images were among it. What is lost is in the result, too.
pub(super) async fn send_on<K: Sink>(sink: &K, id: &str, ear: Ear) -> bool {
    let Ear { mut progress, mut images } = ear;
    let mut streamed = false;
    let mut next = Instant::now() + PACE;
    loop {
        select! {
            biased;
            image = images.recv() => match image {
                Some(png) if sink.takes_parts() => {
                    streamed = true;
                    part(sink, id, &png).await;
                }
                Some(_) => {}
                None => return streamed,
            },
            Ok(now) = update(&mut progress, next) => {
                if let Err(cause) = sink.progress(id, self::progress(now.done, now.total)).await {
                    debug!(id, "the queue heard of no progress: {cause}");
                }
                next = Instant::now() + PACE;
            }
        }
    }
}

async fn update(progress: &mut watch::Receiver<Progress>, next: Instant) -> Result<Progress, watch::error::RecvError> {
    sleep_until(next).await;
    progress.changed().await?;
    Ok(*progress.borrow_and_update())
}

async fn part<K: Sink>(sink: &K, id: &str, png: &Png) {
    let image = Image { image: encode::base64(&png.file), seed: png.seed };
    let body = json!({ "output": image }).to_string().into_bytes();
    if let Err(cause) = sink.part(Parcel { id: id.to_owned(), body, streamed: false, time: PART }).await {
        warn!(id, seed = png.seed, "an image is not streamed, but comes with the result: {cause}");
    }
}
