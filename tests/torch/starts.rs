//! Images to begin from: what is kept, what is replaced, and that neighbours do not matter.

use std::sync::Arc;

use latentd::engine::torch::TorchEngine;
use latentd::engine::{Engine, Picture, Ticket};
use latentd::job::{Img2Img, LoadedImage, Mask, Shade, Spec};
use latentd::sampler::Sampler;

use crate::torch::drawing::{engine, finish, furthest, only, run, spec};

const MODELS: [&str; 2] = ["tiny", "tiny-kl"];

pub(crate) fn brought(pixel: impl Fn(u32, u32) -> [u8; 3]) -> LoadedImage {
    let pixels = (0..128).flat_map(|y| (0..128).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
    LoadedImage { picture: Arc::new(Picture { width: 128, height: 128, pixels }), sha256: "00".into() }
}

fn image() -> LoadedImage {
    brought(|x, y| [x as u8, 2 * y as u8, if (x / 16 + y / 16) % 2 == 0 { 200 } else { 20 }])
}

/// Repaints the left half: an edge that no latent straddles.
fn left(repaint: Shade, paste: bool) -> Mask {
    let shade = |inside: bool| if inside == (repaint == Shade::White) { [255; 3] } else { [0; 3] };
    Mask { image: brought(|x, _| shade(x < 64)), repaint, paste }
}

fn begun(sampler: Sampler, steps: u32, strength: f64, mask: Option<Mask>) -> Spec {
    Spec { start: Some(Img2Img { image: image(), strength, mask }), ..spec(sampler, steps, 3) }
}

pub(crate) fn half(picture: &Picture, columns: std::ops::Range<usize>) -> Picture {
    let rows = picture.pixels.chunks_exact(3 * picture.width as usize);
    let pixels: Vec<u8> = rows.flat_map(|row| &row[3 * columns.start..3 * columns.end]).copied().collect();
    Picture { width: columns.len() as u32, height: picture.height, pixels }
}

/// The image through the autoencoder, without a step.
fn round_trip(engine: &mut TorchEngine) -> Picture {
    only(run(engine, &begun(Sampler::Ddim, 1, 0.0, None)))
}

#[test]
fn without_a_step_the_image_goes_through_the_autoencoder() {
    let mut engine = engine("tiny");
    let mut job = begun(Sampler::KLms, 1, 0.8, None);
    job.num_outputs = 2;
    let warnings = engine.admit(Ticket(0), &job).unwrap();
    assert!(warnings[0].starts_with("the strength leaves none of 1 steps"), "{warnings:?}");
    assert!(engine.busy());
    let outcome = finish(&mut engine).remove(&Ticket(0)).unwrap();
    assert_eq!((outcome.pictures.len(), outcome.timings.unwrap().evaluations), (2, 0));
    // An autoencoder that draws nothing gives all outputs the same picture, whatever the sampler.
    assert_eq!(outcome.pictures[&0].1, outcome.pictures[&1].1);
    assert_eq!(outcome.pictures[&0].1, round_trip(&mut engine));
}

#[test]
fn every_sampler_begins_from_an_image_at_every_strength() {
    for (i, &sampler) in Sampler::ALL.iter().enumerate() {
        let mut engine = engine(MODELS[i % 2]);
        for (strength, steps) in [(0.01, 0), (0.3, 2), (0.8, 5), (1.0, 7)] {
            for mask in [None, Some(left(Shade::Black, false))] {
                let outcome = run(&mut engine, &begun(sampler, 7, strength, mask));
                let evaluations = outcome.timings.unwrap().evaluations;
                assert!((steps..=2 * steps).contains(&evaluations), "{sampler} {strength}: {evaluations}");
                assert_eq!(outcome.pictures.len(), 1);
            }
        }
    }
}

#[test]
fn less_strength_keeps_more_of_the_image() {
    let mut engine = engine("tiny");
    let own = round_trip(&mut engine);
    let off = |strength: f64, engine: &mut TorchEngine| {
        let drawn = only(run(engine, &begun(Sampler::Ddim, 10, strength, None)));
        drawn.pixels.iter().zip(&own.pixels).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>()
    };
    let offs = [0.2, 0.5, 1.0].map(|strength| off(strength, &mut engine));
    assert!(offs[0] > 0.0 && offs[0] < offs[1] && offs[1] < offs[2], "{offs:?}");
}

#[test]
fn what_a_mask_keeps_is_kept() {
    let mut engine = engine("tiny");
    let own = round_trip(&mut engine);
    for (sampler, strength) in [(Sampler::KLms, 0.8), (Sampler::EulerA, 1.0), (Sampler::Heun, 0.5)] {
        for repaint in [Shade::Black, Shade::White] {
            let drawn = only(run(&mut engine, &begun(sampler, 6, strength, Some(left(repaint, false)))));
            // The decoder sees past the edge by some pixels.
            assert!(furthest(&half(&drawn, 112..128), &half(&own, 112..128)) <= 2, "{sampler} {repaint:?}");
            assert!(furthest(&half(&drawn, 0..64), &half(&own, 0..64)) > 20, "{sampler} {repaint:?}");

            let pasted = only(run(&mut engine, &begun(sampler, 6, strength, Some(left(repaint, true)))));
            assert_eq!(half(&pasted, 64..128), half(&image().picture, 64..128));
            assert_eq!(half(&pasted, 0..64), half(&drawn, 0..64));
        }
    }
}

#[test]
fn image_i_of_a_started_job_is_the_single_image_of_seed_s_plus_i() {
    for (model, mask) in [("tiny", None), ("tiny-kl", None), ("tiny-kl", Some(left(Shade::White, false)))] {
        let mut engine = engine(model);
        let job = Spec { num_outputs: 3, ..begun(Sampler::Ddpm, 5, 0.8, mask) };
        for (index, (seed, picture)) in run(&mut engine, &job).pictures {
            assert_eq!(seed, job.seed + u64::from(index));
            let single = only(run(&mut engine, &Spec { num_outputs: 1, seed, ..job.clone() }));
            assert!(furthest(&picture, &single) <= 1, "{model} {index}");
        }
        let drawn = run(&mut engine, &job).pictures;
        assert!(furthest(&drawn[&0].1, &drawn[&1].1) > 1, "{model}: seeds do not matter");
    }
}

#[test]
fn jobs_with_and_without_images_share_evaluations() {
    for model in MODELS {
        let mut engine = engine(model);
        let jobs = [
            spec(Sampler::KLms, 5, 1),
            begun(Sampler::EulerA, 6, 0.8, None),
            begun(Sampler::Pndm, 4, 1.0, Some(left(Shade::Black, true))),
            begun(Sampler::Ddim, 9, 0.01, None),
        ];
        for (i, job) in (0..).zip(&jobs) {
            engine.admit(Ticket(i), job).unwrap();
        }
        let mut together = finish(&mut engine);
        for (i, job) in (0..).zip(&jobs) {
            let (alone, shared) = (only(run(&mut engine, job)), only(together.remove(&Ticket(i)).unwrap()));
            assert!(furthest(&alone, &shared) <= 1, "{model} {i}");
        }
    }
}

#[test]
fn the_same_started_job_twice_gives_the_same_bytes() {
    let mut engine = engine("tiny-kl");
    let job = begun(Sampler::Kdpm2A, 4, 0.8, Some(left(Shade::Black, false)));
    assert_eq!(only(run(&mut engine, &job)), only(run(&mut engine, &job)));
}
