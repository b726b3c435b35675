//! Runs recorded by `scripts/parity/samplers.py`, and how far the tables are from them. Also part of `tests/samplers.rs`.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use latentd::sampler::{Level, LinearCombination, NoiseSchedule, Plan, STATE_SLOTS, Sampler, Source, plan};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Values in a sample.
const WIDTH: usize = 2;
/// Streams of made-up numbers.
const INIT_NOISE: u64 = 0;
const INIT_IMAGE: u64 = 1;
const OUTPUT: u64 = 2;
const NOISE: u64 = 3;

/// One tensor of the size of a sample.
type Values = [f64; WIDTH];

/// One run of one of the reference's schedulers.
#[derive(Deserialize)]
pub(crate) struct Case {
    /// Name of the scheduler configuration.
    pub(crate) config: String,
    /// Steps of the whole schedule.
    pub(crate) steps: usize,
    /// The step that the run began at.
    pub(crate) begin: usize,
    /// Noise of each step, of samplers that have the choice.
    #[serde(default)]
    eta: f64,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What came of a run.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    /// Its numbers.
    Drawn(Trajectory),
    /// An error, or numbers without end.
    Refused {
        /// That this is so.
        refused: bool,
    },
}

/// The numbers of one run.
#[derive(Deserialize)]
struct Trajectory {
    initial_scale: f64,
    begin_level: (f64, f64),
    timesteps: Vec<f64>,
    input_scales: Vec<f64>,
    keeps: Vec<(f64, f64)>,
    x: Vec<Values>,
}

/// A scheduler configuration with the digest of what the reference makes of it.
#[derive(Deserialize)]
pub(crate) struct Config {
    /// What cases call it.
    pub(crate) name: String,
    text: String,
    alphas_cumprod_sha256: String,
    /// The relative difference that its runs may have, if that is not the usual one.
    pub(crate) bound: Option<f64>,
}

impl Config {
    /// Our noise schedule of this configuration.
    pub(crate) fn schedule(&self) -> Result<NoiseSchedule> {
        NoiseSchedule::from_json(&self.text).with_context(|| self.name.clone())
    }

    /// Whether a schedule is the reference's to the last bit.
    pub(crate) fn is_same(&self, schedule: &NoiseSchedule) -> bool {
        let bytes: Vec<u8> = schedule.alphas_cumprod().iter().flat_map(|alpha| alpha.to_le_bytes()).collect();
        let digest = Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        digest == self.alphas_cumprod_sha256
    }
}

/// The scheduler configurations of a folder of recorded runs.
pub(crate) fn configs(dir: &Path) -> Result<Vec<Config>> {
    read(&dir.join("configs.json"))
}

/// The recorded runs of one sampler.
pub(crate) fn cases(dir: &Path, sampler: Sampler) -> Result<Vec<Case>> {
    read(&dir.join(format!("{sampler}.json")))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

impl Case {
    /// The largest relative difference between our plan of this run and what was recorded: over timesteps (relative to
    /// the length of the schedule), scales and levels (to themselves, or to 1 where they are smaller) and x after each
    /// row (to the largest x of the run). A run that was refused differs by nothing if there is no plan of it.
    pub(crate) fn difference(&self, sampler: Sampler, schedule: &NoiseSchedule) -> Result<f64> {
        let plan = plan(sampler, &schedule.with_eta(self.eta), self.steps, self.begin);
        match &self.outcome {
            Outcome::Drawn(trajectory) => trajectory.difference(&plan?, schedule, self.begin == 0),
            Outcome::Refused { refused } => {
                ensure!(*refused && plan.is_err(), "there is a plan, which the reference refuses");
                Ok(0.0)
            }
        }
    }
}

impl Trajectory {
    fn difference(&self, plan: &Plan, schedule: &NoiseSchedule, from_noise: bool) -> Result<f64> {
        ensure!(plan.rows.len() == self.timesteps.len(), "{} rows, not {}", plan.rows.len(), self.timesteps.len());
        let length = schedule.alphas_cumprod().len() as f64;
        let largest = self.x.iter().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let x = run(plan, from_noise);

        let mut figures = vec![apart(plan.initial_scale, self.initial_scale)];
        figures.extend(levels_apart(plan.begin, self.begin_level));
        for (i, row) in plan.rows.iter().enumerate() {
            figures.push((row.timestep - self.timesteps[i]).abs() / length);
            figures.push(apart(row.input_scale, self.input_scales[i]));
            figures.extend(levels_apart(row.keep, self.keeps[i]));
            figures.extend(x[i].iter().zip(self.x[i]).map(|(ours, reference)| (ours - reference).abs() / largest));
        }
        Ok(figures.into_iter().fold(0.0, worst))
    }
}

/// The larger, or NaN if either is.
fn worst(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

fn apart(ours: f64, reference: f64) -> f64 {
    (ours - reference).abs() / reference.abs().max(1.0)
}

fn levels_apart(ours: Level, (signal, noise): (f64, f64)) -> [f64; 2] {
    [apart(ours.signal, signal), apart(ours.noise, noise)]
}

/// x after each row, over the made-up model outputs and noises.
fn run(plan: &Plan, from_noise: bool) -> Vec<Values> {
    let (image, noise) = (made_up(INIT_IMAGE, 0), made_up(INIT_NOISE, 0));
    let start = |i: usize| {
        if from_noise {
            noise[i] * plan.initial_scale
        } else {
            image[i] * plan.begin.signal + noise[i] * plan.begin.noise
        }
    };
    // A slot that is read before it is written spoils everything after it.
    let mut state = [[f64::NAN; WIDTH]; STATE_SLOTS];
    state[0] = std::array::from_fn(start);
    let mut trajectory = Vec::with_capacity(plan.rows.len());
    for (i, row) in (0..).zip(&plan.rows) {
        let (output, noise) = (made_up(OUTPUT, i), made_up(NOISE, i));
        let combine = |next: LinearCombination| {
            let mut sum = [0.0; WIDTH];
            for (source, factor) in next.terms() {
                let values = match source {
                    Source::Slot(slot) => state[slot],
                    Source::Output => output,
                    Source::Noise => noise,
                };
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
            }
            sum
        };
        state = row.update.next.map(combine);
        trajectory.push(state[0]);
    }
    trajectory
}

/// Numbers of mean 0 and variance 1 that both sides can make: `made_up` of `scripts/parity/samplers.py`.
fn made_up(stream: u64, row: u64) -> Values {
    std::array::from_fn(|column| {
        let place = (stream << 32) + (row << 8) + column as u64 + 1;
        let z = place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) as f64 / 2.0_f64.powi(52) - 1.0) * 3.0_f64.sqrt()
    })
}
