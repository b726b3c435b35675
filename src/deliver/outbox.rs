//! Webhooks that survive the process: written down first, then sent until they are taken or have had their attempts.
//!
//! An [`Outbox`] is a handle. What it keeps is on disk; [`WebhookDeliveries::run`], which somebody owns as a task, sends it,
//! and begins with what an earlier process left. At least once: who dies after a receiver has answered sends again, with the
//! same `webhook-id`. Attempts are counted from zero after a restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::body::{FinalState, otherwise};
use super::spool::{EntryHeader, Spool, SpoolEntry, SpoolKind};
use super::webhook::{Signer, WebhookRequest, call};
use crate::clock::{Course, WallClock};
use crate::net::{self, Client};
use crate::queue::WebhookOutcome;
use crate::telemetry::Metrics;

/// How long after its event a webhook is still worth sending.
const WEBHOOK_LIFETIME: Duration = Duration::from_hours(24);

/// Receivers that are called at the same time. Who pauses is not counted.
const MAX_WEBHOOK_CALLS: usize = 16;

/// Of them at one host: what it makes wait is its own.
const MAX_CALLS_PER_HOST: usize = 4;

/// Webhooks that are under way at the same time, pauses included; more wait their turn.
const MAX_WEBHOOKS_IN_FLIGHT: usize = 1024;

/// How often and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// In all; at least one.
    pub most: u64,
    /// From the end of one to the next.
    pub pause: Duration,
    /// For each, redirects included.
    pub time: Duration,
}

/// What webhooks are sent with.
#[derive(Debug, Clone)]
pub struct WebhookClient {
    /// Its guard decides who may be called.
    pub client: Client,
    /// Signs, if webhooks are signed.
    pub signer: Option<Signer>,
    /// How often and how fast.
    pub retry: RetryPolicy,
    /// For timestamps.
    pub clock: Arc<dyn WallClock>,
    /// Is told what is sent again.
    pub metrics: Metrics,
}

/// Takes webhooks in.
#[derive(Debug, Clone)]
pub struct Outbox {
    kind: Arc<SpoolKind<WebhookRequest>>,
    queue: mpsc::Sender<SpoolEntry<WebhookRequest>>,
    course: Arc<Course>,
}

/// Sends what the outbox took in.
#[derive(Debug)]
pub struct WebhookDeliveries {
    left: Vec<SpoolEntry<WebhookRequest>>,
    queue: mpsc::Receiver<SpoolEntry<WebhookRequest>>,
    sender: Arc<WebhookSender>,
}

#[derive(Debug)]
struct WebhookSender {
    client: WebhookClient,
    /// For what is too late, whatever a clock is set to meanwhile.
    course: Arc<Course>,
    calls: Semaphore,
    /// By host; of hosts that nothing is under way to, nothing is left.
    shares: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Outbox {
    /// The outbox in `spool`, and what sends for it. To be opened once. Blocks.
    pub fn open(spool: &Spool, client: WebhookClient) -> (Self, WebhookDeliveries) {
        let (kind, left) = spool.open_kind("webhooks", client.clock.now());
        let (sender, receiver) = mpsc::channel(MAX_WEBHOOKS_IN_FLIGHT);
        let course = Arc::new(Course::new(Arc::clone(&client.clock)));
        let outbox = Self { kind: Arc::new(kind), queue: sender, course: Arc::clone(&course) };
        let sender = Arc::new(WebhookSender {
            client,
            course,
            calls: Semaphore::new(MAX_WEBHOOK_CALLS),
            shares: Mutex::default(),
        });
        (outbox, WebhookDeliveries { left, queue: receiver, sender })
    }

    /// Writes a webhook down with its whole body, of an event that is to come within `wait`. Dropped before it is sent, it is sent by
    /// the next process.
    pub async fn keep(&self, request: WebhookRequest, wait: Duration, body: Bytes) -> SpoolEntry<WebhookRequest> {
        self.kind.keep(request, self.course.now() + wait + WEBHOOK_LIFETIME, body).await
    }

    /// Has a webhook that was kept say that its job ended otherwise, and why; `None` if it can no longer be read, which is logged.
    pub async fn tell_otherwise(
        &self,
        entry: SpoolEntry<WebhookRequest>,
        state: FinalState,
        why: Option<&str>,
    ) -> Option<SpoolEntry<WebhookRequest>> {
        let told = entry.body().await.map_err(|damage| damage.to_string());
        match told.and_then(|told| otherwise(&told, state, why).ok_or_else(|| "its body is no status object".into())) {
            Ok(body) => {
                let request = entry.header().clone().of(state.name());
                Some(entry.exchange(request, body.into()).await)
            }
            Err(cause) => {
                error!(id = entry.header().job(), webhook = entry.header().id(), "the webhook is given up: {cause}");
                entry.done().await;
                None
            }
        }
    }

    /// Has a webhook sent.
    pub async fn send(&self, entry: SpoolEntry<WebhookRequest>) {
        // Nothing sends now: it is on disk, for the next process.
        let _ = self.queue.send(entry).await;
    }
}

impl WebhookDeliveries {
    /// Takes out what an earlier process left of jobs whose end is still to be told to their queue first: it is the caller's to send.
    pub fn hold_back(&mut self, first: impl Fn(&str) -> bool) -> Vec<SpoolEntry<WebhookRequest>> {
        self.left.extract_if(.., |entry| first(entry.header().job())).collect()
    }

