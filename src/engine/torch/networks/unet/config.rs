//! What `unet/config.json` says, as far as the architectures of SD v1 and SDXL go.

use serde_json::json;

use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::config::ConfigFile;

/// One level of the UNet: blocks of one size.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct UnetLevel {
    /// Channels of its blocks.
    pub(in crate::engine::torch) channels: i64,
    /// Residual blocks on the way down; one more on the way up.
    pub(in crate::engine::torch) layers: i64,
    /// Attention heads.
    pub(in crate::engine::torch) heads: i64,
    /// Transformer blocks in each transformer.
    pub(in crate::engine::torch) depth: i64,
    /// Whether its blocks on the way down are followed by transformers.
    pub(in crate::engine::torch) attends_down: bool,
    /// The same on the way up.
    pub(in crate::engine::torch) attends_up: bool,
}

/// What is added to the embedding of the time: a pooled text and some numbers (diffusers' `text_time`; Podell et al. 2023, 2.2).
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct AddedEmbeddingConfig {
    /// Channels of the embedding of one number.
    pub(in crate::engine::torch) number: i64,
    /// Channels of the pooled text and of all numbers together.
    pub(in crate::engine::torch) inputs: i64,
}

/// A UNet of the architecture of SD v1 or SDXL (diffusers' `UNet2DConditionModel`).
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct UnetConfig {
    /// Levels from the largest image to the smallest.
    pub(in crate::engine::torch) levels: Vec<UnetLevel>,
    /// Channels of the latent.
    pub(in crate::engine::torch) latent: i64,
    /// Channels that it takes beside the latent: a mask, and a masked image's latents. Only an inpainting UNet takes any.
    pub(in crate::engine::torch) concat: i64,
    /// Width of the text's states.
    pub(in crate::engine::torch) text: i64,
    /// Groups of the group norms.
    pub(in crate::engine::torch) groups: i64,
    /// Epsilon of the residual blocks' norms.
    pub(in crate::engine::torch) epsilon: f64,
    /// Whether transformers are entered by linear maps.
    pub(in crate::engine::torch) linear: bool,
    /// Whether the timestep's embedding has cosines before sines.
    pub(in crate::engine::torch) cosine_first: bool,
    /// Shifts the frequencies of the timestep's embedding.
    pub(in crate::engine::torch) frequency_shift: f64,
    /// Channels of the embedding of the guidance scale, of a UNet that is told it (Meng et al. 2022): it was distilled so that one row does what
    /// two do with classifier-free guidance.
    pub(in crate::engine::torch) guidance: Option<i64>,
    /// What is added to the embedding of the time; SD v1 adds nothing.
    pub(in crate::engine::torch) added: Option<AddedEmbeddingConfig>,
}

const DOWN: [&str; 2] = ["CrossAttnDownBlock2D", "DownBlock2D"];
const UP: [&str; 2] = ["CrossAttnUpBlock2D", "UpBlock2D"];

impl UnetConfig {
    pub(in crate::engine::torch) fn read(config: &ConfigFile) -> Result<Self, LoadError> {
        Self::refuse_other_architectures(config)?;
        let (inputs, latent) = (config.int("in_channels", Some(4))?, config.int("out_channels", Some(4))?);
        let concat = inputs - latent;
        if concat != 0 && concat != latent + 1 {
            let allowed = format!("{latent}, as out_channels, or {} of an inpainting UNet", 2 * latent + 1);
            return Err(config.refuse("in_channels", &allowed));
        }
        let read = Self {
            levels: Self::levels(config)?,
            latent,
            concat,
            text: config.int("cross_attention_dim", Some(1280))?,
            groups: config.int("norm_num_groups", Some(32))?,
            epsilon: config.float("norm_eps", 1e-5)?,
            linear: config.flag("use_linear_projection", false)?,
            cosine_first: config.flag("flip_sin_to_cos", true)?,
            frequency_shift: config.float("freq_shift", 0.0)?,
            guidance: Self::guidance(config)?,
            added: Self::added(config)?,
        };
        if let Some(level) = read.levels.iter().find(|level| level.channels % read.groups != 0) {
            return Err(config
                .refuse("norm_num_groups", &format!("a divisor of every level's channels, {} too", level.channels)));
        }
        config.finish()?;
        Ok(read)
    }

    /// Channels of the timestep's embedding.
    pub(in crate::engine::torch) fn time(&self) -> i64 {
        4 * self.levels[0].channels
    }

