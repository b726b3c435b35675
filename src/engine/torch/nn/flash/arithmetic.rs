//! How scores and weighted sums are multiplied: numbers of f32 with any instructions, and pairs of bf16 with AVX-512's own.

use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
use std::mem;

use bytemuck::Pod;
use half::bf16;
use pulp::{Simd, f32x16, u32x16, x86::V4};

/// A number as tensors hold it.
pub(super) trait Number: Copy + Default + Sync {
    fn of(value: f32) -> Self;
}

impl Number for f32 {
    fn of(value: f32) -> Self {
        value
    }
}

impl Number for bf16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Instructions on vectors of lanes. Sums are f32; what is multiplied is a *factor*, [`Self::DEPTH`] numbers that follow each other along
/// what is summed.
pub(super) trait Arithmetic: Copy {
    type Simd: Simd;
    type Number: Number;
    type Factor: Pod + Default;
    /// One factor a lane.
    type Factors: Pod;
    /// 1 or 2.
    const DEPTH: usize;
    /// Of a polynomial that is `2ˣ - 1` for `x` from -1/2 to 1/2, the factors of the highest power first; there is no constant one. As exact
    /// as numbers of this kind are, by the least of the largest relative errors.
    const EXP2: &[f32];

    fn simd(self) -> Self::Simd;
    /// `second` only counts where the depth is 2.
    fn factor(first: Self::Number, second: Self::Number) -> Self::Factor;
    fn splat(self, factor: Self::Factor) -> Self::Factors;
    /// The same of sums.
    fn factors(self, first: Sums<Self>, second: Sums<Self>) -> Self::Factors;
    /// `a · b + sum`, lane by lane.
    fn multiply_add(self, a: Self::Factors, b: Self::Factors, sum: Sums<Self>) -> Sums<Self>;
}

/// A vector of f32.
pub(super) type Sums<A> = <<A as Arithmetic>::Simd as Simd>::f32s;

/// f32 alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Single<S>(pub(super) S);

impl<S: Simd> Arithmetic for Single<S> {
    type Simd = S;
    type Number = f32;
    type Factor = f32;
    type Factors = S::f32s;
    const DEPTH: usize = 1;
    /// To 2e-9.
    const EXP2: &[f32] = &[1.535_336_2e-4, 1.339_887_5e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1];

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn factor(first: f32, _second: f32) -> f32 {
        first
    }

    #[inline(always)]
    fn splat(self, factor: f32) -> S::f32s {
        self.0.splat_f32s(factor)
    }

    #[inline(always)]
    fn factors(self, first: S::f32s, _second: S::f32s) -> S::f32s {
        first
    }

    #[inline(always)]
    fn multiply_add(self, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        self.0.mul_add_e_f32s(a, b, sum)
    }
}

/// Two bf16 at a time, summed in f32: twice the products. The CPU has AVX512-BF16 where there is a value of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch::nn) struct PairsOfBf16(V4);

impl PairsOfBf16 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512bf16").then(V4::try_new).flatten().map(Self)
    }
}

impl Arithmetic for PairsOfBf16 {
    type Simd = V4;
    type Number = bf16;
    /// The first in the lower half.
    type Factor = u32;
    type Factors = u32x16;
    const DEPTH: usize = 2;
    /// To 1e-4, where half a place of bf16 is 2e-3.
    const EXP2: &[f32] = &[5.500_893e-2, 2.422_109_7e-1, 6.932_83e-1];

    #[inline(always)]
    fn simd(self) -> V4 {
        self.0
    }

    #[inline(always)]
    fn factor(first: bf16, second: bf16) -> u32 {
        u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
    }

    #[inline(always)]
    fn splat(self, factor: u32) -> u32x16 {
        self.0.splat_u32s(factor)
    }

    /// Rounded to nearest; none is so large that it would overflow.
    #[inline(always)]
    fn factors(self, first: f32x16, second: f32x16) -> u32x16 {
        let simd = self.0;
        let half = simd.splat_u32s(0x8000);
        let round = |sums| simd.add_u32s(simd.transmute_u32s_f32s(sums), half);
        let low = simd.wrapping_dyn_shr_u32s(round(first), simd.splat_u32s(16));
        simd.or_u32s(low, simd.and_u32s(round(second), simd.splat_u32s(0xffff_0000)))
    }

    #[inline(always)]
    fn multiply_add(self, a: u32x16, b: u32x16, sum: f32x16) -> f32x16 {
        // SAFETY: a value of this type is proof of the instruction; all are 64 bytes of plain numbers.
        #[expect(unsafe_code, reason = "an instruction that pulp has not")]
        unsafe {
            let sum = mem::transmute::<f32x16, __m512>(sum);
            let (a, b) = (mem::transmute::<u32x16, __m512bh>(a), mem::transmute::<u32x16, __m512bh>(b));
            mem::transmute::<__m512, f32x16>(_mm512_dpbf16_ps(sum, a, b))
        }
    }
}
