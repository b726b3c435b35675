//! A field of a contract: what it may hold, what holds without it, and which part of a job it is.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::draft::Draft;
use super::sides::Sides;
use crate::job::form::{self, Json};
use crate::job::prompt::PromptSyntax;
use crate::job::role::ModelRole;
use crate::job::spec::{ImageSource, RefineMode, Shade};
use crate::sampler::{Sampler, SigmaSpacing};

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    pub(super) default: Default,
    /// What it means, in a few words.
    pub meaning: &'static str,
    /// The field without which it means nothing, unless there is a refiner that it is for.
    pub(super) part_of: Option<&'static str>,
    /// The field beside which it has no effect.
    pub unused_with: Option<&'static str>,
    /// The field beside which it may be left out, though it is required otherwise.
    pub optional_with: Option<&'static str>,
    /// Whether a model may have a default of its own for it.
    pub by_model: bool,
    /// Where a base model and a refiner draw, whom it is for; `None` is both.
    pub role: Option<ModelRole>,
}

/// What a field may hold, and where in a [`Draft`] it goes.
#[derive(Debug)]
pub enum Kind {
    /// Text of so many bytes at most.
    Text(usize, fn(&mut Draft, Option<String>)),
    /// One of the contract's sides.
    Side(fn(&mut Draft, u32)),
    /// A whole number.
    Count(RangeInclusive<u32>, fn(&mut Draft, u32)),
    /// A number.
    Number(RangeInclusive<f64>, fn(&mut Draft, f64)),
    /// A number above 0 and below 1.
    Share(fn(&mut Draft, Option<f64>)),
    /// The name of a sampler.
    Sampler(fn(&mut Draft, Sampler)),
    /// How a sampler's steps are spread.
    Sigmas(fn(&mut Draft, SigmaSpacing)),
    /// How prompts are read.
    PromptSyntax(fn(&mut Draft, PromptSyntax)),
    /// A seed of 64 bits; a negative one asks for any.
    Seed(fn(&mut Draft, Option<u64>)),
    /// Yes or no.
    Flag(fn(&mut Draft, bool)),
    /// Black or white.
    Shade(fn(&mut Draft, Shade)),
    /// How a refiner goes on.
    Refine(fn(&mut Draft, RefineMode)),
    /// An image, by URL or in base64.
    Image(fn(&mut Draft, Option<ImageSource>)),
    /// The name of something that this process has.
    Name(Catalog, fn(&mut Draft, Option<String>)),
}

/// What several fields of a contract choose from.
#[derive(Debug)]
pub struct Choices {
    /// What width and height may be.
    pub sides: Sides,
    /// Names of samplers beside their own.
    pub sampler_aliases: &'static [(&'static str, Sampler)],
}

impl Choices {
    /// Every name of a sampler with its sampler: their own in the registry's order, then the others.
    pub fn samplers(&self) -> impl Iterator<Item = (&'static str, Sampler)> + use<> {
        let own = Sampler::ALL.iter().map(|sampler| (sampler.name(), *sampler));
        own.chain(self.sampler_aliases.iter().copied())
    }
}

/// Whose names a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catalog {
    /// Of models.
    Models,
    /// Of LoRA files.
    Loras,
}

