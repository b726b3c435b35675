//! A tiny SDXL with random weights, as a folder in diffusers layout and as a single file. Names are written down here a second time, so that
//! a wrong one in the engine cannot agree with itself.

use std::fs;
use std::path::Path;

use latentd::engine::torch::{Model, Target};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::torch::drawing::miniature;

const UNET: &str = "model.diffusion_model.";
const FIRST: &str = "conditioner.embedders.0.transformer.text_model.";
pub(crate) const SECOND: &str = "conditioner.embedders.1.model.";
const ALONE: &str = "conditioner.embedders.0.model.";
pub(crate) const FILE: &str = "xl.safetensors";

/// Widths of the text encoders and of the pooled text.
const FIRST_WIDTH: i64 = 64;
const SECOND_WIDTH: i64 = 128;
const POOLED: i64 = 40;
/// Channels of the UNet's levels, of its embedding of the time, and of that of each number.
const OUTER: i64 = 32;
const INNER: i64 = 64;
const TIME: i64 = 128;
const NUMBER: i64 = 16;
pub(crate) const LATENT: i64 = 4;
/// Tokens of a prompt.
pub(crate) const LENGTH: i64 = 77;

/// The same weights in both layouts.
pub(crate) struct Twins {
    folder: TempDir,
    is_refiner: bool,
    vocabulary: i64,
    part: Vec<(String, Tensor)>,
    file: Vec<(String, Tensor)>,
}

impl Twins {
    /// Of a base model.
    pub(crate) fn new() -> Self {
        Self::of(false)
    }

    /// Of a refiner.
    pub(crate) fn of_refiner() -> Self {
        Self::of(true)
    }

    fn of(is_refiner: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read(miniature("tiny").join("tokenizer").join(name)).unwrap();
        for tokenizer in ["tokenizer", "tokenizer_2"] {
            fs::create_dir(folder.path().join(tokenizer)).unwrap();
            for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
                fs::write(folder.path().join(tokenizer).join(name), read(name)).unwrap();
            }
        }
        let config = json!({"pad_token": "!", "model_max_length": 77, "added_tokens_decoder": {"0": {"content": "!", "special": true, "normalized": false}}});
        write(&folder.path().join("tokenizer_2"), "tokenizer_config.json", &config);
        let vocabulary =
            serde_json::from_slice::<Value>(&read("vocab.json")).unwrap().as_object().unwrap().len() as i64;
        tch::manual_seed(5);
        let mut twins = Self { folder, is_refiner, vocabulary, part: Vec::new(), file: Vec::new() };
        twins.text_encoders();
        twins.unet();
        twins.autoencoder();
        twins.finish();
        twins
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn of_file(&self, target: Target) -> Model {
        Model::load(&self.path().join(FILE), Path::new("nowhere"), target).unwrap()
    }

    /// A tensor with a name in both.
    pub(crate) fn put(&mut self, ours: &str, file: &str, shape: &[i64]) {
        let spread = if shape.len() == 1 { 0.1 } else { 1.0 / (shape[1..].iter().product::<i64>() as f64).sqrt() };
        let mut tensor = Tensor::randn(shape, (Kind::Float, Device::Cpu)) * spread;
        if shape.len() == 1 && ours.contains("norm") && ours.ends_with("weight") {
            tensor += 1.0;
        }
        self.file.push((file.to_owned(), tensor.shallow_clone()));
        self.part.push((ours.to_owned(), tensor));
    }

    /// A weight and a bias.
    pub(crate) fn both(&mut self, ours: &str, file: &str, shape: &[i64]) {
        self.put(&format!("{ours}.weight"), &format!("{file}.weight"), shape);
        self.put(&format!("{ours}.bias"), &format!("{file}.bias"), &shape[..1]);
    }

    /// Ends a part: its weights and its configuration.
    pub(crate) fn end(&mut self, part: &str, stem: &str, config: &Value) {
        write(&self.path().join(part), "config.json", config);
        let file = self.path().join(part).join(format!("{stem}.safetensors"));
        Tensor::write_safetensors(&std::mem::take(&mut self.part), file).unwrap();
    }

    fn text_encoders(&mut self) {
        let config = |width: i64, activation: &str, projection: i64, vocabulary: i64| {
            json!({
                "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2,
                "num_attention_heads": width / 64, "hidden_act": activation, "projection_dim": projection, "eos_token_id": 2,
            })
        };
        if !self.is_refiner {
            self.clip(FIRST_WIDTH);
            self.end("text_encoder", "model", &config(FIRST_WIDTH, "quick_gelu", 512, self.vocabulary));
        }
        self.open_clip(SECOND_WIDTH);
        self.end("text_encoder_2", "model", &config(SECOND_WIDTH, "gelu", POOLED, self.vocabulary));
    }

