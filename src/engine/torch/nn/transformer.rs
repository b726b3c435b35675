//! The UNet's transformer over pixels (diffusers' `Transformer2DModel` with `BasicTransformerBlock`s).

use tch::Tensor;

use super::{
    Conv2d, ConvParams, CrossAttention, Forward, GroupNorm, LayerNorm, Linear, PendingBias, Residual, SelfAttention,
    Weight,
};
use crate::engine::torch::device::cuda::kernels;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::files::Scope;

/// Epsilons that diffusers fixes in code.
const GROUP_EPSILON: f64 = 1e-6;
const LAYER_EPSILON: f64 = 1e-5;

/// What a configuration says of a transformer.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct TransformerShape {
    /// Channels of the image.
    pub(in crate::engine::torch) channels: i64,
    /// Attention heads.
    pub(in crate::engine::torch) heads: i64,
    /// Blocks.
    pub(in crate::engine::torch) depth: i64,
    /// Width of the text's states.
    pub(in crate::engine::torch) text: i64,
    /// Groups of its norm.
    pub(in crate::engine::torch) groups: i64,
    /// Whether it is entered and left by linear maps instead of 1×1 convolutions; the same arithmetic.
    pub(in crate::engine::torch) linear: bool,
}

/// Pixels attend to each other and to the text.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<Block>,
    proj_out: Projection,
}

impl Transformer {
    pub(in crate::engine::torch) fn load(at: &Scope, shape: TransformerShape) -> Result<Self, LoadError> {
        let block = |i| Block::load(&at.at(format!("transformer_blocks.{i}")), shape);
        Ok(Self {
            norm: GroupNorm::load(&at.at("norm"), shape.channels, shape.groups, GROUP_EPSILON)?,
            proj_in: Projection::load(&at.at("proj_in"), shape)?,
            blocks: (0..shape.depth).map(block).collect::<Result<_, _>>()?,
            proj_out: Projection::load(&at.at("proj_out"), shape)?,
        })
    }

    /// Number of cross-attentions, each of which needs a projection of the text.
    pub(in crate::engine::torch) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// The text's projections for every block, see [`CrossAttention::project`].
    pub(in crate::engine::torch) fn project<'a>(&'a self, text: &'a Tensor) -> impl Iterator<Item = Forward> + 'a {
        self.blocks.iter().map(|block| block.cross.project(text))
    }

    /// `text` holds one projection a block.
    pub(in crate::engine::torch) fn forward(&self, x: &Tensor, text: &[Tensor]) -> Forward {
        let (_, _, height, width) = x.size4()?;
        let mut hidden = Residual::from(self.proj_in.to_sequence(&self.norm.forward(x)?)?);
        for (block, text) in self.blocks.iter().zip(text) {
            hidden = block.forward(hidden, text)?;
        }
        self.proj_out.to_image(&hidden.whole()?, height, width)?.plus(&x.into())
    }

    /// What a LoRA may change.
    pub(in crate::engine::torch) fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        let ends = [self.proj_in.weight(), self.proj_out.weight()];
        self.blocks.iter_mut().flat_map(Block::weights).chain(ends)
    }
}

/// The way between an image and the sequence of its pixels.
#[derive(Debug, Clone)]
enum Projection {
    Linear(Linear),
    Convolution(Conv2d),
}

impl Projection {
    fn load(at: &Scope, shape: TransformerShape) -> Result<Self, LoadError> {
        if shape.linear {
            Linear::load(at, shape.channels, shape.channels, true).map(Self::Linear)
        } else {
            Conv2d::load(at, shape.channels, shape.channels, ConvParams::POINT).map(Self::Convolution)
        }
    }

    fn to_sequence(&self, image: &Tensor) -> Forward {
        // With channels last in memory this flattening moves nothing.
        let flat = |x: &Tensor| x.f_flatten(2, 3)?.f_transpose(1, 2);
        match self {
            Self::Linear(linear) => linear.forward(&flat(image)?),
            // As a product it takes its bias along, for which libtorch's convolution makes a pass of its own.
            Self::Convolution(conv) if kernels::suiting(image).is_some() => conv.map(&flat(image)?),
            Self::Convolution(conv) => flat(&conv.forward(image)?),
        }
    }

    fn to_image(&self, sequence: &Tensor, height: i64, width: i64) -> Forward<PendingBias<'_>> {
        let image = |x: &Tensor| x.f_transpose(1, 2)?.f_unflatten(2, [height, width]);
        match self {
            Self::Linear(linear) => Ok(PendingBias { image: image(&linear.forward(sequence)?)?, bias: None }),
            Self::Convolution(conv) if kernels::suiting(sequence).is_some() => {
                let (mapped, bias) = conv.map_apart(sequence)?;
                Ok(PendingBias { image: image(&mapped)?, bias })
            }
            Self::Convolution(conv) => conv.convolve(&image(sequence)?),
        }
    }

    fn weight(&mut self) -> &mut Weight {
        match self {
            Self::Linear(linear) => linear.weight(),
            Self::Convolution(conv) => conv.weight(),
        }
    }
}

#[derive(Debug, Clone)]
struct Block {
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    cross: CrossAttention,
    norm3: LayerNorm,
    feed: FeedForward,
}

impl Block {
    fn load(at: &Scope, shape: TransformerShape) -> Result<Self, LoadError> {
        let TransformerShape { channels, heads, text, .. } = shape;
        let norm = |name| LayerNorm::load(&at.at(name), channels, LAYER_EPSILON);
        Ok(Self {
            norm1: norm("norm1")?,
            attention: SelfAttention::load(&at.at("attn1"), channels, heads, false)?,
            norm2: norm("norm2")?,
            cross: CrossAttention::load(&at.at("attn2"), channels, text, heads)?,
            norm3: norm("norm3")?,
            feed: FeedForward::load(&at.at("ff"), channels)?,
        })
    }

    fn forward(&self, x: Residual, text: &Tensor) -> Forward<Residual> {
        let (x, normed) = self.norm1.forward_sum(x)?;
        let (x, normed) = self.norm2.forward_sum(self.attention.forward(&normed, &x)?)?;
        let (x, normed) = self.norm3.forward_sum(self.cross.forward(&normed, text, &x)?)?;
        self.feed.forward(&normed, &x)
    }

    fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        let feed = [self.feed.gate.weight(), self.feed.out.weight()];
        self.attention.weights().into_iter().chain(self.cross.weights()).chain(feed)
    }
}

/// Feed-forward with a gated GELU (Shazeer 2020), four times as wide inside.
#[derive(Debug, Clone)]
struct FeedForward {
    gate: Linear,
    out: Linear,
}

impl FeedForward {
    fn load(at: &Scope, channels: i64) -> Result<Self, LoadError> {
        let inner = 4 * channels;
        Ok(Self {
            gate: Linear::load(&at.at("net.0.proj"), channels, 2 * inner, true)?,
            out: Linear::load(&at.at("net.2"), inner, channels, true)?,
        })
    }

    /// What it makes of `x`, to be added to `more`.
    fn forward(&self, x: &Tensor, more: &Tensor) -> Forward<Residual> {
        let both = self.gate.forward(x)?;
        let gated = match kernels::suiting(&both) {
            Some(kernels) => kernels.geglu(&both)?,
            None => None,
        };
        let gated = gated.map_or_else(|| gate(&both), Ok)?;
        self.out.forward_add(&gated, more)
    }
}

/// The first half of the last dimension times the GELU of the second.
fn gate(both: &Tensor) -> Forward {
    let halves = both.f_chunk(2, 2)?;
    halves[1].f_gelu("none")?.f_mul_(&halves[0])
}
