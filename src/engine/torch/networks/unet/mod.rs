//! The UNet that predicts noise (Ronneberger et al. 2015, Rombach et al. 2022; diffusers' `UNet2DConditionModel`).

mod config;
mod time;
mod work;

use std::rc::Rc;

use tch::{Kind, TchError, Tensor};

pub(in crate::engine::torch) use config::UnetConfig;

use self::time::{AddedEmbedding, TimeEmbedding, TimeProjections};
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::layout::channels_last;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::conditioning::Conditioning;
use crate::engine::torch::nn::{
    Conv2d, ConvParams, Forward, GroupNorm, Linear, Resnet, Transformer, TransformerShape, Weight,
};
use crate::engine::torch::weights::files::Scope;

/// A UNet of any size of the architecture of SD v1 or SDXL. Clones share their tensors.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Unet {
    time: TimeEmbedding,
    added: Option<AddedEmbedding>,
    time_projections: Linear,
    conv_in: Conv2d,
    down: Vec<Block>,
    middle: (Resnet, Transformer, Resnet),
    up: Vec<Block>,
    norm: GroupNorm,
    conv_out: Conv2d,
    config: Rc<UnetConfig>,
    levels: Rc<[(usize, bool)]>,
    kind: Kind,
}

impl Unet {
    pub(in crate::engine::torch) fn load(at: &Scope, config: &UnetConfig) -> Result<Self, LoadError> {
        let first = config.levels[0].channels;
        let mut loader = Loader { config, times: TimeProjections::default() };
        let down = loader.down(at)?;
        let middle = loader.middle(&at.at("mid_block"))?;
        let up = loader.up(at)?;
        let mut unet = Self {
            time: TimeEmbedding::load(&at.at("time_embedding"), config)?,
            added: config
                .added
                .map(|added| AddedEmbedding::load(&at.at("add_embedding"), config, added))
                .transpose()?,
            time_projections: loader.times.stack()?,
            conv_in: Conv2d::load(&at.at("conv_in"), config.latent + config.concat, first, ConvParams::SAME)?,
            down,
            middle,
            up,
            norm: GroupNorm::load(&at.at("conv_norm_out"), first, config.groups, config.epsilon)?,
            conv_out: Conv2d::load(&at.at("conv_out"), first, config.latent, ConvParams::SAME)?,
            levels: config.layers().into(),
            config: Rc::new(config.clone()),
            kind: at.kind(),
        };
        Weight::offload_loaded(at, unet.weights())?;
        Ok(unet)
    }

    /// Channels of the latent.
    pub(in crate::engine::torch) fn latent_channels(&self) -> i64 {
        self.config.latent
    }

    /// Channels that it takes beside the latent: [`Conditioning::concat`] has as many.
    pub(in crate::engine::torch) fn concat_channels(&self) -> i64 {
        self.config.concat
    }

    /// Width of the text's states.
    pub(in crate::engine::torch) fn text_width(&self) -> i64 {
        self.config.text
    }

    /// Width of the pooled text beside so many numbers; none where nothing is added to the time.
    pub(in crate::engine::torch) fn pooled_width(&self, numbers: usize) -> Option<i64> {
        self.config.added.map(|added| added.inputs - added.number * numbers as i64)
    }

    /// What it computes in.
    pub(in crate::engine::torch) fn kind(&self) -> Kind {
        self.kind
    }

    /// Multiplications (each with an addition) of one row of an evaluation, on latents of this height and width, under a text of so many tokens.
    pub(in crate::engine::torch) fn multiplications(&self, height: u64, width: u64, tokens: u64) -> u64 {
        self.config.multiplications(height, width, tokens)
    }

    /// Layers of each level, from the largest image, and whether it attends on the way up.
    pub(in crate::engine::torch) fn levels(&self) -> &Rc<[(usize, bool)]> {
        &self.levels
    }

