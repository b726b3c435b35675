//! The kernels' arithmetic, built for the processor: all of them but that a GPU runs it.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use libloading::os::unix::{Library, Symbol};
use tch::{Device, Kind, Tensor};

use super::{Calls, Kernels, Norm};
use crate::engine::torch::random::normal;
use crate::engine::torch::{Model, Target, device};

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
    Kernels::new(unsafe { Calls::of(library()) }.unwrap(), Device::Cpu)
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
    Norm { weight, bias, groups, epsilon: 1e-6, lead: None, shift: None, silu: false }
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

#[test]
fn the_check_of_an_engine_finds_nothing() {
    for kind in KINDS {
        let deviation = kernels().deviation(kind).unwrap();
        assert!(deviation > 0.0 && deviation <= 0.7, "{kind:?}: {deviation}");
    }
}

#[test]
fn images_of_all_sizes_are_normalised() {
    // Channels as of SD 1.5, of which some are too many for a block's threads, and of small models; pixels in one chunk, in chunks that do not
    // come out even, and in as many as there may be.
    let shapes = [
        (320, 32, 64, 64),
        (2560, 32, 8, 8),
        (1920, 32, 5, 7),
        (128, 32, 40, 33),
        (8, 1, 1, 1),
        (48, 16, 3, 3),
        (64, 64, 9, 2),
    ];
    for (channels, groups, height, width) in shapes {
        let x = image(2, channels, height, width, Kind::Float) * 3 + 1;
        let (weight, bias) = (random(&[channels], Kind::Float), random(&[channels], Kind::Float));
        let ours = kernels().group_norm(&x, norm(&weight, &bias, groups)).unwrap().unwrap();
        let wide = |x: &Tensor| x.to_kind(Kind::Double);
        let theirs = wide(&x).group_norm(groups, Some(wide(&weight)), Some(wide(&bias)), 1e-6, false);
        assert!(worst(&ours, &theirs) < 2e-5, "{channels} channels of {height}x{width}: {}", worst(&ours, &theirs));
        assert_eq!(ours.stride(), x.stride());
    }
}

#[test]
fn a_large_mean_costs_no_precision() {
    let x = image(1, 64, 40, 40, Kind::Float) + 1000;
    let (weight, bias) =
        (Tensor::ones([64], (Kind::Float, Device::Cpu)), Tensor::zeros([64], (Kind::Float, Device::Cpu)));
    let ours = kernels().group_norm(&x, norm(&weight, &bias, 32)).unwrap().unwrap();
    let theirs = x.to_kind(Kind::Double).group_norm(32, None::<Tensor>, None::<Tensor>, 1e-6, false);
    // Numbers of 1000 are 6e-5 apart in f32.
    assert!(worst(&ours, &theirs) < 2e-4, "{}", worst(&ours, &theirs));
}

#[test]
fn bits_depend_neither_on_company_nor_on_the_order_of_threads() {
    for kind in KINDS {
        let (x, shift) = (image(5, 320, 20, 24, kind), random(&[5, 640], kind).narrow(1, 200, 320));
        let (weight, bias) = (random(&[320], kind), random(&[320], kind));
        let of = |x: &Tensor, shift: &Tensor| {
            let norm = Norm { lead: Some(&bias), shift: Some(shift), silu: true, ..norm(&weight, &bias, 32) };
            kernels().group_norm(x, norm).unwrap().unwrap()
        };
        let together = of(&x, &shift);
        assert_eq!(of(&x.narrow(0, 3, 1), &shift.narrow(0, 3, 1)), together.narrow(0, 3, 1), "{kind:?}");
        assert_eq!(backwards(|| of(&x, &shift)), together, "{kind:?}");
        let gates = random(&[3, 50, 128], kind);
        assert_eq!(backwards(|| kernels().geglu(&gates)).unwrap(), kernels().geglu(&gates).unwrap());
    }
}

#[test]
fn what_a_kernel_is_not_for_is_left_to_libtorch() {
    let part = random(&[12], Kind::Float);
    let few = image(1, 12, 4, 4, Kind::Float);
    assert!(kernels().group_norm(&few, norm(&part, &part, 4)).unwrap().is_none());
    assert!(kernels().geglu(&random(&[1, 4, 24], Kind::Float)).unwrap().is_none());
    assert!(kernels().geglu(&random(&[1, 4, 64], Kind::Double)).unwrap().is_none());
    let wide = image(1, 16, 4, 4, Kind::Float);
    let other = random(&[16], Kind::Half);
    assert!(kernels().join(&wide, &wide, &other, None).unwrap().is_none());
    // Channels first: libtorch adds, in place.
    let first = random(&[1, 16, 4, 4], Kind::Float);
    assert!(kernels().join(&first, &wide, &random(&[16], Kind::Float), None).unwrap().is_none());
}

#[test]
fn a_model_draws_the_same_by_them() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let model = Model::load(&models.join("miniature"), &models.join("clip-tokenizer"), Target::REFERENCE).unwrap();
    let _guard = tch::no_grad_guard();
    let (latents, states) = (random(&[2, 4, 12, 8], Kind::Float), random(&[2, 77, 32], Kind::Float));
    let predict = || model.predict_noise(&latents, &[741.0, 21.0], &states).unwrap();
    let before = predict();
    let in_use = kernels().install();
    let by_them = predict();
    assert!(worst(&by_them, &before) < 1e-4, "{}", worst(&by_them, &before));
    assert_ne!(by_them, before, "they were not used");
    drop(in_use);
    assert_eq!(predict(), before);
}
