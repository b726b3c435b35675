//! `latentd run`: one job, here and now.

mod files;
mod outcome;
mod source;
mod tell;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime;
use tokio::select;
use tokio::signal::ctrl_c;
use tokio_util::sync::CancellationToken;

use super::cli::RunArgs;
use super::{Exit, complain, engine, offer, usage};
use crate::config::{Config, ImageLimits, ServedModel};
use crate::engine::Progress;
use crate::engine::host::Host;
use crate::intake::{Intake, IntakeLimits};
use crate::job::{JobError, JobRequest, Offer, Timings};
use crate::net::{Client, Guard, NoClient};
use crate::worker::{self, render};
pub use crate::worker::{Drawn, Failure, Png, RenderContext};
pub use outcome::Outcome;

/// Runs the job that `args` ask for and tells what came of it.
pub(super) fn execute(args: &RunArgs, config: &Config) -> Exit {
    let (models, loras) = match (config.models(), config.loras()) {
        (Ok(models), Ok(loras)) => (models, loras),
        (Err(fault), _) | (_, Err(fault)) => return usage(&fault),
    };
    let offer = match offer::models(&models) {
        Ok(models) => Offer { models, loras },
        Err(fault) => return usage(&fault),
    };
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(until_interrupted(args, config, &models, offer));
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
async fn until_interrupted(args: &RunArgs, config: &Config, models: &[ServedModel], offer: Offer) -> Exit {
    let cancel = CancellationToken::new();
    select! {
        // In this order interrupts are heard before anything is begun.
        biased;
        Ok(()) = interrupts(&cancel) => Exit::Interrupted,
        exit = run(args, config, models, offer, cancel.clone()) => exit,
    }
}

/// The first interrupt cancels the job, which then ends in order; the second does not wait for that.
async fn interrupts(cancel: &CancellationToken) -> io::Result<()> {
    ctrl_c().await?;
    cancel.cancel();
    ctrl_c().await
}

async fn run(args: &RunArgs, config: &Config, models: &[ServedModel], offer: Offer, cancel: CancellationToken) -> Exit {
    let intake = match intake(config) {
        Ok(intake) => intake,
        Err(cause) => {
            complain(&cause);
            return Exit::Failed;
        }
    };
    let folder = args.out.as_deref().or_else(|| args.prompt.as_ref().map(|_| Path::new(".")));
    if let Some((folder, cause)) = folder.and_then(|folder| Some((folder, files::prepare(folder).err()?))) {
        complain(&format_args!("no files can be written to {} (--out): {cause}", folder.display()));
        return Exit::Failed;
    }
    let request = match &args.prompt {
        Some(prompt) => source::of_prompt(prompt, &args.fields),
        None => source::of_job(args),
    };
    let bar = bar();
    let outcome = match request {
        Ok(request) => {
            let context = RenderContext {
                offer,
                entropy: RandomState::new().hash_one(0) as u16,
                log_prompts: config.log.prompts,
                intake,
            };
            let start = async |name| engine::start_one(config, models, name).await;
            perform(request, &context, start, cancel, |progress| show(&bar, progress)).await
        }
        Err(cause) => Outcome::unread(cause.to_string()),
    };
    bar.finish_and_clear();
    match &args.prompt {
        Some(prompt) => tell::person(outcome, prompt, folder.unwrap_or(Path::new("."))),
        None => tell::program(outcome, folder),
    }
}

/// What brings in images as `config` has it.
pub(super) fn intake(config: &Config) -> Result<Intake, NoClient> {
    let client = Client::new(Guard::new(config.net.allow_private.clone()))?;
    let ImageLimits { max_bytes: bytes, max_pixels: pixels, timeout: time } = config.images;
    Ok(Intake::new(client, IntakeLimits { bytes, pixels, time }))
}

/// Runs `request` from its check to its PNG files; the engine is started for a job that passes the check only.
pub async fn perform(
    request: JobRequest,
    context: &RenderContext,
    start: impl AsyncFnOnce(String) -> Result<Host, Failure>,
    cancel: CancellationToken,
    seen: impl FnMut(Progress),
) -> Outcome {
    let engine = async |model| {
        let host = start(model).await?;
        let load = host.load_time();
        Ok((host, load))
    };
    let read = async |rendering| worker::files(rendering, seen).await;
    let (result, timings) = select! {
        biased;
        () = cancel.cancelled() => (Err(JobError::cancelled().into()), Timings::default()),
        outcome = render(&request.id, &request.input, context, engine, read) => (outcome.result, outcome.timings),
    };
    Outcome { id: request.id, result, timings }
}

/// A bar on stderr, which hides itself where there is no terminal.
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
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::engine::fake::Fake;
    use crate::job::{Code, Contract, OfferedModel};
    use outcome::exit;

    fn request() -> JobRequest {
        let input = json!({"prompt": "p", "width": 128, "height": 128, "num_outputs": 3, "num_inference_steps": 4});
        JobRequest { id: "j".into(), input }
    }

    fn context() -> RenderContext {
        let limits = IntakeLimits { bytes: 1 << 20, pixels: 1 << 20, time: Duration::from_secs(10) };
        let intake = Intake::new(Client::new(Guard::new(vec!["127.0.0.1/32".parse().unwrap()])).unwrap(), limits);
        RenderContext {
            offer: Offer { models: vec![OfferedModel::new("m", Contract::Sd1)], ..Offer::default() },
            entropy: 40264,
            log_prompts: false,
            intake,
        }
    }

    async fn perform_on(fake: Fake, cancel: CancellationToken) -> (Outcome, Progress) {
        let mut last = Progress::default();
        let start = async |_| Ok(Host::start("engine-test", || Ok::<_, &str>(fake)).await?);
        (perform(request(), &context(), start, cancel, |progress| last = progress).await, last)
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
        let request = JobRequest { id: "j".into(), input: json!({}) };
        let start = async |_| unreachable!("the engine was started");
        let outcome = perform(request, &context(), start, CancellationToken::new(), |_| ()).await;
        let failure = outcome.result.unwrap_err();
        assert_eq!(
            (exit(&failure), failure.errors.clone()),
            (Exit::Failed, vec!["prompt is a required input.".to_owned()])
        );
    }

    #[tokio::test]
    async fn an_engine_that_does_not_start_fails_the_job_with_its_words() {
        let start = async |_| Ok(Host::start("engine-test", || Err::<Fake, _>("no weights")).await?);
        let outcome = perform(request(), &context(), start, CancellationToken::new(), |_| ()).await;
        let failure = outcome.result.unwrap_err();
        assert_eq!((exit(&failure), failure.error.message.as_str()), (Exit::Failed, "no weights"));
    }

    #[tokio::test]
    async fn an_engine_that_dies_fails_the_job() {
        for fake in [Fake::poisoned_after(2), Fake::panicking_after(2)] {
            let failure = perform_on(fake, CancellationToken::new()).await.0.result.unwrap_err();
            assert_eq!((exit(&failure), failure.error.code), (Exit::Failed, Code::EngineLost));
        }
    }

    #[tokio::test]
    async fn a_cancelled_job_is_an_interrupted_one() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let failure = perform_on(Fake::default(), cancel).await.0.result.unwrap_err();
        assert_eq!(exit(&failure), Exit::Interrupted);
    }
}
