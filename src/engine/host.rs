//! The engine's thread: builds an [`Engine`], feeds it jobs between evaluations, and tells its jobs when it fails.
//!
//! The engine never waits for a client: what a job has to tell goes into a channel that holds all of it. A job is cancelled by dropping the
//! receiver, at the latest after the evaluation that runs. A panic ends the engine, not the process.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use super::events::JobEvents;
use super::events::{JobEventSender, channel};
use super::{Engine, EngineLoad, Event, Memory, Poisoned, Ticket};
use crate::job::{JobError, Spec};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::EngineMetrics;

/// Jobs that may wait for the engine's thread; more wait in [`Host::submit`].
const MAX_WAITING: usize = 16;

/// Between looks at the device's memory: a look at a GPU takes about as long as a small evaluation on it.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no engine to submit to.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine could not be built; the message says why.
    #[error("{0}")]
    Build(String),
    /// The engine has stopped; the log says why.
    #[error("the engine has stopped")]
    Stopped,
}

/// A running engine. Dropping it lets the thread end after the evaluation that runs.
#[derive(Debug)]
pub struct Host {
    submissions: mpsc::Sender<Submission>,
    load: Duration,
    /// Cancelled when the thread has dropped the engine.
    ended: CancellationToken,
    snapshot: watch::Receiver<Snapshot>,
}

struct Submission {
    asked: Instant,
    spec: Spec,
    events: JobEventSender,
}

impl Host {
    /// Builds an engine on a thread of its own called `name` and waits until it is ready.
    ///
    /// # Errors
    /// [`HostError::Build`] with what `build` said, or that it panicked.
    pub async fn start<E, B, F>(name: &str, build: B) -> Result<Self, HostError>
    where
        E: Engine,
        F: std::fmt::Display,
        B: FnOnce() -> Result<E, F> + Send + 'static,
    {
        Self::with_metrics(name, Metrics::default(), build).await
    }

    /// The same, and tells `metrics` what the engine does.
    ///
    /// # Errors
    /// As for [`Host::start`].
    pub async fn with_metrics<E, B, F>(name: &str, metrics: Metrics, build: B) -> Result<Self, HostError>
    where
        E: Engine,
        F: std::fmt::Display,
        B: FnOnce() -> Result<E, F> + Send + 'static,
    {
        let (submissions, waiting) = mpsc::channel(MAX_WAITING);
        let (snapshots, snapshot) = watch::channel(Snapshot::default());
        let (ready, built) = oneshot::channel();
        let started = Instant::now();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        let observer = Observer { metrics: metrics.engine(name), snapshots, last_look: None };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                run_engine(build, ready, waiting, observer);
                drop(end);
            })
            .map_err(|cause| HostError::Build(format!("no thread for the engine: {cause}")))?;
        built.await.map_err(|_| HostError::Build("the engine panicked while it was built".into()))??;
        let load = started.elapsed();
        info!(ms = load.as_millis() as u64, "engine ready");
        Ok(Self { submissions, load, ended, snapshot })
    }

    /// Memory of the engine's device when it was last looked at, at most a second before its last evaluation ended; `None` where
    /// it cannot be asked.
    pub fn memory(&self) -> Option<Memory> {
        self.snapshot.borrow().memory
    }

    /// Rows of an evaluation at the usual size beyond which nothing is gained.
    pub fn most_rows(&self) -> usize {
        self.snapshot.borrow().most_rows
    }

    /// Waits until the engine has warmed up, which it does while it has no job, or until it is gone.
    pub async fn warm(&self) {
        let _ = self.snapshot.clone().wait_for(|snapshot| snapshot.warm).await;
    }

    /// Ends the engine after the jobs that it has, and waits until what it held is free.
    pub async fn end(self) {
        drop(self.submissions);
        self.ended.cancelled().await;
    }

    /// How long the engine took to build: its device is set up and its weights are loaded. It warms up later.
    pub fn load_time(&self) -> Duration {
        self.load
    }

    /// Hands a job to the engine; waits while many wait already. Dropping what comes of it cancels the job.
    ///
    /// # Errors
    /// [`HostError::Stopped`] when the engine is gone.
    pub async fn submit(&self, spec: Spec) -> Result<JobEvents, HostError> {
        let (sender, events) = channel();
        let submission = Submission { asked: Instant::now(), spec, events: sender };
        self.submissions.send(submission).await.map_err(|_| HostError::Stopped)?;
        Ok(events)
    }
}

/// The life of the engine's thread.
fn run_engine<E, B, F>(
    build: B,
    ready: oneshot::Sender<Result<(), HostError>>,
    submissions: mpsc::Receiver<Submission>,
    mut observer: Observer,
) where
    E: Engine,
    F: std::fmt::Display,
    B: FnOnce() -> Result<E, F>,
{
    // Tensors are dropped on the thread that made them, panic or not, because the engine lives inside this call.
    let life = catch_unwind(AssertUnwindSafe(|| {
        let engine = match build() {
            Ok(engine) => engine,
            Err(cause) => return drop(ready.send(Err(HostError::Build(cause.to_string())))),
        };
        observer.observe(&engine);
        if ready.send(Ok(())).is_ok() {
            EngineLoop { engine, submissions, clients: HashMap::new(), next: 0, observer }.run();
        }
    }));
    if life.is_err() {
        error!("the engine panicked; its jobs are lost to it and its thread ends");
    }
}

