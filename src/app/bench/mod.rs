//! `latentd bench`: how fast the configured model draws here.

mod figures;
mod jobs;
mod measure;
mod process;
mod table;

use std::thread::available_parallelism;

use anyhow::anyhow;
use tokio::runtime;
use tokio::sync::oneshot;

use super::cli::BenchArgs;
use super::{Exit, complain, engine, offer, run, say, usage};
use crate::config::{Config, ServedModel};
use crate::engine::torch::{Target, TorchEngine, device::rates};
use crate::job::{Offer, Size, validate};
use crate::telemetry::Metrics;
use crate::worker::RenderContext;
use figures::{Figures, MachineFigures, StartFigures};
use measure::Bench;

/// Operations in a multiplication with its addition.
const OPERATIONS: f64 = 2.0;

/// Measures and prints; [`Exit::Failed`] if something could not be drawn.
pub(super) fn execute(args: &BenchArgs, config: &Config) -> Exit {
    let models = match config.models() {
        Ok(models) => models,
        Err(fault) => return usage(&fault),
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            complain(&format!("no runtime: {cause}"));
            return Exit::Bug;
        }
    };
    let told = async {
        let figures = figures(args, config, &models[0]).await?;
        anyhow::Ok(if args.json { serde_json::to_string(&figures)? } else { table::table(&figures) })
    };
    match runtime.block_on(told) {
        Ok(told) => shown(&told),
        Err(cause) => {
            complain(&format!("bench: {cause:#}"));
            Exit::Failed
        }
    }
}

/// The settings with the sizes that are measured in place of those that an idle engine would make ready for, if there are any.
fn warming(config: &Config, args: &BenchArgs) -> Config {
    let mut settings = config.clone();
    if settings.cuda.warm_up.as_ref().is_none_or(|sizes| !sizes.is_empty()) {
        settings.cuda.warm_up = Some(args.sizes.iter().map(|size| (size.width, size.height)).collect());
    }
    settings
}

fn shown(text: &str) -> Exit {
    if say(&text).is_ok() { Exit::Done } else { Exit::Failed }
}

async fn figures(args: &BenchArgs, config: &Config, served: &ServedModel) -> anyhow::Result<Figures> {
    let name = served.model.name.clone();
    let model = offer::model(served)?;
    if model.defaults.inpaints {
        anyhow::bail!("{name} repaints parts of images and draws nothing else, which is not measured");
    }
    let mut args = args.clone();
    if args.sizes.is_empty() {
        args.sizes.push(model.defaults.size());
    }
    let args = &args;
    let offer = Offer { models: vec![jobs::measured(&model)], ..Offer::default() };
    let guidance_scale = guidance_scale(args, &offer)?;
    let has_refiner = served.refiner.is_some();
    let ahead = engine::ahead(config, served);
    let (tell, told) = oneshot::channel();
    let (settings, served, sizes) = (warming(config, args), served.clone(), args.sizes.clone());
    let build = move || -> anyhow::Result<TorchEngine> {
        let engine = engine::load(&settings, &served, settings.device)?;
        let multiplications = |size: &Size| engine.model().multiplications(*size, guidance_scale);
        let work: Vec<u64> = sizes.iter().map(multiplications).collect();
        // Who asked waits for the engine, and hears it then.
        let _ = tell.send((work, engine.usage()));
        Ok(engine)
    };
    let host = engine::host((config, config.device), (0, Metrics::default()), build).await?;
    drop(ahead);
    let start = StartFigures { load: host.load_time().as_secs_f64(), ready: process::age() };
    let (work, usage) = told.await?;
    // As it is in a worker that has been there for a while; evaluations without a job are not measured.
    host.warm().await;

    let context = RenderContext { offer, entropy: 7, log_prompts: false, intake: run::intake(config)? };
    let bench = Bench::new((&host, &context), &args.fields, args.rounds.into(), usage);
    let mut latency = Vec::new();
    for (size, work) in args.sizes.iter().zip(work) {
        // A refiner's evaluations are of another size.
        let work = (!has_refiner).then_some(OPERATIONS * work as f64);
        latency.push(bench.latency(*size, args.steps, work).await?);
    }
    let mut rows = Vec::new();
    for images in &args.images {
        rows.push(bench.side_by_side(args.sizes[0], args.steps, *images).await?);
    }
    let jobs = jobs::mixed(args);
    let stream = if jobs.is_empty() { None } else { Some(bench.stream(jobs, args.at_once.into()).await?) };
    let target = Target::choose(config.device, config.dtype)?;
    let memory = process::memory(host.memory().filter(|_| !target.is_cpu()));
    let gpu = bench.gpu();
    host.end().await;

    let rates = if args.rates { Some(rates::measure(target)?.into()) } else { None };
    let threads = available_parallelism().map_or(1, std::num::NonZero::get);
    let machine =
        MachineFigures { latentd: env!("CARGO_PKG_VERSION"), model: name, device: target.to_string(), threads };
    Ok(Figures { machine, start, latency, rows, stream, memory, gpu, rates })
}

/// Of one image. What a job of the model may not say is told before the model is loaded.
fn guidance_scale(args: &BenchArgs, offer: &Offer) -> anyhow::Result<f64> {
    let input = jobs::one(&args.fields, offer.contract(""), (args.sizes[0], args.steps), (1, 0));
    let spec = validate(&input, offer, 0).map_err(|complaints| anyhow!("{}", complaints.texts().join("; ")))?;
    Ok(spec.guidance_scale)
}
