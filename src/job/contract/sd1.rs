//! The contract of the Stable Diffusion v1 endpoint: each documented value works, and nothing else does.

use serde_json::{Value, json};

use super::common::{CLIP_SKIP, ETA, LORA, LORA_SCALE, MODEL, NSFW, PREVIEW, PROMPT_SYNTAX, SIGMAS};
use super::field::{Choices, Default, Field, Kind};
use super::shape::OutputShape;
use super::sides::Sides;
use super::table::{StartImage, Table};
use super::text::{PROMPT_BYTES, digest};
use crate::job::spec::Spec;
use crate::sampler::Sampler;

const STEPS: &str = "num_inference_steps";

pub(super) static SD1: Table = Table {
    fields: &SD1_FIELDS,
    choices: Choices {
        sides: Sides::List(&[128, 256, 384, 448, 512, 576, 640, 704, 768]),
        sampler_aliases: &[("KLMS", Sampler::KLms)],
    },
    needs: &[("mask", "init_image")],
    steps: STEPS,
    count: "num_outputs",
    start: Some(StartImage { field: "init_image", steps: STEPS, sets_size: false }),
    output: OutputShape::List,
    input,
};

static SD1_FIELDS: [Field; 23] = [
    Field {
        name: "prompt",
        kind: Kind::Text(PROMPT_BYTES, |draft, text| draft.prompt = text.unwrap_or_default()),
        default: Default::Required,
        meaning: "what to draw; what goes beyond 77 tokens is cut, with a warning, unless prompt_syntax is weighted",
        ..Field::PLAIN
    },
    Field {
        name: "negative_prompt",
        kind: Kind::Text(PROMPT_BYTES, |draft, text| draft.negative_prompt = text),
        default: Default::None,
        meaning: "what to keep away from; cut as the prompt is",
        ..Field::PLAIN
    },
    PROMPT_SYNTAX,
    CLIP_SKIP,
    Field {
        name: "width",
        kind: Kind::Side(|draft, side| draft.size.width = side),
        default: Default::Count(512),
        meaning: "pixels from left to right",
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "height",
        kind: Kind::Side(|draft, side| draft.size.height = side),
        default: Default::Count(512),
        meaning: "pixels from top to bottom",
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "num_outputs",
        kind: Kind::Count(1..=10, |draft, count| draft.num_outputs = count),
        default: Default::Count(1),
        meaning: "how many images",
        ..Field::PLAIN
    },
    Field {
        name: STEPS,
        kind: Kind::Count(1..=500, |draft, count| draft.steps = count),
        default: Default::Count(50),
        meaning: "denoising steps",
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "guidance_scale",
        kind: Kind::Number(0.0..=20.0, |draft, scale| draft.guidance_scale = scale),
        default: Default::Number(7.5),
        meaning: "how strongly the prompt is preferred to the negative prompt; at 1 and below only the prompt is evaluated, in half the time",
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "scheduler",
        kind: Kind::Sampler(|draft, sampler| draft.sampler = sampler),
        default: Default::Text(Sampler::KLms.name()),
        meaning: "the sampler",
        by_model: true,
        ..Field::PLAIN
    },
    SIGMAS,
    ETA,
    Field {
        name: "seed",
        kind: Kind::Seed(|draft, seed| draft.seed = seed),
        default: Default::None,
        meaning: "without one, or with a negative one, a random one below 65536, as in the original worker. Image i is made from seed + i \
                  alone and reports it, so it can be made again by itself",
        ..Field::PLAIN
    },
    LORA,
    LORA_SCALE,
    MODEL,
    Field {
        name: "init_image",
        kind: Kind::Image(|draft, image| draft.init_image = image),
        default: Default::None,
        meaning: "an image to begin from, resized to width × height",
        ..Field::PLAIN
    },
    Field {
        name: "mask",
        kind: Kind::Image(|draft, image| draft.mask = image),
        default: Default::None,
        meaning: "which part of init_image, without which it is refused, is repainted; resized as it is",
        ..Field::PLAIN
    },
    Field {
        name: "prompt_strength",
        kind: Kind::Number(0.0..=1.0, |draft, strength| draft.strength = strength),
        default: Default::Number(0.8),
        meaning: "how much of init_image is repainted: 0 nothing, 1 all of it",
        part_of: Some("init_image"),
        ..Field::PLAIN
    },
    Field {
        name: "mask_repaint",
        kind: Kind::Shade(|draft, shade| draft.repaint = shade),
        default: Default::Text("black"),
        meaning: "which part of the mask is repainted",
        part_of: Some("mask"),
        ..Field::PLAIN
    },
    Field {
        name: "mask_paste",
        kind: Kind::Flag(|draft, paste| draft.paste = paste),
        default: Default::Flag(false),
        meaning: "whether the kept part's own pixels are put over the result",
        part_of: Some("mask"),
        ..Field::PLAIN
    },
    NSFW,
    PREVIEW,
];

fn input(spec: &Spec, index: u32) -> Value {
    let mut input = json!({
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "prompt_syntax": spec.prompt_syntax.name(),
        "clip_skip": spec.clip_skip,
        "width": spec.size.width,
        "height": spec.size.height,
        "num_outputs": 1,
        "num_inference_steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "scheduler": spec.sampler.name(),
        "sigmas": spec.sigmas.name(),
        "seed": spec.seed_of(index),
        "model": spec.model,
    });
    if spec.eta > 0.0 {
        input["eta"] = spec.eta.into();
    }
    if let Some(start) = &spec.start {
        input["init_image"] = digest(&start.image);
        input["prompt_strength"] = start.strength.into();
        if let Some(mask) = &start.mask {
            input["mask"] = digest(&mask.image);
            input["mask_repaint"] = mask.repaint.name().into();
            input["mask_paste"] = mask.paste.into();
        }
    }
    if let Some(lora) = &spec.lora {
        input["lora"] = lora.name.as_str().into();
        input["lora_scale"] = lora.scale.into();
    }
    input
}
