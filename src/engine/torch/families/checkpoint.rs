//! Single-file checkpoints: they carry no configuration, so it is read off the tensors' names and shapes. What shapes cannot tell is what the
//! checkpoint's family has.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use tch::Kind;

use super::model::LoadedAutoencoder;
use super::names;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::unet::UnetConfig;
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::{TensorSource, Weights};
use crate::job::checkpoint::{AUTOENCODER_PREFIX, UNET_PREFIX};

/// Channels of a head where a family has heads of one width; those of text encoders always are so wide.
pub(super) const HEAD: usize = 64;

/// The tensors of a checkpoint by name.
pub(super) struct Layout<'a> {
    file: &'a Path,
    shapes: HashMap<String, Vec<usize>>,
}

/// What a level of the UNet shows of itself.
#[derive(Default)]
struct Level {
    channels: usize,
    layers: usize,
    /// Transformer blocks in each transformer; none without attention.
    depth: usize,
}

impl<'a> Layout<'a> {
    /// Reads off `weights`.
    pub(super) fn of(weights: &'a Weights) -> Self {
        Self { file: weights.path(), shapes: weights.shapes().collect() }
    }

    /// The UNet's configuration, as its `config.json` would say it. `heads` tells how many a level of so many channels has; `family` is what
    /// its family has beyond what the shapes of every UNet tell.
    pub(super) fn unet(&self, heads: impl Fn(usize) -> usize, family: Value) -> ConfigFile {
        let key = |name: &str| format!("{UNET_PREFIX}{name}");
        let levels = self.levels();
        let mut output = 0;
        let mut attends_up = Vec::new();
        for level in levels.iter().rev() {
            attends_up.push(self.has(&key(&format!("output_blocks.{output}.1.norm.weight"))));
            output += level.layers + 1;
        }
        let named = |attends: bool, way: &str| format!("{}{way}Block2D", if attends { "CrossAttn" } else { "" });
        let middle = "middle_block.1.transformer_blocks.";
        // The middle has the depth of the last level, whether or not that level attends.
        let mut depths: Vec<usize> = levels.iter().map(|level| level.depth.max(1)).collect();
        if let Some(last) = depths.last_mut() {
            *last = self.count(&key(middle));
        }
        let entered_by = self.shapes.get(&key("middle_block.1.proj_in.weight"));
        let found = json!({
            "in_channels": self.size(&key("input_blocks.0.0.weight"), 1),
            "block_out_channels": levels.iter().map(|level| level.channels).collect::<Vec<_>>(),
            "layers_per_block": levels.iter().map(|level| level.layers).collect::<Vec<_>>(),
            "down_block_types": levels.iter().map(|level| named(level.depth > 0, "Down")).collect::<Vec<_>>(),
            "up_block_types": attends_up.iter().map(|&attends| named(attends, "Up")).collect::<Vec<_>>(),
            "cross_attention_dim": self.size(&key(&format!("{middle}0.attn2.to_k.weight")), 1),
            "transformer_layers_per_block": depths,
            "use_linear_projection": entered_by.is_some_and(|shape| shape.len() == 2),
            "attention_head_dim": levels.iter().map(|level| heads(level.channels)).collect::<Vec<_>>(),
        });
        self.config(found, family)
    }

    /// The UNet's levels on the way down: blocks are numbered through, and a downsampling ends a level.
    fn levels(&self) -> Vec<Level> {
        let mut levels = vec![Level::default()];
        for n in 1.. {
            let key = |name: &str| format!("{UNET_PREFIX}input_blocks.{n}.{name}");
            if self.has(&key("0.op.weight")) {
                levels.push(Level::default());
            } else if let (Some(shape), Some(level)) =
                (self.shapes.get(&key("0.out_layers.3.weight")), levels.last_mut())
            {
                level.channels = shape.first().copied().unwrap_or(0);
                level.layers += 1;
                level.depth = self.count(&key("1.transformer_blocks."));
            } else {
                break;
            }
        }
        levels
    }

