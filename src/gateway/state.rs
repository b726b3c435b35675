//! What a gateway holds, and what all of its routes ask of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock::{Course, WallClock};
use crate::date::UnixTime;
use crate::queue::Record;
use crate::store::{Store, StoreError};

use super::api_keys::{Access, ApiKeys};
use super::limits::ClientLimits;
use super::log_throttle::LogThrottle;
use super::memory_budget::MemoryBudgets;
use super::metrics::HttpMetrics;
use super::notifier::Notifier;
use super::receivers::Receivers;
use super::reply::ApiError;
use super::settings::{Endpoint, GatewaySettings};
use super::worker_registry::WorkerRegistry;

/// Answers requests.
#[derive(Debug)]
pub struct Gateway<S> {
    pub(super) store: Arc<S>,
    /// The time of the queue.
    pub(super) course: Course,
    pub(super) began: UnixTime,
    pub(super) settings: GatewaySettings,
    pub(super) notifier: Arc<Notifier>,
    pub(super) registry: WorkerRegistry,
    pub(super) limits: ClientLimits,
    pub(super) receivers: Arc<Receivers>,
    pub(super) budgets: MemoryBudgets,
    /// Of polls for jobs that found no memory.
    pub(super) no_memory_warnings: LogThrottle,
    pub(super) http: HttpMetrics,
    pub(super) keys: ApiKeys,
    /// Cancelled when long polls are to end: nothing more is handed out.
    pub(super) closing: CancellationToken,
}

impl<S: Store> Gateway<S> {
    /// A gateway on a store, whose time goes on where it was.
    ///
    /// # Errors
    /// The store fails.
    pub async fn open(
        store: Arc<S>,
        clock: Arc<dyn WallClock>,
        settings: GatewaySettings,
    ) -> Result<Arc<Self>, StoreError> {
        let began = store.sync_clock(None, clock.now()).await?;
        Ok(Self::new(store, Course::from(clock, began), settings))
    }

    pub(super) fn new(store: Arc<S>, course: Course, settings: GatewaySettings) -> Arc<Self> {
        let closing = CancellationToken::new();
        Arc::new(Self {
            store,
            began: course.now(),
            course,
            budgets: MemoryBudgets::new(settings.in_flight, &closing),
            no_memory_warnings: LogThrottle::new(Duration::from_mins(1)),
            keys: ApiKeys::new(settings.keys.clone(), settings.local_worker_key.clone()),
            registry: WorkerRegistry::new(settings.rules.lost_after),
            settings,
            notifier: Arc::default(),
            limits: ClientLimits::new(S::SHARED),
            receivers: Arc::default(),
            http: HttpMetrics::default(),
            closing,
        })
    }

    /// Takes in the keys of the store. Returns who needs one now.
    ///
    /// # Errors
    /// The store fails.
    pub async fn access(&self) -> Result<Access, StoreError> {
        self.keys.learn(&self.store.keys().await?);
        Ok(self.keys.access())
    }

    /// The endpoint that a path names.
    pub(super) fn endpoint(&self, name: &str) -> Result<&Endpoint, ApiError> {
        let known = |endpoint: &&Endpoint| endpoint.id == name || endpoint.aliases.iter().any(|alias| alias == name);
        self.settings.endpoints.iter().find(known).ok_or_else(|| ApiError::NoEndpoint(name.to_owned()))
    }

    /// A job that clients can see.
    pub(super) async fn visible(&self, endpoint: &Endpoint, id: &str) -> Result<Record, ApiError> {
        let record = self.store.read(&endpoint.id, id).await?.ok_or_else(|| ApiError::NoJob(id.to_owned()))?;
        self.check_visible(&record)?;
        Ok(record)
    }

    /// Refuses a job that clients no longer see.
    pub(super) fn check_visible(&self, record: &Record) -> Result<(), ApiError> {
        let gone = record.hidden || record.expires <= self.now();
        if gone { Err(ApiError::NoJob(record.id.clone())) } else { Ok(()) }
    }

    /// Whether `waiter` was woken before `until`, and before the gateway closes.
    pub(super) async fn woken(&self, waiter: impl Future<Output = ()> + Send, until: Instant) -> bool {
        tokio::select! {
            () = waiter => true,
            () = sleep_until(until) => false,
            () = self.closing.cancelled() => false,
        }
    }

    /// The time of the queue. What is said to others is a date of the wall clock.
    pub(super) fn now(&self) -> UnixTime {
        self.course.now()
    }
}

/// What a store's error means to what runs in the background: it is told, unless the store has done so, and tried again.
pub(super) fn log_failure<T>(what: &'static str, done: Result<T, StoreError>) -> Option<T> {
    let tell = |error: &StoreError| match error {
        StoreError::NoSpace(_) => {}
        error => tracing::error!(cause = %error, "{what}: the store fails, and is asked again"),
    };
    done.inspect_err(tell).ok()
}
