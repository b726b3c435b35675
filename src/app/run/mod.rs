//! `latentd run`: one job, here and now.

mod draw;
mod files;
mod outcome;
mod source;
mod tell;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime;
use tokio::select;
use tokio::signal::ctrl_c;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::cli::RunArgs;
use super::{Exit, complain, engine, usage};
use crate::config::{Config, Images, Model};
use crate::engine::Progress;
use crate::engine::host::Host;
use crate::intake::{Intake, Limits};
use crate::job::{JobError, Offer, Request, Spec, Timings, validate};
use crate::net::{Client, Guard, NoClient};
pub use draw::{Drawn, Png};
pub use outcome::{Failure, Outcome};

/// Runs the job that `args` ask for and tells what came of it.
pub(super) fn execute(args: &RunArgs, config: &Config) -> Exit {
    let (model, loras) = match (config.model(), config.loras()) {
        (Ok(model), Ok(loras)) => (model, loras),
        (Err(fault), _) | (_, Err(fault)) => return usage(&fault),
    };
    let offer = Offer { model: model.name.clone(), loras };
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(until_interrupted(args, config, &model, offer));
            // A name that is still being looked up for a job that was interrupted is not waited for.
            runtime.shutdown_background();
            exit
        }
        Err(cause) => {
            complain(&format!("no runtime: {cause}"));
            Exit::Bug
        }
    }
}

/// Ends before the job when that is interrupted twice.
async fn until_interrupted(args: &RunArgs, config: &Config, model: &Model, offer: Offer) -> Exit {
    let cancel = CancellationToken::new();
    select! {
        // In this order interrupts are heard before anything is begun.
        biased;
        Ok(()) = interrupts(&cancel) => Exit::Interrupted,
        exit = run(args, config, model, offer, cancel.clone()) => exit,
    }
}

/// The first interrupt cancels the job, which then ends in order; the second does not wait for that.
async fn interrupts(cancel: &CancellationToken) -> io::Result<()> {
    ctrl_c().await?;
    cancel.cancel();
    ctrl_c().await
}

async fn run(args: &RunArgs, config: &Config, model: &Model, offer: Offer, cancel: CancellationToken) -> Exit {
    let intake = match intake(config) {
        Ok(intake) => intake,
        Err(cause) => {
            complain(&cause);
            return Exit::Failed;
        }
    };
    let request = match &args.prompt {
        Some(prompt) => source::of_prompt(prompt, &args.fields),
        None => source::of_job(args),
    };
    let bar = bar();
    let outcome = match request {
        Ok(request) => {
            let terms = Terms {
                offer,
                entropy: RandomState::new().hash_one(0) as u16,
                log_prompts: config.log.prompts,
                intake,
            };
            let start = async || engine::start(config, model).await;
            perform(request, &terms, start, cancel, |progress| show(&bar, progress)).await
        }
        Err(cause) => Outcome::unread(cause.to_string()),
    };
    bar.finish_and_clear();
    match &args.prompt {
        Some(prompt) => tell::person(outcome, prompt, args.out.as_deref().unwrap_or(Path::new("."))),
        None => tell::program(outcome, args.out.as_deref()),
    }
}

/// What a job is run on, beside the engine.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What can be drawn with.
    pub offer: Offer,
    /// The seed of a job that leaves it open.
    pub entropy: u16,
    /// Whether its prompt may be logged.
    pub log_prompts: bool,
    /// What brings in its images.
    pub intake: Intake,
}

/// What brings in images as `config` has it.
fn intake(config: &Config) -> Result<Intake, NoClient> {
    let client = Client::new(Guard::new(config.net.allow_private.clone()))?;
    let Images { max_bytes: bytes, max_pixels: pixels, timeout: time } = config.images;
    Ok(Intake::new(client, Limits { bytes, pixels, time }))
}

