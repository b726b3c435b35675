//! Whole pictures: prompts through tokenizer, text encoder, sampler, UNet and autoencoder to bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use latentd::engine::torch::TorchEngine;
use latentd::engine::{Engine, Event, Ticket};
use latentd::job::{Img2Img, LoadedImage, Mask, Picture, PromptSyntax, Refine, RefineMode, Shade, Size, Spec};
use latentd::sampler::{Sampler, SigmaSpacing};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};

use super::calls;
use super::report::{Report, Worst};

/// Share of values that may differ by more than 1 of 255.
pub(crate) const SHARE_BOUND: f64 = 1e-3;
/// Largest difference of any value, of 255.
pub(crate) const MOST_BOUND: f64 = 3.0;

/// One job, as `scripts/parity/pictures.py` asked the reference.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) model: String,
    pub(crate) file: String,
    prompt: String,
    negative_prompt: Option<String>,
    prompt_syntax: Option<String>,
    #[serde(default)]
    clip_skip: u32,
    width: u32,
    height: u32,
    steps: u32,
    denoising_end: Option<f64>,
    guidance_scale: f64,
    scheduler: String,
    sigmas: Option<String>,
    #[serde(default)]
    eta: f64,
    num_outputs: u32,
    seed: u64,
    start: Option<Begun>,
    #[serde(flatten)]
    refined: Option<Refined>,
}

/// What goes on after the model.
#[derive(Deserialize)]
struct Refined {
    refiner: String,
    /// How: `strength`, `ensemble`, or `image` from one alone.
    refine: String,
    refiner_steps: u32,
    refiner_strength: f64,
}

/// An image that a case begins from; files.
#[derive(Deserialize)]
struct Begun {
    image: String,
    strength: f64,
    mask: Option<String>,
    repaint: String,
}

/// Compares every case of `dir/{list}.jsonl`, a row of figures a model and sampler.
pub(crate) fn check(dir: &Path, list: &str, report: &mut Report) -> Result<()> {
    for (model, cases) in by_model(&dir.join(list).with_extension("jsonl"), Case::models)? {
        let mut engine = cases[0].engine(dir)?;
        let mut groups: BTreeMap<String, [Worst; 2]> = BTreeMap::new();
        for case in cases {
            let spec = spec(dir, &case)?;
            let [share, most] = compare(&draw(&mut engine, &spec)?, &reference(dir, &case)?)?;
            let place = || {
                let Spec { steps, denoising_end, guidance_scale, size, num_outputs, .. } = &spec;
                let end = denoising_end.map_or(String::new(), |end| format!(" until {end}"));
                format!(
                    "{} steps {steps}{end} guidance {guidance_scale} {}x{} n {num_outputs}",
                    case.file, size.width, size.height
                )
            };
            let mode = match &spec.start {
                None => spec.refine.map_or("", |refine| refine.mode.name()),
                Some(Img2Img { mask: None, .. }) => "image",
                Some(_) => "mask",
            };
            let group = groups.entry(format!("{} {mode}", spec.sampler.name()).trim().to_owned()).or_default();
            group[0].see(share, place);
            group[1].see(most, place);
        }
        for (sampler, [share, most]) in groups {
            report.row("off by >1", &format!("{model} {sampler}"), &share, SHARE_BOUND);
            report.row("most off", &format!("{model} {sampler}"), &most, MOST_BOUND);
        }
    }
    Ok(())
}

/// The cases of a file, a line each, by the name of their model; at least one.
pub(crate) fn by_model<C: DeserializeOwned>(
    list: &Path,
    model: impl Fn(&C) -> String,
) -> Result<BTreeMap<String, Vec<C>>> {
    let lines = fs::read_to_string(list).with_context(|| list.display().to_string())?;
    let mut cases: BTreeMap<String, Vec<C>> = BTreeMap::new();
    for line in lines.lines() {
        let case: C = serde_json::from_str(line).with_context(|| line.to_owned())?;
        cases.entry(model(&case)).or_default().push(case);
    }
    ensure!(!cases.is_empty(), "{}: no case", list.display());
    Ok(cases)
}

/// Where a model lies.
pub(crate) fn path_of(dir: &Path, model: &str) -> PathBuf {
    dir.join("miniatures").join(model)
}

/// The job of a case, with its images from `dir`.
pub(crate) fn spec(dir: &Path, case: &Case) -> Result<Spec> {
    let sigmas = case.sigmas.as_deref().map_or(Some(SigmaSpacing::Default), SigmaSpacing::from_name);
    let syntax = case.prompt_syntax.as_deref().map_or(Some(PromptSyntax::Plain), PromptSyntax::from_name);
    let sampler = Sampler::ALL.iter().find(|sampler| sampler.name() == case.scheduler);
    Ok(Spec {
        model: case.model.clone(),
        prompt: case.prompt.clone(),
        negative_prompt: case.negative_prompt.clone(),
        prompt_syntax: syntax.context("prompt_syntax")?,
        clip_skip: case.clip_skip,
        size: Size { width: case.width, height: case.height },
        start: case.start.as_ref().map(|begun| begun.read(dir)).transpose()?,
        num_outputs: case.num_outputs,
        steps: case.steps,
        denoising_end: case.denoising_end,
        refine: case.refined.as_ref().and_then(Refined::refine),
        guidance_scale: case.guidance_scale,
        sampler: *sampler.with_context(|| case.scheduler.clone())?,
        sigmas: sigmas.context("sigmas")?,
        eta: case.eta,
        seed: case.seed,
        lora: None,
        preview: false,
    })
}

