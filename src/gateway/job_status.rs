//! What is seen of a job: its status object, out of the store in one step.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::queue::{self, Payloads, Record, StatusView};
use crate::store::{LoadedPayloads, PayloadKind, PayloadSelection, Store};

use super::memory_budget::{MemoryBudget, Reservation, UNCOUNTED_BYTES};
use super::reply::ApiError;
use super::version::Version;
use super::{Endpoint, Gateway};

/// For whom a status object is.
pub(super) fn view(version: Version, endpoint: &Endpoint) -> StatusView {
    match version {
        Version::V1 => StatusView::V1 { gpu: endpoint.gpu },
        Version::V2 => StatusView::V2,
    }
}

/// What is seen of a job, with the memory that it holds.
pub(super) struct JobStatus {
    pub(super) record: Arc<Record>,
    pub(super) object: String,
    pub(super) held: Reservation,
}

impl JobStatus {
    /// The status object.
    pub(super) fn object(self) -> Bytes {
        self.held.attach_to(self.object)
    }
}

impl<S: Store> Gateway<S> {
    /// A job that clients can see, and its status object as it is now.
    pub(super) async fn status_of(
        &self,
        endpoint: &Endpoint,
        id: &str,
        version: Version,
    ) -> Result<JobStatus, ApiError> {
        let (view, budget) = (view(version, endpoint), &self.budgets.answers);
        let (record, parts, held) = self.load(budget, &endpoint.id, id, move |record| wanted(record, view)).await?;
        self.check_visible(&record)?;
        let parts = wanted(&record, view).into_iter().zip(parts).collect();
        let (record, object) = object(budget, record, view, parts).await;
        Ok(JobStatus { record, object, held })
    }

    /// The status object of a job at its end, or as it is when the time is over. Who has listened for its end since before it was there
    /// need not look at it before.
    pub(super) async fn status_at_end(
        &self,
        endpoint: &Endpoint,
        id: &str,
        wait: Duration,
        version: Version,
        end: Option<OwnedNotified>,
    ) -> Result<Bytes, ApiError> {
        let until = Instant::now() + wait;
        if let Some(end) = end
            && self.woken(end, until).await
        {
            // Mostly it is there, and is looked at once.
            let seen = self.status_of(endpoint, id, version).await?;
            if seen.record.state.is_end() {
                return Ok(seen.object());
            }
        }
        let waiter = self.notifier.end(&endpoint.id, id);
        loop {
            let notified = waiter.notified();
            // Only how it stands: whoever waits has nothing else of it.
            let record = self.visible(endpoint, id).await?;
            if record.state.is_end() || !self.woken(notified, until).await {
                return self.status_of(endpoint, id, version).await.map(JobStatus::object);
            }
        }
    }

    /// What a webhook is told of a job that stood as `record` says.
    pub(super) async fn webhook_body(&self, endpoint: &str, record: &Record) -> Result<Bytes, ApiError> {
        let (parts, budget) = (wanted(record, StatusView::Webhook), &self.budgets.messages);
        let asked = parts.clone();
        let (_, found, held) = self.load(budget, endpoint, &record.id, move |_| asked.clone()).await?;
        let parts = parts.into_iter().zip(found).collect();
        let (_, object) = object(budget, Arc::new(record.clone()), StatusView::Webhook, parts).await;
        Ok(held.attach_to(object))
    }

    /// A job and what is wanted of it, which has memory by the time that it is read.
    async fn load(
        &self,
        budget: &MemoryBudget,
        endpoint: &str,
        id: &str,
        wanted: impl PayloadSelection + Clone,
    ) -> Result<(Arc<Record>, Vec<Option<Bytes>>, Reservation), ApiError> {
        let (mut most, mut held) = (UNCOUNTED_BYTES, Reservation::default());
        loop {
            most = match self.store.find(endpoint, id, wanted.clone(), most).await? {
                None => return Err(ApiError::NoJob(id.to_owned())),
                Some((record, LoadedPayloads::Read(parts))) => return Ok((record, parts, held)),
                Some((_, LoadedPayloads::Large(bytes))) => bytes,
            };
            // First the memory that it had when it was smaller: who has some and waits for more could wait for another who does.
            drop(held);
            held = budget.reserve(most).await?;
        }
    }
}

/// The payloads that a status object shows.
fn wanted(record: &Record, view: StatusView) -> Vec<PayloadKind> {
    let ended = record.state.is_end();
    let all = [
        (PayloadKind::Input, view.shows_input(record.state)),
        (PayloadKind::Output, record.output),
        (PayloadKind::Timings, ended),
        (PayloadKind::Warnings, ended),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(part, _)| part).collect()
}

fn object(
    budget: &MemoryBudget,
    record: Arc<Record>,
    view: StatusView,
    parts: Vec<(PayloadKind, Option<Bytes>)>,
) -> impl Future<Output = (Arc<Record>, String)> + Send {
    let bytes = parts.iter().flat_map(|(_, body)| body).map(Bytes::len).sum();
    let write = move || {
        let of = |part| parts.iter().find(|(of, _)| *of == part).and_then(|(_, body)| json(body.as_ref()?));
        let payloads = Payloads {
            input: of(PayloadKind::Input),
            output: of(PayloadKind::Output),
            timings: of(PayloadKind::Timings),
            warnings: of(PayloadKind::Warnings),
        };
        let object = queue::status(&record, view, payloads);
        (record, object)
    };
    budget.work(bytes, write)
}

/// What a store keeps is JSON.
fn json(bytes: &Bytes) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
