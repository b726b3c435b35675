//! What LoRA files call the modules that they change: kohya's trainers, diffusers and PEFT each in their own way.

use std::rc::Rc;

use crate::engine::torch::families::PartPrefixes;
use crate::engine::torch::families::names::original_unet;
use crate::engine::torch::networks::unet::Unet;
use crate::job::checkpoint::UNET_PREFIX;

/// A part of a model that LoRA files know.
#[derive(Debug, Clone)]
pub(super) struct LoraPart {
    prefixes: PartPrefixes,
    /// Of a UNet, [`Unet::levels`], by which the original code numbers its blocks.
    levels: Option<Rc<[(usize, bool)]>>,
}

/// One way to write the tensors of a module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spelling {
    /// `[rank, inputs]`, or `[rank, inputs, height, width]` of a convolution.
    pub(super) down: String,
    /// `[outputs, rank]`, or with `1, 1` behind it.
    pub(super) up: String,
    /// A number.
    pub(super) alpha: String,
}

/// How the two matrices are told apart: kohya; PEFT; diffusers before it; diffusers' text encoder before it.
const ENDS: [[&str; 2]; 4] = [
    ["lora_down.weight", "lora_up.weight"],
    ["lora_A.weight", "lora_B.weight"],
    ["lora.down.weight", "lora.up.weight"],
    ["lora_linear_layer.down.weight", "lora_linear_layer.up.weight"],
];

impl LoraPart {
    /// A UNet.
    pub(super) fn unet(prefixes: PartPrefixes, unet: &Unet) -> Self {
        Self { prefixes, levels: Some(Rc::clone(unet.levels())) }
    }

    /// A text encoder.
    pub(super) fn text_encoder(prefixes: PartPrefixes) -> Self {
        Self { prefixes, levels: None }
    }

    /// What diffusers calls it.
    pub(super) fn name(&self) -> &'static str {
        self.prefixes.part
    }

    /// Every known way to write `module`, such as `mid_block.attentions.0.proj_in` or `encoder.layers.0.mlp.fc1`.
    pub(super) fn spellings(&self, module: &str) -> Vec<Spelling> {
        let PartPrefixes { flat, dotted, .. } = self.prefixes;
        let original = self.levels.as_ref().map(|levels| {
            let original = original_unet(&format!("{module}.weight"), levels);
            original.trim_start_matches(UNET_PREFIX).trim_end_matches(".weight").to_owned()
        });
        let names: Vec<&str> = [module].into_iter().chain(original.as_deref()).collect();
        let flat =
            flat.iter().flat_map(|prefix| names.iter().map(move |name| format!("{prefix}_{}", name.replace('.', "_"))));
        let nested: Vec<String> = dotted.iter().map(|prefix| format!("{prefix}{module}")).collect();
        let old = nested.iter().flat_map(|name| old_attention(name));
        let old = old.flat_map(|name| spelled(&name, &[["down.weight", "up.weight"]]));
        flat.flat_map(|name| spelled(&name, &ENDS[..1]))
            .chain(nested.iter().flat_map(|name| spelled(name, &ENDS[1..])))
            .chain(old)
            .collect()
    }
}

fn spelled(name: &str, ends: &[[&str; 2]]) -> Vec<Spelling> {
    let of = |[down, up]: &[&str; 2]| Spelling {
        down: format!("{name}.{down}"),
        up: format!("{name}.{up}"),
        alpha: format!("{name}.alpha"),
    };
    ends.iter().map(of).collect()
}

