//! Which engine this build has: the one place that chooses.

#[cfg(feature = "torch")]
pub(super) use with_torch::{ahead, devices, host, load, pool, start_one};
#[cfg(not(feature = "torch"))]
pub(super) use without::{MISSING, ahead, devices, pool, start_one};

#[cfg(feature = "torch")]
mod with_torch {
    use std::fs;
    use std::sync::Arc;

    use anyhow::Context;
    use tokio::task::JoinSet;

    use super::super::checks::{self, Check};
    use crate::config::{Config, Device, ServedModel};
    use crate::disk::ahead::Ahead;
    use crate::engine::host::{Host, HostError};
    use crate::engine::pool::{EnginePool, ModelSpec};
    use crate::engine::torch::{self, device};
    use crate::job::Size;
    use crate::models::defaults;
    use crate::telemetry::Metrics;
    use crate::worker::Failure;

    /// Whether the devices can be used, and have memory for weights of so many bytes.
    pub(in super::super) fn devices(config: &Config, weights: u64) -> Vec<Check> {
        checks::device::check(config.device, config.dtype, weights)
    }

    /// Has the weights of `model` read from the disk until what comes of this is dropped, while the device is looked at and made ready.
    pub(in super::super) fn ahead(config: &Config, model: &ServedModel) -> Ahead {
        // What is missing is told when the model is loaded.
        let half = device::expects_half(config.device, config.dtype);
        let files = model.paths().flat_map(|path| torch::Model::files(path, half).unwrap_or_default());
        Ahead::of(&files.collect::<Vec<_>>())
    }

    /// Starts an engine of the model `name`, one of `models`, for who has all of its jobs at hand, and waits until it is ready. It has no idle
    /// time to warm up in.
    pub(in super::super) async fn start_one(
        config: &Config,
        models: &[ServedModel],
        name: String,
    ) -> Result<Host, Failure> {
        let model = find(models, &name)?;
        let _ahead = ahead(config, model);
        let mut settings = config.clone();
        settings.cuda.warm_up = Some(Vec::new());
        Ok(start(&settings, model, config.device, 0, Metrics::default()).await?)
    }

    /// All `models` on all devices, which tell `metrics` what they do; those are loaded that are to be from the start.
    pub(in super::super) async fn pool(
        config: &Config,
        models: Vec<ServedModel>,
        metrics: Metrics,
    ) -> Result<EnginePool, Failure> {
        let devices = device::each(config.device).map_err(|cause| HostError::Build(cause.to_string()))?;
        let members =
            models.iter().map(|served| ModelSpec { name: served.model.name.clone(), bytes: served.bytes }).collect();
        let wanted: Vec<String> =
            models.iter().filter(|served| served.at_start).map(|served| served.model.name.clone()).collect();
        let (settings, listed) = (config.clone(), models.clone());
        let look = move |name: &str| {
            let model = find(&listed, name).map_err(|cause| cause.to_string())?;
            model.paths().try_for_each(checks::weights::sound)
        };
        let start = move |name: String| -> std::pin::Pin<Box<dyn Future<Output = _> + Send>> {
            let (settings, devices, metrics) = (settings.clone(), devices.clone(), metrics.clone());
            let model = find(&models, &name).cloned();
            Box::pin(async move { start_all(&settings, &model?, &devices, &metrics).await })
        };
        let pool = EnginePool::new(members, config.models_memory(), Box::new(start)).with_inspection(Arc::new(look));
        for name in wanted {
            pool.engine(&name).await?;
        }
        Ok(pool)
    }

    /// An engine on each device; they load side by side.
    async fn start_all(
        config: &Config,
        model: &ServedModel,
        devices: &[Device],
        metrics: &Metrics,
    ) -> Result<Vec<Host>, HostError> {
        let _ahead = ahead(config, model);
        let mut starting = JoinSet::new();
        for (number, device) in devices.iter().copied().enumerate() {
            let (config, model, metrics) = (config.clone(), model.clone(), metrics.clone());
            starting.spawn(async move { start(&config, &model, device, number, metrics).await });
        }
        starting.join_all().await.into_iter().collect()
    }

