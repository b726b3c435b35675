//! Jobs that are drawn to see how long they take.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::figures::{Latency, Rows, Spread, Stream};
use crate::encode;
use crate::engine::host::Host;
use crate::job::{Size, Timings};
use crate::worker::{Terms, render};

/// Steps of what is drawn first and does not count.
const WARM: u32 = 2;

/// An engine to measure.
pub(super) struct Bench<'a> {
    pub(super) host: &'a Host,
    pub(super) terms: &'a Terms,
    /// Times that each thing is done.
    pub(super) rounds: usize,
}

impl Bench<'_> {
    /// One image after the other. `work` is what an evaluation of two rows is, by row.
    pub(super) async fn latency(&self, size: Size, steps: u32, work: f64) -> anyhow::Result<Latency> {
        let runs = self.runs(size, steps, 1).await?;
        let spread = |of: fn(&Timings) -> Duration| Spread::of(runs.iter().map(|run| of(run).as_secs_f64()));
        Ok(Latency {
            size: shown(size),
            steps,
            total: spread(|run| run.total),
            text: spread(|run| run.text),
            evaluation: Spread::of(runs.iter().map(|run| run.denoise.as_secs_f64() / f64::from(run.evaluations))),
            decode: spread(|run| run.decode),
            png: spread(|run| run.png),
            work: 2.0 * work,
        })
    }

    /// Several images of one job, which the engine draws in as few evaluations as it likes.
    pub(super) async fn side_by_side(&self, size: Size, steps: u32, images: u32) -> anyhow::Result<Rows> {
        let runs = self.runs(size, steps, images).await?;
        let steps = |run: &Timings| f64::from(run.evaluations) / f64::from(images);
        let step = Spread::of(runs.iter().map(|run| run.denoise.as_secs_f64() / steps(run)));
        Ok(Rows { size: shown(size), images, step })
    }

    async fn runs(&self, size: Size, steps: u32, images: u32) -> anyhow::Result<Vec<Timings>> {
        let input = |steps| {
            json!({
                "prompt": "a red apple", "width": size.width, "height": size.height, "num_inference_steps": steps, "scheduler": "DDIM",
                "guidance_scale": 7.5, "num_outputs": images, "seed": 7,
            })
        };
        self.draw(&input(WARM)).await?;
        let mut runs = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            runs.push(self.draw(&input(steps)).await?.1);
        }
        Ok(runs)
    }

    /// All of `jobs`, of which so many are in hand at the same time.
    pub(super) async fn stream(&self, jobs: Vec<Value>, at_once: usize) -> anyhow::Result<Stream> {
        let began = Instant::now();
        let drawn: Vec<_> = stream::iter(&jobs).map(|job| self.draw(job)).buffer_unordered(at_once).collect().await;
        let seconds = began.elapsed().as_secs_f64();
        let drawn = drawn.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let mut times: Vec<f64> = drawn.iter().map(|(_, run)| run.total.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let images: usize = drawn.iter().map(|(images, _)| images).sum();
        let images_a_minute = 60.0 * images as f64 / seconds;
        Ok(Stream { jobs, at_once, images, seconds, images_a_minute, p50: at(0.5), p95: at(0.95) })
    }

    /// A job as the worker runs it, to the text that would be delivered, without what brings it and takes it away.
    async fn draw(&self, input: &Value) -> anyhow::Result<(usize, Timings)> {
        let engine = async |_| Ok((self.host, Duration::ZERO));
        let outcome = render("bench", input, self.terms, engine, CancellationToken::new(), |_| ()).await;
        match outcome.result {
            Ok(drawn) => {
                let began = Instant::now();
                drawn.images.iter().for_each(|image| drop(black_box(encode::base64(&image.file))));
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
