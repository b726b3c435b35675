//! Each kind of instructions against the same in f64, and against libtorch.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::engine::torch::device::random::normal;

/// Those that this CPU has.
fn all() -> Vec<Flash> {
    let single = [V3::try_new().map(Flash::Avx2), V4::try_new().map(Flash::Avx512)];
    single.into_iter().chain([PairsOfBf16::detect().map(Flash::Pairs)]).flatten().collect()
}

fn kind(flash: Flash) -> Kind {
    if matches!(flash, Flash::Pairs(_)) { Kind::BFloat16 } else { Kind::Float }
}

fn split(x: &Tensor, heads: i64) -> Tensor {
    let (batch, length, channels) = x.size3().unwrap();
    x.reshape([batch, length, heads, channels / heads]).transpose(1, 2)
}

/// In f64, step by step.
fn attend_plainly(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Tensor {
    let [q, k, v] = [q, k, v].map(|x| split(&x.to_kind(Kind::Double), heads));
    let scores = q.matmul(&k.transpose(2, 3)) / (*q.size().last().unwrap() as f64).sqrt();
    scores.softmax(-1, Kind::Double).matmul(&v).transpose(1, 2).flatten(2, 3)
}

fn attend_by_libtorch(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64) -> Tensor {
    let [q, k, v] = [q, k, v].map(|x| split(x, heads));
    Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false)
        .transpose(1, 2)
        .flatten(2, 3)
}

#[test]
fn it_is_as_exact_as_libtorch_s() {
    // SD 1.5's sizes and the model's in the box, and some that fill no block, no vector and no pair.
    let sizes = [
        (512, 512, 40),
        (256, 77, 80),
        (64, 64, 160),
        (300, 300, 64),
        (257, 65, 8),
        (3, 1, 5),
        (1, 130, 33),
        (70, 200, 512),
    ];
    for flash in all() {
        for (queries, keys, width) in sizes {
            let of = |seed, length| normal(seed, &[2, length, 3 * width], kind(flash)) * 2.0;
            let (q, k, v) = (of(7, queries), of(8, keys), of(9, keys));
            let wanted = attend_plainly(&q, &k, &v, 3);
            let off = |x: &Tensor| (x - &wanted).abs().max().double_value(&[]);
            let (ours, theirs) = (flash.attend(&q, &k, &v, 3).unwrap(), attend_by_libtorch(&q, &k, &v, 3));
            assert_eq!((ours.size(), ours.kind()), (theirs.size(), theirs.kind()));
            let (ours, theirs) = (off(&ours), off(&theirs));
            assert!(ours < 3.0 * theirs + 1e-6, "{flash:?}, {queries} by {keys} of {width}: {ours} against {theirs}");
        }
    }
}

#[test]
fn parts_of_a_tensor_are_read_where_they_lie() {
    for flash in all() {
        let parts = normal(7, &[2, 90, 3 * 64], kind(flash)).chunk(3, 2);
        let apart: Vec<Tensor> = parts.iter().map(Tensor::contiguous).collect();
        let ours = flash.attend(&parts[0], &parts[1], &parts[2], 2).unwrap();
        assert_eq!(ours, flash.attend(&apart[0], &apart[1], &apart[2], 2).unwrap(), "{flash:?}");
        // One keeps its place in a batch: the same bits alone.
        let second = |x: &Tensor| x.narrow(0, 1, 1);
        let alone = flash.attend(&second(&parts[0]), &second(&parts[1]), &second(&parts[2]), 2).unwrap();
        assert_eq!(second(&ours), alone, "{flash:?}");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for flash in all() {
        // Whatever comes first or last, the key with by far the largest score takes all.
        for largest in [0, 63, 64, 199] {
            let options = (kind(flash), Device::Cpu);
            let q = Tensor::ones([1, 40, 16], options) * 100.0;
            let k = Tensor::ones([1, 200, 16], options) * -100.0;
            let _ = k.narrow(1, largest, 1).fill_(100.0);
            let v = Tensor::arange_start(1, 201, options).reshape([1, 200, 1]).expand([1, 200, 16], false).contiguous();
            let ours = flash.attend(&q, &k, &v, 1).unwrap();
            assert_eq!(ours, Tensor::full([1, 40, 16], largest + 1, options), "{flash:?}");
        }
    }
}

#[test]
fn nothing_comes_of_nothing() {
    for flash in all() {
        let of = |batch| Tensor::zeros([batch, 4, 16], (kind(flash), Device::Cpu));
        assert_eq!(flash.attend(&of(0), &of(0), &of(0), 2).unwrap().size(), [0, 4, 16]);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    for flash in all() {
        let of = |length, channels, kind| Tensor::zeros([2, length, channels], (kind, Device::Cpu));
        let q = of(4, 16, kind(flash));
        let columns = of(16, 4, kind(flash)).transpose(1, 2);
        for k in [of(4, 16, Kind::Double), of(4, 8, kind(flash)), q.narrow(0, 0, 1), q.get(0), columns] {
            assert!(flash.attend(&q, &k, &k, 2).is_err(), "{k:?}");
        }
        assert!(flash.attend(&q, &q, &of(5, 16, kind(flash)), 2).is_err());
    }
}