    /// What a LoRA may change.
    pub(in crate::engine::torch) fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        let (before, transformer, after) = &mut self.middle;
        let middle = before.weights().chain(transformer.weights()).chain(after.weights());
        let ends = [self.conv_in.weight(), self.conv_out.weight(), self.time_projections.weight()];
        let blocks = self.down.iter_mut().chain(&mut self.up).flat_map(Block::weights);
        let added = self.added.iter_mut().flat_map(AddedEmbedding::weights);
        self.time.weights().chain(added).chain(ends).chain(blocks).chain(middle)
    }

    /// Whether it is told the guidance scale, and so does in one row what others need two for.
    pub(in crate::engine::torch) fn is_told_guidance(&self) -> bool {
        self.config.guidance.is_some()
    }

    /// Whether an evaluation with this guidance scale has a row for the negative prompt, too. Guidance of 1 is the prompt's own prediction, and of less
    /// the reference takes it for 1.
    pub(in crate::engine::torch) fn evaluates_negative(&self, guidance_scale: f64) -> bool {
        guidance_scale > 1.0 && !self.is_told_guidance()
    }

    /// `[timesteps, time]` at `context`: what [`Self::forward`] takes as `time`, a row a timestep. Made once a plan. The guidance scale makes
    /// a difference to a UNet that is told it.
    pub(in crate::engine::torch) fn embed_times(
        &self,
        timesteps: &[f64],
        guidance_scale: f64,
        context: &DeviceContext,
    ) -> Forward {
        self.time.forward(timesteps, guidance_scale, context)
    }

    /// [`Conditioning::vector`], `[rows, time]` at `context`, of the pooled text, `[rows, width]`, and of `numbers`, as many for each row. Made
    /// once a prompt and size.
    ///
    /// # Errors
    /// libtorch's, or this UNet adds nothing to the time.
    pub(in crate::engine::torch) fn embed_added(
        &self,
        pooled: &Tensor,
        numbers: &[f32],
        context: &DeviceContext,
    ) -> Forward {
        let added = self.added.as_ref().ok_or_else(|| TchError::Shape(ADDS_NOTHING.into()))?;
        added.forward(pooled, numbers, context)
    }

    /// Keys and values of every cross-attention, from the text encoder's states `[batch, tokens, width]`: [`Conditioning::cross_attention`].
    /// Made once a prompt.
    pub(in crate::engine::torch) fn project_text(&self, states: &Tensor) -> Forward<Vec<Tensor>> {
        let transformers = transformers(&self.down).chain([&self.middle.1]).chain(transformers(&self.up));
        transformers.flat_map(|transformer| transformer.project(states)).collect()
    }

    /// The noise in `sample` (`[batch, latent, height, width]`) at each row's time (`[batch, time]`, see [`Self::embed_times`]) under each
    /// row's conditioning.
    ///
    /// # Errors
    /// libtorch's, or the conditioning is another UNet's.
    pub(in crate::engine::torch) fn forward(
        &self,
        sample: &Tensor,
        time: &Tensor,
        conditioning: &Conditioning,
    ) -> Forward {
        let times = match (&self.added, &conditioning.vector) {
            (None, None) => self.time_projections.forward(time)?,
            (Some(_), Some(vector)) => self.time_projections.forward(&time.f_add(vector)?.f_silu_()?)?,
            (None, Some(_)) => return Err(TchError::Shape(ADDS_NOTHING.into())),
            (Some(_), None) => {
                return Err(TchError::Shape("this UNet adds a pooled text to the time's embedding".into()));
            }
        };
        let mut text = TextCursor(&conditioning.cross_attention);
        let mut x = match &conditioning.concat {
            Some(concat) => self.conv_in.forward(&channels_last(&Tensor::f_cat(&[sample, concat], 1)?)?)?,
            None => self.conv_in.forward(&channels_last(sample)?)?,
        };
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down {
            for layer in &block.layers {
                x = layer.forward(&x, &times, &mut text)?;
                skips.push(x.shallow_clone());
            }
            if let Some(conv) = &block.resample {
                x = conv.forward(&x)?;
                skips.push(x.shallow_clone());
            }
        }
        let (before, transformer, after) = &self.middle;
        x = before.forward(&x, Some(&times))?;
        x = transformer.forward(&x, text.take(transformer.depth())?)?;
        x = after.forward(&x, Some(&times))?;
        for block in &self.up {
            x = block.forward_up(x, &mut skips, &times, &mut text)?;
        }
        text.finish()?;
        self.conv_out.forward(&self.norm.activate(&x)?)
    }
}

