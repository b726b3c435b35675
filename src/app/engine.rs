//! Which engine this build has: the one place that chooses.

use std::future::{Ready, ready};

use super::run::Failure;
use crate::config::{Config, Model};
use crate::engine::host::Host;

/// Starts the engine on a thread of its own and waits until it is ready.
#[cfg(not(feature = "torch"))]
pub(super) fn start(_config: &Config, _model: &Model) -> Ready<Result<Host, Failure>> {
    ready(Err(Failure::usage("this build of latentd has no engine: build it with the feature `torch`".into())))
}
