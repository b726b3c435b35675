//! A single-file checkpoint of SDXL is the same model as the folder with the same weights.

use std::fs;
use std::path::Path;

use latentd::engine::torch::{EncodedText, Model, Target, TorchEngine};
use latentd::job::Spec;
use latentd::sampler::Sampler;
use tch::{Device, Kind, Tensor};

use crate::torch::drawing::{engine_of, only, run, sized, spec};
use crate::torch::xl_twins::{FILE, LATENT, LENGTH, SECOND, Twins};

/// What all parts of a model answer whose UNet is told so many numbers.
fn answers(model: &Model, numbers: usize) -> [Tensor; 5] {
    let _guard = tch::no_grad_guard();
    let tokens: Vec<i64> = (0..LENGTH).map(|i| if i == 9 { 200 } else { i * 7 % 100 }).collect();
    let text = model.encode_prompt(&[tokens.clone(), tokens]).unwrap();
    let wave = |shape: &[i64]| {
        (Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu)) * 0.37).sin().reshape(shape)
    };
    let numbers = &[512.0, 768.0, 0.0, 8.0, 512.0, 512.0][..numbers];
    let said =
        EncodedText { states: text.states.shallow_clone(), pooled: text.pooled.as_ref().map(Tensor::shallow_clone) };
    let noise = model.predict_noise(&wave(&[1, LATENT, 6, 8]), &[701.0], &said, numbers).unwrap();
    let pixels = model.decode_latents(&wave(&[1, LATENT, 4, 6])).unwrap();
    let latents = model.encode_pixels(&wave(&[1, 3, 4, 6])).unwrap();
    [text.states, text.pooled.unwrap(), noise, pixels, latents]
}

#[test]
fn a_file_and_a_folder_of_the_same_weights_are_the_same_model() {
    tch::set_num_threads(1);
    let twins = Twins::new();
    let folder = Model::load(twins.path(), Path::new("nowhere"), Target::REFERENCE).unwrap();
    same(&twins.of_file(Target::REFERENCE), &folder, 6);
    // Also what the file cannot say: the scale of latents, the schedule, zeros for no negative prompt, and the second tokenizer.
    fs::remove_dir_all(twins.path().join("tokenizer_2")).unwrap();
    let job = Spec { prompt: "wow! a cat!!b".into(), ..sized(16, 24, spec(Sampler::EulerD, 3, 7)) };
    let drawn = only(run(&mut engine_of(&twins.path().join(FILE), Target::REFERENCE), &job));
    assert_eq!(drawn, only(run(&mut TorchEngine::new(folder), &job)));
}

fn same(one: &Model, other: &Model, numbers: usize) {
    for (one, other) in answers(one, numbers).iter().zip(&answers(other, numbers)) {
        assert!(f64::try_from(other.std(true)).unwrap() > 1e-3, "nothing is compared");
        assert_eq!(one, other);
    }
}

#[test]
fn a_refiner_has_one_text_encoder_in_either_layout() {
    tch::set_num_threads(1);
    let twins = Twins::of_refiner();
    let folder = Model::load(twins.path(), Path::new("nowhere"), Target::REFERENCE).unwrap();
    // The first tokenizer's vocabulary is that of both.
    let file = Model::load(&twins.path().join(FILE), &twins.path().join("tokenizer"), Target::REFERENCE).unwrap();
    same(&file, &folder, 5);
}

#[test]
fn in_f16_the_autoencoder_of_a_file_computes_in_f32() {
    tch::set_num_threads(1);
    let twins = Twins::new();
    let half = twins.of_file(Target { device: Device::Cpu, kind: Kind::Half });
    let latents = Tensor::ones([1, LATENT, 4, 6], (Kind::Float, Device::Cpu));
    let exact = twins.of_file(Target::REFERENCE).decode_latents(&latents).unwrap();
    assert_eq!(half.decode_latents(&latents).unwrap(), exact);
}

#[test]
fn what_is_no_such_file_is_refused_by_name() {
    tch::set_num_threads(1);
    let twins = Twins::new();
    for (mark, said) in [
        ("v_pred", "a tensor v_pred, so its UNet predicts velocities"),
        ("edm_mean", "a tensor edm_mean"),
        ("model.diffusion_model.extra.weight", "model.diffusion_model.extra.weight"),
        ("conditioner.embedders.1.model.visual.proj", "conditioner.embedders.1.model.visual.proj"),
    ] {
        let told = twins.complaint(None, Some(mark));
        assert!(told.contains(said), "{told}");
    }
    for (missing, said) in [
        (SECOND, "no tensor begins with conditioner.embedders.1.model."),
        ("conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_bias", "resblocks.1.attn.in_proj_bias"),
        ("conditioner.embedders.1.model.text_projection", "projection_dim = 0"),
        ("model.diffusion_model.label_emb.0.0.weight", "addition_time_embed_dim = 0"),
    ] {
        let told = twins.complaint(Some(missing), None);
        assert!(told.contains(said), "{told}");
    }
}
