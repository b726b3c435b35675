//! `/stream` for browsers and people: what happens to a job, as server-sent events.
//!
//! `status` comes with the status object whenever it changes, `chunk` with a part of the stream; after the `status` of the end the
//! stream of events ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::queue::JobState;
use crate::store::Store;

use super::job_status::JobStatus;
use super::long_poll::{KEEP_ALIVE_INTERVAL, UNBUFFERED};
use super::memory_budget::Reservation;
use super::reply::ApiError;
use super::version::Version;
use super::{Endpoint, Gateway};

/// Whether a client asks for events.
pub(super) fn asked(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// Events of a job that a client can see, from now to its end.
pub(super) fn reply<S: Store>(gateway: Arc<Gateway<S>>, endpoint: Endpoint, id: String, version: Version) -> Response {
    let watch = JobWatch {
        gateway,
        endpoint,
        id,
        version,
        last: None,
        state: JobState::InQueue,
        ready: VecDeque::new(),
        told: LastSent::Status,
        over: false,
    };
    // Asked for the next part only when its reader has taken the one before.
    let parts = unfold(watch, async |mut watch| {
        let part = watch.next().await?;
        Some((Ok::<_, Infallible>(part), watch))
    });
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    ([UNBUFFERED], head, Body::from_stream(parts)).into_response()
}

/// What was told last. Chunks and the status take turns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastSent {
    Chunks,
    Status,
}

struct JobWatch<S> {
    gateway: Arc<Gateway<S>>,
    endpoint: Endpoint,
    id: String,
    version: Version,
    /// The digest of the latest status object that was told, and how the job stood then.
    last: Option<[u8; 32]>,
    state: JobState,
    /// What is to be told, in parts of its text.
    ready: VecDeque<Bytes>,
    told: LastSent,
    over: bool,
}

impl<S: Store> JobWatch<S> {
    async fn next(&mut self) -> Option<Bytes> {
        let waiter = self.gateway.notifier.job(&self.endpoint.id, &self.id);
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Some(part);
            }
            if self.over {
                return None;
            }
            let notified = waiter.notified();
            let more = self.look().await.unwrap_or_else(|fault| {
                self.tell("error", fault.late(&self.id, self.state).into());
                self.over = true;
                false
            });
            if self.ready.is_empty() && !self.over && !more {
                let closing = self.gateway.closing.clone();
                match timeout(KEEP_ALIVE_INTERVAL, closing.run_until_cancelled(notified)).await {
                    Ok(Some(())) => {}
                    Ok(None) => self.over = true,
                    Err(_) => return Some(Bytes::from_static(b":\n\n")),
                }
            }
        }
    }

    /// Gets ready what there is to tell: chunks or the status, whose memory is given back as they are taken. Returns whether there may be more.
    async fn look(&mut self) -> Result<bool, ApiError> {
        // First how it stands, then what is there: whoever has ended brings no more.
        let stood = self.gateway.visible(&self.endpoint, &self.id).await?.state;
        let drained = self.told == LastSent::Status;
        if drained {
            let (chunks, _, held) = self.gateway.next_chunks(&self.endpoint, &self.id).await?;
            if !chunks.is_empty() {
                self.told = LastSent::Chunks;
                self.tell_chunks(&chunks, held);
                return Ok(true);
            }
        }
        self.told = LastSent::Status;
        let JobStatus { record, object, held } = self.gateway.status_of(&self.endpoint, &self.id, self.version).await?;
        let ended = record.state.is_end();
        if ended && !(drained && stood.is_end()) {
            // Chunks may have come before the end.
            return Ok(true);
        }
        let size = object.len();
        let prepare = move || {
            let object = on_a_line(object);
            let digest = Sha256::digest(&object).into();
            (object, digest)
        };
        let (object, digest) = self.gateway.budgets.answers.work(size, prepare).await;
        if self.last != Some(digest) {
            self.tell("status", held.attach_to(object));
            self.last = Some(digest);
        }
        (self.state, self.over) = (record.state, ended);
        Ok(!drained)
    }

    fn tell_chunks(&mut self, chunks: &[Bytes], held: Reservation) {
        let mut text = String::new();
        for chunk in chunks.iter().filter_map(|chunk| std::str::from_utf8(chunk).ok()) {
            for part in ["event: chunk\ndata: ", &on_a_line(chunk.to_owned()), "\n\n"] {
                text.push_str(part);
            }
        }
        self.ready.push_back(held.attach_to(text));
    }

    fn tell(&mut self, name: &str, data: Bytes) {
        let head = format!("event: {name}\ndata: ");
        self.ready.extend([head.into(), data, Bytes::from_static(b"\n\n")]);
    }
}

/// JSON without ends of lines, which end an event's data: within it they only stand between its tokens, where a blank is as good.
fn on_a_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_one_line() {
        let json = "{\r\n \"a\": \"b\\n\"\n}";
        assert_eq!(on_a_line(json.into()), "{   \"a\": \"b\\n\" }");
    }
}
