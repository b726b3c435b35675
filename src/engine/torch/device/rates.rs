//! How fast a device multiplies at best, through libtorch: what an evaluation's time is measured against.

use std::time::{Duration, Instant};

use tch::{Cuda, Device, TchError, Tensor};

use super::layout::channels_last;
use super::target::Target;

/// Runs of each product. The best counts: whatever else the machine does only makes one slower.
const RUNS: usize = 6;

/// Multiplications with their additions, two operations each, a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of two square matrices: 2048 wide on a CPU, 8192 on a GPU.
    pub matrices: f64,
    /// Of a 3×3 convolution of 320 channels on 64×64 places, the widest of SD v1: 2 images on a CPU, 32 on a GPU.
    pub convolution: f64,
}

/// Measures them, in the numbers of `target`. Takes a second or two; nothing else should run.
///
/// # Errors
/// libtorch fails, as for lack of memory.
pub fn measure(target: Target) -> Result<Rates, TchError> {
    let _guard = tch::no_grad_guard();
    let (side, images) = if target.is_cpu() { (2048, 2) } else { (8192, 32) };
    let random = |shape: &[i64]| Tensor::f_randn(shape, (target.kind, target.device));
    let (left, right) = (random(&[side, side])?, random(&[side, side])?);
    let matrices = 2.0 * (side as f64).powi(3) / best(target, || left.f_matmul(&right))?;

    let (channels, places) = (320, 64);
    let image = channels_last(&random(&[images, channels, places, places])?)?;
    let kernel = channels_last(&random(&[channels, channels, 3, 3])?)?;
    let convolve = || image.f_conv2d(&kernel, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
    let products = images * places * places * channels * channels * 9;
    Ok(Rates { matrices, convolution: 2.0 * products as f64 / best(target, convolve)? })
}

/// Seconds of the fastest run.
fn best(target: Target, product: impl Fn() -> Result<Tensor, TchError>) -> Result<f64, TchError> {
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let began = Instant::now();
        let made = product()?;
        if let Device::Cuda(number) = target.device {
            Cuda::synchronize(number as i64);
        }
        best = best.min(began.elapsed());
        drop(made);
    }
    Ok(best.as_secs_f64())
}
