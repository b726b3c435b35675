//! Models of full size whose weights are holes in files: kernels and memory depend on shapes alone.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::holes::{Part, write_part};

/// Channels of the autoencoder's stages.
const STAGES: [u64; 4] = [128, 256, 512, 512];
const VOCABULARY: u64 = 49408;
const LENGTH: u64 = 77;

/// A published model.
pub(crate) struct FullSize {
    text_encoders: &'static [TextEncoder],
    unet: Unet,
    /// What a pipeline of its kind says of itself beside its class.
    index: &'static str,
    scaling: f64,
}

struct TextEncoder {
    folder: &'static str,
    tokenizer: &'static str,
    width: u64,
    layers: u64,
    activation: &'static str,
    projection: Option<u64>,
}

struct Unet {
    /// Channels of the levels.
    levels: &'static [u64],
    /// Transformer blocks of each level, and of the middle.
    depths: &'static [u64],
    middle: u64,
    heads: &'static [u64],
    /// Width of the text's states.
    text: u64,
    /// Channels of pooled text and numbers.
    added: Option<u64>,
}

/// CLIP's, as SD v1 and SDXL have it.
const CLIP: TextEncoder = TextEncoder {
    folder: "text_encoder",
    tokenizer: "tokenizer",
    width: 768,
    layers: 12,
    activation: "quick_gelu",
    projection: None,
};

/// OpenCLIP's ViT-bigG.
const OPEN_CLIP: TextEncoder = TextEncoder {
    folder: "text_encoder_2",
    tokenizer: "tokenizer_2",
    width: 1280,
    layers: 32,
    activation: "gelu",
    projection: Some(1280),
};

/// Stable Diffusion 1.5, 2.0 GiB in f16.
pub(crate) const SD15: FullSize = FullSize {
    text_encoders: &[CLIP],
    unet: Unet {
        levels: &[320, 640, 1280, 1280],
        depths: &[1, 1, 1, 0],
        middle: 1,
        heads: &[8, 8, 8, 8],
        text: 768,
        added: None,
    },
    index: r#"{"_class_name": "StableDiffusionPipeline"}"#,
    scaling: 0.18215,
};

/// SDXL's base model, 6.5 GiB in f16.
pub(crate) const SDXL: FullSize = FullSize {
    text_encoders: &[CLIP, OPEN_CLIP],
    unet: Unet {
        levels: &[320, 640, 1280],
        depths: &[0, 2, 10],
        middle: 10,
        heads: &[5, 10, 20],
        text: 2048,
        added: Some(2816),
    },
    index: r#"{"_class_name": "StableDiffusionXLPipeline"}"#,
    scaling: 0.13025,
};

/// SDXL's refiner, 5.7 GiB in f16.
pub(crate) const SDXL_REFINER: FullSize = FullSize {
    text_encoders: &[OPEN_CLIP],
    unet: Unet {
        levels: &[384, 768, 1536, 1536],
        depths: &[0, 4, 4, 0],
        middle: 4,
        heads: &[6, 12, 24, 24],
        text: 1280,
        added: Some(2560),
    },
    index: r#"{"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [null, null], "requires_aesthetics_score": true}"#,
    scaling: 0.13025,
};

impl Part {
    fn resnet(&mut self, at: &str, inputs: u64, outputs: u64, time: Option<u64>) {
        self.map(format!("{at}.norm1"), &[inputs]);
        self.conv(format!("{at}.conv1"), inputs, outputs, 3);
        if let Some(time) = time {
            self.map(format!("{at}.time_emb_proj"), &[outputs, time]);
        }
        self.map(format!("{at}.norm2"), &[outputs]);
        self.conv(format!("{at}.conv2"), outputs, outputs, 3);
        if inputs != outputs {
            self.conv(format!("{at}.conv_shortcut"), inputs, outputs, 1);
        }
    }

