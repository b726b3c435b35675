//! The kernels' arithmetic, built for the CPU: all of them but that a GPU runs it.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use libloading::os::unix::{Library, Symbol};
use tch::{Device, Kind, Tensor};

use super::{KernelFunctions, Kernels, Norm};
use crate::engine::torch::device::random::normal;
use crate::engine::torch::{EncodedText, Model, Target, device};

const KINDS: [Kind; 3] = [Kind::Float, Kind::Half, Kind::BFloat16];

/// The kernels and what calls them, compiled as C++ and opened, once.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let (folder, native) = (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("native"));
        let file = folder.path().join("kernels.so");
        let libtorch = device::libtorch().unwrap().parent().unwrap().to_owned();
        let mut compiler = Command::new("c++");
        compiler.args([
            "-std=c++17",
            "-O1",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            "-DLATENTD_ON_PROCESSOR",
            "-Wall",
            "-Werror",
        ]);
        compiler.arg("-isystem").arg(libtorch.join("../include")).args(["-x", "c++"]);
        compiler.arg(native.join("kernels.cu")).arg(native.join("fused.cpp")).arg("-o").arg(&file);
        compiler.arg("-L").arg(&libtorch).args(["-ltorch_cpu", "-lc10"]);
        assert!(compiler.status().unwrap().success(), "{compiler:?}");
        // SAFETY: it is what was just built; libtorch, which it is linked to, is in the process already.
        #[expect(unsafe_code, reason = "opening a shared library")]
        unsafe { Library::new(&file) }.unwrap()
    })
}

#[expect(unsafe_code, reason = "functions of a library that was just built")]
fn kernels() -> Kernels {
    // SAFETY: it is a build of that file, and is never closed.
    Kernels::new(unsafe { KernelFunctions::of(library()) }.unwrap(), Device::Cpu)
}

/// With each block's threads from the last to the first.
#[expect(unsafe_code, reason = "functions of a library that was just built")]
fn backwards<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the type is the function's. Other tests may get to feel it, and must not care.
    let turn: Symbol<unsafe extern "C" fn(i32)> = unsafe { library().get(b"latentd_cuda_backwards\0") }.unwrap();
    // SAFETY: it sets a flag.
    unsafe { turn(1) };
    let made = work();
    // SAFETY: as above.
    unsafe { turn(0) };
    made
}

/// Others at each call of a test.
fn random(shape: &[i64], kind: Kind) -> Tensor {
    thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
    CALLS.set(CALLS.get() + 1);
    normal(CALLS.get(), shape, kind)
}

fn image(rows: i64, channels: i64, height: i64, width: i64, kind: Kind) -> Tensor {
    random(&[rows, height, width, channels], kind).permute([0, 3, 1, 2])
}

fn norm<'a>(weight: &'a Tensor, bias: &'a Tensor, groups: i64) -> Norm<'a> {
    Norm { weight, bias, groups, epsilon: 1e-6, input_bias: None, time_shift: None, silu: false }
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    worst_of(&(double(a) - double(b)).abs())
}

fn worst_of(off: &Tensor) -> f64 {
    off.nan_to_num(f64::INFINITY, None, None).max().double_value(&[])
}

#[test]
fn the_check_of_an_engine_finds_nothing() {
    for kind in KINDS {
        let deviation = kernels().deviation(kind).unwrap();
        assert!(deviation > 0.0 && deviation <= 0.7, "{kind:?}: {deviation}");
    }
}

/// How far numbers of a kind are off those of f64 at most, where 1 is what one rounding of a kind of 16 bits explains; of f32, 1e-5.
fn off(ours: &Tensor, theirs: &Tensor) -> f64 {
    let small = if ours.kind() == Kind::Float { 1.0 } else { 4e-3 };
    worst_of(&((double(ours) - theirs).abs() / ((theirs.abs() + small) * grain(ours.kind()))))
}

fn grain(kind: Kind) -> f64 {
    match kind {
        Kind::Half => 0.5_f64.powi(11),
        Kind::BFloat16 => 0.5_f64.powi(8),
        _ => 1e-5,
    }
}

fn double(x: &Tensor) -> Tensor {
    x.to_kind(Kind::Double)
}

