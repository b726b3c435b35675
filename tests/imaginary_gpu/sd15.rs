//! A model of Stable Diffusion 1.5's size whose weights are holes in files: kernels depend on shapes alone.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Channels of the UNet's levels.
const LEVELS: [u64; 4] = [320, 640, 1280, 1280];
/// Channels of the autoencoder's stages.
const STAGES: [u64; 4] = [128, 256, 512, 512];
/// Of the timestep's embedding.
const TIME: u64 = 1280;
/// Width of the text's states.
const TEXT: u64 = 768;
const TEXT_LAYERS: u64 = 12;
const BYTES: u64 = 2; // of a number in f16

/// Tensors of a part, by name.
#[derive(Default)]
struct Part(Vec<(String, Vec<u64>)>);

impl Part {
    fn add(&mut self, name: String, shape: &[u64]) {
        self.0.push((name, shape.to_vec()));
    }

    /// A weight and its bias.
    fn map(&mut self, name: impl std::fmt::Display, weight: &[u64]) {
        self.add(format!("{name}.weight"), weight);
        self.add(format!("{name}.bias"), &weight[..1]);
    }

    fn conv(&mut self, name: impl std::fmt::Display, inputs: u64, outputs: u64, kernel: u64) {
        self.map(name, &[outputs, inputs, kernel, kernel]);
    }

    fn resnet(&mut self, at: &str, inputs: u64, outputs: u64, time: bool) {
        self.map(format!("{at}.norm1"), &[inputs]);
        self.conv(format!("{at}.conv1"), inputs, outputs, 3);
        if time {
            self.map(format!("{at}.time_emb_proj"), &[outputs, TIME]);
        }
        self.map(format!("{at}.norm2"), &[outputs]);
        self.conv(format!("{at}.conv2"), outputs, outputs, 3);
        if inputs != outputs {
            self.conv(format!("{at}.conv_shortcut"), inputs, outputs, 1);
        }
    }

    fn transformer(&mut self, at: &str, width: u64) {
        self.map(format!("{at}.norm"), &[width]);
        self.conv(format!("{at}.proj_in"), width, width, 1);
        let block = format!("{at}.transformer_blocks.0");
        for (attention, states) in [("attn1", width), ("attn2", TEXT)] {
            self.add(format!("{block}.{attention}.to_q.weight"), &[width, width]);
            self.add(format!("{block}.{attention}.to_k.weight"), &[width, states]);
            self.add(format!("{block}.{attention}.to_v.weight"), &[width, states]);
            self.map(format!("{block}.{attention}.to_out.0"), &[width, width]);
        }
        (1..=3).for_each(|norm| self.map(format!("{block}.norm{norm}"), &[width]));
        self.map(format!("{block}.ff.net.0.proj"), &[8 * width, width]);
        self.map(format!("{block}.ff.net.2"), &[width, 4 * width]);
        self.conv(format!("{at}.proj_out"), width, width, 1);
    }

    /// The autoencoder's smallest images.
    fn middle(&mut self, at: &str, width: u64) {
        (0..2).for_each(|i| self.resnet(&format!("{at}.resnets.{i}"), width, width, false));
        self.map(format!("{at}.attentions.0.group_norm"), &[width]);
        for name in ["to_q", "to_k", "to_v", "to_out.0"] {
            self.map(format!("{at}.attentions.0.{name}"), &[width, width]);
        }
    }
}

fn text_encoder() -> Part {
    let mut part = Part::default();
    part.add("text_model.embeddings.token_embedding.weight".into(), &[49408, TEXT]);
    part.add("text_model.embeddings.position_embedding.weight".into(), &[77, TEXT]);
    for layer in 0..TEXT_LAYERS {
        let at = format!("text_model.encoder.layers.{layer}");
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            part.map(format!("{at}.self_attn.{name}"), &[TEXT, TEXT]);
        }
        (1..=2).for_each(|norm| part.map(format!("{at}.layer_norm{norm}"), &[TEXT]));
        part.map(format!("{at}.mlp.fc1"), &[4 * TEXT, TEXT]);
        part.map(format!("{at}.mlp.fc2"), &[TEXT, 4 * TEXT]);
    }
    part.map("text_model.final_layer_norm", &[TEXT]);
    part
}

