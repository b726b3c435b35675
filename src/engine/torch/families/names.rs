//! Names of tensors: what modules here ask for (diffusers' names) and what files call the same thing.

use crate::engine::torch::weights::files::TensorSource;
use crate::job::checkpoint::{AUTOENCODER_PREFIX, UNET_PREFIX};

/// In a `text_encoder/` file of diffusers: transformers has written it both with and without `text_model.`.
pub(in crate::engine::torch) fn text_encoder(name: &str) -> Vec<TensorSource> {
    vec![format!("text_model.{name}").into(), name.to_owned().into()]
}

/// A diffusers `vae/` file: attention had other names when SD 1.5 was published.
pub(in crate::engine::torch) fn autoencoder(name: &str) -> Vec<TensorSource> {
    let mut names = vec![name.to_owned().into()];
    if name.contains(".attentions.") {
        let old = [("to_q.", "query."), ("to_k.", "key."), ("to_v.", "value."), ("to_out.0.", "proj_attn.")];
        names.extend(old.iter().filter(|(new, _)| name.contains(new)).map(|(new, old)| name.replace(new, old).into()));
    }
    names
}

/// The UNet's name in a single-file checkpoint. The original code numbers its blocks through, so the number of layers
/// in each level (from the largest image) and whether each attends on the way up must be known. What is no name of a UNet of such levels stays
/// as it is, and no file has it.
pub(in crate::engine::torch) fn original_unet(name: &str, levels: &[(usize, bool)]) -> String {
    let told = unet_name(name, levels).unwrap_or_else(|| name.to_owned());
    format!("{UNET_PREFIX}{told}")
}

fn unet_name(name: &str, levels: &[(usize, bool)]) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let blocks = |levels: &[(usize, bool)]| levels.iter().map(|(layers, _)| layers + 1).sum::<usize>();
    // Block 0 is `conv_in`; every level but the last ends with a downsampling of its own.
    let input = |level: usize, j: usize| Some(1 + blocks(levels.get(..level)?) + j);
    let output = |level: usize, j: usize| Some(blocks(&levels[levels.len().checked_sub(level)?..]) + j);
    Some(match parts.as_slice() {
        ["time_embedding", "linear_1", rest] => format!("time_embed.0.{rest}"),
        ["time_embedding", "linear_2", rest] => format!("time_embed.2.{rest}"),
        ["add_embedding", "linear_1", rest] => format!("label_emb.0.0.{rest}"),
        ["add_embedding", "linear_2", rest] => format!("label_emb.0.2.{rest}"),
        ["conv_in", rest] => format!("input_blocks.0.0.{rest}"),
        ["conv_norm_out", rest] => format!("out.0.{rest}"),
        ["conv_out", rest] => format!("out.2.{rest}"),
        ["down_blocks", i, "resnets", j, rest @ ..] => {
            format!("input_blocks.{}.0.{}", input(number(i)?, number(j)?)?, unet_resnet(rest)?)
        }
        ["down_blocks", i, "attentions", j, rest @ ..] => {
            format!("input_blocks.{}.1.{}", input(number(i)?, number(j)?)?, rest.join("."))
        }
        ["down_blocks", i, "downsamplers", "0", "conv", rest] => {
            let (layers, _) = levels.get(number(i)?)?;
            format!("input_blocks.{}.0.op.{rest}", input(number(i)?, *layers)?)
        }
        ["mid_block", "resnets", j, rest @ ..] => format!("middle_block.{}.{}", 2 * number(j)?, unet_resnet(rest)?),
        ["mid_block", "attentions", _, rest @ ..] => format!("middle_block.1.{}", rest.join(".")),
        ["up_blocks", i, "resnets", j, rest @ ..] => {
            format!("output_blocks.{}.0.{}", output(number(i)?, number(j)?)?, unet_resnet(rest)?)
        }
        ["up_blocks", i, "attentions", j, rest @ ..] => {
            format!("output_blocks.{}.1.{}", output(number(i)?, number(j)?)?, rest.join("."))
        }
        ["up_blocks", i, "upsamplers", "0", "conv", rest] => {
            let (layers, attends) = levels.iter().rev().nth(number(i)?)?;
            format!("output_blocks.{}.{}.conv.{rest}", output(number(i)?, *layers)?, if *attends { 2 } else { 1 })
        }
        _ => return None,
    })
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn unet_resnet(rest: &[&str]) -> Option<String> {
    let (module, leaf) = rest.split_first()?;
    let told = match *module {
        "norm1" => "in_layers.0",
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "norm2" => "out_layers.0",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        other => other,
    };
    Some(format!("{told}.{}", leaf.join(".")))
}

/// The KL autoencoder's name in a single-file checkpoint of `levels` levels, whose decoder counts them backwards.
pub(in crate::engine::torch) fn original_autoencoder(name: &str, levels: usize) -> String {
    let told = autoencoder_name(name, levels).unwrap_or_else(|| name.to_owned());
    format!("{AUTOENCODER_PREFIX}{told}")
}