#[test]
fn images_of_all_sizes_are_normalised() {
    // Channels as of SD 1.5, of which some are too many for a block's threads, and of small models; groups that share packs, and several in one;
    // pixels for one launch and for two, in parts that do not come out even, and in many.
    let shapes = [
        (320, 32, 64, 64),
        (2560, 32, 8, 8),
        (1920, 32, 5, 7),
        (960, 32, 32, 32),
        (960, 32, 25, 41),
        (2560, 32, 32, 33),
        (128, 32, 40, 33),
        (16, 4, 200, 170),
        (8, 1, 1, 1),
        (48, 16, 3, 3),
        (64, 64, 9, 2),
        (72, 24, 50, 21),
        (4096, 1, 2, 3),
    ];
    for (kind, (channels, groups, height, width)) in
        KINDS.into_iter().flat_map(|kind| shapes.map(|shape| (kind, shape)))
    {
        let x = image(2, channels, height, width, kind) * 3 + 1;
        let (weight, bias) = (random(&[channels], kind), random(&[channels], kind));
        let ours = kernels().group_norm(&x, norm(&weight, &bias, groups)).unwrap().unwrap();
        let theirs = double(&x).group_norm(groups, Some(double(&weight)), Some(double(&bias)), 1e-6, false);
        let off = off(&ours, &theirs);
        assert!(off < 1.05, "{kind:?}: {channels} channels of {height}x{width}: {off}");
        assert_eq!(ours.stride(), x.stride());
    }
}

#[test]
fn sums_of_all_widths_are_normalised() {
    for (kind, width) in
        KINDS.into_iter().flat_map(|kind| [8, 16, 40, 320, 328, 640, 1280, 2048].map(|width| (kind, width)))
    {
        let (x, change) = (random(&[3, 7, width], kind) * 3, random(&[3, 7, width], kind));
        let (weight, bias) = (random(&[width], kind), random(&[width], kind));
        let [sum, ours] = kernels().add_layer_norm((&x, &change), (&weight, &bias), 1e-5).unwrap().unwrap();
        assert_eq!(sum, &x + &change, "{kind:?}: {width}");
        let theirs = double(&sum).layer_norm([width], Some(double(&weight)), Some(double(&bias)), 1e-5, false);
        assert!(off(&ours, &theirs) < 1.05, "{kind:?}: {width}: {}", off(&ours, &theirs));
    }
}

#[test]
fn biases_alone_are_added() {
    for (kind, [height, width]) in
        KINDS.into_iter().flat_map(|kind| [[1, 1], [7, 3], [41, 53]].map(|size| (kind, size)))
    {
        let (image, bias) = (image(3, 40, height, width, kind), random(&[40], kind));
        let theirs = double(&image) + double(&bias).reshape([1, 40, 1, 1]);
        let ours = kernels().add_residual(&image, None, &bias, None).unwrap().unwrap();
        assert!(off(&ours, &theirs) < 1.05, "{kind:?}");
        assert_eq!(ours.data_ptr(), image.data_ptr(), "in place");
    }
}

#[test]
fn a_large_mean_costs_no_precision() {
    // Where numbers of a kind are so far apart that few of them are within a standard deviation.
    for (kind, mean) in [(Kind::Float, 1000.0), (Kind::Half, 2000.0), (Kind::BFloat16, 300.0)] {
        for side in [24, 40] {
            let x = (image(1, 64, side, side, Kind::Float) * 2 + mean).to_kind(kind);
            let (weight, bias) = (Tensor::ones([64], (kind, Device::Cpu)), Tensor::zeros([64], (kind, Device::Cpu)));
            let ours = kernels().group_norm(&x, norm(&weight, &bias, 32)).unwrap().unwrap();
            let theirs = double(&x).group_norm(32, None::<Tensor>, None::<Tensor>, 1e-6, false);
            // Numbers of 1000 are 6e-5 apart in f32, of which means are.
            let rest = (double(&ours) - &theirs).abs() - 2e-4;
            let off = worst_of(&(rest / ((theirs.abs() + 4e-3) * grain(kind))));
            assert!(off < 1.05, "{kind:?}, {side}: {off}");
        }
        let x = (random(&[5, 320], Kind::Float) * 2 + mean).to_kind(kind);
        let (weight, bias) = (Tensor::ones([320], (kind, Device::Cpu)), Tensor::zeros([320], (kind, Device::Cpu)));
        let [_, ours] = kernels().add_layer_norm((&x, &x.zeros_like()), (&weight, &bias), 1e-5).unwrap().unwrap();
        let rest =
            (double(&ours) - double(&x).layer_norm([320], None::<Tensor>, None::<Tensor>, 1e-5, false)).abs() - 2e-4;
        assert!(worst_of(&(rest / (double(&ours).abs() * grain(kind) + 1e-6))) < 1.05, "{kind:?}");
    }
}