const ADDS_NOTHING: &str = "this UNet adds nothing to the time's embedding";

/// In the order of the forward pass.
fn transformers(blocks: &[Block]) -> impl Iterator<Item = &Transformer> {
    blocks.iter().flat_map(|block| &block.layers).filter_map(|layer| layer.transformer.as_ref())
}

/// Hands out the text's projections in order.
struct TextCursor<'a>(&'a [Tensor]);

impl<'a> TextCursor<'a> {
    fn take(&mut self, count: usize) -> Forward<&'a [Tensor]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| mismatch("fewer"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn finish(self) -> Forward<()> {
        if self.0.is_empty() { Ok(()) } else { Err(mismatch("more")) }
    }
}

fn mismatch(how: &str) -> TchError {
    TchError::Shape(format!("the conditioning is for {how} cross-attentions than this UNet has"))
}

/// A level on the way down or up.
#[derive(Debug, Clone)]
struct Block {
    layers: Vec<Layer>,
    /// Halves the image on the way down; follows its doubling on the way up.
    resample: Option<Conv2d>,
}

impl Block {
    /// On the way up, where each layer takes what one on the way down left in `skips`.
    fn forward_up(&self, mut x: Tensor, skips: &mut Vec<Tensor>, times: &Tensor, text: &mut TextCursor) -> Forward {
        let missing = || TchError::Shape("this UNet's way up has more layers than its way down".into());
        for layer in &self.layers {
            let skip = skips.pop().ok_or_else(missing)?;
            x = layer.forward(&Tensor::f_cat(&[x, skip], 1)?, times, text)?;
        }
        if let Some(conv) = &self.resample {
            // To the size of the skip, which is not twice ours where a side was odd.
            let (_, _, height, width) = skips.last().ok_or_else(missing)?.size4()?;
            x = conv.forward(&x.f_upsample_nearest2d([height, width], None, None)?)?;
        }
        Ok(x)
    }

    fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        self.layers.iter_mut().flat_map(Layer::weights).chain(self.resample.as_mut().map(Conv2d::weight))
    }
}

#[derive(Debug, Clone)]
struct Layer {
    resnet: Resnet,
    transformer: Option<Transformer>,
}

impl Layer {
    fn forward(&self, x: &Tensor, times: &Tensor, text: &mut TextCursor) -> Forward {
        let x = self.resnet.forward(x, Some(times))?;
        match &self.transformer {
            Some(transformer) => transformer.forward(&x, text.take(transformer.depth())?),
            None => Ok(x),
        }
    }

    fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        self.resnet.weights().chain(self.transformer.iter_mut().flat_map(Transformer::weights))
    }
}

/// Builds the blocks and gathers their time projections on the way.
struct Loader<'a> {
    config: &'a UnetConfig,
    times: TimeProjections,
}

