//! Jobs that are drawn to see how long they take.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::figures::{GpuFigures, LatencyFigures, RowsFigures, Spread, StreamFigures};
use super::jobs;
use crate::encode;
use crate::engine::host::Host;
use crate::engine::torch::denoise::graphs;
use crate::engine::torch::device::cuda::{Usage, Used};
use crate::job::{Size, Timings};
use crate::worker::{RenderContext, files, render};

/// Steps of what is drawn first on a processor and does not count.
const WARM: u32 = 2;

/// The same on a GPU: the evaluations that come before a recording, the one that is recorded, and one that replays it.
const WARM_STEPS_ON_GPU: u32 = graphs::WARM_UP_EVALUATIONS + 2;

/// Images that a job may ask for; more are several jobs.
const IMAGES_OF_A_JOB: u32 = 8;

/// An engine to measure.
pub(super) struct Bench<'a> {
    host: &'a Host,
    context: &'a RenderContext,
    /// Fields of the input of one drawing.
    fields: &'a [(String, Value)],
    /// Drawings until now.
    drawn: Cell<u32>,
    /// Times that each thing is done.
    rounds: usize,
    /// Counts what it makes use of, if it is on a GPU with the CUDA helper.
    usage: Option<Arc<Usage>>,
    /// Of that, what was measured.
    measured: Cell<Used>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        (host, context): (&'a Host, &'a RenderContext),
        fields: &'a [(String, Value)],
        rounds: usize,
        usage: Option<Arc<Usage>>,
    ) -> Self {
        Self { host, context, fields, drawn: Cell::default(), rounds, usage, measured: Cell::default() }
    }

    /// What was made use of until now.
    pub(super) fn gpu(&self) -> Option<GpuFigures> {
        let (all, measured) = (self.usage.as_ref()?.used(), self.measured.get());
        let (evaluations, replayed) = (measured.evaluations, measured.replayed);
        Some(GpuFigures { evaluations, replayed, graphs: all.recorded, kernels: all.kernel_calls > 0 })
    }

    /// One image after the other. `work` is the operations of an evaluation.
    pub(super) async fn latency(&self, size: Size, steps: u32, work: Option<f64>) -> anyhow::Result<LatencyFigures> {
        let runs = self.runs(size, steps, 1).await?.concat();
        let spread = |of: fn(&Timings) -> Duration| Spread::of(runs.iter().map(|run| of(run).as_secs_f64()));
        Ok(LatencyFigures {
            size: shown(size),
            steps,
            total: spread(|run| run.total),
            text: spread(|run| run.text),
            evaluation: Spread::of(runs.iter().map(|run| run.denoise.as_secs_f64() / f64::from(run.evaluations))),
            decode: spread(|run| run.decode),
            png: spread(|run| run.png),
            work,
        })
    }

    /// Several images at once, which the engine draws in as few evaluations as it likes.
    pub(super) async fn side_by_side(&self, size: Size, steps: u32, images: u32) -> anyhow::Result<RowsFigures> {
        let runs = self.runs(size, steps, images).await?;
        let slowest = |run: &Vec<Timings>| run.iter().map(|job| job.denoise).max().unwrap_or_default();
        // Some samplers make several evaluations a step, and a refiner makes more of them.
        let evaluations = |run: &Vec<Timings>| f64::from(run.iter().map(|job| job.evaluations).sum::<u32>());
        let step = |run| slowest(run).as_secs_f64() * f64::from(images) / evaluations(run);
        let step = Spread::of(runs.iter().map(step));
        Ok(RowsFigures { size: shown(size), images, step })
    }

    /// Rounds of `images` at once, each with the timings of the jobs that they are asked for by.
    async fn runs(&self, size: Size, steps: u32, images: u32) -> anyhow::Result<Vec<Vec<Timings>>> {
        // The one model that there is.
        let contract = self.context.offer.contract("");
        let draw = async |steps: u32| {
            let sizes = (0..images).step_by(IMAGES_OF_A_JOB as usize).map(|from| (images - from).min(IMAGES_OF_A_JOB));
            let number = self.drawn.get() + 1;
            self.drawn.set(number);
            let job = |outputs| jobs::one(self.fields, contract, (size, steps), (outputs, number));
            let jobs: Vec<Value> = sizes.map(job).collect();
            let drawn = try_join_all(jobs.iter().map(|job| self.draw(job))).await?;
            anyhow::Ok(drawn.into_iter().map(|(_, timings)| timings).collect::<Vec<_>>())
        };
        if self.usage.is_none() {
            draw(WARM).await?;
        }
        // The last images of many may be fewer than an evaluation holds, and are recorded after as many drawings as one shape after steps.
        for _ in 0..WARM_STEPS_ON_GPU {
            let Some(before) = self.used() else { break };
            draw(WARM_STEPS_ON_GPU).await?;
            let Some(used) = self.used().map(|used| used.since(before)) else { break };
            let is_never_recorded = used.recorded + used.replayed == 0;
            if used.only_replays() || is_never_recorded {
                break;
            }
        }
        let mut runs = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            runs.push(self.counted(draw(steps)).await?);
        }
        Ok(runs)
    }

    /// All of `jobs`, of which so many are in hand at the same time.
    pub(super) async fn stream(&self, jobs: Vec<Value>, at_once: usize) -> anyhow::Result<StreamFigures> {
        let draw = || stream::iter(&jobs).map(|job| self.draw(job)).buffer_unordered(at_once).collect::<Vec<_>>();
        if self.usage.is_some() {
            // A GPU meets each number of rows for the first time only once.
            draw().await;
        }
        let began = Instant::now();
        let drawn = self.counted(draw()).await;
        let seconds = began.elapsed().as_secs_f64();
        let drawn = drawn.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let mut times: Vec<f64> = drawn.iter().map(|(_, run)| run.total.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let (p50, p95) = (at(0.5), at(0.95));
        let images: usize = drawn.iter().map(|(images, _)| images).sum();
        let images_a_minute = 60.0 * images as f64 / seconds;
        Ok(StreamFigures { jobs, at_once, images, seconds, images_a_minute, p50, p95 })
    }

    fn used(&self) -> Option<Used> {
        self.usage.as_ref().map(|usage| usage.used())
    }

    /// Counts what `drawing` makes use of as measured.
    async fn counted<T>(&self, drawing: impl Future<Output = T>) -> T {
        let before = self.used();
        let drawn = drawing.await;
        if let (Some(before), Some(after)) = (before, self.used()) {
            self.measured.set(self.measured.get().and(after.since(before)));
        }
        drawn
    }

    /// A job as the worker runs it, to the text that would be delivered, without what brings it and takes it away.
    async fn draw(&self, input: &Value) -> anyhow::Result<(usize, Timings)> {
        let engine = async |_| Ok((self.host, Duration::ZERO));
        let read = async |rendering| files(rendering, |_| ()).await;
        let outcome = render("bench", input, self.context, engine, read).await;
        match outcome.result {
            Ok(drawn) => {
                let began = Instant::now();
                drawn
                    .images
                    .iter()
                    .for_each(|image| drop(black_box(encode::base64_after(drawn.shape.prefix(), &image.file))));
                let (base64, mut timings) = (began.elapsed(), outcome.timings);
                (timings.png, timings.total) = (timings.png + base64, timings.total + base64);
                Ok((drawn.images.len(), timings))
            }
            Err(failure) => Err(anyhow!("{input} failed: {}", failure.error)),
        }
    }
}

fn shown(size: Size) -> String {
    format!("{}x{}", size.width, size.height)
}
