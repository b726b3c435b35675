//! Attention on a CPU, in one pass over keys and values and without a matrix of scores: libtorch's own takes a third to a half of
//! an evaluation of SD 1.5 there.

#![expect(clippy::inline_always, reason = "what uses vectors must become a part of what is compiled for them")]

mod arithmetic;
mod block;
mod team;
#[cfg(test)]
mod tests;

use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::ops::Range;
use std::slice;
use std::sync::LazyLock;

use half::bf16;
use pulp::x86::{V3, V4};
use tch::{Device, Kind, TchError, Tensor};

pub(super) use self::arithmetic::PairsOfBf16;
use self::arithmetic::{Number, Single};
use self::block::{Head, Rows};
use super::Forward;

/// With the instructions that the CPU has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flash {
    /// f32, eight at a time.
    Avx2(V3),
    /// f32, sixteen at a time.
    Avx512(V4),
    /// bf16.
    Pairs(PairsOfBf16),
}

static F32: LazyLock<Option<Flash>> =
    LazyLock::new(|| V4::try_new().map(Flash::Avx512).or_else(|| V3::try_new().map(Flash::Avx2)));

/// Not where there is Intel's AMX: libtorch multiplies bf16 by its tiles, which no vectors keep up with.
static BF16: LazyLock<Option<Flash>> = LazyLock::new(|| {
    let has_tiles = __cpuid_count(7, 0).edx & 1 << 22 != 0;
    PairsOfBf16::detect().filter(|_| !has_tiles).map(Flash::Pairs)
});

impl Flash {
    /// For tensors like `q`; `None` where libtorch does it better, or alone.
    pub(super) fn of(q: &Tensor) -> Option<Self> {
        match (q.device(), q.kind()) {
            (Device::Cpu, Kind::Float) => *F32,
            (Device::Cpu, Kind::BFloat16) => *BF16,
            _ => None,
        }
    }

    /// `softmax(q kᵀ / √d) v` for `heads` heads, `[batch, length, channels]`. `q`, `k` and `v` are like that, too, and each row lies in one
    /// piece of memory.
    ///
    /// # Errors
    /// They are not; or there is no memory.
    pub(super) fn attend(self, q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Forward {
        let kind = if matches!(self, Self::Pairs(_)) { Kind::BFloat16 } else { Kind::Float };
        let alike = |x: &Tensor| {
            (x.kind(), x.device(), x.dim()) == (kind, Device::Cpu, 3)
                && x.stride()[2] == 1
                && (x.size()[0], x.size()[2]) == (q.size()[0], q.size()[2])
        };
        if ![q, k, v].into_iter().all(alike) || k.size() != v.size() {
            return Err(TchError::Shape(format!("no attention of {q:?} to {k:?} and {v:?}")));
        }
        let output = Tensor::f_empty(q.size(), (kind, Device::Cpu))?;
        match self {
            Self::Avx2(simd) => share([q, k, v], &output, heads, |head, queries, write| {
                simd.vectorize(
                    #[inline(always)]
                    || block::attend::<_, 4>(Single(simd), head, queries, write),
                );
            }),
            Self::Avx512(simd) => share([q, k, v], &output, heads, |head, queries, write| {
                simd.vectorize(
                    #[inline(always)]
                    || block::attend::<_, 8>(Single(simd), head, queries, write),
                );
            }),
            Self::Pairs(pairs) => {
                share([q, k, v], &output, heads, |head, queries, write| pairs.attend(head, queries, write));
            }
        }
        Ok(output)
    }
}

impl PairsOfBf16 {
    /// [`block::attend`], compiled for these instructions.
    fn attend(self, head: &Head<bf16>, queries: Range<usize>, write: &mut dyn FnMut(usize, &[bf16])) {
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,fxsr")]
        fn attend(pairs: PairsOfBf16, head: &Head<bf16>, queries: Range<usize>, write: &mut dyn FnMut(usize, &[bf16])) {
            block::attend::<_, 8>(pairs, head, queries, write);
        }
        // SAFETY: a value of this type is proof of them.
        #[expect(unsafe_code, reason = "instructions that not every CPU has")]
        unsafe {
            attend(self, head, queries, write);
        }
    }
}

/// Has `attend` do each block of queries of each head, on all threads. `N` is the kind of the tensors.
fn share<N: Number>(
    inputs: [&Tensor; 3],
    output: &Tensor,
    heads: i64,
    attend: impl Fn(&Head<N>, Range<usize>, &mut dyn FnMut(usize, &[N])) + Sync,
) {
    let [q, k, v] = inputs.map(|tensor| Sequences::<N>::of(tensor, heads as usize));
    let output = Output::<N>::of(output);
    let queries = block::queries(q.width);
    let blocks = q.length.div_ceil(queries);
    team::for_each(q.batch * q.heads * blocks, |index| {
        let (at, first) = (index / blocks, index % blocks * queries);
        let head = Head { queries: q.rows(at), keys: k.rows(at), values: v.rows(at) };
        attend(&head, first..q.length.min(first + queries), &mut |query, row| {
            output.write(((at / q.heads * q.length + query) * q.heads + at % q.heads) * q.width, row);
        });
    });
}

/// A tensor `[batch, length, heads · width]`.
struct Sequences<'a, N> {
    numbers: &'a [N],
    batch: usize,
    length: usize,
    heads: usize,
    width: usize,
    /// From one element of the batch to the next, and from one row to the next.
    strides: [usize; 2],
}

