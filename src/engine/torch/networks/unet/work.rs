//! How much a UNet computes, worked out from its shape.

use super::config::{UnetConfig, UnetLevel};

impl UnetConfig {
    /// Multiplications (each with an addition) of one row of an evaluation on latents of this height and width, under a
    /// text of so many tokens. Norms, activations and additions are left out: they cost memory, not arithmetic.
    pub(in crate::engine::torch) fn multiplications(&self, height: u64, width: u64, tokens: u64) -> u64 {
        let last = self.levels.len() - 1;
        let first = channels(&self.levels[0]);
        let mut pixels = height * width;
        let mut sum = 9 * (2 * self.latent + self.concat) as u64 * first * pixels
            + first * self.time() as u64
            + square(self.time() as u64);
        // What the way up takes from the way down, in the order it was left.
        let mut skips = vec![first];
        let mut from = first;
        for (number, level) in self.levels.iter().enumerate() {
            let to = channels(level);
            for _ in 0..level.layers {
                sum += self.resnet(from, to, pixels) + self.transformer(level, level.attends_down, pixels, tokens);
                from = to;
                skips.push(to);
            }
            if number < last {
                pixels = pixels.div_ceil(4);
                sum += 9 * square(to) * pixels;
                skips.push(to);
            }
        }
        let bottom = &self.levels[last];
        sum += 2 * self.resnet(from, from, pixels) + self.transformer(bottom, true, pixels, tokens);
        for (number, level) in self.levels.iter().enumerate().rev() {
            let to = channels(level);
            for _ in 0..=level.layers {
                let skip = skips.pop().unwrap_or_default();
                sum += self.resnet(from + skip, to, pixels) + self.transformer(level, level.attends_up, pixels, tokens);
                from = to;
            }
            if number > 0 {
                pixels *= 4;
                sum += 9 * square(to) * pixels;
            }
        }
        sum
    }

    fn resnet(&self, from: u64, to: u64, pixels: u64) -> u64 {
        let shortcut = if from == to { 0 } else { from * to };
        (9 * from * to + 9 * square(to) + shortcut) * pixels + self.time() as u64 * to
    }

    fn transformer(&self, level: &UnetLevel, there: bool, pixels: u64, tokens: u64) -> u64 {
        if !there {
            return 0;
        }
        let wide = channels(level);
        // Query, key, value and output; every pixel with every pixel, twice.
        let own = 4 * square(wide) * pixels + 2 * square(pixels) * wide;
        let text = 2 * square(wide) * pixels + 2 * self.text as u64 * wide * tokens + 2 * pixels * tokens * wide;
        // Two halves of four times the width on the way in, one on the way out.
        let forward = 12 * square(wide) * pixels;
        2 * square(wide) * pixels + level.depth as u64 * (own + text + forward)
    }
}

fn channels(level: &UnetLevel) -> u64 {
    level.channels as u64
}

fn square(value: u64) -> u64 {
    value * value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::engine::torch::weights::config::ConfigFile;

    /// calflops counts 338.8 G of SD 1.5 at 64×64 for convolutions and linear maps, as the table of TGATE has it; attention's products,
    /// worked out by hand, are 63.0 G more.
    #[test]
    fn of_sd_1_5_it_is_what_others_count() {
        let cross = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"];
        let up = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"];
        let Value::Object(config) = json!({
            "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "down_block_types": cross, "up_block_types": up,
        }) else {
            unreachable!()
        };
        let config = UnetConfig::read(&ConfigFile::of(Path::new("config.json"), config)).unwrap();
        let counted = config.multiplications(64, 64, 77) as f64 / 1e9;
        assert!((counted - 401.6).abs() < 1.0, "{counted}");
    }
}
