//! The contract of the Stable Diffusion XL endpoint: the fields and defaults of its reference worker, within bounds that the worker leaves
//! open.

use serde_json::{Value, json};

use super::common::{CLIP_SKIP, ETA, LORA, LORA_SCALE, MODEL, NSFW, PREVIEW, PROMPT_SYNTAX, SIGMAS};
use super::field::{Choices, Default, Field, Kind};
use super::shape::OutputShape;
use super::sides::Sides;
use super::table::{StartImage, Table};
use super::text::{PROMPT_BYTES, digest};
use crate::job::role::ModelRole;
use crate::job::spec::{RefineMode, Spec};
use crate::sampler::Sampler;

/// The field of the image to begin from, beside which a few others have no effect.
const IMAGE: &str = "image_url";

/// The field that says how a refiner goes on.
pub(in crate::job) const REFINE: &str = "refine";

/// The field that says where the base model ends.
pub(in crate::job) const SHARE: &str = "high_noise_frac";

pub(super) static SDXL: Table = Table {
    fields: &SDXL_FIELDS,
    choices: Choices {
        // The largest picture has 2²² pixels.
        sides: Sides::Multiples { step: 8, from: 64, to: 2048 },
        sampler_aliases: &[
            ("KLMS", Sampler::KLms),
            ("K_EULER", Sampler::EulerD),
            ("K_EULER_ANCESTRAL", Sampler::EulerA),
            ("DPMSolverMultistep", Sampler::DpmM),
            ("DPMSolverSinglestep", Sampler::DpmS),
        ],
    },
    needs: &[("mask", IMAGE)],
    steps: "num_inference_steps",
    count: "num_images",
    start: Some(StartImage { field: IMAGE, steps: "refiner_inference_steps", sets_size: true }),
    output: OutputShape::Object,
    input,
};

