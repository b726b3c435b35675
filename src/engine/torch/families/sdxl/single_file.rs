//! Single-file checkpoints of SDXL, as far as they differ from those of other families: attention heads of one width, a text encoder in
//! transformers' names and one in OpenCLIP's, of which a refiner has the second alone. The base model and Turbo have the same tensors; what
//! Turbo's scheduler file says, no checkpoint does.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};
use tch::Kind;

use super::load::autoencoder_kind;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::checkpoint::{self, HEAD, Layout};
use crate::engine::torch::families::model::{LoadedAutoencoder, Model, ModelFamily, PromptKind};
use crate::engine::torch::families::open_clip;
use crate::engine::torch::networks::clip_text::{ClipTextConfig, ClipTextModel};
use crate::engine::torch::networks::unet::{Unet, UnetConfig};
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Weights;
use crate::job::checkpoint::{
    REFINER_TEXT_ENCODER_PREFIX, SDXL_TEXT_ENCODER_PREFIXES, UNET_PREFIX, is_whole as has_parts, parts,
};
use crate::job::{Family, ModelRole, Size};
use crate::sampler::{NoiseSchedule, Sampler};

/// The base model's `scheduler/scheduler_config.json`.
const SDXL_SCHEDULER: &str = r#"{
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
    "interpolation_type": "linear", "set_alpha_to_one": false, "skip_prk_steps": true, "clip_sample": false
}"#;

/// What the second tokenizer of every published SDXL folder pads with.
const PAD: &str = "!";

/// Tensors that some checkpoints have to say that they mean something else, and what.
const MARKS: [(&str, &str); 3] = [
    ("v_pred", "its UNet predicts velocities"),
    ("ztsnr", "its noise schedule ends without any signal"),
    ("edm_mean", "its latents and noise are scaled otherwise"),
];

/// Whether a checkpoint has all parts of a model of this family, and none that only other families have.
pub(super) fn is_whole(weights: &Weights, family: Family) -> bool {
    has_parts(family, |prefix| weights.shapes().any(|(name, _)| name.starts_with(prefix)))
}

/// A model of `family`; without tokenizers beside it those of `clip_tokenizer`.
pub(super) fn model(
    (family, stage): (&'static dyn ModelFamily, ModelRole),
    path: PathBuf,
    weights: Weights,
    clip_tokenizer: &Path,
    target: Target,
) -> Result<Model, LoadError> {
    let layout = Layout::of(&weights);
    if let Some((mark, meaning)) = MARKS.iter().find(|(mark, _)| layout.has(mark)) {
        let reason = format!("it has a tensor {mark}, so {meaning}; that is not supported");
        return Err(LoadError::Path { path, reason });
    }
    let clip = (stage == ModelRole::Base).then(|| layout.text_prefix(SDXL_TEXT_ENCODER_PREFIXES[0]));
    let open = if stage == ModelRole::Base { SDXL_TEXT_ENCODER_PREFIXES[1] } else { REFINER_TEXT_ENCODER_PREFIX };
    let clip_config = |prefix: &String| ClipTextConfig::read(&layout.text_encoder(prefix, end_of_text()));
    let clip_config = clip.as_ref().map(clip_config).transpose()?;
    let open_config = ClipTextConfig::read(&open_clip::config(&layout, open, end_of_text()))?;
    let numbers = family.numbers(Size { width: 1, height: 1 }, PromptKind::Positive).len();
    let unet_config = UnetConfig::read(&unet(&layout, open, numbers))?;
    let autoencoder_config = autoencoder(&layout);
    let text = move |name: &str| match (name.split_once('/')?, &clip) {
        (("text_encoder", name), Some(clip)) => Some(format!("{clip}{name}").into()),
        ((_, name), _) => open_clip::source(open, name),
    };
    let weights = checkpoint::renamed(weights, &unet_config, &autoencoder_config, text)?;
    let part = |name: &str| weights.part(name, target.kind);
    let clip = clip_config.map(|config| ClipTextModel::load(&part("text_encoder/"), &config)).transpose()?;
    let open = ClipTextModel::load_with_projection(&part("text_encoder_2/"), &open_config)?;
    let schedule = NoiseSchedule::from_json(SDXL_SCHEDULER);
    let [first, second] = tokenizers(&path, clip_tokenizer)?;
    Ok(Model {
        family,
        tokenizers: Some(first).filter(|_| clip.is_some()).into_iter().chain([second]).collect(),
        text_encoders: clip.into_iter().chain([open]).collect(),
        unet: Unet::load(&part("unet/"), &unet_config)?,
        vae: Rc::new(Autoencoder::load(
            &weights.part("vae/", autoencoder_kind(target.kind, true)),
            &autoencoder_config,
        )?),
        schedule: Rc::new(schedule.map_err(|cause| LoadError::Schedule { file: path.clone(), cause })?),
        sampler: Sampler::of_config(SDXL_SCHEDULER),
        zeros_for_no_negative: stage == ModelRole::Base,
        target,
        path,
        maps: weights.finish(|name| harmless(name, family.family()))?,
    })
}

/// The autoencoder alone, to compute in `kind`.
pub(super) fn autoencoder_alone(weights: Weights, kind: Kind) -> Result<LoadedAutoencoder, LoadError> {
    let config = autoencoder(&Layout::of(&weights));
    checkpoint::autoencoder_alone(weights, &config, kind)
}

/// That of a UNet which is told so many `numbers` beside the pooled text of the encoder below `text_prefix`.
fn unet(layout: &Layout, text_prefix: &str, numbers: usize) -> ConfigFile {
    let inputs = layout.size(&format!("{UNET_PREFIX}label_emb.0.0.weight"), 1);
    let pooled = layout.size(&open_clip::projection(text_prefix), 1);
    let added = json!({
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": inputs.saturating_sub(pooled) / numbers,
        "projection_class_embeddings_input_dim": inputs,
    });
    layout.unet(|channels| (channels / HEAD).max(1), added)
}

fn autoencoder(layout: &Layout) -> ConfigFile {
    layout.autoencoder(json!({"scaling_factor": 0.13025}))
}

/// Where the pooled text is taken from: the published configurations say so that it is the highest id.
fn end_of_text() -> Value {
    json!({"eos_token_id": 2})
}

/// Those beside the file, `tokenizer/` and `tokenizer_2/`. The second has the same vocabulary as the first, and another token to pad with.
fn tokenizers(path: &Path, clip_tokenizer: &Path) -> Result<[Tokenizer; 2], LoadError> {
    let [first, second] = ["tokenizer", "tokenizer_2"].map(|name| path.with_file_name(name));
    let first = if first.is_dir() { first.as_path() } else { clip_tokenizer };
    let second = if second.is_dir() { Tokenizer::from_folder(&second) } else { Tokenizer::with_pad_token(first, PAD) };
    Ok([Tokenizer::from_folder(first)?, second?])
}

/// Tensors that inference has no use for.
fn harmless(name: &str, family: Family) -> bool {
    checkpoint::harmless(name, parts(family)) || name.ends_with(".logit_scale")
}
