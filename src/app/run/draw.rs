//! Drives one job through the engine and makes PNG files of what comes out.

use std::time::{Duration, Instant};

use tokio::select;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::encode;
use crate::engine::host::Host;
use crate::engine::{EngineTimings, Event, Picture, Progress};
use crate::job::{JobError, Spec, text_chunks};

/// All images of a job.
#[derive(Debug)]
pub struct Drawn {
    /// In the order of their seeds.
    pub images: Vec<Png>,
    /// What the engine cut or changed.
    pub warnings: Vec<String>,
    /// Where the time went inside the engine.
    pub engine: EngineTimings,
    /// Pixels to PNG.
    pub png: Duration,
}

/// One image.
#[derive(Debug)]
pub struct Png {
    /// The seed that draws it again.
    pub seed: u64,
    /// A PNG file.
    pub file: Vec<u8>,
}

/// Draws `spec`; `seen` is told of progress as it comes.
pub(super) async fn draw(
    host: &Host,
    spec: &Spec,
    model: &str,
    cancel: CancellationToken,
    mut seen: impl FnMut(Progress),
) -> Result<Drawn, Failure> {
    let mut running = host.submit(spec.clone(), cancel).await?;
    let mut images: Vec<(u32, Png)> = Vec::new();
    let mut warnings = Vec::new();
    let mut png = Duration::ZERO;
    loop {
        select! {
            biased;
            event = running.events.recv() => match event {
                Some(Event::Admitted { warnings: told }) => warnings = told,
                Some(Event::Image { index, seed, picture }) => {
                    let began = Instant::now();
                    images.push((index, Png { seed, file: encoded(&picture, spec, index, model)? }));
                    png += began.elapsed();
                }
                Some(Event::Progress(progress)) => seen(progress),
                Some(Event::Failed(cause)) => return Err(cause.into()),
                Some(Event::Finished(engine)) => {
                    images.sort_by_key(|(index, _)| *index);
                    let images = images.into_iter().map(|(_, image)| image).collect();
                    return Ok(Drawn { images, warnings, engine, png });
                }
                None => return Err(JobError::engine_lost("it ended without a word").into()),
            },
            Ok(()) = running.progress.changed() => seen(*running.progress.borrow_and_update()),
        }
    }
}

fn encoded(picture: &Picture, spec: &Spec, index: u32, model: &str) -> Result<Vec<u8>, JobError> {
    let chunks = text_chunks(spec, index, model);
    encode::png(picture, &chunks.each_ref().map(|(keyword, text)| (*keyword, text.as_str()))).map_err(|cause| JobError {
        code: "encode_failed",
        message: format!("image {index} cannot be encoded: {cause}"),
        field: None,
    })
}
