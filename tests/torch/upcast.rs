//! An autoencoder that overflows in f16 is seen and mended: the picture is decoded again in f32, and so are all after it.

use std::fs;
use std::path::Path;

use latentd::engine::torch::{Target, TorchEngine};
use latentd::engine::{Engine, Ticket};
use latentd::job::Spec;
use latentd::sampler::Sampler;
use tch::{Device, Kind, Tensor};

use crate::torch::drawing::{engine_of, finish, miniature, only, psnr, run, spec};

/// By which the decoder's first convolution is larger. What follows normalises, so that the picture stays what it is; but f16 ends at 65504.
const LARGER: f64 = 3e5;

/// tiny-kl in a folder of its own, with an autoencoder that overflows in f16.
fn overflowing() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&miniature("tiny-kl"), folder.path());
    let file = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let larger = |(name, tensor): (String, Tensor)| {
        let factor = if name.starts_with("decoder.conv_in.") { LARGER } else { 1.0 };
        (name, tensor.to_kind(Kind::Float) * factor)
    };
    let tensors: Vec<_> = Tensor::read_safetensors(&file).unwrap().into_iter().map(larger).collect();
    Tensor::write_safetensors(&tensors, &file).unwrap();
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

fn half(folder: &Path) -> TorchEngine {
    engine_of(folder, Target { device: Device::Cpu, kind: Kind::Half })
}

fn job(images: u32) -> Spec {
    Spec { num_outputs: images, ..spec(Sampler::Ddim, 3, 1) }
}

#[test]
fn a_picture_that_overflows_in_f16_is_what_f32_draws() {
    let folder = overflowing();
    let exact = only(run(&mut engine_of(folder.path(), Target::REFERENCE), &job(1)));
    let mut engine = half(folder.path());
    for _ in 0..2 {
        let drawn = only(run(&mut engine, &job(1)));
        assert!(psnr(&drawn, &exact) >= 28.0, "{} dB", psnr(&drawn, &exact));
    }
}

#[test]
fn all_images_of_all_jobs_are_drawn() {
    let folder = overflowing();
    let mut engine = half(folder.path());
    engine.admit(Ticket(1), &job(3)).unwrap();
    engine.admit(Ticket(2), &job(2)).unwrap();
    let outcomes = finish(&mut engine);
    assert_eq!(outcomes[&Ticket(1)].pictures.len(), 3);
    assert_eq!(outcomes[&Ticket(2)].pictures.len(), 2);
}

#[test]
fn one_that_does_not_overflow_stays_as_it_is() {
    let picture = only(run(&mut half(&miniature("tiny-kl")), &job(1)));
    let exact = only(run(&mut engine_of(&miniature("tiny-kl"), Target::REFERENCE), &job(1)));
    assert!(psnr(&picture, &exact) >= 28.0, "{} dB", psnr(&picture, &exact));
}