/// Runs `request` from its check to its PNG files; the engine is started for a job that passes the check only.
pub async fn perform(
    request: Request,
    terms: &Terms,
    start: impl AsyncFnOnce() -> Result<Host, Failure>,
    cancel: CancellationToken,
    seen: impl FnMut(Progress),
) -> Outcome {
    let began = Instant::now();
    let (mut fetch, mut load) = (Duration::ZERO, Duration::ZERO);
    let result = async {
        let spec = validate(&request.input, &terms.offer, terms.entropy)?;
        log(&request.id, &spec, terms.log_prompts);
        let asked = spec.start.as_ref().map(|_| Instant::now());
        let brought = select! {
            biased;
            () = cancel.cancelled() => Err(JobError::cancelled()),
            brought = terms.intake.bring(spec) => brought,
        };
        fetch = asked.map_or(Duration::ZERO, |asked| asked.elapsed());
        let spec = brought?;
        let host = start().await?;
        load = host.load_time();
        draw::draw(&host, &spec, &terms.offer.model, cancel, seen).await
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
    Outcome { id: request.id, result, timings: Timings { fetch, load, total: began.elapsed(), ..stages } }
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

/// A bar on stderr, which hides itself where nobody watches.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} evaluations, {eta} left");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total.into());
    bar.set_position(progress.done.into());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::unreachable)]
    use serde_json::json;

    use super::*;
    use crate::engine::fake::Fake;

    fn request() -> Request {
        let input = json!({"prompt": "p", "width": 128, "height": 128, "num_outputs": 3, "num_inference_steps": 4});
        Request { id: "j".into(), input }
    }

    fn terms() -> Terms {
        let limits = Limits { bytes: 1 << 20, pixels: 1 << 20, time: Duration::from_secs(10) };
        let intake = Intake::new(Client::new(Guard::new(vec!["127.0.0.1/32".parse().unwrap()])).unwrap(), limits);
        Terms { offer: Offer { model: "m".into(), ..Offer::default() }, entropy: 40264, log_prompts: false, intake }
    }

    async fn perform_on(fake: Fake, cancel: CancellationToken) -> (Outcome, Progress) {
        let mut last = Progress::default();
        let start = async || Ok(Host::start("engine-test", || Ok::<_, &str>(fake)).await?);
        (perform(request(), &terms(), start, cancel, |progress| last = progress).await, last)
    }

    #[tokio::test]
    async fn a_job_becomes_png_files_in_the_order_of_their_seeds() {
        let (outcome, progress) = perform_on(Fake::default(), CancellationToken::new()).await;
        let drawn = outcome.result.unwrap();
        let seeds: Vec<u64> = drawn.images.iter().map(|image| image.seed).collect();
        assert_eq!(seeds, [40264, 40265, 40266]);
        assert!(drawn.images.iter().all(|image| image.file.starts_with(b"\x89PNG")));
        assert_eq!(outcome.timings.evaluations, 12);
        assert!(progress.done <= progress.total && outcome.timings.total >= outcome.timings.load);
    }

    #[tokio::test]
    async fn a_bad_input_starts_no_engine() {
        let request = Request { id: "j".into(), input: json!({}) };
        let start = async || unreachable!("the engine was started");
        let outcome = perform(request, &terms(), start, CancellationToken::new(), |_| ()).await;
        let failure = outcome.result.unwrap_err();
        assert_eq!((failure.exit, failure.errors), (Exit::Failed, vec!["prompt is a required input.".to_owned()]));
    }

    #[tokio::test]
    async fn an_engine_that_does_not_start_fails_the_job_with_its_words() {
        let start = async || Ok(Host::start("engine-test", || Err::<Fake, _>("no weights")).await?);
        let outcome = perform(request(), &terms(), start, CancellationToken::new(), |_| ()).await;
        let failure = outcome.result.unwrap_err();
        assert_eq!((failure.exit, failure.error.message.as_str()), (Exit::Failed, "no weights"));
    }

    #[tokio::test]
    async fn an_engine_that_dies_fails_the_job() {
        for fake in [Fake::poisoned_after(2), Fake::panicking_after(2)] {
            let failure = perform_on(fake, CancellationToken::new()).await.0.result.unwrap_err();
            assert_eq!((failure.exit, failure.error.code), (Exit::Failed, "engine_lost"));
        }
    }

    #[tokio::test]
    async fn a_cancelled_job_is_an_interrupted_one() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let failure = perform_on(Fake::default(), cancel).await.0.result.unwrap_err();
        assert_eq!(failure.exit, Exit::Interrupted);
    }
}