static SDXL_FIELDS: [Field; 26] = [
    Field {
        name: "prompt",
        kind: Kind::Text(PROMPT_BYTES, |draft, text| draft.prompt = text.unwrap_or_default()),
        default: Default::Required,
        meaning: "what to draw; what goes beyond 77 tokens is cut, with a warning, unless prompt_syntax is weighted",
        optional_with: Some(IMAGE),
        ..Field::PLAIN
    },
    Field {
        name: "negative_prompt",
        kind: Kind::Text(PROMPT_BYTES, |draft, text| draft.negative_prompt = text),
        default: Default::None,
        meaning: "what to keep away from; cut as the prompt is. An empty one is read as text, and differs from none",
        role: Some(ModelRole::Base),
        ..Field::PLAIN
    },
    PROMPT_SYNTAX,
    Field { role: Some(ModelRole::Base), ..CLIP_SKIP },
    Field {
        name: "width",
        kind: Kind::Side(|draft, side| draft.size.width = side),
        default: Default::Count(1024),
        meaning: "pixels from left to right",
        unused_with: Some(IMAGE),
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "height",
        kind: Kind::Side(|draft, side| draft.size.height = side),
        default: Default::Count(1024),
        meaning: "pixels from top to bottom",
        unused_with: Some(IMAGE),
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "num_images",
        kind: Kind::Count(1..=10, |draft, count| draft.num_outputs = count),
        default: Default::Count(1),
        meaning: "how many images",
        unused_with: Some(IMAGE),
        ..Field::PLAIN
    },
    Field {
        name: "num_inference_steps",
        kind: Kind::Count(1..=500, |draft, count| draft.steps = count),
        default: Default::Count(25),
        meaning: "denoising steps",
        unused_with: Some(IMAGE),
        by_model: true,
        ..Field::PLAIN
    },
    Field {
        name: "guidance_scale",
        kind: Kind::Number(0.0..=20.0, |draft, scale| draft.guidance_scale = scale),
        default: Default::Number(7.5),
        meaning: "how strongly the prompt is preferred to the negative prompt; at 1 and below only the prompt is evaluated, in half the time",
        by_model: true,
        role: Some(ModelRole::Base),
        ..Field::PLAIN
    },
    Field {
        name: "scheduler",
        kind: Kind::Sampler(|draft, sampler| draft.sampler = sampler),
        default: Default::Text(Sampler::Ddim.name()),
        meaning: "the sampler",
        by_model: true,
        role: Some(ModelRole::Base),
        ..Field::PLAIN
    },
    Field { role: Some(ModelRole::Base), ..SIGMAS },
    Field { role: Some(ModelRole::Base), ..ETA },
    Field {
        name: "seed",
        kind: Kind::Seed(|draft, seed| draft.seed = seed),
        default: Default::None,
        meaning: "without one, or with a negative one, a random one below 65536, as in the original worker. Image i is made from seed + i \
                  alone, so it can be made again by itself",
        ..Field::PLAIN
    },
    Field {
        name: SHARE,
        kind: Kind::Share(|draft, share| draft.denoising_end = share),
        default: Default::None,
        meaning: "the share of denoising, from pure noise on, that the model makes; then the refiner goes on. Without a refiner the \
                  picture is decoded as it is then. Without a share all of it is made",
        unused_with: Some(IMAGE),
        ..Field::PLAIN
    },
    Field {
        name: REFINE,
        kind: Kind::Refine(|draft, mode| draft.refine = Some(mode)),
        default: Default::Text(RefineMode::Strength.name()),
        meaning: "how the operator's refiner goes on: from what the model has made, with noise for the last share of strength of \
                  refiner_inference_steps; or, as an ensemble, with those of num_inference_steps that high_noise_frac leaves",
        unused_with: Some(IMAGE),
        ..Field::PLAIN
    },
    Field {
        name: IMAGE,
        kind: Kind::Image(|draft, image| draft.init_image = image),
        default: Default::None,
        meaning: "an image to begin from; one picture is drawn, in its size. A refiner draws it, if there is one and no mask: by its own \
                  scheduler, guidance and negative prompt",
        ..Field::PLAIN
    },
    Field {
        name: "strength",
        kind: Kind::Number(0.0..=1.0, |draft, strength| draft.strength = strength),
        default: Default::Number(0.3),
        meaning: "how much of image_url is repainted, or of its own picture by a refiner: 0 nothing, 1 all of it",
        part_of: Some(IMAGE),
        role: Some(ModelRole::Refiner),
        ..Field::PLAIN
    },
    Field {
        name: "refiner_inference_steps",
        kind: Kind::Count(1..=500, |draft, count| draft.image_steps = Some(count)),
        default: Default::Count(50),
        meaning: "denoising steps from image_url, or of a refiner, of which the last share of strength is made",
        by_model: true,
        part_of: Some(IMAGE),
        role: Some(ModelRole::Refiner),
        ..Field::PLAIN
    },
    Field {
        name: "mask",
        kind: Kind::Image(|draft, image| draft.mask = image),
        default: Default::None,
        meaning: "which part of image_url, without which it is refused, is repainted; resized to the picture's size. With the default \
                  strength that part changes little",
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
    Field { role: Some(ModelRole::Base), ..LORA },
    Field { role: Some(ModelRole::Base), ..LORA_SCALE },
    MODEL,
    NSFW,
    PREVIEW,
];

/// From an image its size and the steps from noise follow.
fn input(spec: &Spec, index: u32) -> Value {
    let mut input = json!({
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "prompt_syntax": spec.prompt_syntax.name(),
        "clip_skip": spec.clip_skip,
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
        input[IMAGE] = digest(&start.image);
        input["strength"] = start.strength.into();
        input["refiner_inference_steps"] = spec.steps.into();
        if let Some(mask) = &start.mask {
            input["mask"] = digest(&mask.image);
            input["mask_repaint"] = mask.repaint.name().into();
            input["mask_paste"] = mask.paste.into();
        }
    } else {
        input["width"] = spec.size.width.into();
        input["height"] = spec.size.height.into();
        input["num_inference_steps"] = spec.steps.into();
        input[SHARE] = spec.denoising_end.into();
    }
    if let Some(refine) = spec.refine {
        input[REFINE] = refine.mode.name().into();
        if refine.mode == RefineMode::Strength {
            input["strength"] = refine.strength.into();
            input["refiner_inference_steps"] = refine.steps.into();
        }
    }
    if let Some(lora) = &spec.lora {
        input["lora"] = lora.name.as_str().into();
        input["lora_scale"] = lora.scale.into();
    }
    input
}
