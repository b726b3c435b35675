//! What jobs may ask for: the configured models, each with its own defaults.

use crate::config::ServedModel;
use crate::job::OfferedModel;
use crate::models::{DefaultsFileError, defaults};

/// Reads what holds for the jobs of each of `models`.
///
/// # Errors
/// The file of a model's defaults cannot be used.
pub(super) fn models(models: &[ServedModel]) -> Result<Vec<OfferedModel>, DefaultsFileError> {
    models.iter().map(model).collect()
}

/// The same of one model.
///
/// # Errors
/// As for [`models`].
pub(super) fn model(served: &ServedModel) -> Result<OfferedModel, DefaultsFileError> {
    let offered = OfferedModel::new(&served.model.name, defaults(&served.model.path)?);
    Ok(offered.with_refiner(served.refiner.is_some()))
}
