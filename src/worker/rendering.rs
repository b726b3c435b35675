//! One job inside the engine, as who waits for it reads it: progress as it comes, and PNG files as they are done.

use std::fmt::Display;
use std::time::Duration;

use tokio::select;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::failure::Failure;
use crate::blocking::caught;
use crate::encode;
use crate::engine::host::JobEvents;
use crate::engine::{EngineTimings, Event, Picture, Progress};
use crate::job::{Code, Contract, Generation, JobError, OutputShape, Spec, parameters, text_chunks};
use crate::telemetry::traces;

/// What a job tells on its way.
#[derive(Debug)]
pub enum RenderEvent {
    /// It moved on.
    Progress(Progress),
    /// What an unfinished image of it looks like so far, small.
    Preview(Picture),
    /// One of its images is done.
    Image(Png),
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

/// A job that was drawn to its end.
#[derive(Debug)]
pub struct Drawn<I = Vec<Png>> {
    /// All images, as their reader made them, in the order of their seeds.
    pub images: I,
    /// What its contract says of its result.
    pub shape: OutputShape,
    /// How it was drawn.
    pub generation: Generation,
    /// What was cut or changed.
    pub warnings: Vec<String>,
    /// In line for the engine.
    pub wait: Duration,
    /// Where the time went inside the engine.
    pub engine: EngineTimings,
    /// Pixels to PNG.
    pub png: Duration,
}

/// A job that the engine works on. Dropping it cancels the job.
#[derive(Debug)]
pub struct Rendering {
    spec: Spec,
    contract: Contract,
    events: JobEvents,
    /// Images between the engine and their reader.
    encoding: JoinSet<Result<(Png, Duration), JobError>>,
    drawn: Drawn<()>,
    /// In the engine until its end was heard; then its parts are noted on it.
    span: Option<Span>,
}

impl Rendering {
    /// What the engine tells of `spec`, a job of `contract` of which `warnings` are known already.
    pub(super) fn new(spec: Spec, contract: Contract, events: JobEvents, warnings: Vec<String>) -> Self {
        let (wait, engine, png) = (Duration::ZERO, EngineTimings::default(), Duration::ZERO);
        let generation = Generation { parameters: parameters(&spec), time: Duration::ZERO };
        let drawn = Drawn { images: (), shape: contract.table().output, generation, warnings, wait, engine, png };
        Self { spec, contract, events, encoding: JoinSet::new(), drawn, span: Some(traces::engine()) }
    }

    /// What the job's contract says of its result.
    pub fn shape(&self) -> OutputShape {
        self.drawn.shape
    }

    /// How the job was drawn, once its end was heard.
    pub fn generation(&self) -> &Generation {
        &self.drawn.generation
    }

    /// How many images the job has.
    pub fn outputs(&self) -> u32 {
        self.spec.num_outputs
    }

    /// What the job tells next; `None` after its last image. Images come as they are done, in any order. Nothing is lost if this is dropped
    /// before it is ready.
    ///
    /// # Errors
    /// Why the job has no images, or not all of them.
    pub async fn next(&mut self) -> Result<Option<RenderEvent>, Failure> {
        loop {
            select! {
                biased;
                Some(encoded) = self.encoding.join_next() => {
                    let (png, took) = encoded.map_err(|cause| not_encoded("an image", &cause))??;
                    self.drawn.png += took;
                    return Ok(Some(RenderEvent::Image(png)));
                }
                event = self.events.next(), if self.span.is_some() => match event {
                    Some(Event::Admitted { waited, warnings }) => {
                        self.drawn.wait = waited;
                        self.drawn.warnings.extend(warnings);
                    }
                    Some(Event::Progress(progress)) => return Ok(Some(RenderEvent::Progress(progress))),
                    Some(Event::Preview(picture)) => return Ok(Some(RenderEvent::Preview(picture))),
                    Some(Event::Image { index, seed, picture }) => self.encode(index, seed, picture),
                    Some(Event::Finished(timings)) => self.finished(timings),
                    Some(Event::Failed(cause)) => return Err(cause.into()),
                    None => return Err(JobError::engine_lost("it ended without a word").into()),
                },
                else => return Ok(None),
            }
        }
    }

    /// The job with what its reader made of its images.
    pub fn drawn<I>(self, images: I) -> Drawn<I> {
        let Drawn { images: (), shape, generation, warnings, wait, engine, png } = self.drawn;
        Drawn { images, shape, generation, warnings, wait, engine, png }
    }

    /// Encodes where it may take its time: other jobs have heartbeats and deliveries to make.
    fn encode(&mut self, index: u32, seed: u64, picture: Picture) {
        let chunks = text_chunks(self.contract, &self.spec, index);
        let span = self.span.as_ref().map_or_else(Span::none, |span| span.in_scope(traces::png));
        let encoded = async move {
            let began = Instant::now();
            let png = caught(move || {
                let chunks = chunks.each_ref().map(|(keyword, text)| (*keyword, text.as_str()));
                encode::png(&picture, &chunks)
            });
            let image = format!("image {index}");
            let file = png.await.ok_or_else(|| not_encoded(&image, &"the encoder met a bug"))?;
            let file = file.map_err(|cause| not_encoded(&image, &cause))?;
            Ok((Png { index, seed, file }, began.elapsed()))
        };
        self.encoding.spawn(encoded.instrument(span));
    }

    fn finished(&mut self, timings: EngineTimings) {
        self.drawn.engine = timings;
        self.drawn.generation.time = timings.text + timings.encode + timings.denoise + timings.decode;
        let Some(span) = self.span.take() else { return };
        let ms = |time: Duration| time.as_millis() as u64;
        for (part, time) in [
            ("wait_ms", self.drawn.wait),
            ("text_ms", timings.text),
            ("encode_ms", timings.encode),
            ("denoise_ms", timings.denoise),
            ("decode_ms", timings.decode),
        ] {
            span.record(part, ms(time));
        }
        span.record("evaluations", timings.evaluations);
    }
}

/// The files of all images, in the order of their seeds; `see` is told of progress.
///
/// # Errors
/// Those of [`Rendering::next`].
pub async fn files(mut rendering: Rendering, mut see: impl FnMut(Progress)) -> Result<Drawn, Failure> {
    let mut images = Vec::new();
    while let Some(event) = rendering.next().await? {
        match event {
            RenderEvent::Progress(progress) => see(progress),
            RenderEvent::Preview(_) => {}
            RenderEvent::Image(png) => images.push(png),
        }
    }
    images.sort_by_key(|image| image.index);
    Ok(rendering.drawn(images))
}

fn not_encoded(image: &str, cause: &impl Display) -> JobError {
    let message = format!("{image} cannot be encoded: {cause}");
    JobError { code: Code::EncodeFailed, message, field: None }
}
