//! An engine that draws some jobs at once and others when it is told to; what it delivers with; and a worker with them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use latentd::clock::{SystemClock, WallClock};
use latentd::config::SigningKey;
use latentd::deliver::outbox::{Outbox, RetryPolicy, WebhookClient};
use latentd::deliver::results::Results;
use latentd::deliver::runpod::RunPodSink;
use latentd::deliver::spool::Spool;
use latentd::deliver::upload::Uploads;
use latentd::deliver::webhook::Signer;
use latentd::deliver::{DeliveryParts, Sink, WorkerWebhooks};
use latentd::engine::fake::Fake;
use latentd::engine::host::Host;
use latentd::engine::pool::{EnginePool, ModelSpec, StartEngines};
use latentd::engine::{Engine, EngineLoad, Event, Memory, Picture, Poisoned, Progress, Ticket};
use latentd::intake::{Intake, IntakeLimits};
use latentd::job::{Contract, JobError, OfferedModel, Spec};
use latentd::net::{Client, Guard, TrustedClient};
use latentd::source::runpod::{RunPodSource, Urls};
use latentd::stop::Stop;
use latentd::telemetry::{Metrics, Telemetry};
use latentd::worker::{Resources, WorkerEnd, WorkerOptions, work};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::worker::queue::Queue;

/// An input of this prompt that takes no time, unless the prompt is `endless`, or `first`: then it has its first image.
pub(crate) fn input(prompt: &str) -> Value {
    json!({"prompt": prompt, "width": 128, "height": 128, "num_inference_steps": 2, "seed": 7})
}

/// What a test sees of the engine and does to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hand {
    released: Arc<AtomicBool>,
    cancelled: Arc<AtomicUsize>,
}

impl Hand {
    /// Lets endless jobs end.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// Endless jobs that were ended from outside.
    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// A [`Fake`] with patience: jobs with the prompt `endless` go on until they are released.
#[derive(Debug, Default)]
pub(crate) struct Patient {
    fake: Fake,
    endless: Vec<(Ticket, Spec, u32)>,
    hand: Hand,
}

impl Engine for Patient {
    fn admit(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError> {
        match spec.prompt.as_str() {
            "endless" | "first" => self.endless.push((ticket, spec.clone(), 0)),
            "panic" => panic!("the engine was told to panic"),
            _ => drop(self.fake.admit(ticket, spec)?),
        }
        Ok(vec!["a warning".into()])
    }

    fn advance(&mut self) -> Result<Vec<(Ticket, Event)>, Poisoned> {
        if self.hand.released.load(Ordering::SeqCst) {
            for (ticket, spec, _) in self.endless.drain(..) {
                let _ = self.fake.admit(ticket, &spec);
            }
        }
        let mut events = if self.fake.busy() { self.fake.advance()? } else { Vec::new() };
        for (ticket, spec, done) in &mut self.endless {
            *done += 1;
            if *done == 1 && spec.prompt == "first" {
                let (width, height) = (spec.size.width, spec.size.height);
                let picture = Picture { width, height, pixels: vec![7; (width * height * 3) as usize] };
                events.push((*ticket, Event::Image { index: 0, seed: spec.seed, picture }));
            }
            if spec.preview {
                let picture = Picture { width: 2, height: 1, pixels: vec![*done as u8; 6] };
                events.push((*ticket, Event::Preview(picture)));
            }
            events.push((*ticket, Event::Progress(Progress { done: *done, total: u32::MAX })));
        }
        // As long as a real evaluation, that the machine has time for others.
        thread::park_timeout(Duration::from_millis(1));
        Ok(events)
    }

    fn cancel(&mut self, ticket: Ticket) {
        let before = self.endless.len();
        self.endless.retain(|(endless, ..)| *endless != ticket);
        self.hand.cancelled.fetch_add(before - self.endless.len(), Ordering::SeqCst);
        self.fake.cancel(ticket);
    }

    fn busy(&self) -> bool {
        !self.endless.is_empty() || self.fake.busy()
    }

    fn most_rows(&self) -> usize {
        16
    }

    fn load(&self) -> EngineLoad {
        let EngineLoad { lanes, rows } = self.fake.load();
        EngineLoad { lanes: lanes + self.endless.len(), rows: rows + self.endless.len() }
    }

    fn memory(&self) -> Option<Memory> {
        Some(Memory { free: 1 << 30, total: 1 << 34 })
    }
}

/// A worker with one slot, that sends no timings.
pub(crate) const OPTIONS: WorkerOptions = WorkerOptions {
    slots: 1,
    drain: Duration::from_secs(100),
    start_deadline: None,
    refresh: false,
    send_timings: false,
    max_bytes: None,
};

/// A worker at work.
pub(crate) struct Worker {
    pub(crate) stop: Stop,
    pub(crate) hand: Hand,
    pub(crate) telemetry: Telemetry,
    task: JoinSet<Result<WorkerEnd, &'static str>>,
}

impl Worker {
    /// On `queue`, with all of its routes.
    pub(crate) async fn start(queue: &Queue, options: WorkerOptions) -> Self {
        let hand = Hand::default();
        let engine = Patient { hand: hand.clone(), ..Patient::default() };
        Self::with(queue, options, engine, hand).await
    }

