//! The CLIP text encoder (Radford et al. 2021; transformers' `CLIPTextModel`).

use std::rc::Rc;

use serde_json::json;
use tch::Tensor;

use crate::engine::torch::error::LoadError;
use crate::engine::torch::nn::{Forward, LayerNorm, Linear, Weight, attend};
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Scope;

/// What `text_encoder/config.json` says.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct ClipTextConfig {
    vocabulary: i64,
    /// Tokens of a prompt, begin and end included.
    length: i64,
    width: i64,
    inner: i64,
    layers: i64,
    heads: i64,
    epsilon: f64,
    activation: Activation,
}

#[derive(Debug, Clone, Copy)]
enum Activation {
    /// `x · sigmoid(1.702 x)`, what CLIP was trained with.
    QuickGelu,
    Gelu,
}

impl ClipTextConfig {
    pub(in crate::engine::torch) fn read(config: &ConfigFile) -> Result<Self, LoadError> {
        config.word("model_type", &["clip_text_model"])?;
        // Legacy: transformers finds the end of the text by it, which only the pooled output needs.
        config.ignore(&["architectures", "bos_token_id", "eos_token_id", "pad_token_id", "projection_dim"]);
        config.ignore(&[
            "torch_dtype",
            "dtype",
            "transformers_version",
            "use_cache",
            "output_attentions",
            "return_dict",
        ]);
        config.ignore(&["attention_dropout", "dropout", "initializer_factor", "initializer_range"]);
        let activation = match config.word("hidden_act", &["quick_gelu", "gelu"])? {
            "gelu" => Activation::Gelu,
            _ => Activation::QuickGelu,
        };
        let read = Self {
            vocabulary: config.int("vocab_size", Some(49408))?,
            length: config.int("max_position_embeddings", Some(77))?,
            width: config.int("hidden_size", Some(512))?,
            inner: config.int("intermediate_size", Some(2048))?,
            layers: config.int("num_hidden_layers", Some(12))?,
            heads: config.int("num_attention_heads", Some(8))?,
            epsilon: config.float("layer_norm_eps", 1e-5)?,
            activation,
        };
        config.only("use_attention_mask", &json!(false))?;
        if read.width % read.heads != 0 {
            return Err(config.refuse("num_attention_heads", &format!("a divisor of hidden_size = {}", read.width)));
        }
        config.finish()?;
        Ok(read)
    }
}

/// Token ids in, one state a token out. Clones share their tensors.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct ClipTextModel {
    tokens: Rc<Tensor>,
    positions: Rc<Tensor>,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

impl ClipTextModel {
    /// `at` is the place of `embeddings`, `encoder` and `final_layer_norm`.
    pub(in crate::engine::torch) fn load(at: &Scope, config: &ClipTextConfig) -> Result<Self, LoadError> {
        let embedding = |name: &str, entries| at.at("embeddings").at(name).tensor("weight", &[entries, config.width]);
        let layer = |i| Layer::load(&at.at(format!("encoder.layers.{i}")), config);
        Ok(Self {
            tokens: Rc::new(embedding("token_embedding", config.vocabulary)?),
            positions: Rc::new(embedding("position_embedding", config.length)?),
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            norm: LayerNorm::load(&at.at("final_layer_norm"), config.width, config.epsilon)?,
        })
    }

    /// Entries of the vocabulary, width of the states, and most tokens of a text.
    pub(in crate::engine::torch) fn shape(&self) -> Forward<[i64; 3]> {
        let (vocabulary, width) = self.tokens.size2()?;
        Ok([vocabulary, width, self.positions.size2()?.0])
    }

    /// `ids` is `[batch, length]` of i64, where the weights are; the result `[batch, length, width]`, after the final norm.
    pub(in crate::engine::torch) fn forward(&self, ids: &Tensor) -> Forward {
        let (_, length) = ids.size2()?;
        let tokens = Tensor::f_embedding(&self.tokens, ids, -1, false, false)?;
        let mut states = tokens.f_add(&self.positions.f_narrow(0, 0, length)?)?;
        for layer in &self.layers {
            states = layer.forward(&states)?;
        }
        self.norm.forward(&states)
    }

    /// What a LoRA may change.
    pub(in crate::engine::torch) fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        self.layers.iter_mut().flat_map(|layer| {
            [&mut layer.qkv, &mut layer.out, &mut layer.up, &mut layer.down].into_iter().map(Linear::weight)
        })
    }
}

#[derive(Debug, Clone)]
struct Layer {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
    heads: i64,
    activation: Activation,
}

impl Layer {
    fn load(at: &Scope, config: &ClipTextConfig) -> Result<Self, LoadError> {
        let &ClipTextConfig { width, inner, epsilon, heads, activation, .. } = config;
        let square = |name: &str| Linear::load(&at.at("self_attn").at(name), width, width, true);
        Ok(Self {
            norm1: LayerNorm::load(&at.at("layer_norm1"), width, epsilon)?,
            qkv: Linear::stacked(&[square("q_proj")?, square("k_proj")?, square("v_proj")?])?,
            out: square("out_proj")?,
            norm2: LayerNorm::load(&at.at("layer_norm2"), width, epsilon)?,
            up: Linear::load(&at.at("mlp.fc1"), width, inner, true)?,
            down: Linear::load(&at.at("mlp.fc2"), inner, width, true)?,
            heads,
            activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Forward {
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?.f_chunk(3, 2)?;
        let x = self.out.forward(&attend(&qkv[0], &qkv[1], &qkv[2], self.heads, true)?)?.f_add(x)?;
        let inner = self.up.forward(&self.norm2.forward(&x)?)?;
        let inner = match self.activation {
            Activation::QuickGelu => inner.f_mul_scalar(1.702)?.f_sigmoid_()?.f_mul_(&inner)?,
            Activation::Gelu => inner.f_gelu("none")?,
        };
        self.down.forward(&inner)?.f_add(&x)
    }
}
