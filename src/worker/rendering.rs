//! Drives one job through the engine and makes PNG files of what comes out.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::render::{Failure, RenderEvent};
use crate::blocking::caught;
use crate::encode;
use crate::engine::host::Host;
use crate::engine::{EngineTimings, Event, Picture};
use crate::job::{JobError, Spec, text_chunks};
use crate::telemetry::traces;

/// All images of a job.
#[derive(Debug)]
pub struct Drawn {
    /// In the order of their seeds.
    pub images: Vec<Arc<Png>>,
    /// What the engine cut or changed.
    pub warnings: Vec<String>,
    /// In line for the engine.
    pub wait: Duration,
    /// Where the time went inside the engine.
    pub engine: EngineTimings,
    /// Pixels to PNG.
    pub png: Duration,
}

/// One image.
#[derive(Debug)]
pub struct Png {
    /// Which of its job's images it is, from 0.
    pub index: u32,
    /// The seed that draws it again.
    pub seed: u64,
    /// A PNG file.
    pub file: Vec<u8>,
}

/// Draws `spec`; `see` is told of progress and images as they come.
pub(super) async fn draw(
    host: &Host,
    spec: &Spec,
    cancel: CancellationToken,
    mut see: impl FnMut(RenderEvent),
) -> Result<Drawn, Failure> {
    let mut running = host.submit(spec.clone(), cancel).await?;
    let mut images: Vec<Arc<Png>> = Vec::new();
    let mut warnings = Vec::new();
    let (mut wait, mut png) = (Duration::ZERO, Duration::ZERO);
    loop {
        select! {
            biased;
            event = running.events.recv() => match event {
                Some(Event::Admitted { waited, warnings: told }) => (wait, warnings) = (waited, told),
                Some(Event::Image { index, seed, picture }) => {
                    let began = Instant::now();
                    let image = Arc::new(Png { index, seed, file: encoded(picture, spec, index).instrument(traces::png()).await? });
                    png += began.elapsed();
                    see(RenderEvent::Image(Arc::clone(&image), spec.num_outputs));
                    images.push(image);
                }
                Some(Event::Progress(progress)) => see(RenderEvent::Progress(progress)),
                Some(Event::Preview(picture)) => see(RenderEvent::Preview(Arc::new(picture))),
                Some(Event::Failed(cause)) => return Err(cause.into()),
                Some(Event::Finished(engine)) => {
                    images.sort_by_key(|image| image.index);
                    return Ok(Drawn { images, warnings, wait, engine, png });
                }
                None => return Err(JobError::engine_lost("it ended without a word").into()),
            },
            Ok(()) = running.preview.changed() => {
                if let Some(picture) = running.preview.borrow_and_update().clone() {
                    see(RenderEvent::Preview(picture));
                }
            }
            Ok(()) = running.progress.changed() => see(RenderEvent::Progress(*running.progress.borrow_and_update())),
        }
    }
}

/// Encodes where it may take its time: other jobs have heartbeats and deliveries to make.
async fn encoded(picture: Picture, spec: &Spec, index: u32) -> Result<Vec<u8>, JobError> {
    let chunks = text_chunks(spec, index);
    let png = caught(move || {
        let chunks = chunks.each_ref().map(|(keyword, text)| (*keyword, text.as_str()));
        encode::png(&picture, &chunks).map_err(|cause| cause.to_string())
    });
    png.await.unwrap_or_else(|| Err("the encoder failed".to_owned())).map_err(|cause| JobError {
        code: "encode_failed",
        message: format!("image {index} cannot be encoded: {cause}"),
        field: None,
    })
}
