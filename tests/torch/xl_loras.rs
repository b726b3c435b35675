//! LoRAs of SDXL on a tiny model: every part is reached by the names of each layout.

use std::path::{Path, PathBuf};

use latentd::engine::torch::{Target, TorchEngine};
use latentd::engine::{Engine, Picture, Ticket};
use latentd::job::{Lora, Spec};
use latentd::sampler::Sampler;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::torch::drawing::{engine_of, furthest, only, run, sized, spec};

const RANK: i64 = 2;

/// An engine, and a folder for LoRA files.
struct Easel {
    engine: TorchEngine,
    folder: TempDir,
}

impl Easel {
    fn new() -> Self {
        tch::set_num_threads(1);
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch-xl/miniatures/tiny-xl");
        let folder = tempfile::tempdir().unwrap();
        let engine = engine_of(&model, Target::REFERENCE).with_loras(Some(folder.path().to_owned()));
        Self { engine, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("it.safetensors")
    }

    /// Writes a file that changes one module, whose weight is `[outputs, inputs]`.
    fn write(&self, [down, up]: [&str; 2], [outputs, inputs]: [i64; 2]) {
        let waves = |shape: [i64; 2]| {
            (Tensor::arange(shape[0] * shape[1], (Kind::Float, Device::Cpu)) * 0.7).sin().reshape(shape)
        };
        let tensors = [(down, waves([RANK, inputs])), (up, waves([outputs, RANK]) * 2.0)];
        Tensor::write_safetensors(&tensors, self.path()).unwrap();
    }

    fn draw(&mut self, lora: bool) -> Picture {
        only(run(&mut self.engine, &job(lora)))
    }
}

fn job(lora: bool) -> Spec {
    let lora = lora.then(|| Lora { name: "it".into(), scale: 1.0 });
    Spec { lora, ..sized(64, 64, spec(Sampler::Ddim, 2, 3)) }
}

#[test]
fn every_part_is_reached_by_the_names_of_each_layout() {
    let mut easel = Easel::new();
    let plain = easel.draw(false);
    for (kohya, diffusers, shape) in [
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1", [32, 12]),
        (
            "lora_te2_text_model_encoder_layers_1_self_attn_q_proj",
            "text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj",
            [20, 20],
        ),
        ("lora_te2_text_projection", "text_encoder_2.text_projection", [10, 20]),
        ("lora_unet_label_emb_0_0", "unet.add_embedding.linear_1", [48, 46]),
        (
            "lora_unet_middle_block_1_transformer_blocks_1_attn1_to_q",
            "unet.mid_block.attentions.0.transformer_blocks.1.attn1.to_q",
            [16, 16],
        ),
    ] {
        easel.write([&format!("{kohya}.lora_down.weight"), &format!("{kohya}.lora_up.weight")], shape);
        let drawn = easel.draw(true);
        assert!(furthest(&drawn, &plain) > 0, "{kohya} changes nothing");
        easel.write([&format!("{diffusers}.lora_A.weight"), &format!("{diffusers}.lora_B.weight")], shape);
        assert_eq!(easel.draw(true), drawn, "{diffusers}");
    }
    assert_eq!(easel.draw(false), plain, "a LoRA leaked");
}

#[test]
fn a_lora_of_sd_v1_is_refused_by_name() {
    let mut easel = Easel::new();
    let name = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    easel.write([&format!("{name}.lora_down.weight"), &format!("{name}.lora_up.weight")], [32, 12]);
    let told = easel.engine.admit(Ticket(0), &job(true)).unwrap_err().message;
    let expected = format!("tensor {name}.lora_down.weight is one of LoRA for SD v1; only LoRA for SDXL is supported");
    assert!(told.contains(&expected), "{told}");
}