    fn transformer(&mut self, at: &str, width: u64, depth: u64, unet: &Unet) {
        self.map(format!("{at}.norm"), &[width]);
        self.projection(format!("{at}.proj_in"), width, unet);
        for block in 0..depth {
            let block = format!("{at}.transformer_blocks.{block}");
            for (attention, states) in [("attn1", width), ("attn2", unet.text)] {
                self.add(format!("{block}.{attention}.to_q.weight"), &[width, width]);
                self.add(format!("{block}.{attention}.to_k.weight"), &[width, states]);
                self.add(format!("{block}.{attention}.to_v.weight"), &[width, states]);
                self.map(format!("{block}.{attention}.to_out.0"), &[width, width]);
            }
            (1..=3).for_each(|norm| self.map(format!("{block}.norm{norm}"), &[width]));
            self.map(format!("{block}.ff.net.0.proj"), &[8 * width, width]);
            self.map(format!("{block}.ff.net.2"), &[width, 4 * width]);
        }
        self.projection(format!("{at}.proj_out"), width, unet);
    }

    fn projection(&mut self, name: String, width: u64, unet: &Unet) {
        if unet.is_linear() { self.map(name, &[width, width]) } else { self.conv(name, width, width, 1) }
    }

    /// The autoencoder's smallest images.
    fn middle(&mut self, at: &str, width: u64) {
        (0..2).for_each(|i| self.resnet(&format!("{at}.resnets.{i}"), width, width, None));
        self.map(format!("{at}.attentions.0.group_norm"), &[width]);
        for name in ["to_q", "to_k", "to_v", "to_out.0"] {
            self.map(format!("{at}.attentions.0.{name}"), &[width, width]);
        }
    }
}

impl TextEncoder {
    fn weights(&self) -> Part {
        let (mut part, width) = (Part::default(), self.width);
        part.add("text_model.embeddings.token_embedding.weight".into(), &[VOCABULARY, width]);
        part.add("text_model.embeddings.position_embedding.weight".into(), &[LENGTH, width]);
        for layer in 0..self.layers {
            let at = format!("text_model.encoder.layers.{layer}");
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                part.map(format!("{at}.self_attn.{name}"), &[width, width]);
            }
            (1..=2).for_each(|norm| part.map(format!("{at}.layer_norm{norm}"), &[width]));
            part.map(format!("{at}.mlp.fc1"), &[4 * width, width]);
            part.map(format!("{at}.mlp.fc2"), &[width, 4 * width]);
        }
        part.map("text_model.final_layer_norm", &[width]);
        if let Some(projection) = self.projection {
            part.add("text_projection.weight".into(), &[projection, width]);
        }
        part
    }

    fn config(&self) -> Value {
        json!({
            "vocab_size": VOCABULARY, "hidden_size": self.width, "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers, "num_attention_heads": self.width / 64, "hidden_act": self.activation,
            "max_position_embeddings": LENGTH, "projection_dim": self.projection.unwrap_or(512), "eos_token_id": 2,
        })
    }
}

impl Unet {
    /// Of the timestep's embedding.
    fn time(&self) -> u64 {
        4 * self.levels[0]
    }

    fn is_linear(&self) -> bool {
        self.added.is_some()
    }

    fn weights(&self) -> Part {
        let (mut part, time) = (Part::default(), Some(self.time()));
        part.conv("conv_in", 4, self.levels[0], 3);
        let embeddings = [("time_embedding", Some(self.levels[0])), ("add_embedding", self.added)];
        for (name, inputs) in embeddings.into_iter().filter_map(|(name, inputs)| Some((name, inputs?))) {
            part.map(format!("{name}.linear_1"), &[self.time(), inputs]);
            part.map(format!("{name}.linear_2"), &[self.time(), self.time()]);
        }
        let levels: Vec<(u64, u64)> = self.levels.iter().copied().zip(self.depths.iter().copied()).collect();
        let last = levels.len() - 1;
        // Channels of what the way down leaves for the way up.
        let mut left = vec![self.levels[0]];
        let mut channels = self.levels[0];
        for (i, &(width, depth)) in levels.iter().enumerate() {
            for j in 0..2 {
                part.resnet(&format!("down_blocks.{i}.resnets.{j}"), channels, width, time);
                if depth > 0 {
                    part.transformer(&format!("down_blocks.{i}.attentions.{j}"), width, depth, self);
                }
                channels = width;
                left.push(channels);
            }
            if i < last {
                part.conv(format!("down_blocks.{i}.downsamplers.0.conv"), width, width, 3);
                left.push(channels);
            }
        }
        (0..2).for_each(|j| part.resnet(&format!("mid_block.resnets.{j}"), channels, channels, time));
        part.transformer("mid_block.attentions.0", channels, self.middle, self);
        for (i, &(width, depth)) in levels.iter().rev().enumerate() {
            for j in 0..3 {
                part.resnet(&format!("up_blocks.{i}.resnets.{j}"), channels + left.pop().unwrap(), width, time);
                if depth > 0 {
                    part.transformer(&format!("up_blocks.{i}.attentions.{j}"), width, depth, self);
                }
                channels = width;
            }
            if i < last {
                part.conv(format!("up_blocks.{i}.upsamplers.0.conv"), width, width, 3);
            }
        }
        part.map("conv_norm_out", &[channels]);
        part.conv("conv_out", channels, 4, 3);
        part
    }

