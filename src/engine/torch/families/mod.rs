//! Families: how a kind of model is recognised, loaded and told what to draw. A family is a folder, and a line in the list here.

mod checkpoint;
mod folder;
mod load;
pub(in crate::engine::torch) mod model;
pub(in crate::engine::torch) mod names;
mod open_clip;
mod part;
mod parts_fit;
mod refiner;
mod sd1;
mod sdxl;
mod source;

pub use model::Model;
pub(in crate::engine::torch) use model::{ModelFamily, PartPrefixes, PromptKind};
pub(in crate::engine::torch) use refiner::{REFINER_GUIDANCE, Refiner};

/// All that load, in the order in which they are asked.
pub(in crate::engine::torch) const FAMILIES: [&dyn ModelFamily; 3] =
    [&sd1::Sd1, &sdxl::BASE_MODEL, &sdxl::REFINER_MODEL];

#[cfg(test)]
mod tests {
    use super::FAMILIES;
    use crate::job::Family;

    #[test]
    fn every_family_that_has_a_name_loads() {
        let ours: Vec<Family> = FAMILIES.iter().map(|family| family.family()).collect();
        assert_eq!(ours, Family::ALL);
    }
}
