//! What jobs may ask for: the configured models, each with its own defaults.

use crate::config::ServedModel;
use crate::job::OfferedModel;
use crate::models::{DefaultsFileError, defaults};

/// Reads what holds for the jobs of each of `models`.
///
/// # Errors
/// The file of a model's defaults cannot be used.
pub(super) fn models(models: &[ServedModel]) -> Result<Vec<OfferedModel>, DefaultsFileError> {
    let offered = |served: &ServedModel| {
        let defaults = defaults(&served.model.path)?;
        Ok(OfferedModel { name: served.model.name.clone(), defaults })
    };
    models.iter().map(offered).collect()
}