    fn config(&self) -> Value {
        let block = |way: &str, depth: &u64| format!("{}{way}Block2D", if *depth > 0 { "CrossAttn" } else { "" });
        let down: Vec<String> = self.depths.iter().map(|depth| block("Down", depth)).collect();
        let up: Vec<String> = self.depths.iter().rev().map(|depth| block("Up", depth)).collect();
        let mut config = json!({
            "_class_name": "UNet2DConditionModel", "cross_attention_dim": self.text, "attention_head_dim": self.heads,
            "block_out_channels": self.levels, "down_block_types": down, "up_block_types": up, "layers_per_block": 2,
        });
        if let Some(added) = self.added {
            // Where a level has no transformer, the number of blocks is that of the middle, which no tensor tells.
            let depths: Vec<u64> = self.depths.iter().map(|depth| if *depth > 0 { *depth } else { 1 }).collect();
            let depths = if depths.len() == 4 { json!(self.middle) } else { json!(depths) };
            let told = json!({
                "use_linear_projection": true, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": added, "transformer_layers_per_block": depths,
            });
            config.as_object_mut().unwrap().extend(told.as_object().unwrap().clone());
        }
        config
    }
}

fn autoencoder() -> Part {
    let mut part = Part::default();
    let widest = STAGES[3];
    for (side, way, sampler, layers, [first, last]) in
        [("encoder", "down", "downsamplers", 2, [3, 8]), ("decoder", "up", "upsamplers", 3, [4, 3])]
    {
        let mut stages = STAGES;
        if way == "up" {
            stages.reverse();
        }
        let mut channels = stages[0];
        part.conv(format!("{side}.conv_in"), first, channels, 3);
        for (i, width) in stages.into_iter().enumerate() {
            for j in 0..layers {
                part.resnet(&format!("{side}.{way}_blocks.{i}.resnets.{j}"), channels, width, None);
                channels = width;
            }
            if i < 3 {
                part.conv(format!("{side}.{way}_blocks.{i}.{sampler}.0.conv"), width, width, 3);
            }
        }
        part.middle(&format!("{side}.mid_block"), widest);
        part.map(format!("{side}.conv_norm_out"), &[channels]);
        part.conv(format!("{side}.conv_out"), channels, last, 3);
    }
    part.conv("quant_conv", 8, 8, 1);
    part.conv("post_quant_conv", 4, 4, 1);
    part
}

impl FullSize {
    /// Writes the model into `folder`, in diffusers layout; the configuration is what `scripts/parity/sd15.py` and `sdxl.py` have it from.
    pub(crate) fn write(&self, folder: &Path) {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let copy = |from: &str, to: &str| {
            let to = folder.join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(models.join(from), to).unwrap();
        };
        fs::write(folder.join("model_index.json"), self.index).unwrap();
        copy("miniature/scheduler/scheduler_config.json", "scheduler/scheduler_config.json");
        for encoder in self.text_encoders {
            for file in ["merges.txt", "tokenizer_config.json"] {
                copy(&format!("clip-tokenizer/{file}"), &format!("{}/{file}", encoder.tokenizer));
            }
            write_part(folder, encoder.folder, &encoder.config(), "model.safetensors", &encoder.weights());
        }
        let vae = json!({
            "_class_name": "AutoencoderKL", "block_out_channels": STAGES, "down_block_types": vec!["DownEncoderBlock2D"; 4],
            "up_block_types": vec!["UpDecoderBlock2D"; 4], "layers_per_block": 2, "scaling_factor": self.scaling,
        });
        let diffusion = "diffusion_pytorch_model.safetensors";
        write_part(folder, "unet", &self.unet.config(), diffusion, &self.unet.weights());
        write_part(folder, "vae", &vae, diffusion, &autoencoder());
    }
}