fn unet() -> Part {
    let mut part = Part::default();
    part.conv("conv_in", 4, LEVELS[0], 3);
    part.map("time_embedding.linear_1", &[TIME, LEVELS[0]]);
    part.map("time_embedding.linear_2", &[TIME, TIME]);
    // Channels of what the way down leaves for the way up.
    let mut left = vec![LEVELS[0]];
    let mut channels = LEVELS[0];
    for (i, width) in LEVELS.into_iter().enumerate() {
        for j in 0..2 {
            part.resnet(&format!("down_blocks.{i}.resnets.{j}"), channels, width, true);
            if i < 3 {
                part.transformer(&format!("down_blocks.{i}.attentions.{j}"), width);
            }
            channels = width;
            left.push(channels);
        }
        if i < 3 {
            part.conv(format!("down_blocks.{i}.downsamplers.0.conv"), width, width, 3);
            left.push(channels);
        }
    }
    (0..2).for_each(|j| part.resnet(&format!("mid_block.resnets.{j}"), channels, channels, true));
    part.transformer("mid_block.attentions.0", channels);
    for (i, width) in LEVELS.into_iter().rev().enumerate() {
        for j in 0..3 {
            part.resnet(&format!("up_blocks.{i}.resnets.{j}"), channels + left.pop().unwrap(), width, true);
            if i > 0 {
                part.transformer(&format!("up_blocks.{i}.attentions.{j}"), width);
            }
            channels = width;
        }
        if i < 3 {
            part.conv(format!("up_blocks.{i}.upsamplers.0.conv"), width, width, 3);
        }
    }
    part.map("conv_norm_out", &[channels]);
    part.conv("conv_out", channels, 4, 3);
    part
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
                part.resnet(&format!("{side}.{way}_blocks.{i}.resnets.{j}"), channels, width, false);
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

/// Writes `part` as safetensors: a header, and a hole of the size of its tensors.
fn write_weights(path: &Path, part: &Part) {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in &part.0 {
        let begin = end;
        end += shape.iter().product::<u64>() * BYTES;
        header.insert(name.clone(), json!({"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = Value::Object(header).to_string();
    let header = format!("{header}{}", " ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

fn write_part(folder: &Path, name: &str, config: &Value, file: &str, part: &Part) {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    write_weights(&folder.join(file), part);
}

/// Writes the model into `folder`, in diffusers layout; the configuration is what `scripts/parity/sd15.py` has it from.
pub(crate) fn write(folder: &Path) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for (from, to) in [
        ("miniature/model_index.json", "model_index.json"),
        ("miniature/scheduler/scheduler_config.json", "scheduler/scheduler_config.json"),
        ("clip-tokenizer/merges.txt", "tokenizer/merges.txt"),
        ("clip-tokenizer/tokenizer_config.json", "tokenizer/tokenizer_config.json"),
    ] {
        let to = folder.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(models.join(from), to).unwrap();
    }
    let text = json!({
        "vocab_size": 49408, "hidden_size": TEXT, "intermediate_size": 4 * TEXT, "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": 12, "hidden_act": "quick_gelu", "max_position_embeddings": 77,
    });
    let down = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"];
    let up = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"];
    let unet_config = json!({
        "_class_name": "UNet2DConditionModel", "cross_attention_dim": TEXT, "attention_head_dim": 8, "block_out_channels": LEVELS,
        "down_block_types": down, "up_block_types": up, "layers_per_block": 2,
    });
    let vae = json!({
        "_class_name": "AutoencoderKL", "block_out_channels": STAGES, "down_block_types": vec!["DownEncoderBlock2D"; 4],
        "up_block_types": vec!["UpDecoderBlock2D"; 4], "layers_per_block": 2, "scaling_factor": 0.18215,
    });
    let diffusion = "diffusion_pytorch_model.safetensors";
    write_part(folder, "text_encoder", &text, "model.safetensors", &text_encoder());
    write_part(folder, "unet", &unet_config, diffusion, &unet());
    write_part(folder, "vae", &vae, diffusion, &autoencoder());
}
