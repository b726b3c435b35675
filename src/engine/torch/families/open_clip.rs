//! Text encoders in the names of OpenCLIP, as single-file checkpoints have them.

use serde_json::{Value, json};

use super::checkpoint::{HEAD, Layout};
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::TensorSource;

/// The projections of attention in the order in which they lie below each other.
const FUSED: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// Where a file whose names begin with `prefix` keeps the tensor `name` of transformers' `CLIPTextModelWithProjection`; `None` where OpenCLIP
/// has no such tensor.
pub(super) fn source(prefix: &str, name: &str) -> Option<TensorSource> {
    let parts: Vec<&str> = name.split('.').collect();
    let whole = |name: String| Some(TensorSource::from(format!("{prefix}{name}")));
    match parts.as_slice() {
        ["embeddings", "token_embedding", "weight"] => whole("token_embedding.weight".to_owned()),
        ["embeddings", "position_embedding", "weight"] => whole("positional_embedding".to_owned()),
        ["final_layer_norm", leaf] => whole(format!("ln_final.{leaf}")),
        ["text_projection", "weight"] => Some(TensorSource::transposed(projection(prefix))),
        ["encoder", "layers", number, module @ .., leaf] => {
            let block = format!("transformer.resblocks.{number}");
            let module = match module {
                ["layer_norm1"] => "ln_1",
                ["layer_norm2"] => "ln_2",
                ["mlp", "fc1"] => "mlp.c_fc",
                ["mlp", "fc2"] => "mlp.c_proj",
                ["self_attn", "out_proj"] => "attn.out_proj",
                ["self_attn", one] => {
                    let part = FUSED.iter().position(|fused| fused == one)?;
                    return Some(TensorSource::rows(format!("{prefix}{block}.attn.in_proj_{leaf}"), part, FUSED.len()));
                }
                _ => return None,
            };
            whole(format!("{block}.{module}.{leaf}"))
        }
        _ => None,
    }
}

/// The name of the projection to the pooled text, `[width, projection]`.
pub(super) fn projection(prefix: &str) -> String {
    format!("{prefix}text_projection")
}

/// The configuration of a text encoder whose names begin with `prefix`; `family` is what its family has.
pub(super) fn config(layout: &Layout, prefix: &str, family: Value) -> ConfigFile {
    let at = |name: &str| format!("{prefix}{name}");
    let width = layout.size(&at("token_embedding.weight"), 1);
    let found = json!({
        "vocab_size": layout.size(&at("token_embedding.weight"), 0),
        "max_position_embeddings": layout.size(&at("positional_embedding"), 0),
        "hidden_size": width,
        "intermediate_size": layout.size(&at("transformer.resblocks.0.mlp.c_fc.weight"), 0),
        "num_hidden_layers": layout.count(&at("transformer.resblocks.")),
        "num_attention_heads": (width / HEAD).max(1),
        "projection_dim": layout.size(&projection(prefix), 1),
        "hidden_act": "gelu",
    });
    layout.config(found, family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_open_clip() {
        for (ours, file) in [
            ("embeddings.token_embedding.weight", "token_embedding.weight"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("final_layer_norm.bias", "ln_final.bias"),
            ("encoder.layers.31.layer_norm1.weight", "transformer.resblocks.31.ln_1.weight"),
            ("encoder.layers.0.layer_norm2.bias", "transformer.resblocks.0.ln_2.bias"),
            ("encoder.layers.0.mlp.fc1.bias", "transformer.resblocks.0.mlp.c_fc.bias"),
            ("encoder.layers.0.mlp.fc2.weight", "transformer.resblocks.0.mlp.c_proj.weight"),
            ("encoder.layers.0.self_attn.out_proj.weight", "transformer.resblocks.0.attn.out_proj.weight"),
        ] {
            assert_eq!(source("x.", ours), Some(format!("x.{file}").into()), "{ours}");
        }
    }

    #[test]
    fn query_key_and_value_are_rows_of_one_tensor_and_the_projection_is_turned() {
        for (part, ours) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
            for leaf in ["weight", "bias"] {
                let name = format!("x.transformer.resblocks.2.attn.in_proj_{leaf}");
                let found = source("x.", &format!("encoder.layers.2.self_attn.{ours}.{leaf}"));
                assert_eq!(found, Some(TensorSource::rows(name, part, 3)), "{ours}");
            }
        }
        let turned = TensorSource::transposed("x.text_projection".to_owned());
        assert_eq!(source("x.", "text_projection.weight"), Some(turned));
    }

    #[test]
    fn what_open_clip_does_not_have_has_no_source() {
        for name in ["encoder.layers.0.self_attn.x_proj.weight", "encoder.layers.0.mlp.fc3.bias", "visual.proj", ""] {
            assert_eq!(source("x.", name), None, "{name}");
        }
    }
}
