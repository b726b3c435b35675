//! The reference's schedule of betas, to the last bit of an f32.
//!
//! diffusers makes it with torch on the CPU, in f32, so its rounding is part of every sampler's numbers. torch's
//! kernels decide how: `linspace` (`RangeFactoriesKernel.cpp`) steps from the nearer end with one fused multiply-add
//! (on processors with AVX2 and later), `cumprod` (`ReduceOpsKernel.cpp`) multiplies in f64 and rounds what it stores.

/// `torch.linspace(start, end, count, dtype=float32)`, for `count` of at least 2.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count - 1) as f32;
    let half = count / 2;
    let from_start = (0..half).map(|i| step.mul_add(i as f32, start));
    let from_end = (half..count).map(|i| (-step).mul_add((count - 1 - i) as f32, end));
    from_start.chain(from_end).collect()
}

/// Betas at even distances (`beta_schedule` "linear").
pub(super) fn linear(start: f64, end: f64, count: usize) -> Vec<f32> {
    linspace(start, end, count)
}

/// Betas whose roots are at even distances (`beta_schedule` "`scaled_linear`", that of latent diffusion).
pub(super) fn scaled_linear(start: f64, end: f64, count: usize) -> Vec<f32> {
    linspace(start.powf(0.5), end.powf(0.5), count).into_iter().map(|root| root * root).collect()
}

/// ᾱ of DDPM (arXiv 2006.11239): the running product of `1 - beta`.
pub(super) fn alphas_cumprod(betas: &[f32]) -> Vec<f32> {
    betas
        .iter()
        .scan(1.0_f64, |product, &beta| {
            *product *= f64::from(1.0 - beta);
            Some(*product as f32)
        })
        .collect()
}

/// The same betas with no signal left at the last timestep and as much as before at the first (arXiv 2305.08891, algorithm 1), in f32 as the
/// reference has it.
pub(super) fn with_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = alphas_cumprod(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let factor = first / (first - last);
    let squares = roots.iter().map(|root| {
        let root = (root - last) * factor;
        root * root
    });
    let mut before = 1.0;
    squares.map(|alpha| 1.0 - alpha / std::mem::replace(&mut before, alpha)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaled_betas_leave_no_signal_at_the_end_and_as_much_at_the_start() {
        let betas = scaled_linear(0.00085, 0.012, 1000);
        let (plain, rescaled) = (alphas_cumprod(&betas), alphas_cumprod(&with_zero_terminal_snr(&betas)));
        assert!((rescaled[0] - plain[0]).abs() < 1e-6, "{} and {}", rescaled[0], plain[0]);
        assert_eq!(rescaled[999].to_bits(), 0.0_f32.to_bits());
        assert!(rescaled.is_sorted_by(|high, low| high > low));
        assert_eq!(with_zero_terminal_snr(&[]), [0.0_f32; 0]);
    }
}