#[test]
fn bits_depend_neither_on_company_nor_on_the_order_of_threads() {
    // In one launch, where a row alone is normalised by more blocks, and in two.
    for (kind, (height, width)) in KINDS.into_iter().flat_map(|kind| [(20, 24), (45, 40)].map(|size| (kind, size))) {
        let (x, time_shift) = (image(5, 320, height, width, kind), random(&[5, 640], kind).narrow(1, 200, 320));
        let (weight, bias) = (random(&[320], kind), random(&[320], kind));
        let of = |x: &Tensor, time_shift: &Tensor| {
            let norm =
                Norm { input_bias: Some(&bias), time_shift: Some(time_shift), silu: true, ..norm(&weight, &bias, 32) };
            kernels().group_norm(x, norm).unwrap().unwrap()
        };
        let together = of(&x, &time_shift);
        assert_eq!(of(&x.narrow(0, 3, 1), &time_shift.narrow(0, 3, 1)), together.narrow(0, 3, 1), "{kind:?}");
        assert_eq!(backwards(|| of(&x, &time_shift)), together, "{kind:?}");
        let gates = random(&[3, 50, 128], kind);
        assert_eq!(backwards(|| kernels().geglu(&gates)).unwrap(), kernels().geglu(&gates).unwrap());
        let (x, change) = (random(&[2, 31, 320], kind), random(&[2, 31, 320], kind));
        let of = |x: &Tensor, change: &Tensor| {
            kernels().add_layer_norm((x, change), (&weight, &bias), 1e-5).unwrap().unwrap()
        };
        let [_, together] = of(&x, &change);
        let [_, alone] = of(&x.narrow(0, 1, 1).narrow(1, 13, 1), &change.narrow(0, 1, 1).narrow(1, 13, 1));
        assert_eq!(alone, together.narrow(0, 1, 1).narrow(1, 13, 1), "{kind:?}");
        assert_eq!(backwards(|| of(&x, &change))[1], together, "{kind:?}");
    }
}

#[test]
fn what_a_kernel_is_not_for_is_left_to_libtorch() {
    let part = random(&[12], Kind::Float);
    let few = image(1, 12, 4, 4, Kind::Float);
    assert!(kernels().group_norm(&few, norm(&part, &part, 4)).unwrap().is_none());
    assert!(kernels().add_residual(&few, None, &part, None).unwrap().is_none());
    assert!(kernels().geglu(&random(&[1, 4, 24], Kind::Float)).unwrap().is_none());
    assert!(kernels().geglu(&random(&[1, 4, 64], Kind::Double)).unwrap().is_none());
    let wide = image(1, 16, 4, 4, Kind::Float);
    let other = random(&[16], Kind::Half);
    assert!(kernels().add_residual(&wide, Some(&wide), &other, None).unwrap().is_none());
    // Channels first: libtorch adds, in place.
    let first = random(&[1, 16, 4, 4], Kind::Float);
    assert!(kernels().add_residual(&first, Some(&wide), &random(&[16], Kind::Float), None).unwrap().is_none());
    let sum =
        |x: &Tensor, change: &Tensor, part: &Tensor| kernels().add_layer_norm((x, change), (part, part), 1e-5).unwrap();
    for (width, kind) in [(12, Kind::Float), (2056, Kind::Half), (64, Kind::Double)] {
        let x = random(&[2, 3, width], kind);
        assert!(sum(&x, &x, &random(&[width], kind)).is_none(), "{width}, {kind:?}");
    }
    let x = random(&[2, 3, 16], Kind::Float);
    assert!(sum(&x, &x.narrow(0, 0, 1), &random(&[16], Kind::Float)).is_none());
    assert!(sum(&x, &x, &other).is_none());
}

#[test]
fn what_is_too_large_to_be_counted_in_32_bits_is_left_to_libtorch() {
    let one = Tensor::zeros([1], (Kind::Half, Device::Cpu)); // as large as is wanted, without memory
    let part = Tensor::zeros([64], (Kind::Half, Device::Cpu));
    let image = one.expand([1, 64, 8192, 8192], false);
    assert!(kernels().group_norm(&image, norm(&part, &part, 32)).unwrap().is_none());
    assert!(kernels().geglu(&one.expand([1, 1 << 30, 16], false)).unwrap().is_none());
}

#[test]
fn a_model_draws_the_same_by_them() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let model = Model::load(&models.join("miniature"), &models.join("clip-tokenizer"), Target::REFERENCE).unwrap();
    let _guard = tch::no_grad_guard();
    let (latents, states) = (random(&[2, 4, 12, 8], Kind::Float), random(&[2, 77, 32], Kind::Float));
    let text = EncodedText { states, pooled: None };
    let predict = || model.predict_noise(&latents, &[741.0, 21.0], &text, &[]).unwrap();
    let before = predict();
    let in_use = kernels().install();
    let by_them = predict();
    assert!(worst(&by_them, &before) < 1e-4, "{}", worst(&by_them, &before));
    assert_ne!(by_them, before, "they were not used");
    drop(in_use);
    assert_eq!(predict(), before);
}
