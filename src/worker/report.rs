//! Tells the queue how a job comes along: progress now and then, images of several as they are done. Makes of each image what a
//! result holds: a link to its bucket where there is one, else base64.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::failure::Failure;
use super::rendering::{Drawn, Png, RenderEvent, Rendering};
use super::state::Delivery;
use crate::blocking::caught;
use crate::deliver::upload::{UploadError, UploadTarget, Uploads};
use crate::deliver::{Payload, Sink, part, progress};
use crate::encode;
use crate::engine::{Picture, Progress};
use crate::job::{Code, Image, JobError, Output, OutputPart, OutputShape};

/// Between progress updates, and before the first.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// For one image, whatever its job has.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the progress and the images of a job go to.
pub(super) struct Reporter<K> {
    pub(super) id: String,
    pub(super) delivery: Arc<Delivery<K>>,
    pub(super) uploads: Uploads,
    /// The bucket that images go to.
    pub(super) target: Option<UploadTarget>,
    /// Whether an image was streamed.
    pub(super) streamed: Arc<AtomicBool>,
}

/// Images on their way to a bucket, each to be answered by its index, its seed and a link.
type Links = JoinSet<Result<(u32, u64, String), UploadError>>;

/// The latest look at the unfinished picture.
#[derive(Default)]
struct Preview {
    new: Option<Picture>,
    /// The one before as it was sent, a data URI.
    sent: Option<String>,
}

impl<K: Sink> Reporter<K> {
    /// Reports a job to its end; returns its images in their order. What is lost of parts is in the result, too.
    ///
    /// # Errors
    /// The job failed; or an image is not where it should be, which fails its job: who asked for a link expects no picture in its place.
    /// Others are not waited for.
    pub(super) async fn report(&self, mut rendering: Rendering) -> Result<Drawn<Output>, Failure> {
        let (mut images, mut links, mut more) = (BTreeMap::new(), Links::new(), true);
        let shape = rendering.shape();
        let mut parts = self.sink().takes_parts() && rendering.outputs() > 1;
        let (mut progress, mut preview) = (None, Preview::default());
        let mut next = Instant::now() + PROGRESS_INTERVAL;
        while more || !links.is_empty() {
            select! {
                biased;
                Some(link) = links.join_next() => {
                    let uploaded = link.map_err(|cause| not_uploaded(&cause))?;
                    let (index, seed, link) = uploaded.map_err(|cause| not_uploaded(&cause))?;
                    images.insert(index, self.part(shape, Image { image: link, seed }, &mut parts).await);
                }
                () = sleep_until(next), if more && progress.is_some() => {
                    if let Some(progress) = progress.take() {
                        self.progress(progress, &mut preview).await;
                    }
                    next = Instant::now() + PROGRESS_INTERVAL;
                }
                event = rendering.next(), if more => match event? {
                    Some(RenderEvent::Progress(latest)) => progress = Some(latest),
                    Some(RenderEvent::Preview(latest)) => preview.new = Some(latest),
                    Some(RenderEvent::Image(png)) => {
                        if let Some(target) = self.target.clone() {
                            self.upload(target, png, &mut links);
                        } else {
                            let image = Image { image: encode::base64_after(shape.prefix(), &png.file), seed: png.seed };
                            images.insert(png.index, self.part(shape, image, &mut parts).await);
                        }
                    }
                    None => more = false,
                },
            }
        }
        let (images, generation) = (images.into_values().collect(), rendering.generation().clone());
        Ok(rendering.drawn(Output { shape, images, generation }))
    }

    fn sink(&self) -> &K {
        &self.delivery.results.sink
    }

    async fn progress(&self, Progress { done, total }: Progress, preview: &mut Preview) {
        if let Some(picture) = preview.new.take() {
            preview.sent = self.data_uri(picture).await;
        }
        if let Err(cause) = self.sink().progress(&self.id, progress(done, total, preview.sent.as_deref())).await {
            debug!(id = self.id, "the queue heard of no progress: {cause}");
        }
    }

    async fn data_uri(&self, picture: Picture) -> Option<String> {
        let file = caught(move || encode::jpeg(&picture)).await?;
        let file = file.inspect_err(|cause| warn!(id = self.id, "a preview cannot be encoded: {cause}")).ok()?;
        Some(encode::base64_after("data:image/jpeg;base64,", &file))
    }

    fn upload(&self, target: UploadTarget, png: Png, links: &mut Links) {
        let (uploads, id) = (self.uploads.clone(), self.id.clone());
        let Png { index, seed, file } = png;
        links.spawn(async move { Ok((index, seed, uploads.put(&target, &id, index, file.into()).await?)) });
    }

    /// The image, which is sent at once if `parts` are sent; none is after one that did not arrive, so that a
    /// result does not wait for one failure after the other.
    async fn part(&self, shape: OutputShape, image: Image, parts: &mut bool) -> Image {
        if *parts {
            // Before it is sent: whoever ends this meanwhile must know that the queue may have it.
            self.streamed.store(true, Ordering::Relaxed);
            let body = part(OutputPart { shape, image: &image }).into();
            let payload = Payload { id: self.id.clone(), body, streamed: false, time: PART_TIMEOUT };
            if let Err(cause) = self.sink().part(payload).await {
                *parts = false;
                warn!(
                    id = self.id,
                    seed = image.seed,
                    "an image is not streamed, nor the next; they come with the result: {cause}"
                );
            }
        }
        image
    }
}

fn not_uploaded(cause: &impl ToString) -> JobError {
    JobError { code: Code::UploadFailed, message: cause.to_string(), field: None }
}