    /// Starts an engine on a thread of its own.
    async fn start(
        config: &Config,
        model: &ServedModel,
        device: Device,
        number: usize,
        metrics: Metrics,
    ) -> Result<Host, HostError> {
        let (settings, model) = (config.clone(), model.clone());
        let build = move || -> anyhow::Result<torch::TorchEngine> {
            // Whoever set it wants to know now; no job fails for it later.
            if let Some(folder) = &settings.embeddings_dir {
                fs::read_dir(folder).with_context(|| format!("embeddings_dir = {}", folder.display()))?;
            }
            let engine = load(&settings, &model, device)?.with_loras(settings.lora_dir.clone());
            Ok(engine.with_embeddings(settings.embeddings_dir.clone()))
        };
        host((config, device), (number, metrics), build).await
    }

    /// Starts what `build` makes on a thread of its own.
    pub(in super::super) async fn host(
        (config, device): (&Config, Device),
        (number, metrics): (usize, Metrics),
        build: impl FnOnce() -> anyhow::Result<torch::TorchEngine> + Send + 'static,
    ) -> Result<Host, HostError> {
        if torch::Target::choose(device, config.dtype).is_ok_and(|target| target.is_cpu()) {
            torch::device::cpu::prepare();
        }
        Host::with_metrics(&format!("engine-{number}"), metrics, build).await
    }

    /// Reads a model's weights onto a device, for an engine on this thread. Blocks.
    pub(in super::super) fn load(
        config: &Config,
        model: &ServedModel,
        device: Device,
    ) -> anyhow::Result<torch::TorchEngine> {
        let target = torch::Target::choose(device, config.dtype)?;
        // A checkpoint in one file brings no tokenizer.
        let tokenizer = config.models_dir.join("clip-tokenizer");
        let mut cuda = config.cuda.clone();
        if cuda.warm_up.is_none() {
            let Size { width, height } = defaults(&model.model.path)?.size();
            cuda.warm_up = Some(vec![(width, height)]);
        }
        let refiner = model.refiner.as_ref().map(|refiner| refiner.path.as_path());
        let engine = torch::TorchEngine::load((&model.model.path, refiner), &tokenizer, target, &cuda)?;
        Ok(engine.with_threads_that_suit())
    }

    fn find<'a>(models: &'a [ServedModel], name: &str) -> Result<&'a ServedModel, HostError> {
        let found = models.iter().find(|served| served.model.name == name);
        found.ok_or_else(|| HostError::Build(format!("there is no model {name:?}")))
    }
}

#[cfg(not(feature = "torch"))]
mod without {
    use std::future::{Ready, ready};

    use super::super::checks::Check;
    use crate::config::{Config, ServedModel};
    use crate::disk::ahead::Ahead;
    use crate::engine::host::Host;
    use crate::engine::pool::EnginePool;
    use crate::job::{Code, JobError};
    use crate::telemetry::Metrics;
    use crate::worker::Failure;

    /// What a build without an engine says.
    pub(in super::super) const MISSING: &str = "this build of latentd has no engine: build it with the feature `torch`";

    /// There are none that anything would use.
    pub(in super::super) fn devices(_: &Config, _: u64) -> Vec<Check> {
        Vec::new()
    }

    /// Nothing is read.
    pub(in super::super) fn ahead(_: &Config, _: &ServedModel) -> Ahead {
        Ahead::of(&[])
    }

    fn missing() -> Failure {
        JobError { code: Code::NotBuilt, message: MISSING.into(), field: None }.into()
    }

    /// There is none.
    pub(in super::super) fn start_one(_: &Config, _: &[ServedModel], _: String) -> Ready<Result<Host, Failure>> {
        ready(Err(missing()))
    }

    /// There is none.
    pub(in super::super) fn pool(_: &Config, _: Vec<ServedModel>, _: Metrics) -> Ready<Result<EnginePool, Failure>> {
        ready(Err(missing()))
    }
}