    pub(crate) async fn with<E: Engine + Send + 'static>(
        queue: &Queue,
        options: WorkerOptions,
        engine: E,
        hand: Hand,
    ) -> Self {
        let telemetry = Telemetry::default();
        let sink = sink(queue).with_metrics(telemetry.metrics.clone());
        Self::from(queue, parts(sink, Spool::in_memory(1 << 30)), options, (engine, hand), telemetry).await
    }

    /// On `queue`, delivering with `parts`.
    pub(crate) async fn at<K: Sink>(queue: &Queue, parts: DeliveryParts<K>, options: WorkerOptions) -> Self {
        let hand = Hand::default();
        let engine = Patient { hand: hand.clone(), ..Patient::default() };
        Self::from(queue, parts, options, (engine, hand), Telemetry::default()).await
    }

    async fn from<K: Sink, E: Engine + Send + 'static>(
        queue: &Queue,
        parts: DeliveryParts<K>,
        options: WorkerOptions,
        (engine, hand): (E, Hand),
        telemetry: Telemetry,
    ) -> Self {
        let resources = watched(engine, &telemetry).await;
        Self { hand, ..Self::when(queue, parts, telemetry, async move { Ok((resources, options)) }) }
    }

    /// On `queue`, delivering with `parts`, and working with whatever `ready` says.
    pub(crate) fn when<K: Sink>(
        queue: &Queue,
        parts: DeliveryParts<K>,
        telemetry: Telemetry,
        ready: impl Future<Output = Result<(Resources, WorkerOptions), &'static str>> + Send + 'static,
    ) -> Self {
        Self::of(source(queue), parts, telemetry, ready)
    }

    /// On the queue that `source` takes from, delivering with `parts`, and working with whatever `ready` says.
    pub(crate) fn of<K: Sink>(
        source: RunPodSource,
        parts: DeliveryParts<K>,
        telemetry: Telemetry,
        ready: impl Future<Output = Result<(Resources, WorkerOptions), &'static str>> + Send + 'static,
    ) -> Self {
        let (source, stop) = (source.with_metrics(telemetry.metrics.clone()), Stop::default());
        let (mut task, seen, stopped) = (JoinSet::new(), telemetry.clone(), stop.clone());
        task.spawn(async move { work(&source, parts, seen, ready, stopped).await });
        Self { stop, hand: Hand::default(), telemetry, task }
    }

    /// How it ends.
    pub(crate) async fn end(self) -> WorkerEnd {
        self.came_to().await.unwrap()
    }

