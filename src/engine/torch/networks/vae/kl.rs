//! The KL autoencoder (Rombach et al. 2022; diffusers' `AutoencoderKL`).

use serde_json::json;
use tch::{Device, Tensor};

use crate::engine::torch::device::cpu;
use crate::engine::torch::device::layout::channels_last;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::nn::{Conv2d, ConvParams, Forward, GroupNorm, Resnet, SelfAttention, Weight};
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Scope;

/// Epsilon that diffusers fixes in code.
const EPSILON: f64 = 1e-6;

/// Halves an image whose right and lower edge were padded by one.
const HALVE: ConvParams = ConvParams { kernel: 3, stride: 2, padding: 0 };

#[derive(Debug, Clone)]
pub(super) struct Kl {
    encoder: Encoder,
    /// Last map of the encoder, to mean and log variance; some models go without.
    moments: Option<Conv2d>,
    /// First map of the decoder; some models go without.
    latents: Option<Conv2d>,
    decoder: Decoder,
}

struct Shape {
    channels: Vec<i64>,
    layers: i64,
    groups: i64,
    latent: i64,
    attention: bool,
}

impl Kl {
    /// Also tells how many pixels go to a latent's side.
    pub(super) fn load(at: &Scope, config: &ConfigFile, latent: i64) -> Result<(Self, u32), LoadError> {
        let shape = Shape::read(config, latent)?;
        let factor = 1 << (shape.channels.len() - 1);
        let [moments, latents] = [config.flag("use_quant_conv", true)?, config.flag("use_post_quant_conv", true)?];
        let point = |name: &str, channels| Conv2d::load(&at.at(name), channels, channels, ConvParams::POINT);
        let loaded = Self {
            encoder: Encoder::load(&at.at("encoder"), &shape)?,
            moments: moments.then(|| point("quant_conv", 2 * latent)).transpose()?,
            latents: latents.then(|| point("post_quant_conv", latent)).transpose()?,
            decoder: Decoder::load(&at.at("decoder"), &shape)?,
        };
        Ok((loaded, factor))
    }

    /// Mean and log variance of the latents, one after the other in the channels.
    pub(super) fn encode(&self, pixels: &Tensor) -> Forward {
        let moments = self.encoder.forward(pixels)?;
        self.moments.as_ref().map_or(Ok(moments.shallow_clone()), |conv| conv.forward(&moments))
    }

    pub(super) fn decode(&self, latents: &Tensor) -> Forward {
        let x = channels_last(latents)?;
        let x = self.latents.as_ref().map_or(Ok(x.shallow_clone()), |conv| conv.forward(&x))?;
        self.decoder.forward(&x)
    }

    /// What it is made of, but for norms and biases.
    pub(super) fn weights(&mut self) -> Vec<&mut Weight> {
        let Self { encoder, moments, latents, decoder } = self;
        let levels = encoder.levels.iter_mut().chain(&mut decoder.levels).flat_map(weights_of);
        let middles = encoder.middle.weights().chain(decoder.middle.weights());
        let ends = [&mut encoder.conv_in, &mut encoder.conv_out, &mut decoder.conv_in, &mut decoder.conv_out];
        let ends = ends.into_iter().chain(moments).chain(latents).map(Conv2d::weight);
        ends.chain(middles).chain(levels).collect()
    }
}

fn weights_of((resnets, resample): &mut Level) -> impl Iterator<Item = &mut Weight> {
    resnets.iter_mut().flat_map(Resnet::weights).chain(resample.iter_mut().map(Conv2d::weight))
}

impl Shape {
    fn read(config: &ConfigFile, latent: i64) -> Result<Self, LoadError> {
        let channels = config.int_list("block_out_channels")?;
        if channels.len() > 8 {
            return Err(config.refuse("block_out_channels", "at most 8 levels"));
        }
        for (key, of) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
            let types = config.words(key)?;
            if types.len() != channels.len() || types.iter().any(|one| one != of) {
                return Err(config.refuse(key, &format!("{of} for each of {} levels", channels.len())));
            }
        }
        config.only("act_fn", &json!("silu"))?;
        config.only("in_channels", &json!(3))?;
        config.only("out_channels", &json!(3))?;
        config.only("latents_mean", &json!(null))?;
        config.only("latents_std", &json!(null))?;
        config.ignore(&["sample_size", "force_upcast"]);
        let groups = config.int("norm_num_groups", Some(32))?;
        if channels.iter().any(|n| n % groups != 0) {
            return Err(config.refuse("norm_num_groups", "a divisor of every level's channels"));
        }
        Ok(Self {
            channels,
            layers: config.int("layers_per_block", Some(1))?,
            groups,
            latent,
            attention: config.flag("mid_block_add_attention", true)?,
        })
    }

    fn last(&self) -> i64 {
        self.channels[self.channels.len() - 1]
    }

    fn norm(&self, at: &Scope, channels: i64) -> Result<GroupNorm, LoadError> {
        GroupNorm::load(at, channels, self.groups, EPSILON)
    }

    fn resnets(&self, at: &Scope, count: i64, mut inputs: i64, outputs: i64) -> Result<Vec<Resnet>, LoadError> {
        let mut load = |j| {
            let resnet = Resnet::load(&at.at(format!("resnets.{j}")), inputs, outputs, (self.groups, EPSILON), None);
            inputs = outputs;
            resnet
        };
        (0..count).map(&mut load).collect()
    }
}

