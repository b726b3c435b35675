//! A block of queries against all keys: FlashAttention-2 (Dao 2023, algorithm 1) with a query in each lane, so that maxima and sums of
//! the softmax go down vectors and never across them.
//!
//! What uses vectors is inlined, all of it, into a function that is compiled for the CPU's instructions: so there are loops here
//! where elsewhere would be closures, which are functions of their own and would be compiled without them.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use pulp::Simd;

use super::arithmetic::{Arithmetic, Number, Sums};

/// Queries of a block, which share keys and values once these are packed: as many as stay in the second cache with their results.
pub(super) fn queries(width: usize) -> usize {
    if width <= 128 { 512 } else { 256 }
}

/// Keys at a time: their scores, and they themselves, stay in the first cache.
const KEYS: usize = 128;
/// Vectors side by side, so that one factor of a key serves both.
const VECTORS: usize = 2;
/// Less than any score, and no infinity, whose differences are no numbers.
const NOTHING: f32 = -1e30;

/// Rows of one head in a tensor: `length` of `width` numbers, `stride` numbers from one to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, N> {
    pub(super) numbers: &'a [N],
    pub(super) stride: usize,
    pub(super) width: usize,
    pub(super) length: usize,
}

impl<'a, N> Rows<'a, N> {
    #[inline(always)]
    fn row(&self, index: usize) -> &'a [N] {
        &self.numbers[index * self.stride..][..self.width]
    }
}

/// What attends to what: as many values as keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a, N> {
    pub(super) queries: Rows<'a, N>,
    pub(super) keys: Rows<'a, N>,
    pub(super) values: Rows<'a, N>,
}

/// A value of each lane of a tile.
type Lanes<T> = [T; VECTORS];

/// As many queries as there are lanes in a tile, and what is known of them after some keys.
struct Tile<A: Arithmetic> {
    /// `[width / DEPTH]`
    queries: Vec<Lanes<A::Factors>>,
    /// Values by weight, `[width]`, not yet divided by `sum`.
    output: Vec<Lanes<Sums<A>>>,
    /// The largest score.
    top: Lanes<Sums<A>>,
    /// Of the weights, `exp(score - top)`.
    sum: Lanes<Sums<A>>,
}

/// Of a tile and some keys.
struct Scratch<A: Arithmetic> {
    /// `[KEYS]`
    scores: Vec<Lanes<Sums<A>>>,
    /// `[KEYS / DEPTH]`
    weights: Vec<Lanes<A::Factors>>,
}

/// Some keys and values in the order in which they are multiplied, `R` rows of a product side by side. What is beyond the last is zero.
struct Packed<A: Arithmetic, const R: usize> {
    /// `[KEYS / R, width / DEPTH, R]`
    keys: Vec<[A::Factor; R]>,
    /// `[width / R, KEYS / DEPTH, R]`
    values: Vec<[A::Factor; R]>,
    /// How many keys.
    count: usize,
}

/// Attends from some queries, and gives each row of the result to `write`. `R` rows of a product are computed at once:
/// as many as there are registers for.
#[inline(always)]
pub(super) fn attend<A: Arithmetic, const R: usize>(
    arithmetic: A,
    head: &Head<A::Number>,
    queries: Range<usize>,
    write: &mut dyn FnMut(usize, &[A::Number]),
) {
    let (width, lanes) = (head.queries.width, VECTORS * A::Simd::F32_LANES);
    let firsts = queries.clone().step_by(lanes);
    let mut tiles: Vec<Tile<A>> = firsts
        .clone()
        .map(|first| Tile::new::<R>(arithmetic, &head.queries, first..queries.end.min(first + lanes)))
        .collect();
    let mut packed = Packed::<A, R>::new(width);
    let mut scratch = Scratch::<A>::new(arithmetic);
    let scale = LOG2_E / (width as f32).sqrt();
    for first in (0..head.keys.length).step_by(KEYS) {
        packed.fill(head, first..head.keys.length.min(first + KEYS));
        for tile in &mut tiles {
            tile.take(arithmetic, &packed, scale, &mut scratch);
        }
    }
    let mut row = vec![A::Number::default(); width];
    for (tile, first) in tiles.iter_mut().zip(firsts) {
        let output = tile.finish(arithmetic, width);
        for (lane, query) in (first..queries.end.min(first + lanes)).enumerate() {
            for (number, values) in row.iter_mut().zip(output.chunks_exact(lanes)) {
                *number = A::Number::of(values[lane]);
            }
            write(query, &row);
        }
    }
}