/// What is seen of an engine from outside of its thread.
#[derive(Debug, Clone, Copy, Default)]
struct Snapshot {
    memory: Option<Memory>,
    most_rows: usize,
    warm: bool,
}

/// Tells what an engine does.
struct Observer {
    metrics: EngineMetrics,
    snapshots: watch::Sender<Snapshot>,
    last_look: Option<Instant>,
}

impl Observer {
    /// After a call of [`Engine::advance`] that took this long.
    fn advanced(&mut self, engine: &impl Engine, time: Duration) {
        let EngineLoad { lanes, rows } = engine.load();
        self.metrics.lanes(lanes);
        if rows > 0 {
            self.metrics.evaluated(rows, time);
        }
        // What is seen when there is nothing more to do stays true for a while.
        if !engine.busy() || self.last_look.is_none_or(|last| last.elapsed() >= MEMORY_INTERVAL) {
            self.observe(engine);
        }
    }

    /// After an evaluation without a job, when so many shapes are left.
    fn warmed(&mut self, engine: &impl Engine, left: usize) {
        self.metrics.warmed(left);
        if left == 0 {
            self.observe(engine);
        }
    }

    /// There is nothing to warm up, or nothing more.
    fn warm(&self) {
        self.snapshots.send_if_modified(|snapshot| !std::mem::replace(&mut snapshot.warm, true));
    }

    fn observe(&mut self, engine: &impl Engine) {
        self.last_look = Some(Instant::now());
        let memory = engine.memory();
        if let Some(Memory { free, total }) = memory {
            self.metrics.memory(free, total);
        }
        self.snapshots.send_modify(|snapshot| (snapshot.memory, snapshot.most_rows) = (memory, engine.most_rows()));
    }
}

/// One engine at work.
struct EngineLoop<E> {
    engine: E,
    submissions: mpsc::Receiver<Submission>,
    clients: HashMap<Ticket, JobEventSender>,
    next: u64,
    observer: Observer,
}

impl<E: Engine> EngineLoop<E> {
    fn run(mut self) {
        if let Err(poison) = self.work() {
            self.fail_all(&poison.to_string());
        }
    }

    fn work(&mut self) -> Result<(), Poisoned> {
        while self.take_in()? {
            self.drop_abandoned();
            if !self.engine.busy() {
                continue;
            }
            let began = Instant::now();
            let events = self.engine.advance()?;
            self.observer.advanced(&self.engine, began.elapsed());
            for (ticket, event) in events {
                self.report(ticket, event);
            }
        }
        Ok(())
    }

    /// Admits the jobs that wait; when there is nothing else to do, warms the engine up and sleeps until one comes. False when no more jobs can
    /// come.
    fn take_in(&mut self) -> Result<bool, Poisoned> {
        if !self.engine.busy() {
            match self.next()? {
                Some(submission) => self.admit(submission),
                None => return Ok(false),
            }
        }
        loop {
            match self.submissions.try_recv() {
                Ok(submission) => self.admit(submission),
                Err(TryRecvError::Empty) => return Ok(true),
                // Jobs in hand are finished, for clients that hold their receivers still.
                Err(TryRecvError::Disconnected) => return Ok(self.engine.busy()),
            }
        }
    }

