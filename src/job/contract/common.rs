//! Fields that every contract has, with one meaning.

use super::field::{Catalog, Default, Field, Kind};
use crate::job::prompt::PromptSyntax;
use crate::sampler::SigmaSpacing;

pub(super) const SIGMAS: Field = Field {
    name: "sigmas",
    kind: Kind::Sigmas(|draft, spacing| draft.sigmas = spacing),
    default: Default::Text(SigmaSpacing::Default.name()),
    meaning: "how the sampler's steps are spread: as the model's scheduler file says, by a curve of σ, or trailing, as Lightning and Hyper \
              want it (diffusers' timestep_spacing). Not every sampler has every choice",
    by_model: true,
    ..Field::PLAIN
};

pub(super) const ETA: Field = Field {
    name: "eta",
    kind: Kind::Number(0.0..=1.0, |draft, eta| draft.eta = eta),
    default: Default::Number(0.0),
    meaning: "how much noise DDIM adds at each step: 0 none, 1 as much as DDPM. Other samplers have no such choice",
    by_model: true,
    ..Field::PLAIN
};

pub(super) const PROMPT_SYNTAX: Field = Field {
    name: "prompt_syntax",
    kind: Kind::PromptSyntax(|draft, syntax| draft.prompt_syntax = syntax),
    default: Default::Text(PromptSyntax::Plain.name()),
    meaning: "how prompts are read: as text, which is cut at 77 tokens; or by the rules of AUTOMATIC1111's WebUI, with weights such as \
              (word:1.3), BREAK, and more than 77 tokens",
    by_model: true,
    ..Field::PLAIN
};

pub(super) const CLIP_SKIP: Field = Field {
    name: "clip_skip",
    kind: Kind::Count(0..=11, |draft, layers| draft.clip_skip = layers),
    default: Default::Count(0),
    meaning: "layers left out at the end of the text encoders; the WebUI's number is one more. The negative prompt skips none, as in \
              diffusers, unless prompt_syntax is weighted",
    by_model: true,
    ..Field::PLAIN
};

pub(super) const LORA: Field = Field {
    name: "lora",
    kind: Kind::Name(Catalog::Loras, |draft, name| draft.lora = name),
    default: Default::None,
    meaning: "the name of a LoRA file of the operator's",
    ..Field::PLAIN
};

pub(super) const LORA_SCALE: Field = Field {
    name: "lora_scale",
    kind: Kind::Number(0.0..=1.0, |draft, scale| draft.lora_scale = scale),
    default: Default::Number(1.0),
    meaning: "how much of the LoRA; 0 is none",
    part_of: Some("lora"),
    ..Field::PLAIN
};

pub(super) const MODEL: Field = Field {
    name: "model",
    kind: Kind::Name(Catalog::Models, |draft, name| draft.model = name),
    default: Default::None,
    meaning: "the name of the model that draws; left out, the operator's first",
    ..Field::PLAIN
};

pub(super) const NSFW: Field = Field {
    name: "nsfw",
    kind: Kind::Flag(|_, _| ()),
    default: Default::Flag(false),
    meaning: "is checked, and has no effect yet",
    ..Field::PLAIN
};

pub(super) const PREVIEW: Field = Field {
    name: "preview",
    kind: Kind::Flag(|draft, preview| draft.preview = preview),
    default: Default::Flag(false),
    meaning: "whether the progress updates of a worker have a small JPEG of the picture so far, as a data URI",
    ..Field::PLAIN
};