fn pass(resnets: &[Resnet], x: Tensor) -> Forward {
    resnets.iter().try_fold(x, |x, resnet| resnet.forward(&x, None))
}

/// Resnets of a level, and what halves or doubles the image after them.
type Level = (Vec<Resnet>, Option<Conv2d>);

#[derive(Debug, Clone)]
struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    middle: Middle,
    norm: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn load(at: &Scope, shape: &Shape) -> Result<Self, LoadError> {
        let mut levels = Vec::new();
        let mut inputs = shape.channels[0];
        for (i, &channels) in shape.channels.iter().enumerate() {
            let at = at.at(format!("down_blocks.{i}"));
            let resnets = shape.resnets(&at, shape.layers, inputs, channels)?;
            let halve = || Conv2d::load(&at.at("downsamplers.0.conv"), channels, channels, HALVE);
            levels.push((resnets, (i + 1 < shape.channels.len()).then(halve).transpose()?));
            inputs = channels;
        }
        Ok(Self {
            conv_in: Conv2d::load(&at.at("conv_in"), 3, shape.channels[0], ConvParams::SAME)?,
            levels,
            middle: Middle::load(&at.at("mid_block"), shape)?,
            norm: shape.norm(&at.at("conv_norm_out"), shape.last())?,
            conv_out: Conv2d::load(&at.at("conv_out"), shape.last(), 2 * shape.latent, ConvParams::SAME)?,
        })
    }

    fn forward(&self, pixels: &Tensor) -> Forward {
        let mut x = self.conv_in.forward(&channels_last(pixels)?)?;
        for (resnets, halve) in &self.levels {
            x = pass(resnets, x)?;
            if let Some(conv) = halve {
                x = conv.forward(&x.f_constant_pad_nd([0, 1, 0, 1])?)?;
            }
        }
        x = self.middle.forward(&x)?;
        self.conv_out.forward(&self.norm.activate(&x)?)
    }
}

#[derive(Debug, Clone)]
struct Decoder {
    conv_in: Conv2d,
    middle: Middle,
    levels: Vec<Level>,
    norm: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn load(at: &Scope, shape: &Shape) -> Result<Self, LoadError> {
        let mut levels = Vec::new();
        let mut inputs = shape.last();
        for (i, &channels) in shape.channels.iter().rev().enumerate() {
            let at = at.at(format!("up_blocks.{i}"));
            let resnets = shape.resnets(&at, shape.layers + 1, inputs, channels)?;
            let double = || Conv2d::load(&at.at("upsamplers.0.conv"), channels, channels, ConvParams::SAME);
            levels.push((resnets, (i + 1 < shape.channels.len()).then(double).transpose()?));
            inputs = channels;
        }
        Ok(Self {
            conv_in: Conv2d::load(&at.at("conv_in"), shape.latent, shape.last(), ConvParams::SAME)?,
            middle: Middle::load(&at.at("mid_block"), shape)?,
            levels,
            norm: shape.norm(&at.at("conv_norm_out"), shape.channels[0])?,
            conv_out: Conv2d::load(&at.at("conv_out"), shape.channels[0], 3, ConvParams::SAME)?,
        })
    }

    fn forward(&self, latents: &Tensor) -> Forward {
        let mut x = self.middle.forward(&self.conv_in.forward(latents)?)?;
        for (resnets, double) in &self.levels {
            x = pass(resnets, x)?;
            if let Some(conv) = double {
                let (_, _, height, width) = x.size4()?;
                if x.device() == Device::Cpu {
                    cpu::reclaim_before(4 * x.numel() * x.kind().elt_size_in_bytes());
                }
                x = conv.forward(&x.f_upsample_nearest2d([2 * height, 2 * width], None, None)?)?;
            }
        }
        self.conv_out.forward(&self.norm.activate(&x)?)
    }
}

/// Two residual blocks with single-headed attention between them.
#[derive(Debug, Clone)]
struct Middle {
    before: Resnet,
    attention: Option<(GroupNorm, SelfAttention)>,
    after: Resnet,
}

impl Middle {
    fn load(at: &Scope, shape: &Shape) -> Result<Self, LoadError> {
        let channels = shape.last();
        let resnet = |name| Resnet::load(&at.at(name), channels, channels, (shape.groups, EPSILON), None);
        let attention = || -> Result<_, LoadError> {
            let at = at.at("attentions.0");
            Ok((shape.norm(&at.at("group_norm"), channels)?, SelfAttention::load(&at, channels, 1, true)?))
        };
        Ok(Self {
            before: resnet("resnets.0")?,
            attention: shape.attention.then(attention).transpose()?,
            after: resnet("resnets.1")?,
        })
    }

    fn forward(&self, x: &Tensor) -> Forward {
        let mut x = self.before.forward(x, None)?;
        if let Some((norm, attention)) = &self.attention {
            let (_, _, height, width) = x.size4()?;
            let sequence = |image: &Tensor| image.f_flatten(2, 3)?.f_transpose(1, 2);
            let attended = attention.forward(&sequence(&norm.forward(&x)?)?, &sequence(&x)?)?.whole()?;
            x = attended.f_transpose(1, 2)?.f_unflatten(2, [height, width])?;
        }
        self.after.forward(&x, None)
    }

    fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        let attention = self.attention.iter_mut().flat_map(|(_, attention)| attention.weights());
        self.before.weights().chain(attention).chain(self.after.weights())
    }
}
