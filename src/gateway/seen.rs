//! What is seen of a job: its status object, out of the store at one stroke.

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::queue::{self, Payloads, Record, View};
use crate::store::{Part, Store};

use super::reply::Fault;
use super::{Endpoint, Gateway, Version};

/// For whom a status object is.
pub(super) fn view(version: Version, endpoint: &Endpoint) -> View {
    match version {
        Version::V1 => View::V1 { gpu: endpoint.gpu },
        Version::V2 => View::V2,
    }
}

impl<S: Store> Gateway<S> {
    /// A job that clients can see, and its status object as it is now.
    pub(super) async fn seen(
        &self,
        endpoint: &Endpoint,
        id: &str,
        version: Version,
    ) -> Result<(Record, String), Fault> {
        let view = view(version, endpoint);
        let found = self.store.find(&endpoint.id, id, move |record| wanted(record, view)).await?;
        let (record, parts) = found.ok_or_else(|| Fault::NoJob(id.to_owned()))?;
        self.shows(&record)?;
        let object = object(&record, view, wanted(&record, view).into_iter().zip(parts));
        Ok((record, object))
    }

    /// The status object of a job at its end, or as it is when the time is over. Who has listened for its end since before it was there
    /// need not look at it before.
    pub(super) async fn seen_at_end(
        &self,
        endpoint: &Endpoint,
        id: &str,
        wait: Duration,
        version: Version,
        end: Option<OwnedNotified>,
    ) -> Result<String, Fault> {
        let until = Instant::now() + wait;
        if let Some(end) = end {
            self.rang(end, until).await;
        }
        let bell = self.hub.end(&endpoint.id, id);
        loop {
            let rings = bell.notified();
            let (record, object) = self.seen(endpoint, id, version).await?;
            if record.state.is_end() || !self.rang(rings, until).await {
                return Ok(object);
            }
        }
    }

    /// What a webhook is told of a job that stood as `record` says.
    pub(super) async fn webhook_body(&self, endpoint: &str, record: &Record) -> Result<String, Fault> {
        let parts = wanted(record, View::Webhook);
        let asked = parts.clone();
        let found = self.store.find(endpoint, &record.id, move |_| asked.clone()).await?;
        let (_, found) = found.ok_or_else(|| Fault::NoJob(record.id.clone()))?;
        Ok(object(record, View::Webhook, parts.into_iter().zip(found)))
    }
}

/// The payloads that a status object shows.
fn wanted(record: &Record, view: View) -> Vec<Part> {
    let ended = record.state.is_end();
    let all = [
        (Part::Input, view.shows_input(record.state)),
        (Part::Output, record.output),
        (Part::Timings, ended),
        (Part::Warnings, ended),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(part, _)| part).collect()
}

fn object(record: &Record, view: View, parts: impl Iterator<Item = (Part, Option<Bytes>)>) -> String {
    let parts: Vec<_> = parts.collect();
    let of = |part| parts.iter().find(|(of, _)| *of == part).and_then(|(_, body)| json(body.as_ref()?));
    let payloads = Payloads {
        input: of(Part::Input),
        output: of(Part::Output),
        timings: of(Part::Timings),
        warnings: of(Part::Warnings),
    };
    queue::status(record, view, payloads)
}

/// What a store keeps is JSON.
fn json(bytes: &Bytes) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