/// diffusers kept LoRA layers in attention processors once, under names of their own; text encoders took them over.
fn old_attention(name: &str) -> Vec<String> {
    const OLD: [(&str, &str); 7] = [
        (".to_q", "to_q_lora"),
        (".to_k", "to_k_lora"),
        (".to_v", "to_v_lora"),
        (".to_out.0", "to_out_lora"),
        (".q_proj", "to_q_lora"),
        (".k_proj", "to_k_lora"),
        (".v_proj", "to_v_lora"),
    ];
    let old = OLD.iter().chain(&[(".out_proj", "to_out_lora")]);
    let old = old.filter_map(|(end, old)| Some((name.strip_suffix(end)?, old)));
    old.flat_map(|(attention, old)| [format!("{attention}.processor.{old}"), format!("{attention}.{old}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::torch::families::FAMILIES;
    use crate::engine::torch::families::model::LoraPrefixes;

    /// SD 1.5: two layers a level, the smallest without attention.
    const LEVELS: [(usize, bool); 4] = [(2, true), (2, true), (2, true), (2, false)];

    fn prefixes() -> LoraPrefixes {
        FAMILIES[0].lora_prefixes()
    }

    fn text_encoder() -> LoraPart {
        LoraPart::text_encoder(prefixes().text_encoders[0])
    }

    fn downs(part: &LoraPart, module: &str) -> Vec<String> {
        part.spellings(module).into_iter().map(|spelling| spelling.down).collect()
    }

    #[test]
    fn a_module_of_the_unet_is_known_by_every_name_that_files_give_it() {
        let unet = LoraPart { levels: Some(LEVELS.into()), prefixes: prefixes().unet };
        for (module, names) in [
            (
                "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
                &[
                    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
                    "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
                    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
                    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight",
                    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
                ][..],
            ),
            (
                "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0",
                &[
                    "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
                    "lora_unet_output_blocks_11_1_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
                    "unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.processor.to_out_lora.down.weight",
                ],
            ),
            ("mid_block.attentions.0.proj_in", &["lora_unet_middle_block_1_proj_in.lora_down.weight"]),
            ("mid_block.resnets.1.time_emb_proj", &["lora_unet_middle_block_2_emb_layers_1.lora_down.weight"]),
            (
                "down_blocks.1.resnets.0.conv1",
                &[
                    "lora_unet_down_blocks_1_resnets_0_conv1.lora_down.weight",
                    "lora_unet_input_blocks_4_0_in_layers_2.lora_down.weight",
                    "unet.down_blocks.1.resnets.0.conv1.lora.down.weight",
                ],
            ),
            ("down_blocks.0.downsamplers.0.conv", &["lora_unet_input_blocks_3_0_op.lora_down.weight"]),
            ("up_blocks.1.upsamplers.0.conv", &["lora_unet_output_blocks_5_2_conv.lora_down.weight"]),
            ("time_embedding.linear_2", &["lora_unet_time_embed_2.lora_down.weight"]),
            (
                "conv_out",
                &[
                    "lora_unet_conv_out.lora_down.weight",
                    "lora_unet_out_2.lora_down.weight",
                    "unet.conv_out.lora_A.weight",
                ],
            ),
        ] {
            let found = downs(&unet, module);
            for name in names {
                assert!(found.iter().any(|known| known == name), "{name} is not among {found:#?}");
            }
        }
    }

    #[test]
    fn a_module_of_the_text_encoder_too() {
        let found = downs(&text_encoder(), "encoder.layers.11.self_attn.out_proj");
        for name in [
            "lora_te_text_model_encoder_layers_11_self_attn_out_proj.lora_down.weight",
            "text_encoder.text_model.encoder.layers.11.self_attn.out_proj.lora_A.weight",
            "text_encoder.encoder.layers.11.self_attn.out_proj.lora_A.weight",
            "text_encoder.text_model.encoder.layers.11.self_attn.out_proj.lora_linear_layer.down.weight",
            "text_encoder.text_model.encoder.layers.11.self_attn.to_out_lora.down.weight",
        ] {
            assert!(found.iter().any(|known| known == name), "{name} is not among {found:#?}");
        }
        let mlp = downs(&text_encoder(), "encoder.layers.0.mlp.fc1");
        assert!(mlp.iter().all(|name| name.contains("fc1")), "{mlp:?}");
    }

    /// SDXL: no attention on the level of the largest image, two layers a level.
    const XL_LEVELS: [(usize, bool); 3] = [(2, false), (2, true), (2, true)];

    #[test]
    fn modules_of_sdxl_are_known_by_the_names_of_their_own_parts() {
        let prefixes = FAMILIES[1].lora_prefixes();
        let unet = LoraPart { levels: Some(XL_LEVELS.into()), prefixes: prefixes.unet };
        let [first, second] = [0, 1].map(|one| LoraPart::text_encoder(prefixes.text_encoders[one]));
        let layer = "encoder.layers.3.self_attn.q_proj";
        for (part, module, names) in [
            (
                &unet,
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
                &[
                    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
                    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
                    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
                ][..],
            ),
            (&unet, "mid_block.attentions.0.proj_in", &["lora_unet_middle_block_1_proj_in.lora_down.weight"]),
            (
                &unet,
                "up_blocks.0.attentions.2.transformer_blocks.9.ff.net.0.proj",
                &["lora_unet_output_blocks_2_1_transformer_blocks_9_ff_net_0_proj.lora_down.weight"],
            ),
            (
                &unet,
                "up_blocks.2.resnets.2.conv_shortcut",
                &["lora_unet_output_blocks_8_0_skip_connection.lora_down.weight"],
            ),
            (
                &unet,
                "add_embedding.linear_1",
                &["lora_unet_label_emb_0_0.lora_down.weight", "unet.add_embedding.linear_1.lora_A.weight"],
            ),
            (&unet, "add_embedding.linear_2", &["lora_unet_label_emb_0_2.lora_down.weight"]),
            (
                &first,
                layer,
                &[
                    "lora_te1_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight",
                    "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight",
                    "text_encoder.encoder.layers.3.self_attn.q_proj.lora_A.weight",
                    "text_encoder.text_model.encoder.layers.3.self_attn.to_q_lora.down.weight",
                ],
            ),
            (
                &second,
                layer,
                &[
                    "lora_te2_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight",
                    "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight",
                    "text_encoder_2.encoder.layers.3.self_attn.q_proj.lora_linear_layer.down.weight",
                ],
            ),
            (
                &second,
                "text_projection",
                &["lora_te2_text_projection.lora_down.weight", "text_encoder_2.text_projection.lora_A.weight"],
            ),
        ] {
            let found = downs(part, module);
            for name in names {
                assert!(found.iter().any(|known| known == name), "{name} is not among {found:#?}");
            }
        }
        let shared: Vec<String> =
            downs(&first, layer).into_iter().filter(|name| downs(&second, layer).contains(name)).collect();
        assert!(shared.is_empty(), "{shared:?} are of both text encoders");
    }

    #[test]
    fn the_three_tensors_of_a_spelling_belong_together() {
        let spelling = &text_encoder().spellings("encoder.layers.0.mlp.fc1")[0];
        let stem = "lora_te_text_model_encoder_layers_0_mlp_fc1";
        let expected = Spelling {
            down: format!("{stem}.lora_down.weight"),
            up: format!("{stem}.lora_up.weight"),
            alpha: format!("{stem}.alpha"),
        };
        assert_eq!(*spelling, expected);
    }
}