impl<'a, N> Sequences<'a, N> {
    fn of(tensor: &'a Tensor, heads: usize) -> Self {
        let (size, stride) = (tensor.size(), tensor.stride());
        let last: i64 = size.iter().zip(&stride).map(|(size, stride)| (size - 1) * stride).sum();
        let numbers: &[N] = if size.contains(&0) {
            &[] // A tensor without elements may have no memory, and its pointer be null.
        } else {
            // SAFETY: `N` is the tensor's kind; its memory goes as far as its last element and stays for as long as the reference.
            #[expect(unsafe_code, reason = "the memory of a tensor")]
            unsafe {
                slice::from_raw_parts(tensor.data_ptr().cast::<N>(), last as usize + 1)
            }
        };
        let [batch, length, channels] = [0, 1, 2].map(|dimension| size[dimension] as usize);
        let strides = [0, 1].map(|dimension| stride[dimension] as usize);
        Self { numbers, batch, length, heads, width: channels / heads, strides }
    }

    /// Those of one head of one element of the batch.
    fn rows(&self, at: usize) -> Rows<'a, N> {
        let first = at / self.heads * self.strides[0] + at % self.heads * self.width;
        Rows { numbers: &self.numbers[first..], stride: self.strides[1], width: self.width, length: self.length }
    }
}

/// A tensor that threads write into, each elsewhere.
struct Output<'a, N> {
    numbers: *mut N,
    count: usize,
    tensor: PhantomData<&'a Tensor>,
}

// SAFETY: no thread reads, and no two write the same rows.
#[expect(unsafe_code, reason = "memory that threads share")]
unsafe impl<N: Sync> Sync for Output<'_, N> {}

impl<'a, N: Copy> Output<'a, N> {
    /// Of a contiguous tensor.
    fn of(tensor: &'a Tensor) -> Self {
        Self { numbers: tensor.data_ptr().cast(), count: tensor.numel(), tensor: PhantomData }
    }

    fn write(&self, at: usize, row: &[N]) {
        assert!(at + row.len() <= self.count, "a row beyond the tensor");
        // SAFETY: it is inside the tensor, as was just seen, and not shared.
        #[expect(unsafe_code, reason = "memory that threads share")]
        unsafe {
            self.numbers.add(at).copy_from_nonoverlapping(row.as_ptr(), row.len());
        }
    }
}