    /// Sends until every [`Outbox`] is gone, or `close` is cancelled, and all that it was handed until then is sent. What is under way
    /// when it is dropped comes back with the next process.
    pub async fn run(mut self, close: CancellationToken) {
        let mut under_way = JoinSet::new();
        for entry in self.left.drain(..) {
            under_way.spawn(Arc::clone(&self.sender).deliver(entry));
        }
        let mut open = true;
        while open || !under_way.is_empty() {
            tokio::select! {
                () = close.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                Some(ended) = under_way.join_next() => {
                    if let Err(cause) = ended {
                        error!("a webhook's delivery failed, and will be made again after a restart: {cause}");
                    }
                }
                next = self.queue.recv(), if open && under_way.len() < MAX_WEBHOOKS_IN_FLIGHT => match next {
                    Some(entry) => {
                        under_way.spawn(Arc::clone(&self.sender).deliver(entry));
                    }
                    None => open = false,
                },
            }
        }
    }
}

impl WebhookSender {
    async fn deliver(self: Arc<Self>, entry: SpoolEntry<WebhookRequest>) {
        let request = entry.header();
        let host = net::host(&request.url).unwrap_or_default();
        let (id, webhook) = (request.job(), request.id());
        let (most, share) = (self.client.retry.most.max(1), self.share(&host));
        for attempt in 1..=most {
            if entry.deadline() <= self.course.now() {
                error!(id, webhook, host, "the webhook is given up: its time is over");
                break;
            }
            match self.attempt(&entry, &share).await {
                WebhookOutcome::Accepted => {
                    info!(id, webhook, host, attempt, "the webhook was taken");
                    break;
                }
                WebhookOutcome::Failed(cause) if attempt < most => {
                    self.client.metrics.retry("webhook");
                    warn!(id, webhook, host, attempt, "the webhook failed and will be sent again: {cause}");
                    sleep(self.client.retry.pause).await;
                }
                WebhookOutcome::Failed(cause) | WebhookOutcome::Refused(cause) => {
                    error!(id, webhook, host, attempt, "the webhook is given up: {cause}");
                    break;
                }
            }
        }
        entry.done().await;
    }

    /// The calls that may be open to a host.
    fn share(&self, host: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.strong_count() > 0);
        shares.get(host).and_then(Weak::upgrade).unwrap_or_else(|| {
            let share = Arc::new(Semaphore::new(MAX_CALLS_PER_HOST));
            shares.insert(host.to_owned(), Arc::downgrade(&share));
            share
        })
    }

    async fn attempt(&self, entry: &SpoolEntry<WebhookRequest>, share: &Semaphore) -> WebhookOutcome {
        // Never closed. Its host's first: who waits for that takes nothing from others. Bodies are read under both, so that only those of open
        // calls are in memory.
        let _of_host = share.acquire().await;
        let _call = self.calls.acquire().await;
        let WebhookClient { client, signer, retry, clock, .. } = &self.client;
        let body = match entry.body().await {
            Ok(body) => body,
            Err(damage) => return WebhookOutcome::Refused(damage.to_string()),
        };
        call(client, entry.header(), signer.as_ref(), clock.now(), body, retry.time).await.tried
    }
}
