//! What was measured, as `--json` prints it. Times are seconds, memory is bytes, rates are operations a second.

use serde::Serialize;
use serde_json::Value;

use crate::engine::torch::device::rates;

/// The least, the middle and the most of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of values, one at least.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let (middle, even) = (sorted.len() / 2, sorted.len().is_multiple_of(2));
        let median = if even { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) } else { at(middle) };
        Self { min: at(0), median, max: at(sorted.len().wrapping_sub(1)) }
    }
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    #[serde(flatten)]
    pub(super) machine: MachineFigures,
    pub(super) start: StartFigures,
    pub(super) latency: Vec<LatencyFigures>,
    pub(super) rows: Vec<RowsFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<StreamFigures>,
    pub(super) memory: MemoryFigures,
    /// Of a GPU with the CUDA helper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gpu: Option<GpuFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rates: Option<RatesFigures>,
}

/// What measured it.
#[derive(Debug, Serialize)]
pub(super) struct MachineFigures {
    pub(super) latentd: &'static str,
    pub(super) model: String,
    /// And the numbers that it computes in.
    pub(super) device: String,
    pub(super) threads: usize,
}

/// From nothing to an engine.
#[derive(Debug, Serialize)]
pub(super) struct StartFigures {
    /// Weights and device.
    pub(super) load: f64,
    /// From the start of the process, too.
    pub(super) ready: f64,
}

/// One image at a time.
#[derive(Debug, Serialize)]
pub(super) struct LatencyFigures {
    pub(super) size: String,
    pub(super) steps: u32,
    /// From the input to the PNG in base64.
    pub(super) total: Spread,
    pub(super) text: Spread,
    /// One of the UNet, of two rows with guidance; of base model and refiner, the mean of both.
    pub(super) evaluation: Spread,
    pub(super) decode: Spread,
    /// And base64.
    pub(super) png: Spread,
    /// Operations of an evaluation; none where a refiner makes some of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) work: Option<f64>,
}

/// Several images side by side.
#[derive(Debug, Serialize)]
pub(super) struct RowsFigures {
    pub(super) size: String,
    pub(super) images: u32,
    /// Until each of them is an evaluation further.
    pub(super) step: Spread,
}

/// Jobs of all kinds, several in hand.
#[derive(Debug, Serialize)]
pub(super) struct StreamFigures {
    /// As inputs, for who compares.
    pub(super) jobs: Vec<Value>,
    pub(super) at_once: usize,
    pub(super) images: usize,
    pub(super) seconds: f64,
    pub(super) images_a_minute: f64,
    /// Half of the jobs took no longer, from when they were given to the engine.
    pub(super) p50: f64,
    pub(super) p95: f64,
}

/// At most, until now.
#[derive(Debug, Serialize)]
pub(super) struct MemoryFigures {
    pub(super) resident: u64,
    /// Taken of the device, by whomever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<u64>,
}

/// What the engine made use of.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct GpuFigures {
    /// That were measured.
    pub(super) evaluations: u64,
    /// That were measured and replays of CUDA graphs.
    pub(super) replayed: u64,
    /// CUDA graphs that were recorded, measured or not.
    pub(super) graphs: u64,
    /// Whether kernels of our own were called.
    pub(super) kernels: bool,
}

/// What the device can do at best.
#[derive(Debug, Serialize)]
pub(super) struct RatesFigures {
    pub(super) matrices: f64,
    pub(super) convolution: f64,
}

impl From<rates::Rates> for RatesFigures {
    fn from(rates: rates::Rates) -> Self {
        Self { matrices: rates.matrices, convolution: rates.convolution }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(Spread::of([5.0]), Spread { min: 5.0, median: 5.0, max: 5.0 });
    }
}