impl Loader<'_> {
    fn down(&mut self, at: &Scope) -> Result<Vec<Block>, LoadError> {
        let levels = &self.config.levels;
        let mut channels = levels[0].channels;
        let mut blocks = Vec::new();
        for (i, level) in levels.iter().enumerate() {
            let at = at.at(format!("down_blocks.{i}"));
            let mut layers = Vec::new();
            for j in 0..level.layers {
                layers.push(self.layer(&at, j, (channels, level.channels), (i, level.attends_down))?);
                channels = level.channels;
            }
            let halve = || Conv2d::load(&at.at("downsamplers.0.conv"), channels, channels, ConvParams::HALVE);
            blocks.push(Block { layers, resample: (i + 1 < levels.len()).then(halve).transpose()? });
        }
        Ok(blocks)
    }

    fn middle(&mut self, at: &Scope) -> Result<(Resnet, Transformer, Resnet), LoadError> {
        let last = self.config.levels.len() - 1;
        let channels = self.config.levels[last].channels;
        Ok((
            self.resnet(&at.at("resnets.0"), channels, channels)?,
            self.transformer(&at.at("attentions.0"), last)?,
            self.resnet(&at.at("resnets.1"), channels, channels)?,
        ))
    }

    fn up(&mut self, at: &Scope) -> Result<Vec<Block>, LoadError> {
        let levels = &self.config.levels;
        let mut channels = levels[levels.len() - 1].channels;
        let mut blocks = Vec::new();
        for (i, (index, level)) in levels.iter().enumerate().rev().enumerate() {
            let at = at.at(format!("up_blocks.{i}"));
            let mut layers = Vec::new();
            for j in 0..=level.layers {
                // The last skip of a level was made by the downsampling before it, in the channels of that level.
                let skip = if j == level.layers { levels[index.saturating_sub(1)].channels } else { level.channels };
                layers.push(self.layer(&at, j, (channels + skip, level.channels), (index, level.attends_up))?);
                channels = level.channels;
            }
            let double = || Conv2d::load(&at.at("upsamplers.0.conv"), channels, channels, ConvParams::SAME);
            blocks.push(Block { layers, resample: (index > 0).then(double).transpose()? });
        }
        Ok(blocks)
    }

    fn layer(
        &mut self,
        at: &Scope,
        j: i64,
        (inputs, outputs): (i64, i64),
        (level, attends): (usize, bool),
    ) -> Result<Layer, LoadError> {
        let resnet = self.resnet(&at.at(format!("resnets.{j}")), inputs, outputs)?;
        let transformer = || self.transformer(&at.at(format!("attentions.{j}")), level);
        Ok(Layer { resnet, transformer: attends.then(transformer).transpose()? })
    }

    fn resnet(&mut self, at: &Scope, inputs: i64, outputs: i64) -> Result<Resnet, LoadError> {
        let columns = self.times.add(at, self.config.time(), outputs)?;
        Resnet::load(at, inputs, outputs, (self.config.groups, self.config.epsilon), Some(columns))
    }

    fn transformer(&self, at: &Scope, level: usize) -> Result<Transformer, LoadError> {
        let UnetConfig { ref levels, text, groups, linear, .. } = *self.config;
        let level = &levels[level];
        Transformer::load(
            at,
            TransformerShape { channels: level.channels, heads: level.heads, depth: level.depth, text, groups, linear },
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::engine::torch::device::random::normal;
    use crate::engine::torch::families::Model;
    use crate::engine::torch::{Target, device::context::DeviceContext};

    #[test]
    fn conditioning_of_another_unet_is_refused() {
        let _guard = tch::no_grad_guard();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch/miniatures/tiny");
        let model = Model::load(&folder, &folder.join("tokenizer"), Target::REFERENCE).unwrap();
        let unet = &model.unet;
        let latents = normal(1, &[1, unet.latent_channels(), 8, 8], Kind::Float);
        let time = unet.embed_times(&[5.0], 1.0, &DeviceContext::plain(tch::Device::Cpu)).unwrap();
        let texts = || unet.project_text(&normal(2, &[1, 7, unet.text_width()], Kind::Float)).unwrap();
        let refusal = |conditioning: &Conditioning| {
            unet.forward(&latents, &time, conditioning).map(drop).map_err(|cause| cause.to_string())
        };

        assert_eq!(refusal(&Conditioning::of_text(texts())), Ok(()));
        let (mut fewer, mut more) = (texts(), texts());
        let last = fewer.pop().unwrap();
        more.push(last);
        assert!(refusal(&Conditioning::of_text(fewer)).unwrap_err().contains("fewer cross-attentions"));
        assert!(refusal(&Conditioning::of_text(more)).unwrap_err().contains("more cross-attentions"));
        let vector = Conditioning { vector: Some(time.shallow_clone()), ..Conditioning::of_text(texts()) };
        assert!(refusal(&vector).is_err());
        let concat = Conditioning { concat: Some(latents.shallow_clone()), ..Conditioning::of_text(texts()) };
        assert!(refusal(&concat).is_err(), "its first convolution has no weights for more channels");
    }
}