impl<A: Arithmetic, const R: usize> Packed<A, R> {
    #[inline(always)]
    fn new(width: usize) -> Self {
        let none = [A::Factor::default(); R];
        let keys = vec![none; KEYS / R * width.div_ceil(A::DEPTH)];
        Self { keys, values: vec![none; width.div_ceil(R) * KEYS / A::DEPTH], count: 0 }
    }

    #[inline(always)]
    fn fill(&mut self, head: &Head<A::Number>, which: Range<usize>) {
        let (first, count) = (which.start, which.len());
        let (width, depth) = (head.keys.width, head.keys.width.div_ceil(A::DEPTH));
        for key in 0..count {
            let into = &mut self.keys[key / R * depth..][..depth];
            for (numbers, into) in head.keys.row(first + key).chunks(A::DEPTH).zip(into) {
                into[key % R] = A::factor(numbers[0], numbers.get(1).copied().unwrap_or_default());
            }
        }
        let nothing = vec![A::Number::default(); width];
        for key in (0..count).step_by(A::DEPTH) {
            let row = head.values.row(first + key);
            let next = if key + 1 < count { head.values.row(first + key + 1) } else { &nothing };
            for (group, (row, next)) in row.chunks(R).zip(next.chunks(R)).enumerate() {
                let into = &mut self.values[(group * KEYS + key) / A::DEPTH];
                for ((into, number), next) in into.iter_mut().zip(row).zip(next) {
                    *into = A::factor(*number, *next);
                }
            }
        }
        self.count = count;
    }
}

impl<A: Arithmetic> Scratch<A> {
    #[inline(always)]
    fn new(arithmetic: A) -> Self {
        let scores = vec![[arithmetic.simd().splat_f32s(0.0); VECTORS]; KEYS];
        Self { scores, weights: vec![[arithmetic.splat(A::Factor::default()); VECTORS]; KEYS / A::DEPTH] }
    }
}

impl<A: Arithmetic> Tile<A> {
    #[inline(always)]
    fn new<const R: usize>(arithmetic: A, rows: &Rows<A::Number>, which: Range<usize>) -> Self {
        let (width, lanes) = (rows.width, VECTORS * A::Simd::F32_LANES);
        let zero = arithmetic.simd().splat_f32s(0.0);
        let mut queries = vec![[arithmetic.splat(A::Factor::default()); VECTORS]; width.div_ceil(A::DEPTH)];
        let factors: &mut [A::Factor] = bytemuck::cast_slice_mut(&mut queries);
        for (lane, query) in which.enumerate() {
            for (numbers, into) in rows.row(query).chunks(A::DEPTH).zip(factors.chunks_exact_mut(lanes)) {
                into[lane] = A::factor(numbers[0], numbers.get(1).copied().unwrap_or_default());
            }
        }
        Self {
            queries,
            output: vec![[zero; VECTORS]; width.next_multiple_of(R)],
            top: [arithmetic.simd().splat_f32s(NOTHING); VECTORS],
            sum: [zero; VECTORS],
        }
    }

