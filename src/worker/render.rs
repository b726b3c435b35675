//! One job from its check to its PNG files: what `latentd run` and the worker do alike.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::select;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug};

use super::draw::{self, Drawn, Png};
use super::job_metrics;
use crate::engine::host::{Host, HostError};
use crate::engine::{Picture, Progress};
use crate::intake::Intake;
use crate::job::{Complaints, JobError, Offer, Spec, Timings, validate};
use crate::telemetry::traces;

/// What a job is run on, beside the engine.
#[derive(Debug, Clone)]
pub struct RenderContext {
    /// What can be drawn with.
    pub offer: Offer,
    /// The seed of a job that leaves it open.
    pub entropy: u16,
    /// Whether its prompt may be logged.
    pub log_prompts: bool,
    /// What brings in its images.
    pub intake: Intake,
}

/// What a job tells on its way.
#[derive(Debug)]
pub enum RenderEvent {
    /// It moved on.
    Progress(Progress),
    /// What an unfinished image of it looks like so far, small.
    Preview(Arc<Picture>),
    /// One of its images is done, of this many.
    Image(Arc<Png>, u32),
}

/// A job that was run, or could not be.
#[derive(Debug)]
pub struct RenderOutcome {
    /// Its images, or why there are none.
    pub result: Result<Drawn, Failure>,
    /// Where its time went.
    pub timings: Timings,
}

/// Why a job has no images.
#[derive(Debug)]
pub struct Failure {
    /// What the client is told.
    pub error: JobError,
    /// The complaints about the input, if that is what it failed of.
    pub errors: Vec<String>,
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self { error, errors: Vec::new() }
    }
}

impl From<Complaints> for Failure {
    fn from(complaints: Complaints) -> Self {
        Self { errors: complaints.texts(), error: complaints.into() }
    }
}

impl From<HostError> for Failure {
    fn from(cause: HostError) -> Self {
        match cause {
            HostError::Build(message) => JobError { code: "no_engine", message, field: None }.into(),
            HostError::Stopped => JobError::engine_lost("it had stopped before").into(),
        }
    }
}

/// Runs a job. `engine`, of the model that it names, is asked for by a job that passes the check only; it comes with the time that it
/// took to load.
pub async fn render<H: Borrow<Host>>(
    id: &str,
    input: &Value,
    context: &RenderContext,
    engine: impl AsyncFnOnce(String) -> Result<(H, Duration), Failure>,
    cancel: CancellationToken,
    see: impl FnMut(RenderEvent),
) -> RenderOutcome {
    let began = Instant::now();
    let (mut fetch, mut load) = (Duration::ZERO, Duration::ZERO);
    let result = async {
        let spec = validate(input, &context.offer, context.entropy)?;
        log(id, &spec, context.log_prompts);
        let asked = spec.start.as_ref().map(|_| Instant::now());
        let span = asked.map_or_else(Span::none, |_| traces::fetch());
        let brought = select! {
            biased;
            () = cancel.cancelled() => Err(JobError::cancelled()),
            brought = context.intake.bring(spec).instrument(span) => brought,
        };
        fetch = asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        let spec = brought?;
        let (host, took) = engine(spec.model.clone()).instrument(traces::load(&spec.model)).await?;
        load = took;
        let span = traces::engine();
        let drawn = draw::draw(host.borrow(), &spec, cancel, see).instrument(span.clone()).await;
        drawn.inspect(|drawn| job_metrics::engine(&span, drawn))
    }
    .await;
    let stages = match &result {
        Ok(drawn) => Timings {
            text: drawn.engine.text,
            encode: drawn.engine.encode,
            denoise: drawn.engine.denoise,
            decode: drawn.engine.decode,
            evaluations: drawn.engine.evaluations,
            png: drawn.png,
            ..Timings::default()
        },
        Err(_) => Timings::default(),
    };
    RenderOutcome { result, timings: Timings { fetch, load, total: began.elapsed(), ..stages } }
}

fn log<I>(id: &str, spec: &Spec<I>, prompts: bool) {
    debug!(
        id,
        prompt = prompts.then_some(&spec.prompt),
        negative_prompt = spec.negative_prompt.as_ref().filter(|_| prompts),
        width = spec.size.width,
        height = spec.size.height,
        outputs = spec.num_outputs,
        steps = spec.steps,
        sampler = spec.sampler.name(),
        seed = spec.seed,
        "job accepted"
    );
}
