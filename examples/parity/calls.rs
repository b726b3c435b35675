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

/// Compares every model under `dir/miniatures` with the calls recorded beside it.
pub(crate) fn check(dir: &Path, report: &mut Report) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let models = models(dir)?;
    ensure!(!models.is_empty(), "no model under {}", dir.display());
    for path in models {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = load(&path)?;
        let folder = path.with_extension("");
        let calls = folder.join("calls.safetensors");
        let calls: HashMap<String, Tensor> = Tensor::read_safetensors(&calls).context("calls")?.into_iter().collect();
        let call = |key: &str| calls.get(key).with_context(|| format!("{name}: no {key}"));

        let text = EncodedText { states: call("unet.context")?.shallow_clone(), pooled: None };
        let timesteps = Vec::<f64>::try_from(call("unet.timestep")?.to_kind(Kind::Double))?;
        let results = [
            ("text", model.encode_text(call("text.ids")?)?, call("text.out")?),
            ("unet", model.predict_noise(call("unet.sample")?, &timesteps, &text, &[])?, call("unet.out")?),
            ("vae decode", model.decode_latents(call("vae.latents")?)?, call("vae.out")?),
            ("vae encode", model.encode_pixels(call("vae.image")?)?, call("vae.encoded")?),
        ];
        for (part, ours, theirs) in results {
            ensure!(ours.size() == theirs.size(), "{name} {part}: {:?} for {:?}", ours.size(), theirs.size());
            let mut worst = Worst::default();
            worst.see(difference(&ours, theirs)?, String::new);
            report.row(part, &name, &worst, BOUND);
        }
    }
    Ok(())
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
