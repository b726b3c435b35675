//! The autoencoder of the tiny SDXL.

use serde_json::json;

use crate::torch::xl_twins::{LATENT, Twins};

const VAE: &str = "first_stage_model.";

impl Twins {
    /// One level: sides of latents are those of pixels.
    pub(crate) fn autoencoder(&mut self) {
        let width = 32;
        for (name, shape) in [
            ("quant_conv", vec![2 * LATENT, 2 * LATENT, 1, 1]),
            ("post_quant_conv", vec![LATENT, LATENT, 1, 1]),
            ("encoder.conv_in", vec![width, 3, 3, 3]),
            ("encoder.conv_out", vec![2 * LATENT, width, 3, 3]),
            ("decoder.conv_in", vec![width, LATENT, 3, 3]),
            ("decoder.conv_out", vec![3, width, 3, 3]),
        ] {
            self.both(name, &format!("{VAE}{name}"), &shape);
        }
        let mut resnets = vec![("encoder.down_blocks.0.resnets.0".to_owned(), "encoder.down.0.block.0".to_owned())];
        resnets.extend((0..2).map(|i| (format!("decoder.up_blocks.0.resnets.{i}"), format!("decoder.up.0.block.{i}"))));
        for side in ["encoder", "decoder"] {
            self.both(&format!("{side}.conv_norm_out"), &format!("{VAE}{side}.norm_out"), &[width]);
            let attention = format!("{side}.mid_block.attentions.0");
            self.both(&format!("{attention}.group_norm"), &format!("{VAE}{side}.mid.attn_1.norm"), &[width]);
            for (ours, file) in [("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")] {
                self.both(
                    &format!("{attention}.{ours}"),
                    &format!("{VAE}{side}.mid.attn_1.{file}"),
                    &[width, width, 1, 1],
                );
            }
            resnets.extend(
                (0..2).map(|i| (format!("{side}.mid_block.resnets.{i}"), format!("{side}.mid.block_{}", i + 1))),
            );
        }
        for (ours, file) in resnets {
            for (name, shape) in [
                ("norm1", vec![width]),
                ("conv1", vec![width, width, 3, 3]),
                ("norm2", vec![width]),
                ("conv2", vec![width, width, 3, 3]),
            ] {
                self.both(&format!("{ours}.{name}"), &format!("{VAE}{file}.{name}"), &shape);
            }
        }
        self.end(
            "vae",
            "diffusion_pytorch_model",
            &json!({
                "_class_name": "AutoencoderKL", "block_out_channels": [width], "layers_per_block": 1, "latent_channels": LATENT,
                "down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"],
                "scaling_factor": 0.13025, "force_upcast": true,
            }),
        );
    }
}
