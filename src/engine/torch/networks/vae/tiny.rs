//! The small autoencoder without norms (Bohan's TAESD; diffusers' `AutoencoderTiny`), of any number of stages.

use serde_json::json;
use tch::Tensor;

use crate::engine::torch::device::layout::channels_last;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::nn::{Conv2d, ConvParams, Forward, Weight};
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Scope;

#[derive(Debug, Clone)]
pub(super) struct Tiny {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
}

#[derive(Debug, Clone)]
enum Layer {
    Convolution(Conv2d),
    Relu,
    Double,
    Block([Conv2d; 3]),
}

impl Tiny {
    /// Also tells how many pixels go to a latent's side.
    pub(super) fn load(at: &Scope, config: &ConfigFile, latent: i64) -> Result<(Self, u32), LoadError> {
        let down = Stages::read(config, "encoder_block_out_channels", "num_encoder_blocks")?;
        let up = Stages::read(config, "decoder_block_out_channels", "num_decoder_blocks")?;
        if down.blocks.len() != up.blocks.len() {
            return Err(
                config.refuse("num_decoder_blocks", &format!("as many stages as the encoder, {}", down.blocks.len()))
            );
        }
        for (key, value) in [
            ("act_fn", json!("relu")),
            ("in_channels", json!(3)),
            ("out_channels", json!(3)),
            ("upsample_fn", json!("nearest")),
            ("upsampling_scaling_factor", json!(2)),
        ] {
            config.only(key, &value)?;
        }
        // A copy of the decoder's channels, the bounds of an 8-bit preview, and an SDXL matter.
        config.ignore(&["block_out_channels", "latent_magnitude", "latent_shift", "force_upcast"]);
        let factor = 1 << (down.blocks.len() - 1);
        let tiny = Self {
            encoder: encoder(&at.at("encoder.layers"), &down, latent)?,
            decoder: decoder(&at.at("decoder.layers"), &up, latent)?,
        };
        Ok((tiny, factor))
    }

    pub(super) fn encode(&self, pixels: &Tensor) -> Forward {
        run(&self.encoder, channels_last(&pixels.f_add_scalar(1)?.f_div_scalar(2)?)?)
    }

    pub(super) fn decode(&self, latents: &Tensor) -> Forward {
        // Latents beyond ±3 are bent back softly: nothing the encoder makes lies there.
        let bent = latents.f_div_scalar(3)?.f_tanh_()?.f_mul_scalar(3)?;
        run(&self.decoder, channels_last(&bent)?)?.f_mul_scalar(2)?.f_sub_scalar(1)
    }

    /// What it is made of, but for biases.
    pub(super) fn weights(&mut self) -> Vec<&mut Weight> {
        self.encoder.iter_mut().chain(&mut self.decoder).flat_map(Layer::convolutions).map(Conv2d::weight).collect()
    }
}

impl Layer {
    fn convolutions(&mut self) -> &mut [Conv2d] {
        match self {
            Self::Convolution(conv) => std::slice::from_mut(conv),
            Self::Block(convs) => convs,
            Self::Relu | Self::Double => &mut [],
        }
    }
}

/// Channels and number of blocks of each stage.
struct Stages {
    channels: i64,
    blocks: Vec<i64>,
}

impl Stages {
    fn read(config: &ConfigFile, channels: &str, blocks: &str) -> Result<Self, LoadError> {
        let (widths, blocks) = (config.int_list(channels)?, config.int_list(blocks)?);
        if widths.len() != blocks.len() || blocks.len() > 8 || widths.iter().any(|&n| n != widths[0]) {
            return Err(config.refuse(channels, &format!("one width for all {} stages, at most 8", blocks.len())));
        }
        Ok(Self { channels: widths[0], blocks })
    }
}

/// Numbers layers as the file does: those without weights count too.
struct Stack<'a, 'b> {
    at: &'a Scope<'b>,
    layers: Vec<Layer>,
}

impl Stack<'_, '_> {
    fn add(&mut self, load: impl FnOnce(&Scope) -> Result<Layer, LoadError>) -> Result<(), LoadError> {
        let layer = load(&self.at.at(self.layers.len()))?;
        self.layers.push(layer);
        Ok(())
    }

    fn convolution(&mut self, inputs: i64, outputs: i64) -> Result<(), LoadError> {
        self.add(|at| Conv2d::load(at, inputs, outputs, ConvParams::SAME).map(Layer::Convolution))
    }

    fn blocks(&mut self, channels: i64, count: i64) -> Result<(), LoadError> {
        let conv = |at: &Scope, i: i64| Conv2d::load(&at.at(format!("conv.{i}")), channels, channels, ConvParams::SAME);
        (0..count).try_for_each(|_| self.add(|at| Ok(Layer::Block([conv(at, 0)?, conv(at, 2)?, conv(at, 4)?]))))
    }
}

fn encoder(at: &Scope, stages: &Stages, latent: i64) -> Result<Vec<Layer>, LoadError> {
    let mut stack = Stack { at, layers: Vec::new() };
    let width = stages.channels;
    for (i, &count) in stages.blocks.iter().enumerate() {
        if i == 0 {
            stack.convolution(3, width)?;
        } else {
            stack.add(|at| Conv2d::load_without_bias(at, width, width, ConvParams::HALVE).map(Layer::Convolution))?;
        }
        stack.blocks(width, count)?;
    }
    stack.convolution(width, latent)?;
    Ok(stack.layers)
}

fn decoder(at: &Scope, stages: &Stages, latent: i64) -> Result<Vec<Layer>, LoadError> {
    let mut stack = Stack { at, layers: Vec::new() };
    let width = stages.channels;
    stack.convolution(latent, width)?;
    stack.add(|_| Ok(Layer::Relu))?;
    let last = stages.blocks.len() - 1;
    for (i, &count) in stages.blocks.iter().enumerate() {
        stack.blocks(width, count)?;
        if i == last {
            stack.convolution(width, 3)?;
        } else {
            stack.add(|_| Ok(Layer::Double))?;
            stack.add(|at| Conv2d::load_without_bias(at, width, width, ConvParams::SAME).map(Layer::Convolution))?;
        }
    }
    Ok(stack.layers)
}

fn run(layers: &[Layer], x: Tensor) -> Forward {
    layers.iter().try_fold(x, |x, layer| match layer {
        Layer::Convolution(conv) => conv.forward(&x),
        Layer::Relu => x.f_relu(),
        Layer::Double => {
            let (_, _, height, width) = x.size4()?;
            x.f_upsample_nearest2d([2 * height, 2 * width], None, None)
        }
        Layer::Block([first, second, third]) => {
            let hidden = second.forward(&first.forward(&x)?.f_relu_()?)?.f_relu_()?;
            third.forward(&hidden)?.f_add(&x)?.f_relu_()
        }
    })
}
