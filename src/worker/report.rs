//! Tells the queue how a job comes along: progress now and then, images of several as they are done. Makes of each image what a
//! result holds: a link to its bucket where there is one, else base64.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{Png, RenderEvent};
use crate::blocking::caught;
use crate::deliver::upload::{UploadError, UploadTarget, Uploads};
use crate::deliver::{Payload, Sink, part, progress};
use crate::encode;
use crate::engine::{Picture, Progress};
use crate::job::{Image, JobError};

/// Between progress updates, and before the first.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// For one image, whatever its job has.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Images that may wait to be sent: all that a job can have.
const MAX_IMAGES: usize = 16;

/// The end that a job speaks into; it never waits.
pub(super) struct ProgressSender {
    progress: watch::Sender<Progress>,
    preview: watch::Sender<Option<Arc<Picture>>>,
    images: mpsc::Sender<Made>,
}

/// The end that is sent on.
pub(super) struct ProgressReceiver {
    progress: watch::Receiver<Progress>,
    preview: watch::Receiver<Option<Arc<Picture>>>,
    images: mpsc::Receiver<Made>,
}

/// A way from a job to its queue.
pub(super) fn channel() -> (ProgressSender, ProgressReceiver) {
    let (progress, progress_heard) = watch::channel(Progress::default());
    let (preview, preview_heard) = watch::channel(None);
    let (images, images_heard) = mpsc::channel(MAX_IMAGES);
    (
        ProgressSender { progress, preview, images },
        ProgressReceiver { progress: progress_heard, preview: preview_heard, images: images_heard },
    )
}

impl ProgressSender {
    pub(super) fn say(&self, news: RenderEvent) {
        match news {
            RenderEvent::Progress(progress) => drop(self.progress.send_replace(progress)),
            RenderEvent::Preview(picture) => drop(self.preview.send_replace(Some(picture))),
            // There is room: a job has at most ten.
            RenderEvent::Image(png, of) => drop(self.images.try_send((png, of > 1))),
        }
    }
}

/// Where what is heard goes to.
pub(super) struct Reporter<'a, K> {
    pub(super) id: &'a str,
    pub(super) sink: &'a K,
    pub(super) uploads: &'a Uploads,
    /// The bucket that images go to.
    pub(super) target: Option<UploadTarget>,
    /// Whether an image was streamed.
    pub(super) streamed: &'a AtomicBool,
}

/// An image, and whether it is one of several.
type Made = (Arc<Png>, bool);

/// Images on their way to a bucket, each to be answered by a link.
type Links = JoinSet<Result<(Made, String), UploadError>>;

impl<K: Sink> Reporter<'_, K> {
    /// Sends on what is received until the sender is dropped; the images that were among it, in their order. What is lost of parts is
    /// in the result, too.
    ///
    /// # Errors
    /// An image is not where it should be, which fails its job: who asked for a link expects no picture in its place. Others are
    /// not waited for.
    pub(super) async fn send_on(&self, receiver: ProgressReceiver) -> Result<Vec<Image>, JobError> {
        let ProgressReceiver { mut progress, preview, mut images } = receiver;
        let (mut ready, mut links, mut more) = (BTreeMap::new(), Links::new(), true);
        let mut parts = self.sink.takes_parts();
        let mut next = Instant::now() + PROGRESS_INTERVAL;
        while more || !links.is_empty() {
            select! {
                biased;
                Some(link) = links.join_next() => {
                    let uploaded = link.map_err(|cause| failed(&cause))?;
                    let ((png, of_several), link) = uploaded.map_err(|cause| failed(&cause))?;
                    ready.insert(png.index, self.part(&png, link, &mut parts, of_several).await);
                }
                image = images.recv(), if more => match image {
                    Some(made) if self.target.is_some() => self.upload(made, &mut links),
                    Some((png, of_several)) => {
                        let image = self.part(&png, encode::base64(&png.file), &mut parts, of_several).await;
                        ready.insert(png.index, image);
                    }
                    None => more = false,
                },
                Ok(now) = update(&mut progress, next), if more => {
                    let body = self::progress(now.done, now.total, self.look(&preview).await.as_deref());
                    if let Err(cause) = self.sink.progress(self.id, body).await {
                        debug!(id = self.id, "the queue heard of no progress: {cause}");
                    }
                    next = Instant::now() + PROGRESS_INTERVAL;
                }
            }
        }
        Ok(ready.into_values().collect())
    }

    /// The latest look at the unfinished picture, as a data URI.
    async fn look(&self, preview: &watch::Receiver<Option<Arc<Picture>>>) -> Option<String> {
        let picture = preview.borrow().clone()?;
        let file = caught(move || encode::jpeg(&picture)).await?;
        let file = file.inspect_err(|cause| warn!(id = self.id, "a preview cannot be encoded: {cause}")).ok()?;
        Some(format!("data:image/jpeg;base64,{}", encode::base64(&file)))
    }

    fn upload(&self, made: Made, links: &mut Links) {
        let Some(target) = self.target.clone() else { return };
        let (uploads, id) = (self.uploads.clone(), self.id.to_owned());
        links.spawn(async move {
            let link = uploads.put(&target, &id, made.0.index, made.0.file.clone().into()).await?;
            Ok((made, link))
        });
    }

    /// The image as a result holds it, which is sent at once if it is one of several and `parts` are sent; none is any more after
    /// one that did not arrive, so that a result does not wait for one failure after the other.
    async fn part(&self, png: &Png, image: String, parts: &mut bool, of_several: bool) -> Image {
        let image = Image { image, seed: png.seed };
        if of_several && *parts {
            // Before it is sent: whoever ends this meanwhile must know that the queue may have it.
            self.streamed.store(true, Ordering::Relaxed);
            let body = self::part(&image).into();
            let payload = Payload { id: self.id.to_owned(), body, streamed: false, time: PART_TIMEOUT };
            if let Err(cause) = self.sink.part(payload).await {
                *parts = false;
                let seed = png.seed;
                warn!(id = self.id, seed, "an image is not streamed, nor the next; they come with the result: {cause}");
            }
        }
        image
    }
}

fn failed(cause: &impl ToString) -> JobError {
    JobError { code: "upload_failed", message: cause.to_string(), field: None }
}

async fn update(progress: &mut watch::Receiver<Progress>, next: Instant) -> Result<Progress, watch::error::RecvError> {
    sleep_until(next).await;
    progress.changed().await?;
    Ok(*progress.borrow_and_update())
}
