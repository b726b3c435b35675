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
