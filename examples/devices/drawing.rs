//! The jobs that every device draws, and how alike two pictures are.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use latentd::engine::torch::TorchEngine;
use latentd::engine::{Engine, Event, Picture, Ticket};
use latentd::job::{Img2Img, LoadedImage, PromptSyntax, Size, Spec};
use latentd::sampler::{Sampler, SigmaSpacing};

/// Jobs by what a table calls them.
pub(crate) type Jobs = Vec<(String, Spec)>;
pub(crate) type Pictures = BTreeMap<Ticket, Picture>;

/// Decibels of equal pictures.
pub(crate) const EQUAL: f64 = 99.0;

/// Every sampler, from noise and from a picture, and a weighted prompt of several chunks.
pub(crate) fn jobs() -> Jobs {
    let size = Size { width: 256, height: 192 };
    let pixels = (0..size.height).flat_map(|y| (0..size.width).flat_map(move |x| [x as u8, y as u8, (x ^ y) as u8]));
    let picture = Arc::new(Picture { width: size.width, height: size.height, pixels: pixels.collect() });
    let image = LoadedImage { picture, sha256: String::new() };
    let job = |sampler: &Sampler, start: Option<Img2Img>| Spec {
        model: "m".into(),
        prompt: "a red apple".into(),
        negative_prompt: None,
        prompt_syntax: PromptSyntax::Plain,
        clip_skip: 0,
        size,
        num_outputs: 1,
        steps: 20,
        guidance_scale: 5.0,
        sampler: *sampler,
        seed: 7,
        start,
        lora: None,
        preview: false,
        denoising_end: None,
        refine: None,
        sigmas: SigmaSpacing::Default,
        eta: 0.0,
    };
    let start = || Some(Img2Img { image: image.clone(), strength: 0.6, mask: None });
    let both = |sampler: &Sampler| {
        let name = sampler.name();
        [(name.to_owned(), job(sampler, None)), (format!("{name} from an image"), job(sampler, start()))]
    };
    let long = "a (red:1.4) apple and [many] more ".repeat(12);
    let weighted = Spec { prompt: long, prompt_syntax: PromptSyntax::Weighted, ..job(&Sampler::Ddim, None) };
    Sampler::ALL.iter().flat_map(both).chain([("a long weighted prompt".to_owned(), weighted)]).collect()
}

/// The picture of each job, drawn one after the other or all side by side.
pub(crate) fn drawn(engine: &mut TorchEngine, jobs: &Jobs, together: bool) -> Result<Pictures> {
    let mut pictures = Pictures::new();
    for (number, (name, spec)) in (0..).zip(jobs) {
        engine.admit(Ticket(number), spec).with_context(|| name.clone())?;
        if !together {
            finish(engine, &mut pictures)?;
        }
    }
    finish(engine, &mut pictures)?;
    Ok(pictures)
}

fn finish(engine: &mut TorchEngine, pictures: &mut Pictures) -> Result<()> {
    while engine.busy() {
        for (ticket, event) in engine.advance()? {
            match event {
                Event::Image { picture, .. } => drop(pictures.insert(ticket, picture)),
                Event::Failed(cause) => return Err(cause.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Peak signal-to-noise ratio in decibels; [`EQUAL`] for equal pictures.
pub(crate) fn psnr(a: &Picture, b: &Picture) -> f64 {
    let squares = a.pixels.iter().zip(&b.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.pixels.len() as f64;
    if mean > 0.0 { (10.0 * (255.0_f64.powi(2) / mean).log10()).min(EQUAL) } else { EQUAL }
}