impl Case {
    /// The model's name, and the refiner's.
    fn models(&self) -> String {
        let refiner = self.refined.as_ref().map(|refined| format!(" and {}", refined.refiner));
        format!("{}{}", self.model, refiner.unwrap_or_default())
    }

    fn engine(&self, dir: &Path) -> Result<TorchEngine> {
        let embeddings = Some(dir.join("embeddings").join(&self.model)).filter(|folder| folder.is_dir());
        let engine = TorchEngine::new(calls::load(&path_of(dir, &self.model))?).with_embeddings(embeddings);
        match &self.refined {
            Some(Refined { refiner, .. }) => {
                let path = dir.join("refiners").join(refiner);
                // A single file brings no tokenizer; its folder's is the same.
                Ok(engine.with_refiner(&path, &path.with_extension("").join("tokenizer_2"))?)
            }
            None => Ok(engine),
        }
    }
}

impl Refined {
    fn refine(&self) -> Option<Refine> {
        let mode = RefineMode::from_name(&self.refine)?;
        Some(Refine { steps: self.refiner_steps, mode, strength: self.refiner_strength })
    }
}

impl Begun {
    fn read(&self, dir: &Path) -> Result<Img2Img> {
        let brought = |file: &String| -> Result<LoadedImage> {
            let (width, height, pixels) = png(&dir.join(file))?;
            let picture = Arc::new(Picture { width, height, pixels });
            Ok(LoadedImage { picture, sha256: String::new() })
        };
        let mask = |file| -> Result<Mask> {
            let repaint = Shade::from_name(&self.repaint).context("repaint")?;
            Ok(Mask { image: brought(file)?, repaint, paste: false })
        };
        let mask = self.mask.as_ref().map(mask).transpose()?;
        Ok(Img2Img { image: brought(&self.image)?, strength: self.strength, mask })
    }
}

/// Width, height and bytes of a file without alpha.
fn png(path: &Path) -> Result<(u32, u32, Vec<u8>)> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("too large")?];
    reader.next_frame(&mut pixels)?;
    Ok((reader.info().width, reader.info().height, pixels))
}

/// The pictures of `spec` in order, as bytes.
pub(crate) fn draw(engine: &mut TorchEngine, spec: &Spec) -> Result<Vec<Vec<u8>>> {
    engine.admit(Ticket(0), spec)?;
    let mut pictures = vec![Vec::new(); spec.num_outputs as usize];
    while engine.busy() {
        for (_, event) in engine.advance()? {
            match event {
                Event::Image { index, picture, .. } => pictures[index as usize] = picture.pixels,
                Event::Failed(cause) => bail!(cause),
                _ => {}
            }
        }
    }
    Ok(pictures)
}

/// What the reference drew: bytes in a safetensors file, or a single PNG.
pub(crate) fn reference(dir: &Path, case: &Case) -> Result<Vec<Vec<u8>>> {
    let path = dir.join(&case.file);
    if path.extension().is_some_and(|ending| ending == "png") {
        return Ok(vec![png(&path)?.2]);
    }
    let tensors = Tensor::read_safetensors(&path).with_context(|| path.display().to_string())?;
    let (_, images) = tensors.into_iter().find(|(name, _)| name == "image").context("no tensor `image`")?;
    ensure!(images.kind() == Kind::Uint8, "{}: not bytes", path.display());
    (0..images.size()[0]).map(|i| Ok(Vec::<u8>::try_from(images.get(i).flatten(0, -1))?)).collect()
}

/// Share of values that differ by more than 1, and the largest difference.
pub(crate) fn compare(ours: &[Vec<u8>], theirs: &[Vec<u8>]) -> Result<[f64; 2]> {
    let sizes = |pictures: &[Vec<u8>]| pictures.iter().map(Vec::len).collect::<Vec<_>>();
    ensure!(sizes(ours) == sizes(theirs), "sizes {:?} for {:?}", sizes(ours), sizes(theirs));
    let apart: Vec<u8> = ours.iter().flatten().zip(theirs.iter().flatten()).map(|(a, b)| a.abs_diff(*b)).collect();
    let off = apart.iter().filter(|&&d| d > 1).count();
    Ok([off as f64 / apart.len() as f64, f64::from(apart.iter().copied().max().unwrap_or(0))])
}