fn autoencoder_name(name: &str, levels: usize) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let shortcut = |rest: &[&str]| rest.join(".").replace("conv_shortcut", "nin_shortcut");
    Some(match parts.as_slice() {
        [side, "conv_norm_out", rest] => format!("{side}.norm_out.{rest}"),
        [side, "mid_block", "resnets", j, rest @ ..] => {
            format!("{side}.mid.block_{}.{}", number(j)? + 1, shortcut(rest))
        }
        [side, "mid_block", "attentions", _, rest @ ..] => format!("{side}.mid.attn_1.{}", autoencoder_attention(rest)),
        ["encoder", "down_blocks", i, "resnets", j, rest @ ..] => {
            format!("encoder.down.{i}.block.{j}.{}", shortcut(rest))
        }
        ["encoder", "down_blocks", i, "downsamplers", "0", rest @ ..] => {
            format!("encoder.down.{i}.downsample.{}", rest.join("."))
        }
        ["decoder", "up_blocks", i, rest @ ..] => {
            let level = (levels - 1).checked_sub(number(i)?)?;
            match rest {
                ["resnets", j, rest @ ..] => format!("decoder.up.{level}.block.{j}.{}", shortcut(rest)),
                ["upsamplers", "0", rest @ ..] => format!("decoder.up.{level}.upsample.{}", rest.join(".")),
                _ => return None,
            }
        }
        _ => return None,
    })
}

fn autoencoder_attention(rest: &[&str]) -> String {
    match rest {
        ["group_norm", leaf] => format!("norm.{leaf}"),
        ["to_q", leaf] => format!("q.{leaf}"),
        ["to_k", leaf] => format!("k.{leaf}"),
        ["to_v", leaf] => format!("v.{leaf}"),
        ["to_out", "0", leaf] => format!("proj_out.{leaf}"),
        other => other.join("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SD 1.5: two layers a level, the smallest without attention.
    const LEVELS: [(usize, bool); 4] = [(2, true), (2, true), (2, true), (2, false)];

    #[test]
    fn sd15_names_are_those_of_its_checkpoint() {
        for (ours, file) in [
            ("conv_in.bias", "input_blocks.0.0.bias"),
            ("down_blocks.0.resnets.0.conv1.weight", "input_blocks.1.0.in_layers.2.weight"),
            ("down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias"),
            ("down_blocks.1.attentions.1.proj_in.bias", "input_blocks.5.1.proj_in.bias"),
            ("down_blocks.3.resnets.1.norm2.bias", "input_blocks.11.0.out_layers.0.bias"),
            ("mid_block.resnets.1.time_emb_proj.bias", "middle_block.2.emb_layers.1.bias"),
            ("up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.1.conv.bias"),
            ("up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"),
            ("up_blocks.3.resnets.2.conv_shortcut.bias", "output_blocks.11.0.skip_connection.bias"),
            (
                "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k.weight",
                "output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
            ),
        ] {
            assert_eq!(original_unet(ours, &LEVELS), format!("model.diffusion_model.{file}"));
        }
    }

    #[test]
    fn sdxl_names_are_those_of_its_checkpoint() {
        let levels = [(2, false), (2, true), (2, true)];
        for (ours, file) in [
            ("add_embedding.linear_1.weight", "label_emb.0.0.weight"),
            ("add_embedding.linear_2.bias", "label_emb.0.2.bias"),
            ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
            (
                "down_blocks.2.attentions.1.transformer_blocks.9.norm1.bias",
                "input_blocks.8.1.transformer_blocks.9.norm1.bias",
            ),
            ("up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.2.conv.bias"),
            ("up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"),
            ("up_blocks.2.resnets.0.norm1.bias", "output_blocks.6.0.in_layers.0.bias"),
        ] {
            assert_eq!(original_unet(ours, &levels), format!("model.diffusion_model.{file}"));
        }
    }

    #[test]
    fn what_is_no_name_of_such_a_unet_stays_as_it_is() {
        for name in [
            "down_blocks.5.resnets.0.conv1.weight",
            "down_blocks.x.resnets.0.conv1.weight",
            "up_blocks.5.attentions.0.proj_in.bias",
            "up_blocks.4.upsamplers.0.conv.bias",
            "mid_block.resnets.0",
            "something.else",
        ] {
            assert_eq!(original_unet(name, &LEVELS), format!("model.diffusion_model.{name}"));
        }
        let beyond = "decoder.up_blocks.4.resnets.0.norm1.weight";
        assert_eq!(original_autoencoder(beyond, 4), format!("first_stage_model.{beyond}"));
    }

    #[test]
    fn the_autoencoder_counts_backwards_on_the_way_up() {
        for (ours, file) in [
            ("post_quant_conv.bias", "post_quant_conv.bias"),
            ("decoder.up_blocks.0.resnets.2.conv_shortcut.bias", "decoder.up.3.block.2.nin_shortcut.bias"),
            ("decoder.up_blocks.2.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"),
            ("encoder.down_blocks.0.downsamplers.0.conv.bias", "encoder.down.0.downsample.conv.bias"),
            ("encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"),
            ("decoder.conv_norm_out.bias", "decoder.norm_out.bias"),
        ] {
            assert_eq!(original_autoencoder(ours, 4), format!("first_stage_model.{file}"));
        }
        assert_eq!(
            autoencoder("decoder.mid_block.attentions.0.to_out.0.bias")[1],
            "decoder.mid_block.attentions.0.proj_attn.bias".to_owned().into()
        );
    }
}