    fn clip(&mut self, width: i64) {
        let at = |name: &str| (format!("text_model.{name}"), format!("{FIRST}{name}"));
        let tables =
            [("embeddings.token_embedding.weight", self.vocabulary), ("embeddings.position_embedding.weight", LENGTH)];
        for (name, entries) in tables {
            self.put(&at(name).0, &at(name).1, &[entries, width]);
        }
        let mut modules = vec![("final_layer_norm".to_owned(), vec![width])];
        for layer in 0..2 {
            for (name, shape) in [
                ("layer_norm1", vec![width]),
                ("layer_norm2", vec![width]),
                ("self_attn.q_proj", vec![width, width]),
                ("self_attn.k_proj", vec![width, width]),
                ("self_attn.v_proj", vec![width, width]),
                ("self_attn.out_proj", vec![width, width]),
                ("mlp.fc1", vec![2 * width, width]),
                ("mlp.fc2", vec![width, 2 * width]),
            ] {
                modules.push((format!("encoder.layers.{layer}.{name}"), shape));
            }
        }
        for (name, shape) in modules {
            self.both(&at(&name).0, &at(&name).1, &shape);
        }
    }

    /// What the names of the second text encoder begin with in the file.
    fn second(&self) -> &'static str {
        if self.is_refiner { ALONE } else { SECOND }
    }

    /// Width of the text that the UNet takes.
    fn text_width(&self) -> i64 {
        if self.is_refiner { SECOND_WIDTH } else { FIRST_WIDTH + SECOND_WIDTH }
    }

    fn open_clip(&mut self, width: i64) {
        let second = self.second();
        self.put(
            "text_model.embeddings.token_embedding.weight",
            &format!("{second}token_embedding.weight"),
            &[self.vocabulary, width],
        );
        self.put(
            "text_model.embeddings.position_embedding.weight",
            &format!("{second}positional_embedding"),
            &[LENGTH, width],
        );
        self.both("text_model.final_layer_norm", &format!("{second}ln_final"), &[width]);
        for layer in 0..2 {
            let ours = format!("text_model.encoder.layers.{layer}");
            let file = format!("{second}transformer.resblocks.{layer}");
            self.both(&format!("{ours}.layer_norm1"), &format!("{file}.ln_1"), &[width]);
            self.both(&format!("{ours}.layer_norm2"), &format!("{file}.ln_2"), &[width]);
            self.both(&format!("{ours}.self_attn.out_proj"), &format!("{file}.attn.out_proj"), &[width, width]);
            self.both(&format!("{ours}.mlp.fc1"), &format!("{file}.mlp.c_fc"), &[2 * width, width]);
            self.both(&format!("{ours}.mlp.fc2"), &format!("{file}.mlp.c_proj"), &[width, 2 * width]);
            let shapes = [("weight", vec![3 * width, width]), ("bias", vec![3 * width])];
            for (leaf, shape) in shapes {
                self.put("fused", &format!("{file}.attn.in_proj_{leaf}"), &shape);
                let (_, fused) = self.part.pop().unwrap();
                for (one, rows) in ["q", "k", "v"].into_iter().zip(fused.chunk(3, 0)) {
                    self.part.push((format!("{ours}.self_attn.{one}_proj.{leaf}"), rows.contiguous()));
                }
            }
        }
        self.put("text_projection.weight", &format!("{second}text_projection"), &[width, POOLED]);
        let (name, projection) = self.part.pop().unwrap();
        self.part.push((name, projection.tr().contiguous()));
        self.file.push((format!("{second}logit_scale"), Tensor::from(4.6_f32)));
    }

    fn unet(&mut self) {
        let inputs = if self.is_refiner { 5 } else { 6 } * NUMBER + POOLED;
        for (ours, file, shape) in [
            ("time_embedding.linear_1", "time_embed.0", vec![TIME, OUTER]),
            ("time_embedding.linear_2", "time_embed.2", vec![TIME, TIME]),
            ("add_embedding.linear_1", "label_emb.0.0", vec![TIME, inputs]),
            ("add_embedding.linear_2", "label_emb.0.2", vec![TIME, TIME]),
            ("conv_in", "input_blocks.0.0", vec![OUTER, LATENT, 3, 3]),
            ("conv_norm_out", "out.0", vec![OUTER]),
            ("conv_out", "out.2", vec![LATENT, OUTER, 3, 3]),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op", vec![OUTER, OUTER, 3, 3]),
            ("up_blocks.0.upsamplers.0.conv", "output_blocks.1.2.conv", vec![INNER, INNER, 3, 3]),
        ] {
            self.both(ours, &format!("{UNET}{file}"), &shape);
        }
        for (ours, file, channels) in [
            ("down_blocks.0.resnets.0", "input_blocks.1.0", [OUTER, OUTER]),
            ("down_blocks.1.resnets.0", "input_blocks.3.0", [OUTER, INNER]),
            ("mid_block.resnets.0", "middle_block.0", [INNER, INNER]),
            ("mid_block.resnets.1", "middle_block.2", [INNER, INNER]),
            ("up_blocks.0.resnets.0", "output_blocks.0.0", [2 * INNER, INNER]),
            ("up_blocks.0.resnets.1", "output_blocks.1.0", [INNER + OUTER, INNER]),
            ("up_blocks.1.resnets.0", "output_blocks.2.0", [INNER + OUTER, OUTER]),
            ("up_blocks.1.resnets.1", "output_blocks.3.0", [2 * OUTER, OUTER]),
        ] {
            self.resnet(ours, &format!("{UNET}{file}"), channels);
        }
        for (ours, file) in [
            ("down_blocks.1.attentions.0", "input_blocks.3.1"),
            ("mid_block.attentions.0", "middle_block.1"),
            ("up_blocks.0.attentions.0", "output_blocks.0.1"),
            ("up_blocks.0.attentions.1", "output_blocks.1.1"),
        ] {
            self.transformer(ours, &format!("{UNET}{file}"));
        }
        self.end(
            "unet",
            "diffusion_pytorch_model",
            &json!({
                "_class_name": "UNet2DConditionModel", "block_out_channels": [OUTER, INNER], "layers_per_block": 1,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
                "attention_head_dim": [1, 1], "transformer_layers_per_block": [1, 2], "use_linear_projection": true,
                "cross_attention_dim": self.text_width(), "addition_embed_type": "text_time",
                "addition_time_embed_dim": NUMBER, "projection_class_embeddings_input_dim": inputs,
            }),
        );
    }

    fn resnet(&mut self, ours: &str, file: &str, [inputs, outputs]: [i64; 2]) {
        for (one, other, shape) in [
            ("norm1", "in_layers.0", vec![inputs]),
            ("conv1", "in_layers.2", vec![outputs, inputs, 3, 3]),
            ("time_emb_proj", "emb_layers.1", vec![outputs, TIME]),
            ("norm2", "out_layers.0", vec![outputs]),
            ("conv2", "out_layers.3", vec![outputs, outputs, 3, 3]),
        ] {
            self.both(&format!("{ours}.{one}"), &format!("{file}.{other}"), &shape);
        }
        if inputs != outputs {
            self.both(&format!("{ours}.conv_shortcut"), &format!("{file}.skip_connection"), &[outputs, inputs, 1, 1]);
        }
    }

    fn transformer(&mut self, ours: &str, file: &str) {
        let (channels, text) = (INNER, self.text_width());
        let at = |name: &str| [format!("{ours}.{name}"), format!("{file}.{name}")];
        let mut modules = vec![("norm".to_owned(), vec![channels])];
        modules.extend(["proj_in", "proj_out"].map(|name| (name.to_owned(), vec![channels, channels])));
        for block in (0..2).map(|number| format!("transformer_blocks.{number}")) {
            for (attention, inputs) in [("attn1", channels), ("attn2", text)] {
                for (name, inputs) in [("to_q", channels), ("to_k", inputs), ("to_v", inputs)] {
                    let [ours, file] = at(&format!("{block}.{attention}.{name}.weight"));
                    self.put(&ours, &file, &[channels, inputs]);
                }
                modules.push((format!("{block}.{attention}.to_out.0"), vec![channels, channels]));
            }
            modules.extend(["norm1", "norm2", "norm3"].map(|name| (format!("{block}.{name}"), vec![channels])));
            modules.push((format!("{block}.ff.net.0.proj"), vec![8 * channels, channels]));
            modules.push((format!("{block}.ff.net.2"), vec![channels, 4 * channels]));
        }
        for (name, shape) in modules {
            let [ours, file] = at(&name);
            self.both(&ours, &file, &shape);
        }
    }

    /// What training leaves behind, and the files beside the parts.
    fn finish(&mut self) {
        let positions = (!self.is_refiner).then(|| format!("{FIRST}embeddings.position_ids"));
        let left_over = ["denoiser.sigmas".to_owned()].into_iter().chain(positions);
        self.file.extend(left_over.map(|name| (name, Tensor::arange(LENGTH, (Kind::Int64, Device::Cpu)))));
        Tensor::write_safetensors(&self.file, self.path().join(FILE)).unwrap();
        let index = if self.is_refiner {
            json!({
                "_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [null, null], "requires_aesthetics_score": true,
                "force_zeros_for_empty_prompt": false,
            })
        } else {
            json!({"_class_name": "StableDiffusionXLPipeline"})
        };
        write(self.path(), "model_index.json", &index);
        let scheduler = json!({
            "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "timestep_spacing": "leading", "steps_offset": 1,
        });
        write(&self.path().join("scheduler"), "scheduler_config.json", &scheduler);
    }

    /// What is said of the file without what begins with `without`, and with a tensor of the name `with`.
    pub(crate) fn complaint(&self, without: Option<&str>, with: Option<&str>) -> String {
        let left = self.file.iter().filter(|(name, _)| without.is_none_or(|prefix| !name.starts_with(prefix)));
        let more = with.map(|name| (name.to_owned(), Tensor::from(1.0_f32)));
        let tensors: Vec<_> = left.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).chain(more).collect();
        let path = self.path().join("other.safetensors");
        Tensor::write_safetensors(&tensors, &path).unwrap();
        Model::load(&path, &self.path().join("tokenizer"), Target::REFERENCE).unwrap_err().to_string()
    }
}

fn write(folder: &Path, name: &str, content: &Value) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), content.to_string()).unwrap();
}
