//! Single-file checkpoints: they carry no configuration, so it is read off the tensors' names and shapes.
//!
//! What shapes cannot tell is what SD v1 has: 8 attention heads in the UNet, heads of 64 in the text encoder, 32 groups.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Weights;
use crate::job::Family;
use crate::job::checkpoint::{self, AUTOENCODER_PREFIX, UNET_PREFIX};

/// SD 1.5's `scheduler/scheduler_config.json`, which every descendant inherits.
pub(super) const SCHEDULER: &str = r#"{
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "steps_offset": 1, "set_alpha_to_one": false, "skip_prk_steps": true, "clip_sample": false
}"#;

/// What the names of the text encoder's tensors begin with.
const CLIP_PREFIX: &str = "cond_stage_model.transformer.";

/// Whether a checkpoint has all parts of an SD v1 model, and none that only other families have.
pub(super) fn is_whole(weights: &Weights) -> bool {
    checkpoint::is_whole(Family::Sd1, |prefix| weights.shapes().any(|(name, _)| name.starts_with(prefix)))
}

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
    attends: bool,
}

impl<'a> Layout<'a> {
    /// Reads off `weights`.
    pub(super) fn of(weights: &'a Weights) -> Self {
        Self { file: weights.path(), shapes: weights.shapes().collect() }
    }

    /// The UNet's configuration, as its `config.json` would say it.
    pub(super) fn unet(&self) -> ConfigFile {
        let key = |name: &str| format!("{UNET_PREFIX}{name}");
        let levels = self.levels();
        let mut output = 0;
        let mut attends_up = Vec::new();
        for level in levels.iter().rev() {
            attends_up.push(self.shapes.contains_key(&key(&format!("output_blocks.{output}.1.norm.weight"))));
            output += level.layers + 1;
        }
        let named = |attends: bool, way: &str| format!("{}{way}Block2D", if attends { "CrossAttn" } else { "" });
        let middle = "middle_block.1.transformer_blocks.";
        let entered_by = self.shapes.get(&key("middle_block.1.proj_in.weight"));
        self.config(json!({
            "in_channels": self.size(&key("input_blocks.0.0.weight"), 1),
            "block_out_channels": levels.iter().map(|level| level.channels).collect::<Vec<_>>(),
            "layers_per_block": levels.iter().map(|level| level.layers).collect::<Vec<_>>(),
            "down_block_types": levels.iter().map(|level| named(level.attends, "Down")).collect::<Vec<_>>(),
            "up_block_types": attends_up.iter().map(|&attends| named(attends, "Up")).collect::<Vec<_>>(),
            "cross_attention_dim": self.size(&key(&format!("{middle}0.attn2.to_k.weight")), 1),
            "transformer_layers_per_block": self.count(&key(middle)),
            "use_linear_projection": entered_by.is_some_and(|shape| shape.len() == 2),
            "attention_head_dim": 8,
        }))
    }

    /// The UNet's levels on the way down: blocks are numbered through, and a downsampling ends a level.
    fn levels(&self) -> Vec<Level> {
        let mut levels = vec![Level::default()];
        for n in 1.. {
            let key = |name: &str| format!("{UNET_PREFIX}input_blocks.{n}.{name}");
            if self.shapes.contains_key(&key("0.op.weight")) {
                levels.push(Level::default());
            } else if let (Some(shape), Some(level)) =
                (self.shapes.get(&key("0.out_layers.3.weight")), levels.last_mut())
            {
                level.channels = shape.first().copied().unwrap_or(0);
                level.layers += 1;
                level.attends = self.shapes.contains_key(&key("1.norm.weight"));
            } else {
                break;
            }
        }
        levels
    }

    /// The autoencoder's configuration.
    pub(super) fn autoencoder(&self) -> ConfigFile {
        let key = |name: &str| format!("{AUTOENCODER_PREFIX}{name}");
        let levels = self.count(&key("encoder.down."));
        let channels: Vec<usize> =
            (0..levels).map(|i| self.size(&key(&format!("encoder.down.{i}.block.0.conv1.weight")), 0)).collect();
        self.config(json!({
            "_class_name": "AutoencoderKL",
            "latent_channels": self.size(&key("decoder.conv_in.weight"), 1),
            "block_out_channels": channels,
            "layers_per_block": self.count(&key("encoder.down.0.block.")),
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "mid_block_add_attention": self.shapes.contains_key(&key("decoder.mid.attn_1.q.weight")),
            "use_quant_conv": self.shapes.contains_key(&key("quant_conv.weight")),
            "use_post_quant_conv": self.shapes.contains_key(&key("post_quant_conv.weight")),
        }))
    }

    /// The text encoder's configuration.
    pub(super) fn text_encoder(&self) -> ConfigFile {
        let at = |name: &str| format!("{}{name}", self.text_prefix());
        let tokens = at("embeddings.token_embedding.weight");
        let width = self.size(&tokens, 1);
        self.config(json!({
            "vocab_size": self.size(&tokens, 0),
            "max_position_embeddings": self.size(&at("embeddings.position_embedding.weight"), 0),
            "hidden_size": width,
            "intermediate_size": self.size(&at("encoder.layers.0.mlp.fc1.weight"), 0),
            "num_hidden_layers": self.count(&at("encoder.layers.")),
            "num_attention_heads": (width / 64).max(1),
        }))
    }

    /// What the text encoder's names begin with; some tools leave `text_model` out.
    pub(super) fn text_prefix(&self) -> &'static str {
        let usual = "cond_stage_model.transformer.text_model.";
        let found = self.shapes.keys().any(|name| name.starts_with(usual));
        if found { usual } else { CLIP_PREFIX }
    }

    fn config(&self, value: Value) -> ConfigFile {
        let map = if let Value::Object(map) = value { map } else { serde_json::Map::new() };
        ConfigFile::of(self.file, map)
    }

    /// A tensor's size; 0 (which no configuration accepts) where it is missing.
    fn size(&self, name: &str, dimension: usize) -> usize {
        self.shapes.get(name).and_then(|shape| shape.get(dimension)).copied().unwrap_or(0)
    }

    /// How many different numbers follow `prefix`.
    fn count(&self, prefix: &str) -> usize {
        let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.shapes.keys().filter_map(number).max().map_or(0, |last| last + 1)
    }
}

/// Tensors of single-file checkpoints that inference has no use for: training state, schedules, other components.
pub(super) fn harmless(name: &str) -> bool {
    ![UNET_PREFIX, AUTOENCODER_PREFIX, CLIP_PREFIX].iter().any(|part| name.starts_with(part))
        || name.ends_with(".position_ids")
        || name.starts_with("first_stage_model.loss.")
}
