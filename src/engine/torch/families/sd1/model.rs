//! A whole model: found on disk, checked, loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use tch::Tensor;

use super::names;
use super::single_file::{self, Layout};
use crate::disk::whole;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::cpu;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::clip_text::{TextConfig, TextEncoder};
use crate::engine::torch::networks::unet::{Unet, UnetConfig};
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::nn::Forward;
use crate::engine::torch::weights::config::{self, Config};
use crate::engine::torch::weights::files::Weights;
use crate::job::Size;
use crate::sampler::NoiseSchedule;

/// Parts of a folder, and what their weight files are called.
const TEXT_ENCODER: (&str, &str) = ("text_encoder", "model");
const UNET: (&str, &str) = ("unet", "diffusion_pytorch_model");
pub(in crate::engine::torch) const VAE: (&str, &str) = ("vae", "diffusion_pytorch_model");

/// A model of the SD v1 architecture, ready to draw.
#[derive(Debug)]
pub struct Model {
    pub(in crate::engine::torch) tokenizer: Tokenizer,
    pub(in crate::engine::torch) text: TextEncoder,
    pub(in crate::engine::torch) unet: Unet,
    pub(in crate::engine::torch) vae: Autoencoder,
    pub(in crate::engine::torch) schedule: NoiseSchedule,
    pub(in crate::engine::torch) target: Target,
    /// Folder or file.
    pub(in crate::engine::torch) path: PathBuf,
    /// Tensors look into these; they go last.
    pub(in crate::engine::torch) maps: Vec<Arc<Mmap>>,
}

impl Model {
    /// Loads a diffusers folder or a single-file `.safetensors` checkpoint. The latter brings no tokenizer: one beside it
    /// (`tokenizer/`), else CLIP's own in `clip_tokenizer`, is used.
    ///
    /// # Errors
    /// [`LoadError`] names the file and the tensor or key that is at fault.
    pub fn load(path: &Path, clip_tokenizer: &Path, target: Target) -> Result<Self, LoadError> {
        Self::load_to(&DeviceContext::plain(target.device), path, clip_tokenizer, target)
    }

    /// The same, by the ways that lead to `context`, which is on the device of `target`.
    pub(in crate::engine::torch) fn load_to(
        context: &DeviceContext,
        path: &Path,
        clip_tokenizer: &Path,
        target: Target,
    ) -> Result<Self, LoadError> {
        let _guard = tch::no_grad_guard();
        let model = if path.is_dir() {
            Self::load_folder(context, path, target)
        } else {
            Self::load_file(context, path, clip_tokenizer, target)
        }?;
        model.check_parts_fit(path)?;
        cpu::track(&model.maps);
        cpu::reclaim();
        Ok(model)
    }

    /// The weight files that [`Self::load`] reads of the model at `path`, in that order; `half` where it will be in half precision. It
    /// fails where one is missing.
    pub fn files(path: &Path, half: bool) -> Vec<PathBuf> {
        if path.is_dir() {
            [TEXT_ENCODER, UNET, VAE]
                .iter()
                .filter_map(|(part, stem)| find_weights(&path.join(part), stem, half).ok())
                .collect()
        } else {
            vec![path.to_owned()]
        }
    }

    fn load_folder(context: &DeviceContext, folder: &Path, target: Target) -> Result<Self, LoadError> {
        let index = folder.join("model_index.json");
        if !index.is_file() {
            let reason = "there is no model_index.json, so this is no model folder in diffusers layout".to_owned();
            return Err(LoadError::Path { path: folder.to_owned(), reason });
        }
        check_pipeline(&Config::read(&index)?)?;
        let half = target.kind == tch::Kind::Half;
        let weights = |(part, stem): (&str, &str)| {
            Weights::open(&[find_weights(&folder.join(part), stem, half)?], target.kind, context)
        };
        let config = |part: &str| Config::read(&folder.join(part).join("config.json"));

        let text_weights = weights(TEXT_ENCODER)?.renamed(Box::new(names::text_encoder));
        let text = TextEncoder::load(&text_weights.root(), &TextConfig::read(&config("text_encoder")?)?)?;
        let unet_weights = weights(UNET)?;
        let unet_config = config("unet")?;
        unet_config.word("_class_name", &["UNet2DConditionModel"])?;
        let unet = Unet::load(&unet_weights.root(), &UnetConfig::read(&unet_config)?)?;
        let vae_weights = weights(VAE)?.renamed(Box::new(names::autoencoder));
        let vae = Autoencoder::load(&vae_weights.root(), &config("vae")?)?;

        let mut maps = Vec::new();
        for part in [text_weights, unet_weights, vae_weights] {
            maps.extend(part.finish(|name| name.ends_with(".position_ids"))?);
        }
        let file = folder.join("scheduler").join("scheduler_config.json");
        Ok(Self {
            tokenizer: Tokenizer::from_folder(&folder.join("tokenizer"))?,
            text,
            unet,
            vae,
            schedule: read_schedule(&file)?,
            target,
            path: folder.to_owned(),
            maps,
        })
    }

