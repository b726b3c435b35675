//! Noise: the numbers that torch's CPU generator draws, so that a seed gives the picture it gives in the reference.
//!
//! torch has two ways to draw 32-bit normals, and they consume the stream differently:
//!
//! * fewer than 16 values: one by one in `f64`; each Box-Muller pair costs four words and its second half waits,
//!   in the generator, for the next small draw;
//! * 16 values and more: one word a value is laid down as a uniform, then blocks of 16 are turned into normals in
//!   place, where value `j` is paired with value `j + 8`. If the length is no multiple of 16, the last 16 places are
//!   drawn afresh, over normals that the last whole block has already written.
//!
//! The second way is torch's AVX2 kernel; its polynomials for log, sine and cosine differ from libm's in the last
//! bits, so results agree to about 5e-7. (torch's portable kernel rounds the angle once less, which moves values by
//! up to 2e-6; it is not followed.)

mod mt19937;

use std::f32::consts::TAU as TAU_F32;
use std::f64::consts::TAU;

use mt19937::Mt19937;

/// Values that one step of torch's vectorised fill turns into normals; shorter draws take the other way.
const BLOCK: usize = 16;

/// `torch.Generator("cpu")`, as far as `torch.randn` in 32-bit floats goes.
///
/// Draws continue one stream: `randn(16)` twice is not `randn(32)`, here as there.
#[derive(Debug, Clone)]
pub struct TorchRng {
    engine: Mt19937,
    /// Second half of the last pair that a small draw made.
    spare: Option<f64>,
}

impl TorchRng {
    /// What `torch.Generator().manual_seed(seed)` gives. torch seeds its engine with the low 32 bits and ignores the rest.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), spare: None }
    }

    /// The next `n` standard normals: `torch.randn(n, generator=g, dtype=torch.float32)`, row-major for any shape of `n` values.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform_f32()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            let tail = &mut values[n - BLOCK..];
            tail.fill_with(|| self.uniform_f32());
            box_muller(tail);
        }
        values
    }

    /// One normal of a small draw.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = TAU * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// Uniform in [0, 1) on a grid of 2^-24, from one word.
    fn uniform_f32(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform in [0, 1) on a grid of 2^-53, from two words, the high one first.
    fn uniform_f64(&mut self) -> f64 {
        let word = u64::from(self.engine.next_u32()) << 32 | u64::from(self.engine.next_u32());
        (word & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }
}

/// Turns a block of 16 uniforms into normals in place, all in `f32`: the first eight give radii, the last eight angles.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt(); // 1 - u is in (0, 1], where the logarithm is finite
        let (sin, cos) = (TAU_F32 * *b).sin_cos();
        *a = radius * cos;
        *b = radius * sin;
    }
}
