//! An entry of `[[models]]`, as it is written.

use std::path::PathBuf;

use figment::value::Value;
use serde::Deserialize;

use super::setting::Setting;

/// An entry of `[[models]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelEntry {
    /// What jobs call it.
    pub(super) name: String,
    /// Where it is; `None`: its name says.
    pub(super) path: Option<PathBuf>,
    /// The model that goes on after it; `None`: none.
    pub(super) refiner: Option<String>,
    /// MiB that it takes on a device.
    pub(super) memory: Option<u64>,
    /// When it is loaded; `None`: on demand.
    pub(super) load: Option<LoadTime>,
}

/// When a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LoadTime {
    /// Before the first job.
    Start,
    /// With the first job that names it.
    Demand,
}

impl Setting for Vec<ModelEntry> {
    const ALLOWED: &'static str =
        "tables with a name and, if need be, a path, a refiner, memory (MiB) and load (\"start\" or \"demand\")";
    fn read(value: &Value) -> Option<Self> {
        value.deserialize().ok()
    }
}
