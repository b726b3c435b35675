//! Whether a GPU holds a model as a whole, or its parts take turns there.

use std::path::Path;

use tracing::warn;

use crate::config::OffloadSetting;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::Model;
use crate::engine::torch::networks::offload::OffloadPlan;

/// What is done with the models at `paths` on `target`. What they need beside their weights shows when they are used.
///
/// # Errors
/// A model has no weight files, or they cannot be read.
pub(super) fn plan<'a>(
    setting: OffloadSetting,
    target: Target,
    paths: impl Iterator<Item = &'a Path>,
) -> Result<OffloadPlan, LoadError> {
    if target.is_cpu() || setting == OffloadSetting::Off {
        return Ok(OffloadPlan::Never);
    }
    let needed: u64 = paths.map(|path| Model::weight_bytes(path, target.kind)).sum::<Result<_, _>>()?;
    // A GPU that does not say is met again when the weights come to it.
    let free = target.memory().map_or(u64::MAX, |(free, _)| free as u64);
    if needed <= free {
        return Ok(OffloadPlan::WhenMemoryRunsOut);
    }
    warn!(
        bytes = needed,
        free,
        "the GPU cannot hold the whole model: its parts lie in main memory and come to the GPU in turn, which takes longer"
    );
    Ok(OffloadPlan::Now)
}
