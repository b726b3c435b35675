//! One job from its check to its PNG files: what `latentd run` and the worker do alike.

use std::borrow::Borrow;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tracing::{Instrument, Span, debug};

use super::failure::Failure;
use super::rendering::{Drawn, Png, Rendering};
use crate::engine::host::Host;
use crate::intake::Intake;
use crate::job::{Offer, Spec, Timings, prompt, validate};
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

/// A job that was run, or could not be.
#[derive(Debug)]
pub struct RenderOutcome<I = Vec<Png>> {
    /// Its images, or why there are none.
    pub result: Result<Drawn<I>, Failure>,
    /// Where its time went.
    pub timings: Timings,
}

/// Runs a job; dropping what it returns cancels the job. `engine`, of the model that it names, is asked for by a job that passes the check
/// only; it comes with the time that it took to load. `read` reads what the engine makes of the job.
pub async fn render<H: Borrow<Host>, I>(
    id: &str,
    input: &Value,
    context: &RenderContext,
    engine: impl AsyncFnOnce(String) -> Result<(H, Duration), Failure>,
    read: impl AsyncFnOnce(Rendering) -> Result<Drawn<I>, Failure>,
) -> RenderOutcome<I> {
    let began = Instant::now();
    let (mut fetch, mut load) = (Duration::ZERO, Duration::ZERO);
    let result = async {
        let spec = validate(input, &context.offer, context.entropy)?;
        let contract = context.offer.contract(&spec.model);
        let mut warnings = context.offer.warnings(input);
        warnings.extend(prompt::warnings(&spec));
        let asked = spec.start.as_ref().map(|_| Instant::now());
        let span = asked.map_or_else(Span::none, |_| traces::fetch());
        let brought = context.intake.bring(spec, contract).instrument(span).await;
        fetch = asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        let (spec, changed) = brought?;
        warnings.extend(changed);
        log(id, &spec, context.log_prompts);
        let (host, took) = engine(spec.model.clone()).instrument(traces::load(&spec.model)).await?;
        load = took;
        let events = host.borrow().submit(spec.clone()).await?;
        read(Rendering::new(spec, contract, events, warnings)).await
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

fn log(id: &str, spec: &Spec, prompts: bool) {
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