    /// Takes more keys and values into account.
    #[inline(always)]
    fn take<const R: usize>(&mut self, arithmetic: A, packed: &Packed<A, R>, scale: f32, scratch: &mut Scratch<A>) {
        let simd = arithmetic.simd();
        let before = self.top;
        self.score(arithmetic, packed, &mut scratch.scores);
        let depth = packed.count.div_ceil(A::DEPTH);
        let weights = &mut scratch.weights[..depth];
        let shrink = self.weigh(arithmetic, before, scale, &scratch.scores, weights);
        for (output, values) in self.output.chunks_exact_mut(R).zip(packed.values.chunks_exact(KEYS / A::DEPTH)) {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; R];
            for (sums, output) in sums.iter_mut().zip(&*output) {
                for vector in 0..VECTORS {
                    sums[vector] = simd.mul_f32s(output[vector], shrink[vector]);
                }
            }
            output.copy_from_slice(&product(arithmetic, &values[..depth], weights, sums));
        }
    }

    /// Weights of the scores, and what becomes of earlier results now that the top has risen from `before`.
    #[inline(always)]
    fn weigh(
        &mut self,
        arithmetic: A,
        before: Lanes<Sums<A>>,
        scale: f32,
        scores: &[Lanes<Sums<A>>],
        weights: &mut [Lanes<A::Factors>],
    ) -> Lanes<Sums<A>> {
        let simd = arithmetic.simd();
        let scale = simd.splat_f32s(scale);
        let mut shrink = before;
        for vector in 0..VECTORS {
            // Rounded once and for all scores alike: what it is off by is in the sum, too.
            let shift = simd.mul_f32s(self.top[vector], scale);
            shrink[vector] = exp2::<A>(simd, simd.sub_f32s(simd.mul_f32s(before[vector], scale), shift));
            let mut sum = simd.mul_f32s(self.sum[vector], shrink[vector]);
            let shift = simd.neg_f32s(shift);
            for (scores, into) in scores.chunks_exact(A::DEPTH).zip(&mut *weights) {
                let mut pair = [simd.splat_f32s(0.0); 2];
                for (weight, score) in pair.iter_mut().zip(scores) {
                    *weight = exp2::<A>(simd, simd.mul_add_e_f32s(score[vector], scale, shift));
                    sum = simd.add_f32s(sum, *weight);
                }
                into[vector] = arithmetic.factors(pair[0], pair[1]);
            }
            self.sum[vector] = sum;
        }
        shrink
    }

    /// Query times key for each key, and the largest so far; keys that are not there score nothing.
    #[inline(always)]
    fn score<const R: usize>(&mut self, arithmetic: A, packed: &Packed<A, R>, scores: &mut [Lanes<Sums<A>>]) {
        let simd = arithmetic.simd();
        let groups = packed.count.div_ceil(R);
        for (scores, keys) in scores.chunks_exact_mut(R).zip(packed.keys.chunks_exact(self.queries.len())).take(groups)
        {
            let products = product(arithmetic, keys, &self.queries, [[simd.splat_f32s(0.0); VECTORS]; R]);
            scores.copy_from_slice(&products);
        }
        for score in &mut scores[packed.count..] {
            *score = [simd.splat_f32s(NOTHING); VECTORS];
        }
        for score in &scores[..packed.count] {
            for (top, score) in self.top.iter_mut().zip(score) {
                *top = simd.max_f32s(*top, *score);
            }
        }
    }

    /// The weighted mean of all values, `[width, lanes]`.
    #[inline(always)]
    fn finish(&mut self, arithmetic: A, width: usize) -> &[f32] {
        let simd = arithmetic.simd();
        let output = &mut self.output[..width];
        for values in output.iter_mut() {
            for (values, sum) in values.iter_mut().zip(self.sum) {
                *values = simd.div_f32s(*values, sum);
            }
        }
        bytemuck::cast_slice(output)
    }
}

/// `a b + sums`, where `a` is `[depth, R]` and `b` is `[depth, lanes]`.
#[inline(always)]
fn product<A: Arithmetic, const R: usize>(
    arithmetic: A,
    a: &[[A::Factor; R]],
    b: &[Lanes<A::Factors>],
    mut sums: [Lanes<Sums<A>>; R],
) -> [Lanes<Sums<A>>; R] {
    for (a, b) in a.iter().zip(b) {
        for row in 0..R {
            let factor = arithmetic.splat(a[row]);
            for vector in 0..VECTORS {
                sums[row][vector] = arithmetic.multiply_add(factor, b[vector], sums[row][vector]);
            }
        }
    }
    sums
}

/// 2 to the power of what is not above 0: to the nearest integer by the exponent's bits, the rest by a polynomial.
#[inline(always)]
fn exp2<A: Arithmetic>(simd: A::Simd, x: Sums<A>) -> Sums<A> {
    /// An f32 as large as this has no places after the point, and its lowest bits are those of an integer.
    const WHOLE: f32 = 12_582_912.0;
    let x = simd.max_f32s(x, simd.splat_f32s(-126.0));
    let whole = simd.add_f32s(x, simd.splat_f32s(WHOLE));
    let rest = simd.sub_f32s(x, simd.sub_f32s(whole, simd.splat_f32s(WHOLE)));
    let mut power = simd.splat_f32s(A::EXP2[0]);
    for factor in &A::EXP2[1..] {
        power = simd.mul_add_e_f32s(power, rest, simd.splat_f32s(*factor));
    }
    power = simd.mul_add_e_f32s(power, rest, simd.splat_f32s(1.0));
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(whole), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(power), exponent))
}