    /// The next job. Until it comes the engine warms up, and looks for one after each evaluation.
    fn next(&mut self) -> Result<Option<Submission>, Poisoned> {
        loop {
            match self.submissions.try_recv() {
                Ok(submission) => return Ok(Some(submission)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => {}
            }
            let Some(left) = self.engine.warm_up()? else {
                self.observer.warm();
                return Ok(self.submissions.blocking_recv());
            };
            self.observer.warmed(&self.engine, left);
        }
    }

    fn admit(&mut self, Submission { asked, spec, events }: Submission) {
        let waited = asked.elapsed();
        if events.is_closed() {
            return;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.clients.insert(ticket, events);
        match self.engine.admit(ticket, &spec) {
            Ok(warnings) => self.report(ticket, Event::Admitted { waited, warnings }),
            Err(cause) => self.report(ticket, Event::Failed(cause)),
        }
    }

    fn drop_abandoned(&mut self) {
        let abandoned: Vec<Ticket> =
            self.clients.extract_if(|_, events| events.is_closed()).map(|(ticket, _)| ticket).collect();
        for ticket in abandoned {
            self.engine.cancel(ticket);
            self.observer.metrics.lanes(self.engine.load().lanes);
        }
    }

    fn report(&mut self, ticket: Ticket, event: Event) {
        let Some(events) = self.clients.get(&ticket) else { return };
        let is_last = matches!(event, Event::Finished(_) | Event::Failed(_));
        events.send(event);
        if is_last {
            self.clients.remove(&ticket);
        }
    }

    fn fail_all(&mut self, reason: &str) {
        error!(cause = reason, jobs = self.clients.len(), "the engine stops");
        let tickets: Vec<Ticket> = self.clients.keys().copied().collect();
        for ticket in tickets {
            self.report(ticket, Event::Failed(JobError::engine_lost(reason)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::engine::Progress;
    use crate::engine::fake::{Fake, spec};
    use crate::job::Code;

    async fn host(fake: Fake) -> Host {
        Host::start("engine-test", move || Ok::<_, HostError>(fake)).await.unwrap()
    }

    async fn outcome(mut events: JobEvents) -> (usize, Event) {
        let mut images = 0;
        loop {
            match events.next().await.unwrap() {
                Event::Image { .. } => images += 1,
                Event::Admitted { .. } | Event::Progress(_) | Event::Preview(_) => {}
                last => return (images, last),
            }
        }
    }

    async fn progress(events: &mut JobEvents) -> Progress {
        loop {
            if let Event::Progress(progress) = events.next().await.unwrap() {
                return progress;
            }
        }
    }

    #[tokio::test]
    async fn a_job_delivers_every_image_and_its_progress() {
        let host = host(Fake::default()).await;
        let mut events = host.submit(spec(3, 4)).await.unwrap();
        let (mut images, mut last, mut end) = (0, Progress::default(), None);
        while let Some(event) = events.next().await {
            match event {
                Event::Image { .. } => images += 1,
                Event::Progress(progress) => last = progress,
                Event::Finished(timings) => end = Some(timings.evaluations),
                _ => {}
            }
        }
        assert_eq!((images, last, end), (3, Progress { done: 12, total: 12 }, Some(12)));
    }

    #[tokio::test]
    async fn jobs_in_flight_share_the_engine() {
        let host = host(Fake::default()).await;
        let mut long = host.submit(spec(1, u32::MAX)).await.unwrap();
        let short = host.submit(spec(1, 2)).await.unwrap();
        assert!(matches!(outcome(short).await.1, Event::Finished(_)));
        let Progress { done, total } = progress(&mut long).await;
        assert!(done < total, "the short job waited for the long one");
    }

    #[tokio::test]
    async fn a_dropped_receiver_is_a_cancelled_job() {
        let metrics = Metrics::default();
        let host = Host::with_metrics("engine-test", metrics.clone(), || Ok::<_, HostError>(Fake::default())).await;
        let host = host.unwrap();
        let mut endless = host.submit(spec(10, 1_000_000)).await.unwrap();
        progress(&mut endless).await;
        assert!(metrics.text().contains("latentd_lanes 10\n"));
        drop(endless);
        let (images, _) = outcome(host.submit(spec(2, 1)).await.unwrap()).await;
        assert_eq!(images, 2);
        assert!(metrics.text().contains("latentd_lanes 0\n"), "nothing of the first job is left");
    }

    #[tokio::test]
    async fn a_poisoned_engine_tells_its_jobs_and_takes_no_more() {
        let host = host(Fake::poisoned_after(2)).await;
        let (_, last) = outcome(host.submit(spec(1, 9)).await.unwrap()).await;
        assert!(matches!(last, Event::Failed(cause) if cause.code == Code::EngineLost));
        host.submissions.closed().await;
        assert!(matches!(host.submit(spec(1, 1)).await, Err(HostError::Stopped)));
    }

    #[tokio::test]
    async fn a_panic_ends_the_engine_and_not_the_process() {
        let host = host(Fake::panicking_after(1)).await;
        let mut events = host.submit(spec(1, 9)).await.unwrap();
        while let Some(event) = events.next().await {
            assert!(!matches!(event, Event::Finished(_)));
        }
        host.submissions.closed().await;
    }

    #[tokio::test]
    async fn an_engine_ends_after_its_jobs() {
        let host = host(Fake::default()).await;
        let events = host.submit(spec(2, 100)).await.unwrap();
        host.end().await;
        assert_eq!(outcome(events).await.0, 2);
    }

    #[tokio::test]
    async fn an_engine_warms_up_while_nobody_waits_and_counts_it() {
        let metrics = Metrics::default();
        let build = || Ok::<_, HostError>(Fake::cold(3));
        let host = Host::with_metrics("engine-test", metrics.clone(), build).await.unwrap();
        host.warm().await;
        let text = metrics.text();
        assert!(text.contains("latentd_warm_up_evaluations_total 3\n"), "{text}");
        assert!(text.contains("latentd_warm_up_shapes_left{engine=\"engine-test\"} 0\n"), "{text}");
        assert_eq!(outcome(host.submit(spec(1, 2)).await.unwrap()).await.0, 1);
    }

    #[tokio::test]
    async fn a_job_does_not_wait_for_the_end_of_a_warm_up() {
        let host = host(Fake::cold(usize::MAX)).await;
        for _ in 0..3 {
            assert_eq!(outcome(host.submit(spec(2, 2)).await.unwrap()).await.0, 2);
        }
        host.end().await;
    }

    #[tokio::test]
    async fn a_failed_build_says_why() {
        let built = Host::start("engine-test", || Err::<Fake, _>("no weights")).await;
        assert!(matches!(built, Err(HostError::Build(why)) if why == "no weights"));
    }
}
