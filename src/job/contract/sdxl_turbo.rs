//! The contract of the SDXL Turbo endpoint: the fields and defaults of its reference worker, whose pictures are 512×512 alone; here other
//! sizes are open, too.

use serde_json::{Value, json};

use super::common::{CLIP_SKIP, ETA, LORA, LORA_SCALE, MODEL, NSFW, PREVIEW, PROMPT_SYNTAX, SIGMAS};
use super::field::{Choices, Default, Field, Kind};
use super::shape::OutputShape;
use super::sides::Sides;
use super::table::Table;
use super::text::PROMPT_BYTES;
use crate::job::spec::Spec;
use crate::sampler::Sampler;

pub(super) static SDXL_TURBO: Table = Table {
    fields: &SDXL_TURBO_FIELDS,
    choices: Choices { sides: Sides::Multiples { step: 8, from: 64, to: 1024 }, sampler_aliases: &[] },
    needs: &[],
    steps: "num_inference_steps",
    count: "num_images",
    start: None,
    output: OutputShape::Generation,
    input,
};

static SDXL_TURBO_FIELDS: [Field; 18] = [
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
        meaning: "what to keep away from; cut as the prompt is. It counts where guidance_scale is above 1",
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
        name: "num_images",
        kind: Kind::Count(1..=4, |draft, count| draft.num_outputs = count),
        default: Default::Count(1),
        meaning: "how many images",
        ..Field::PLAIN
    },
    Field {
        name: "num_inference_steps",
        kind: Kind::Count(1..=8, |draft, count| draft.steps = count),
        default: Default::Count(1),
        meaning: "denoising steps",
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "guidance_scale",
        kind: Kind::Number(0.0..=2.0, |draft, scale| draft.guidance_scale = scale),
        default: Default::Number(0.0),
        meaning: "how strongly the prompt is preferred to the negative prompt; at 1 and below only the prompt is evaluated, for which Turbo \
                  was trained",
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "scheduler",
        kind: Kind::Sampler(|draft, sampler| draft.sampler = sampler),
        default: Default::Text(Sampler::EulerA.name()),
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
        meaning: "without one, or with a negative one, a random one below 65536, which is reported. Image i is made from seed + i alone and \
                  reports it, so it can be made again by itself",
        ..Field::PLAIN
    },
    LORA,
    LORA_SCALE,
    MODEL,
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
        "num_images": 1,
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
    if let Some(lora) = &spec.lora {
        input["lora"] = lora.name.as_str().into();
        input["lora_scale"] = lora.scale.into();
    }
    input
}