    /// The autoencoder's configuration; `family` is what its family has.
    pub(super) fn autoencoder(&self, family: Value) -> ConfigFile {
        let key = |name: &str| format!("{AUTOENCODER_PREFIX}{name}");
        let levels = self.count(&key("encoder.down."));
        let channels: Vec<usize> =
            (0..levels).map(|i| self.size(&key(&format!("encoder.down.{i}.block.0.conv1.weight")), 0)).collect();
        let found = json!({
            "_class_name": "AutoencoderKL",
            "latent_channels": self.size(&key("decoder.conv_in.weight"), 1),
            "block_out_channels": channels,
            "layers_per_block": self.count(&key("encoder.down.0.block.")),
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "mid_block_add_attention": self.has(&key("decoder.mid.attn_1.q.weight")),
            "use_quant_conv": self.has(&key("quant_conv.weight")),
            "use_post_quant_conv": self.has(&key("post_quant_conv.weight")),
        });
        self.config(found, family)
    }

    /// The configuration of a text encoder in transformers' names that begin with `prefix`.
    pub(super) fn text_encoder(&self, prefix: &str, family: Value) -> ConfigFile {
        let at = |name: &str| format!("{prefix}{name}");
        let tokens = at("embeddings.token_embedding.weight");
        let width = self.size(&tokens, 1);
        let found = json!({
            "vocab_size": self.size(&tokens, 0),
            "max_position_embeddings": self.size(&at("embeddings.position_embedding.weight"), 0),
            "hidden_size": width,
            "intermediate_size": self.size(&at("encoder.layers.0.mlp.fc1.weight"), 0),
            "num_hidden_layers": self.count(&at("encoder.layers.")),
            "num_attention_heads": (width / HEAD).max(1),
        });
        self.config(found, family)
    }

    /// What the names of a text encoder below `prefix` begin with; some tools leave `text_model` out.
    pub(super) fn text_prefix(&self, prefix: &str) -> String {
        let usual = format!("{prefix}text_model.");
        if self.shapes.keys().any(|name| name.starts_with(&usual)) { usual } else { prefix.to_owned() }
    }

    /// What was `found`, and what a `family` has beside it.
    pub(super) fn config(&self, found: Value, family: Value) -> ConfigFile {
        let of = |value: Value| if let Value::Object(map) = value { map } else { serde_json::Map::new() };
        ConfigFile::of(self.file, of(found).into_iter().chain(of(family)).collect())
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// A tensor's size; 0 (which no configuration accepts) where it is missing.
    pub(super) fn size(&self, name: &str, dimension: usize) -> usize {
        self.shapes.get(name).and_then(|shape| shape.get(dimension)).copied().unwrap_or(0)
    }

    /// How many different numbers follow `prefix`.
    pub(super) fn count(&self, prefix: &str) -> usize {
        let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.shapes.keys().filter_map(number).max().map_or(0, |last| last + 1)
    }
}

/// Lets modules find their tensors: the UNet's below `unet/`, the autoencoder's below `vae/`, and by `text` those of text encoders.
///
/// # Errors
/// `autoencoder` does not say its levels.
pub(super) fn renamed(
    weights: Weights,
    unet: &UnetConfig,
    autoencoder: &ConfigFile,
    text: impl Fn(&str) -> Option<TensorSource> + 'static,
) -> Result<Weights, LoadError> {
    let (levels, depth) = (unet.layers(), autoencoder.int_list("block_out_channels")?.len());
    Ok(weights.renamed(Box::new(move |name| {
        vec![match name.split_once('/') {
            Some(("unet", name)) => names::original_unet(name, &levels).into(),
            Some(("vae", name)) => names::original_autoencoder(name, depth).into(),
            _ => text(name).unwrap_or_else(|| name.to_owned().into()),
        }]
    })))
}

/// The autoencoder of a checkpoint alone, of this configuration.
///
/// # Errors
/// As for loading the whole checkpoint.
pub(super) fn autoencoder_alone(
    weights: Weights,
    config: &ConfigFile,
    kind: Kind,
) -> Result<LoadedAutoencoder, LoadError> {
    let depth = config.int_list("block_out_channels")?.len();
    let weights = weights.renamed(Box::new(move |name| vec![names::original_autoencoder(name, depth).into()]));
    let vae = Autoencoder::load(&weights.root(kind), config)?;
    Ok((vae, weights.finish(|_| true)?))
}

/// Whether inference has no use for a tensor: training state, schedules, and what is in none of `parts`.
pub(super) fn harmless(name: &str, parts: &[&str]) -> bool {
    !parts.iter().any(|part| name.starts_with(part))
        || name.ends_with(".position_ids")
        || name.starts_with("first_stage_model.loss.")
}
