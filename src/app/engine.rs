//! Which engine this build has: the one place that chooses.

use crate::config::{Config, Model};
use crate::engine::host::Host;
use crate::worker::Failure;

/// Starts the engine on a thread of its own and waits until it is ready.
#[cfg(feature = "torch")]
pub(super) async fn start(config: &Config, model: &Model) -> Result<Host, Failure> {
    use crate::engine::torch;

    let (device, dtype) = (config.device, config.dtype);
    let (path, loras) = (model.path.clone(), config.lora_dir.clone());
    // A checkpoint in one file brings no tokenizer.
    let tokenizer = config.models_dir.join("clip-tokenizer");
    let build = move || -> anyhow::Result<torch::Lanes> {
        let target = torch::Target::choose(device, dtype)?;
        Ok(torch::Lanes::new(torch::Model::load(&path, &tokenizer, target)?).with_loras(loras))
    };
    Ok(Host::start("engine-0", build).await?)
}

/// The code of a job that a build without an engine cannot run.
pub(super) const NOT_BUILT: &str = "not_built";

/// What a build without an engine says.
#[cfg(not(feature = "torch"))]
pub(super) const MISSING: &str = "this build of latentd has no engine: build it with the feature `torch`";

/// There is none.
#[cfg(not(feature = "torch"))]
pub(super) fn start(_config: &Config, _model: &Model) -> std::future::Ready<Result<Host, Failure>> {
    let error = crate::job::JobError { code: NOT_BUILT, message: MISSING.into(), field: None };
    std::future::ready(Err(error.into()))
}
