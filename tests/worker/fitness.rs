//! Whether a worker is fit, before it takes a job, and who is told if it is not.

use std::fs;
use std::path::PathBuf;

use latentd::app::checks::{Check, Verdict};
use latentd::app::fitness::{MachineChecks, pictures};
use latentd::config::FitnessConfig;
use latentd::engine::fake::Fake;
use latentd::engine::host::Host;
use latentd::engine::pool::{EnginePool, ModelSpec, StartEngines};
use latentd::engine::{Engine, EngineLoad, Event, Memory, Poisoned, Ticket};
use latentd::job::{Code, Contract, Defaults, JobError, OfferedModel, Spec};
use latentd::worker::slots;

use crate::worker::engine::source;
use crate::worker::queue::{Queue, Reply, status};

const LIMITS: FitnessConfig = FitnessConfig { machine: true, min_memory: Some(0.0), min_disk: Some(0.0) };

/// A machine with nothing to complain of, whose results go to `spool`.
fn machine(spool: PathBuf) -> MachineChecks {
    MachineChecks { limits: LIMITS, devices: Box::new(|_| Vec::new()), spool, models: Vec::new() }
}

#[tokio::test]
async fn a_machine_is_fit_until_something_is_amiss() {
    let folder = tempfile::tempdir().unwrap();
    let spool = || folder.path().join("spool");
    assert_eq!(machine(spool()).examine().await, Ok(()));

    let full = FitnessConfig { min_disk: Some(100.1), ..LIMITS };
    let unfit = MachineChecks { limits: full, ..machine(spool()) }.examine().await.unwrap_err();
    assert!(unfit.check == "disk" && unfit.why.contains("asks for 100.1 %"), "{unfit}");
    let skipped = FitnessConfig { machine: false, ..full };
    assert_eq!(MachineChecks { limits: skipped, ..machine(spool()) }.examine().await, Ok(()));

    let starved = FitnessConfig { min_memory: Some(1e9), ..LIMITS };
    let unfit = MachineChecks { limits: starved, ..machine(spool()) }.examine().await.unwrap_err();
    assert!(unfit.check == "memory" && unfit.why.contains("RUNPOD_MIN_MEMORY_GB"), "{unfit}");

    let taken = folder.path().join("file");
    fs::write(&taken, "").unwrap();
    assert_eq!(machine(taken).examine().await.unwrap_err().check, "disk");
}

#[tokio::test]
async fn a_device_that_cannot_be_used_is_told_first_and_knows_what_it_is_to_hold() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model/unet");
    fs::create_dir_all(&model).unwrap();
    fs::write(model.join("a.safetensors"), "broken off").unwrap();
    let lost = |weights: u64| {
        let found = format!("no device for {weights} bytes");
        vec![Check { name: "device", verdict: Verdict::Fail, found, advice: Some("mend it".into()) }]
    };
    let models = vec![folder.path().join("model")];
    let ill = MachineChecks { devices: Box::new(lost), models: models.clone(), ..machine(folder.path().into()) };
    let unfit = ill.examine().await.unwrap_err();
    assert_eq!(unfit.to_string(), "device: no device for 10 bytes; mend it");

    // Looked at even where the machine is not: what the copy broke off of cannot be loaded.
    let limits = FitnessConfig { machine: false, ..LIMITS };
    let unfit = MachineChecks { limits, models, ..machine(folder.path().into()) }.examine().await.unwrap_err();
    assert!(unfit.check == "weights" && unfit.why.contains("a.safetensors"), "{unfit}");
}

/// An engine that is told what becomes of its pictures, on a device of 10 GiB of which each 512×512 keeps one.
#[derive(Debug)]
struct Ill {
    fake: Fake,
    fault: Option<&'static str>,
    taken: u64,
}

