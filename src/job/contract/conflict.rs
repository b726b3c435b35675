//! What is wrong with a job though its fields are right one by one.

use serde_json::Value;

use super::draft::Draft;
use super::table::Table;
use super::text::either;
use crate::sampler::Sampler;

/// A value that its field takes, and the job's sampler does not.
#[derive(Debug)]
pub(in crate::job) struct Conflict {
    /// The field.
    pub(in crate::job) field: &'static str,
    /// What it says.
    pub(in crate::job) value: Value,
    sampler: Sampler,
    allowed: String,
}

impl Conflict {
    /// Those of a job of the contract of `table`. `refined` says whether its model has a refiner, as far as it is known: one that may draw
    /// alone from an image has a sampler of its own.
    pub(in crate::job) fn of_job(draft: &Draft, table: &Table, refined: Option<bool>) -> impl Iterator<Item = Self> {
        let by_refiner = draft.is_for_refiner() && refined != Some(false);
        let steps = steps(draft, table)[usize::from(draft.init_image.is_some())];
        let conflicts = (!by_refiner).then(|| [too_many(draft, steps), spread(draft), noisy(draft)]);
        conflicts.into_iter().flatten().flatten()
    }

    /// That of a model's defaults, which hold for jobs from noise and from an image.
    pub(super) fn of_defaults(draft: &Draft, table: &Table) -> Option<Self> {
        steps(draft, table)
            .into_iter()
            .find_map(|steps| too_many(draft, steps))
            .or_else(|| spread(draft))
            .or_else(|| noisy(draft))
    }

    /// What the field may say.
    pub(in crate::job) fn allowed(&self) -> String {
        format!("{} with {}", self.allowed, self.sampler)
    }
}

/// The fields that say in how many steps is drawn from noise and from an image, with what they say.
fn steps(draft: &Draft, table: &Table) -> [(&'static str, u32); 2] {
    let from_image = table.start.map_or(table.steps, |start| start.steps);
    [(table.steps, draft.steps), (from_image, draft.image_steps.unwrap_or(draft.steps))]
}

fn too_many(draft: &Draft, (field, steps): (&'static str, u32)) -> Option<Conflict> {
    let (sampler, most) = (draft.sampler, draft.sampler.max_steps());
    let conflict = || Conflict { field, value: steps.into(), sampler, allowed: format!("1 to {most}") };
    (steps as usize > most).then(conflict)
}

fn spread(draft: &Draft) -> Option<Conflict> {
    let (sampler, spacings) = (draft.sampler, draft.sampler.spacings());
    let allowed = || either(spacings.iter().map(|spacing| spacing.name().to_owned()));
    let conflict = || Conflict { field: "sigmas", value: draft.sigmas.name().into(), sampler, allowed: allowed() };
    (!spacings.contains(&draft.sigmas)).then(conflict)
}

fn noisy(draft: &Draft) -> Option<Conflict> {
    let (sampler, eta) = (draft.sampler, draft.eta);
    let conflict = || Conflict { field: "eta", value: eta.into(), sampler, allowed: "0".to_owned() };
    (eta > 0.0 && !sampler.has_eta()).then(conflict)
}
