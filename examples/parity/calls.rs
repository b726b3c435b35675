//! Single calls of a model's parts: text encoder, UNet, autoencoder both ways, for every miniature and weight layout.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use latentd::engine::torch::{EncodedText, Model, Target};
use tch::{Kind, Tensor};

use super::report::{Report, Worst};

/// Largest difference over largest value.
const BOUND: f64 = 1e-5;
/// Latents a side of a tile, as `calls.py` has it.
const TILE: i64 = 8;

/// Compares every model under `dir/miniatures` with the calls recorded beside it.
pub(crate) fn check(dir: &Path, report: &mut Report) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let models = models(dir)?;
    ensure!(!models.is_empty(), "no model under {}", dir.display());
    for path in models {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Err(error) = check_model(&path, &name, report) {
            report.broken(&name, &error);
        }
    }
    Ok(())
}

/// A row of figures a part.
fn check_model(path: &Path, name: &str, report: &mut Report) -> Result<()> {
    let model = load(path)?;
    let calls = Calls::read(&path.with_extension("").join("calls.safetensors"))?;
    let mut results = texts(&model, &calls)?;
    results.extend([
        ("unet", unet(&model, &calls)?, calls.get("unet.out")?),
        ("vae decode", model.decode_latents(calls.get("vae.latents")?)?, calls.get("vae.out")?),
        ("vae encode", model.encode_pixels(calls.get("vae.image")?)?, calls.get("vae.encoded")?),
    ]);
    if let (Ok(decoded), Ok(encoded)) = (calls.get("vae.tiled_out"), calls.get("vae.tiled_encoded")) {
        model.tile_autoencoder(TILE);
        results.extend([
            ("vae decode, tiles", model.decode_latents(calls.get("vae.latents")?)?, decoded),
            ("vae encode, tiles", model.encode_pixels(calls.get("vae.image")?)?, encoded),
        ]);
    }
    let mut rows: Vec<(&str, Worst)> = Vec::new();
    for (part, ours, theirs) in results {
        ensure!(ours.size() == theirs.size(), "{part}: {:?} for {:?}", ours.size(), theirs.size());
        if rows.last().is_none_or(|(last, _)| *last != part) {
            rows.push((part, Worst::default()));
        }
        if let Some((_, worst)) = rows.last_mut() {
            worst.see(difference(&ours, theirs)?, String::new);
        }
    }
    for (part, worst) in rows {
        report.row(part, name, &worst, BOUND);
    }
    Ok(())
}

/// What text encoders answer: of SD v1 the last states of a batch; of SDXL the states of both and the pooled text, a prompt at a time.
fn texts<'a>(model: &Model, calls: &'a Calls) -> Result<Vec<(&'static str, Tensor, &'a Tensor)>> {
    if let Ok(ids) = calls.get("text.ids") {
        return Ok(vec![("text", model.encode_text(ids)?, calls.get("text.out")?)]);
    }
    let (mut states, mut pooled) = (Vec::new(), Vec::new());
    for number in (0..).take_while(|number| calls.get(&format!("text.{number}.states")).is_ok()) {
        let call = |key: &str| calls.get(&format!("text.{number}.{key}"));
        let tokens = |key: &str| -> Result<Vec<i64>> { Ok(Vec::try_from(call(key)?.flatten(0, -1))?) };
        let text = model.encode_prompt(&[tokens("ids.0")?, tokens("ids.1")?])?;
        states.push(("states", text.states, call("states")?));
        pooled.push(("pooled", text.pooled.context("no pooled text")?, call("pooled")?));
    }
    ensure!(!states.is_empty(), "no text");
    Ok(states.into_iter().chain(pooled).collect())
}

/// What the UNet answers, each row with a time and a text of its own, and of SDXL sizes.
fn unet(model: &Model, calls: &Calls) -> Result<Tensor> {
    let timesteps = Vec::<f64>::try_from(calls.get("unet.timestep")?.to_kind(Kind::Double))?;
    let text = EncodedText {
        states: calls.get("unet.context")?.shallow_clone(),
        pooled: calls.get("unet.pooled").ok().map(Tensor::shallow_clone),
    };
    let numbers = calls.get("unet.ids").ok().map(|ids| Vec::<f32>::try_from(ids.flatten(0, -1))).transpose()?;
    Ok(model.predict_noise(calls.get("unet.sample")?, &timesteps, &text, &numbers.unwrap_or_default())?)
}

/// Inputs and outputs that were recorded.
struct Calls(HashMap<String, Tensor>);

impl Calls {
    fn read(path: &Path) -> Result<Self> {
        let tensors = Tensor::read_safetensors(path).with_context(|| path.display().to_string())?;
        Ok(Self(tensors.into_iter().collect()))
    }

    fn get(&self, key: &str) -> Result<&Tensor> {
        self.0.get(key).with_context(|| format!("no {key} recorded"))
    }
}

/// Folders and single files, in order.
pub(crate) fn models(dir: &Path) -> Result<Vec<PathBuf>> {
    let miniatures = dir.join("miniatures");
    let entries = fs::read_dir(&miniatures).with_context(|| miniatures.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.is_dir() || path.extension().is_some_and(|ending| ending == "safetensors"));
    paths.sort();
    Ok(paths)
}

/// A model in the reference's arithmetic. A single file takes the tokenizer of the folder of its name.
pub(crate) fn load(path: &Path) -> Result<Model> {
    let tokenizer = path.with_extension("").join("tokenizer");
    Model::load(path, &tokenizer, Target::REFERENCE).with_context(|| path.display().to_string())
}

fn difference(ours: &Tensor, theirs: &Tensor) -> Result<f64> {
    let apart = f64::try_from((ours - theirs).abs().max())?;
    Ok(apart / f64::try_from(theirs.abs().max())?)
}