impl Engine for Ill {
    fn admit(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError> {
        if spec.size.width >= 512 {
            self.taken += 1 << 30;
        }
        match self.fault {
            Some("refuses") => {
                Err(JobError { code: Code::OutOfMemory, message: "it does not fit".into(), field: None })
            }
            Some("inpaints alone") if spec.start.as_ref().is_none_or(|start| start.mask.is_none()) => {
                Err(JobError { code: Code::InvalidInput, message: "mask is missing".into(), field: None })
            }
            _ => self.fake.admit(ticket, spec),
        }
    }

    fn advance(&mut self) -> Result<Vec<(Ticket, Event)>, Poisoned> {
        if self.fault == Some("is lost") {
            return Err(Poisoned { reason: "the device fell off the bus".into() });
        }
        let events = self.fake.advance()?;
        let wanted = |event: &Event| self.fault != Some("draws nothing") || !matches!(event, Event::Image { .. });
        Ok(events.into_iter().filter(|(_, event)| wanted(event)).collect())
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.fake.cancel(ticket);
    }

    fn busy(&self) -> bool {
        self.fake.busy()
    }

    fn most_rows(&self) -> usize {
        16
    }

    fn load(&self) -> EngineLoad {
        self.fake.load()
    }

    fn memory(&self) -> Option<Memory> {
        let total = 10 << 30;
        Some(Memory { free: total - self.taken, total })
    }
}

/// A model on two devices, of which the second may be ill.
fn pool(fault: Option<&'static str>) -> EnginePool {
    let start: Box<StartEngines> = Box::new(move |_| {
        Box::pin(async move {
            let engine = |fault| move || Ok::<_, String>(Ill { fake: Fake::default(), fault, taken: 0 });
            Ok(vec![Host::start("engine-a", engine(None)).await?, Host::start("engine-b", engine(fault)).await?])
        })
    });
    EnginePool::new(vec![ModelSpec { name: "m".into(), bytes: 1 }], None, start)
}

#[tokio::test]
async fn every_engine_draws_before_the_first_job() {
    let models = [OfferedModel::new("m", Contract::Sd1)];
    let rooms = pictures(&pool(None), &models).await.unwrap();
    // An image takes 1 GiB of the 10, so that rows are what decides: eight images an engine, and one more job.
    assert_eq!((rooms.len(), slots(&rooms)), (2, 17));
    for (fault, why) in [
        ("refuses", "m: it does not fit"),
        ("is lost", "m: the engine was lost while the job ran"),
        ("draws nothing", "m: 0 pictures came of one"),
    ] {
        let unfit = pictures(&pool(Some(fault)), &models).await.unwrap_err();
        assert!(unfit.check == "picture" && unfit.why.starts_with(why), "{fault}: {unfit}");
    }
    let unfit = pictures(&pool(None), &[OfferedModel::new("other", Contract::Sd1)]).await.unwrap_err();
    assert!(unfit.why.contains("there is no model"), "{unfit}");
}

#[tokio::test]
async fn an_engine_that_inpaints_alone_is_given_something_to_repaint() {
    let model = |inpaints| OfferedModel::new("m", Defaults::from(Contract::Sdxl).with_inpaints(inpaints));
    let inpainting = pool(Some("inpaints alone"));
    assert_eq!(pictures(&inpainting, &[model(true)]).await.unwrap().len(), 2);
    assert_eq!(pictures(&pool(None), &[model(true)]).await.unwrap().len(), 2);
    let unfit = pictures(&inpainting, &[model(false)]).await.unwrap_err();
    assert_eq!(unfit.why, "m: mask is missing");
}

#[tokio::test]
async fn the_queue_hears_as_from_the_sdk_why_a_worker_is_not_fit() {
    let queue = Queue::start().await;
    source(&queue).unhealthy("my_check", "model file missing").await;
    let long = "ä".repeat(1000);
    source(&queue).unhealthy("disk", &long).await;
    let asked = queue.asked("ping");
    let version = concat!("runpod_version=latentd%2F", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        asked[0].path,
        format!(
            "/v2/ep1/ping/pod-abc?gpu=X&status=unhealthy&check=my_check&reason=FitnessError%3A%20model%20file%20missing&{version}"
        )
    );
    let reason = asked[1].path.split("&reason=").nth(1).unwrap().split('&').next().unwrap();
    assert_eq!(reason.matches("%C3%A4").count(), 256 - "FitnessError: ".len());
}

#[tokio::test]
async fn a_queue_that_does_not_answer_holds_up_no_farewell() {
    let queue = Queue::start().await;
    queue.answer("ping", Reply::Hold).answer("ping", status(500));
    tokio::time::pause();
    source(&queue).unhealthy("disk", "full").await;
    source(&queue).unhealthy("disk", "full").await;
    assert_eq!(queue.asked("ping").len(), 2);
}
