//! Which engine this build has: the one place that chooses.

use super::run::Failure;
use crate::config::{Config, Model};
use crate::engine::host::Host;

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

/// What a build without an engine says.
#[cfg(not(feature = "torch"))]
pub(super) const MISSING: &str = "this build of latentd has no engine: build it with the feature `torch`";

/// There is none.
#[cfg(not(feature = "torch"))]
pub(super) fn start(_config: &Config, _model: &Model) -> std::future::Ready<Result<Host, Failure>> {
    let error = crate::job::JobError { code: "no_engine", message: MISSING.into(), field: None };
    std::future::ready(Err(Failure { exit: super::Exit::Usage, error, errors: Vec::new() }))
}