/// What holds when a field is not sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Default {
    /// It must be sent.
    Required,
    /// Nothing; `null` says the same.
    None,
    Text(&'static str),
    Count(u32),
    Number(f64),
    Flag(bool),
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFault {
    /// Its type; this is what Python calls the right one.
    Type(&'static str),
    /// It is beyond what the field takes.
    Bounds,
}

impl Field {
    pub(super) const PLAIN: Self = Self {
        name: "",
        kind: Kind::Flag(|_, _| ()),
        default: Default::None,
        meaning: "",
        part_of: None,
        unused_with: None,
        optional_with: None,
        by_model: false,
        role: None,
    };

    /// Whether it must be sent, if nothing else may be in its place.
    pub fn is_required(&self) -> bool {
        self.default == Default::Required
    }

    /// Whether it must be sent, whatever else is.
    pub fn is_always_required(&self) -> bool {
        self.is_required() && self.optional_with.is_none()
    }

    /// The field without which it means nothing to a model; `refined` says whether that has a refiner, as far as it is known.
    pub fn part_of(&self, refined: Option<bool>) -> Option<&'static str> {
        self.part_of.filter(|_| self.role != Some(ModelRole::Refiner) || refined == Some(false))
    }

    /// The contract's default, as it would be sent.
    pub fn default(&self) -> Option<Value> {
        Some(match self.default {
            Default::Required => return None,
            Default::None => Value::Null,
            Default::Text(text) => text.into(),
            Default::Count(count) => count.into(),
            Default::Number(number) => number.into(),
            Default::Flag(flag) => flag.into(),
        })
    }

    /// Reads `value` into `draft`.
    ///
    /// # Errors
    /// It is of another type, or out of bounds.
    pub fn read(&self, choices: &Choices, value: &Value, draft: &mut Draft) -> Result<(), FieldFault> {
        match &self.kind {
            Kind::Text(bytes, set) => set(draft, self.filtered(value, |text: &String| text.len() <= *bytes)?),
            Kind::Side(set) => {
                let side = |pixels: i128| u32::try_from(pixels).ok().filter(|side| choices.sides.contains(*side));
                set(draft, required(value, side)?);
            }
            Kind::Count(range, set) => {
                let count = |n: i128| u32::try_from(n).ok().filter(|n| range.contains(n));
                set(draft, required(value, count)?);
            }
            Kind::Number(range, set) => set(draft, required(value, |x: f64| range.contains(&x).then_some(x))?),
            Kind::Share(set) => set(draft, self.filtered(value, |x: &f64| *x > 0.0 && *x < 1.0)?),
            Kind::Sampler(set) => {
                let named = |name: String| choices.samplers().find(|(known, _)| *known == name);
                set(draft, required(value, named)?.1);
            }
            Kind::Sigmas(set) => set(draft, required(value, |name: String| SigmaSpacing::from_name(&name))?),
            Kind::PromptSyntax(set) => set(draft, required(value, |name: String| PromptSyntax::from_name(&name))?),
            Kind::Seed(set) => {
                let seed = |seed: i128| if seed < 0 { Some(None) } else { u64::try_from(seed).ok().map(Some) };
                set(draft, self.optional(value, seed)?.flatten());
            }
            Kind::Flag(set) => set(draft, required(value, Some)?),
            Kind::Shade(set) => set(draft, required(value, |name: String| Shade::from_name(&name))?),
            Kind::Refine(set) => set(draft, required(value, |name: String| RefineMode::from_name(&name))?),
            Kind::Image(set) => set(draft, self.optional(value, |text: String| ImageSource::from_text(&text))?),
            Kind::Name(_, set) => set(draft, self.filtered(value, |_: &String| true)?),
        }
        Ok(())
    }

    /// What is read of a value; `null` is nothing where the field may hold nothing.
    fn optional<J: Json, T>(&self, value: &Value, rule: impl FnOnce(J) -> Option<T>) -> Result<Option<T>, FieldFault> {
        if value.is_null() && self.default == Default::None { Ok(None) } else { required(value, rule).map(Some) }
    }

    fn filtered<J: Json>(&self, value: &Value, rule: impl FnOnce(&J) -> bool) -> Result<Option<J>, FieldFault> {
        self.optional(value, |value| Some(value).filter(|value| rule(value)))
    }
}

fn required<J: Json, T>(value: &Value, rule: impl FnOnce(J) -> Option<T>) -> Result<T, FieldFault> {
    rule(J::read(value).ok_or(FieldFault::Type(J::PYTHON))?).ok_or(FieldFault::Bounds)
}

impl FieldFault {
    /// The sentence of the reference worker's validator.
    pub fn sentence(self, name: &str, value: &Value) -> String {
        match self {
            Self::Type(wanted) => form::wrong_type(name, wanted, value),
            Self::Bounds => format!("{name} does not meet the constraints."),
        }
    }
}
