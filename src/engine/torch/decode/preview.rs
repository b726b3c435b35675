//! Previews of pictures on their way: what the UNet says now is under the noise, decoded small.

use std::time::{Duration, Instant};

use tch::{TchError, Tensor};
use tracing::debug;

use super::picture::{self, DecodeError};
use crate::engine::Picture;
use crate::engine::torch::denoise::lane::Lane;
use crate::engine::torch::families::Model;

/// How often a job is looked at.
#[derive(Debug, Clone, Copy)]
pub struct PreviewPace {
    /// Between two previews, and before the first.
    pub pause: Duration,
    /// A look is followed by none for this many times as long as it took.
    pub rest: u32,
}

/// Pixels of a look at most, a side.
const SIDE: u32 = 256;

/// When to look at a job.
#[derive(Debug)]
pub(in crate::engine::torch) struct PreviewTimer {
    pace: PreviewPace,
    next: Instant,
}

impl PreviewPace {
    /// So that whoever shares the engine hardly notices.
    pub const DEFAULT: Self = Self { pause: Duration::from_secs(1), rest: 20 };
}

impl PreviewTimer {
    /// At a job that begins now.
    pub(in crate::engine::torch) fn at(pace: PreviewPace) -> Self {
        Self { pace, next: Instant::now() + pace.pause }
    }

    /// Whether it is time for a look.
    pub(in crate::engine::torch) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// What `lane` will come to if the guided `output`, `[1, latent, height, width]`, is right. A look that fails is none, and fails
    /// nothing.
    pub(in crate::engine::torch) fn take(&mut self, model: &Model, lane: &Lane, output: &Tensor) -> Option<Picture> {
        let began = Instant::now();
        let predicted_x0 = lane.predicted_x0(output);
        let look = predicted_x0
            .map_err(DecodeError::from)
            .and_then(|latents| picture::decode_now(model, &small(model, &latents)?));
        let end = Instant::now();
        self.next = end + self.pace.pause.max((end - began) * self.pace.rest);
        look.inspect_err(|cause| debug!("a preview fails: {cause:?}")).ok()
    }
}

/// The latents with so few places that their picture is at most [`SIDE`] a side. The mean of neighbouring latents decodes to about
/// what their pictures look like from afar, at a fraction of the cost.
fn small(model: &Model, latents: &Tensor) -> Result<Tensor, TchError> {
    let most = i64::from((SIDE / model.vae.factor()).max(1));
    let (_, _, height, width) = latents.size4()?;
    let longest = height.max(width);
    if longest <= most {
        return Ok(latents.shallow_clone());
    }
    let side = |side: i64| (side * most / longest).max(1);
    latents.f_adaptive_avg_pool2d([side(height), side(width)])
}