    /// For each level its residual blocks and whether it attends on the way up: what original names are counted by.
    pub(in crate::engine::torch) fn layers(&self) -> Vec<(usize, bool)> {
        self.levels.iter().map(|level| (level.layers as usize, level.attends_up)).collect()
    }

    fn guidance(config: &ConfigFile) -> Result<Option<i64>, LoadError> {
        let key = "time_cond_proj_dim";
        if !config.has(key) {
            return Ok(None);
        }
        // Half of them are sines, half cosines, and of one frequency there is no spacing.
        let channels = config.int(key, None)?;
        let right = channels >= 4 && channels % 2 == 0;
        if right { Ok(Some(channels)) } else { Err(config.refuse(key, "an even number of at least 4")) }
    }

    fn added(config: &ConfigFile) -> Result<Option<AddedEmbeddingConfig>, LoadError> {
        let (number, inputs) = ("addition_time_embed_dim", "projection_class_embeddings_input_dim");
        if !config.has("addition_embed_type") {
            config.ignore(&[number, inputs]);
            return Ok(None);
        }
        config.word("addition_embed_type", &["text_time"])?;
        Ok(Some(AddedEmbeddingConfig { number: config.int(number, None)?, inputs: config.int(inputs, None)? }))
    }

    fn levels(config: &ConfigFile) -> Result<Vec<UnetLevel>, LoadError> {
        let channels = config.int_list("block_out_channels")?;
        let count = channels.len();
        let layers = config.ints("layers_per_block", count, Some(2))?;
        // diffusers named the number of heads `attention_head_dim`, and kept it so.
        let named = if config.has("num_attention_heads") { "num_attention_heads" } else { "attention_head_dim" };
        let heads = config.ints(named, count, Some(8))?;
        config.ignore(&["attention_head_dim"]);
        let depth = config.ints("transformer_layers_per_block", count, Some(1))?;
        let attends_down = Self::attends(config, "down_block_types", DOWN, count)?;
        let mut attends_up = Self::attends(config, "up_block_types", UP, count)?;
        attends_up.reverse();
        config.word("mid_block_type", &["UNetMidBlock2DCrossAttn"])?;
        let level = |i: usize| UnetLevel {
            channels: channels[i],
            layers: layers[i],
            heads: heads[i],
            depth: depth[i],
            attends_down: attends_down[i],
            attends_up: attends_up[i],
        };
        if let Some(i) = (0..count).find(|&i| channels[i] % heads[i] != 0) {
            return Err(config.refuse(named, &format!("a divisor of {} channels", channels[i])));
        }
        Ok((0..count).map(level).collect())
    }

    /// For each level whether its block type has transformers.
    fn attends(
        config: &ConfigFile,
        key: &str,
        [with, without]: [&str; 2],
        count: usize,
    ) -> Result<Vec<bool>, LoadError> {
        let types = config.words(key)?;
        if types.len() != count || types.iter().any(|word| word != with && word != without) {
            return Err(config.refuse(key, &format!("{with} or {without} for each of {count} levels")));
        }
        Ok(types.iter().map(|word| word == with).collect())
    }

    /// Options of `UNet2DConditionModel` that other model families use; each changes the arithmetic.
    fn refuse_other_architectures(config: &ConfigFile) -> Result<(), LoadError> {
        for key in [
            "class_embed_type",
            "encoder_hid_dim_type",
            "encoder_hid_dim",
            "num_class_embeds",
            "timestep_post_act",
            "time_embedding_act_fn",
            "time_embedding_dim",
            "cross_attention_norm",
            "reverse_transformer_layers_per_block",
        ] {
            config.only(key, &json!(null))?;
        }
        for (key, value) in [
            ("act_fn", json!("silu")),
            ("attention_type", json!("default")),
            ("center_input_sample", json!(false)),
            ("conv_in_kernel", json!(3)),
            ("conv_out_kernel", json!(3)),
            ("downsample_padding", json!(1)),
            ("dual_cross_attention", json!(false)),
            ("mid_block_scale_factor", json!(1)),
            ("only_cross_attention", json!(false)),
            ("resnet_out_scale_factor", json!(1.0)),
            ("resnet_skip_time_act", json!(false)),
            ("resnet_time_scale_shift", json!("default")),
            ("time_embedding_type", json!("positional")),
            ("upcast_attention", json!(false)),
        ] {
            config.only(key, &value)?;
        }
        // Read by nothing at inference, or only together with an option refused above.
        config.ignore(&["sample_size", "dropout", "addition_embed_type_num_heads"]);
        config.ignore(&["class_embeddings_concat", "mid_block_only_cross_attention"]);
        Ok(())
    }
}
