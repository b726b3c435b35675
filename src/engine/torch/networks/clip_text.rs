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
    end: EndOfText,
    /// Width of the pooled text, of an encoder with a projection.
    projection: i64,
}

/// How the end of a text is found, where its pooled state is (transformers' `CLIPTextModel`).
#[derive(Debug, Clone, Copy)]
enum EndOfText {
    /// Where the highest id is first: so it was while the end was the last of the vocabulary, and so it is where `eos_token_id` is 2.
    Highest,
    /// Where this id is first.
    Id(i64),
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
        config.ignore(&["architectures", "bos_token_id", "pad_token_id"]);
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
            end: match config.int("eos_token_id", Some(49407))? {
                2 => EndOfText::Highest,
                id => EndOfText::Id(id),
            },
            projection: config.int("projection_dim", Some(512))?,
        };
        config.only("use_attention_mask", &json!(false))?;
        if read.width % read.heads != 0 {
            return Err(config.refuse("num_attention_heads", &format!("a divisor of hidden_size = {}", read.width)));
        }
        config.finish()?;
        Ok(read)
    }
}

/// A text as it goes in.
#[derive(Debug)]
pub(in crate::engine::torch) struct TextInput {
    /// `[batch, length]` of i64, where the weights are.
    pub(in crate::engine::torch) ids: Tensor,
    /// Vectors, `[width]`, that are in the places of ids, by these.
    pub(in crate::engine::torch) vectors: Vec<(i64, Tensor)>,
}

impl TextInput {
    /// Of ids alone.
    pub(in crate::engine::torch) fn of(ids: &Tensor) -> Self {
        Self { ids: ids.shallow_clone(), vectors: Vec::new() }
    }
}

/// Token ids in, one state a token out. Clones share their tensors.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct ClipTextModel {
    tokens: Rc<Tensor>,
    positions: Rc<Tensor>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    end: EndOfText,
    /// To the pooled text; none of an encoder that is used for its states alone.
    projection: Option<Linear>,
}

impl ClipTextModel {
    /// `at` is the place of `embeddings`, `encoder` and `final_layer_norm`.
    pub(in crate::engine::torch) fn load(at: &Scope, config: &ClipTextConfig) -> Result<Self, LoadError> {
        let embedding = |name: &str, entries| at.at("embeddings").at(name).tensor("weight", &[entries, config.width]);
        let layer = |i| Layer::load(&at.at(format!("encoder.layers.{i}")), config);
        let mut encoder = Self {
            tokens: Rc::new(embedding("token_embedding", config.vocabulary)?),
            positions: Rc::new(embedding("position_embedding", config.length)?),
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            norm: LayerNorm::load(&at.at("final_layer_norm"), config.width, config.epsilon)?,
            end: config.end,
            projection: None,
        };
        Weight::offload_loaded(at, encoder.weights())?;
        Ok(encoder)
    }

    /// The same with `text_projection` beside them (transformers' `CLIPTextModelWithProjection`).
    pub(in crate::engine::torch) fn load_with_projection(
        at: &Scope,
        config: &ClipTextConfig,
    ) -> Result<Self, LoadError> {
        let projection = Linear::load(&at.at("text_projection"), config.width, config.projection, false)?;
        let mut encoder = Self { projection: Some(projection), ..Self::load(at, config)? };
        Weight::offload_loaded(at, encoder.weights())?;
        Ok(encoder)
    }

    /// Width of the pooled text; none without a projection.
    pub(in crate::engine::torch) fn pooled_width(&self) -> Option<i64> {
        self.projection.as_ref().map(Linear::outputs)
    }

    /// Entries of the vocabulary, width of the states, and most tokens of a text.
    pub(in crate::engine::torch) fn shape(&self) -> Forward<[i64; 3]> {
        let (vocabulary, width) = self.tokens.size2()?;
        Ok([vocabulary, width, self.positions.size2()?.0])
    }

    /// How many layers it has.
    pub(in crate::engine::torch) fn depth(&self) -> u32 {
        self.layers.len() as u32
    }

    /// `[batch, length, width]`, after the final norm, and without the
    /// last `skipped` layers: transformers' `hidden_states[-(skipped + 1)]`, normed.
    pub(in crate::engine::torch) fn forward(&self, text: &TextInput, skipped: u32) -> Forward {
        self.norm.forward(&through(self.split(skipped).0, self.embed(text)?)?)
    }

    /// The state before the last `skipped` layers, without the final norm (`hidden_states[-(skipped + 1)]`), and the pooled text,
    /// `[batch, projection]`: the final state, after all layers, at token `end`, if there is a projection.
    pub(in crate::engine::torch) fn forward_within(
        &self,
        text: &TextInput,
        skipped: u32,
        end: i64,
    ) -> Forward<(Tensor, Option<Tensor>)> {
        let (before, last) = self.split(skipped);
        let within = through(before, self.embed(text)?)?;
        let pooled = |projection: &Linear| {
            let state = through(last, within.shallow_clone())?.f_narrow(1, end, 1)?;
            projection.forward(&self.norm.forward(&state)?)?.f_squeeze_dim(1)
        };
        let pooled = self.projection.as_ref().map(pooled).transpose()?;
        Ok((within, pooled))
    }

    /// The layers before the last `skipped`, and those.
    fn split(&self, skipped: u32) -> (&[Layer], &[Layer]) {
        self.layers.split_at(self.layers.len().saturating_sub(skipped as usize))
    }

    /// Where the end of the text of `ids` is; 0 if it has none.
    pub(in crate::engine::torch) fn end_of(&self, ids: &[i64]) -> i64 {
        let end = match self.end {
            EndOfText::Highest => ids.iter().max().copied(),
            EndOfText::Id(id) => Some(id),
        };
        ids.iter().position(|id| Some(*id) == end).unwrap_or(0) as i64
    }

    fn embed(&self, text: &TextInput) -> Forward {
        let (_, length) = text.ids.size2()?;
        let tokens = Tensor::f_embedding(&self.tokens, &text.ids, -1, false, false)?;
        for (place, vector) in &text.vectors {
            tokens.f_select(1, *place)?.f_copy_(vector)?;
        }
        tokens.f_add(&self.positions.f_narrow(0, 0, length)?)
    }

    /// What a LoRA may change.
    pub(in crate::engine::torch) fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            [&mut layer.qkv, &mut layer.out, &mut layer.up, &mut layer.down].into_iter().map(Linear::weight)
        });
        layers.chain(self.projection.as_mut().map(Linear::weight))
    }
}

fn through(layers: &[Layer], states: Tensor) -> Forward {
    layers.iter().try_fold(states, |states, layer| layer.forward(&states))
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