    /// How it ends, or why it cannot work.
    pub(crate) async fn came_to(mut self) -> Result<WorkerEnd, &'static str> {
        self.task.join_next().await.unwrap().unwrap()
    }

    /// Tells it to stop, and waits for it.
    pub(crate) async fn stop(self) -> WorkerEnd {
        self.stop.draining.cancel();
        self.end().await
    }
}

/// Parts that call what is at home on this machine, and webhooks signed, and again after a short pause.
pub(crate) fn parts<K: Sink>(sink: K, spool: Spool) -> DeliveryParts<K> {
    let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
    let here = Client::new(Guard::new(vec!["127.0.0.1/32".parse().unwrap()])).unwrap();
    let retry = RetryPolicy { most: 3, pause: Duration::from_millis(50), time: Duration::from_secs(30) };
    let signer = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").map(Signer::new);
    let (results, left) = Results::open(&spool, sink, Arc::clone(&clock));
    let uploads = Uploads::new(here.clone(), here.clone(), None, Arc::clone(&clock));
    let (outbox, deliveries) =
        Outbox::open(&spool, WebhookClient { client: here, signer, retry, clock, metrics: Metrics::default() });
    let webhooks = Some(WorkerWebhooks { outbox, always: false, cancelled: true, worker: "pod-abc".into() });
    DeliveryParts { spool, results, left, uploads, webhooks, deliveries: Some(deliveries) }
}

pub(crate) async fn resources<E: Engine + Send + 'static>(engine: E) -> Resources {
    watched(engine, &Telemetry::default()).await
}

async fn watched<E: Engine + Send + 'static>(engine: E, telemetry: &Telemetry) -> Resources {
    let engine = Mutex::new(Some(engine));
    let metrics = telemetry.metrics.clone();
    let start: Box<StartEngines> = Box::new(move |_| {
        let (engine, metrics) = (engine.lock().unwrap().take(), metrics.clone());
        let build = move || engine.ok_or("the engine was there before");
        Box::pin(async move { Ok(vec![Host::with_metrics("engine-test", metrics, build).await?]) })
    });
    let pool = EnginePool::new(vec![ModelSpec { name: "m".into(), bytes: 1 }], None, start);
    // Loaded from the start, as in the worker.
    drop(pool.engine("m").await.unwrap());
    let limits = IntakeLimits { bytes: 1 << 20, pixels: 1 << 20, time: Duration::from_secs(10) };
    Resources {
        pool: Arc::new(pool),
        intake: Intake::new(Client::new(Guard::default()).unwrap(), limits),
        models: vec![OfferedModel::new("m", Contract::Sd1)],
        loras: Arc::new(Vec::new),
        log_prompts: false,
    }
}

/// `queue` as a source of jobs for the worker `pod-abc`, with heartbeats that tests can wait for.
pub(crate) fn source(queue: &Queue) -> RunPodSource {
    source_at(&queue.base())
}

/// The same of the endpoint at this base.
pub(crate) fn source_at(base: &str) -> RunPodSource {
    let (take, ping) = (format!("{base}/job-take/$ID?gpu=X"), format!("{base}/ping/$RUNPOD_POD_ID?gpu=X"));
    let urls = Urls::new(&take, Some(&ping), "pod-abc").unwrap();
    RunPodSource::new(TrustedClient::new(Some("KEY123")).unwrap(), urls, Duration::from_millis(100))
}

/// `queue` as a place for results.
pub(crate) fn sink(queue: &Queue) -> RunPodSink {
    sink_at(&queue.base())
}

/// The same of the endpoint at this base.
pub(crate) fn sink_at(base: &str) -> RunPodSink {
    let route = |name: &str| format!("{base}/{name}/$RUNPOD_POD_ID/$ID?gpu=X");
    let http = TrustedClient::new(Some("KEY123")).unwrap();
    RunPodSink::new(http, &route("job-done"), Some(&route("job-stream")), "pod-abc").unwrap()
}
