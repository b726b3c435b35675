//! Whether a worker is fit, seen before its first job: no client's job should be what finds out that nothing can be drawn here.

use std::borrow::Borrow;
use std::path::PathBuf;

use tracing::{info, warn};

use super::checks::{Check, Verdict, disk, memory, picture, weights};
use crate::blocking::caught;
use crate::config::weights::bytes;
use crate::config::{Config, FitnessConfig};
use crate::engine::host::Host;
use crate::engine::pool::EnginePool;
use crate::job::{OfferedModel, Size};
use crate::worker::EngineCapacity;

/// Why a worker is not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {why}")]
pub struct UnfitWorker {
    /// What it failed.
    pub check: &'static str,
    /// What was found, and what to do.
    pub why: String,
}

/// Looks at the devices, which are to hold weights of so many bytes.
pub type Devices = dyn FnOnce(u64) -> Vec<Check> + Send;

/// What is looked at of a machine.
pub struct MachineChecks {
    /// What is asked of it.
    pub limits: FitnessConfig,
    /// What looks at its devices.
    pub devices: Box<Devices>,
    /// Where results are kept.
    pub spool: PathBuf,
    /// Where models are that are loaded before the first job.
    pub models: Vec<PathBuf>,
}

impl MachineChecks {
    /// Looks at devices, memory, disk and weight files. What could be better is logged.
    ///
    /// # Errors
    /// The first thing that keeps it from working.
    pub async fn examine(self) -> Result<(), UnfitWorker> {
        // A disk may take its time, and be far away.
        let checks = caught(move || self.checks()).await.ok_or_else(|| {
            let why = "the checks met a bug in themselves; the log has more".to_owned();
            UnfitWorker { check: "checks", why }
        })?;
        checks.into_iter().try_for_each(judge)
    }

    fn checks(self) -> Vec<Check> {
        let needed = self.models.iter().map(|path| bytes(path)).sum();
        let mut checks = (self.devices)(needed);
        checks.extend(self.models.iter().map(|path| weights::check(path)));
        if self.limits.machine {
            checks.push(memory::check(self.limits.min_memory, needed));
            checks.push(disk::check(&self.spool, self.limits.min_disk));
        }
        checks
    }
}

/// Where results are kept until they have arrived.
pub(super) fn spool(config: &Config) -> PathBuf {
    config.spool.dir.clone()
}

fn judge(check: Check) -> Result<(), UnfitWorker> {
    let Check { name, verdict, found, advice } = check;
    let told = advice.map_or_else(|| found.clone(), |advice| format!("{found}; {advice}"));
    match verdict {
        Verdict::Ok => info!(check = name, "fit: {found}"),
        Verdict::Warn => warn!(check = name, "{told}"),
        Verdict::Fail => return Err(UnfitWorker { check: name, why: told }),
    }
    Ok(())
}

/// Has every engine of each of `models` draw a picture; the rooms of the first model's engines, for who has to say how many jobs they
/// can share.
///
/// # Errors
/// An engine draws nothing.
pub async fn pictures(pool: &EnginePool, models: &[OfferedModel]) -> Result<Vec<EngineCapacity>, UnfitWorker> {
    let mut rooms = Vec::new();
    for (number, model) in models.iter().enumerate() {
        let name = &model.name;
        let unfit = |why: String| UnfitWorker { check: "picture", why: format!("{name}: {why}") };
        let engines = pool.engines(name).await.map_err(|cause| unfit(cause.to_string()))?;
        for engine in &engines {
            let host: &Host = engine.borrow();
            let took = picture::draw(host, model, model.defaults.smallest()).await.map_err(unfit)?;
            info!(check = "picture", model = name, ms = took.as_millis() as u64, "fit: it draws");
            if number == 0 {
                rooms.push(room(host, model).await);
            }
        }
    }
    Ok(rooms)
}

/// What an engine has room for, measured by an image of the size that is drawn by default where its device's memory is its own.
async fn room(host: &Host, model: &OfferedModel) -> EngineCapacity {
    let (rows, before) = (host.most_rows(), host.memory());
    let Some(before) = before.filter(|_| rows > 2) else { return EngineCapacity { rows, images: None } };
    let size = model.defaults.size();
    if let Err(cause) = picture::draw(host, model, size).await {
        let Size { width, height } = size;
        warn!(
            check = "picture",
            model = model.name,
            "an image of {width}×{height} is too much for this device: {cause}"
        );
        return EngineCapacity { rows, images: Some(1) };
    }
    let after = host.memory().map_or(0, |memory| memory.free);
    EngineCapacity::measured(rows, before.free, after)
}