    fn load_file(
        context: &DeviceContext,
        path: &Path,
        clip_tokenizer: &Path,
        target: Target,
    ) -> Result<Self, LoadError> {
        check_extension(path)?;
        let weights = Weights::open(&[path.to_owned()], target.kind, context)?;
        let layout = Layout::of(&weights)?;
        let prefix = layout.text_prefix();
        let text_config = TextConfig::read(&layout.text_encoder())?;
        let unet_config = UnetConfig::read(&layout.unet())?;
        let autoencoder_config = layout.autoencoder();
        let levels = unet_config.layers();
        let depth = autoencoder_config.int_list("block_out_channels")?.len();

        let weights = weights.renamed(Box::new(move |name| {
            vec![match name.split_once('/') {
                Some(("text", name)) => format!("{prefix}{name}"),
                Some(("vae", name)) => names::original_autoencoder(name, depth),
                _ => names::original_unet(name.trim_start_matches("unet/"), &levels),
            }]
        }));
        let text = TextEncoder::load(&weights.part("text/"), &text_config)?;
        let unet = Unet::load(&weights.part("unet/"), &unet_config)?;
        let vae = Autoencoder::load(&weights.part("vae/"), &autoencoder_config)?;
        let beside = path.with_file_name("tokenizer");
        let tokenizer = Tokenizer::from_folder(if beside.is_dir() { &beside } else { clip_tokenizer })?;
        let schedule = parse_schedule(path, single_file::SCHEDULER)?;
        let maps = weights.finish(single_file::harmless)?;
        Ok(Self { tokenizer, text, unet, vae, schedule, target, path: path.to_owned(), maps })
    }

    /// Parts may be sound each by itself and not belong together.
    fn check_parts_fit(&self, path: &Path) -> Result<(), LoadError> {
        let fault = |reason: String| Err(LoadError::Path { path: path.to_owned(), reason });
        let (latent, unet) = (self.vae.latent_channels(), self.unet.latent_channels());
        if latent != unet {
            return fault(format!("the autoencoder has {latent} latent channels and the UNet {unet}"));
        }
        let ([entries, text, length], unet) = (self.text.shape()?, self.unet.text_width());
        if text != unet {
            return fault(format!("the text encoder's states are {text} wide and the UNet takes {unet}"));
        }
        let (known, longest) = (self.tokenizer.vocab_size() as i64, self.tokenizer.max_length() as i64);
        if known > entries {
            return fault(format!("the tokenizer knows {known} tokens and the text encoder {entries}"));
        }
        if longest > length {
            return fault(format!("the tokenizer makes {longest} tokens and the text encoder takes {length}"));
        }
        Ok(())
    }

    /// Multiplications (each with an addition) of one row of an evaluation of the UNet, on an image of `size`; norms and activations are
    /// left out.
    pub fn multiplications(&self, size: Size) -> u64 {
        let side = |pixels: u32| u64::from(pixels / self.vae.factor());
        self.unet.multiplications(side(size.height), side(size.width))
    }

    /// Text encoder: token ids `[batch, length]` (i64) to states `[batch, length, width]`.
    pub fn encode_text(&self, ids: &Tensor) -> Forward {
        self.text.forward(ids)
    }

    /// UNet: latents `[batch, channels, height, width]`, one timestep a row, text states `[batch, length, width]`; gives
    /// the predicted noise in the shape of the latents.
    pub fn predict_noise(&self, latents: &Tensor, timesteps: &[f64], states: &Tensor) -> Forward {
        let text = self.unet.project_text(states)?;
        self.unet.forward(latents, &self.unet.embed_times(timesteps, &DeviceContext::plain(self.target.device))?, &text)
    }

    /// Autoencoder, latents in its own scale to pixels around -1 to 1, not clamped.
    pub fn decode_latents(&self, latents: &Tensor) -> Forward {
        self.vae.decode_raw(latents)
    }

    /// Autoencoder, pixels to latents in its own scale; of a KL autoencoder the mean.
    pub fn encode_pixels(&self, pixels: &Tensor) -> Forward {
        self.vae.encode_raw(pixels)
    }

    /// Where it computes and in what.
    pub fn target(&self) -> Target {
        self.target
    }
}

/// Refuses folders that hold another kind of pipeline.
fn check_pipeline(index: &Config) -> Result<(), LoadError> {
    index.word(
        "_class_name",
        &["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"],
    )?;
    Ok(())
}

/// The file of a part's weights. Half-precision files are read where half precision is wanted, or where nothing else is.
pub(in crate::engine::torch) fn find_weights(folder: &Path, stem: &str, half: bool) -> Result<PathBuf, LoadError> {
    let [full, fp16] = ["", ".fp16"].map(|kind| folder.join(format!("{stem}{kind}.safetensors")));
    let wanted = if half { [fp16, full] } else { [full, fp16] };
    if let Some(found) = wanted.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let pickles = ["bin", "fp16.bin", "ckpt", "pt"].map(|ending| folder.join(format!("{stem}.{ending}")));
    if let Some(pickle) = pickles.into_iter().chain([folder.join("pytorch_model.bin")]).find(|path| path.is_file()) {
        return Err(LoadError::Pickle(pickle));
    }
    let reason = format!("there is neither {stem}.safetensors nor {stem}.fp16.safetensors");
    Err(LoadError::Path { path: folder.to_owned(), reason })
}

fn check_extension(path: &Path) -> Result<(), LoadError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => Ok(()),
        Some("ckpt" | "pt" | "pth" | "bin" | "pkl") => Err(LoadError::Pickle(path.to_owned())),
        _ => {
            let reason = "a model is a folder in diffusers layout or a .safetensors file".to_owned();
            Err(LoadError::Path { path: path.to_owned(), reason })
        }
    }
}

fn read_schedule(file: &Path) -> Result<NoiseSchedule, LoadError> {
    let text = whole::read_text(file, config::MAX_BYTES)
        .map_err(|cause| LoadError::Config { file: file.to_owned(), reason: format!("cannot be read: {cause}") })?;
    parse_schedule(file, &text)
}

fn parse_schedule(file: &Path, text: &str) -> Result<NoiseSchedule, LoadError> {
    NoiseSchedule::from_json(text)
        .map(NoiseSchedule::for_stable_diffusion)
        .map_err(|cause| LoadError::Schedule { file: file.to_owned(), cause })
}
