//! `/stream` for browsers and people: what happens to a job, as server-sent events.
//!
//! `status` comes with the status object whenever it changes, `chunk` with a part of the stream; after the `status` of the end the
//! stream of events ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;

use crate::queue::State;
use crate::store::Store;

use super::late::{ALIVE, UNBUFFERED};
use super::wait::CHUNKS;
use super::{Endpoint, Gateway, Version};

/// Whether a client asks for events.
pub(super) fn asked(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// Events of a job that a client can see, from now to its end.
pub(super) fn reply<S: Store>(gateway: Arc<Gateway<S>>, endpoint: Endpoint, id: String, version: Version) -> Response {
    let watch = Watch {
        gateway,
        endpoint,
        id,
        version,
        last: String::new(),
        state: State::InQueue,
        ready: VecDeque::new(),
        over: false,
    };
    let events = unfold(watch, async |mut watch| {
        let event = watch.next().await?;
        Some((Ok::<_, Infallible>(event), watch))
    });
    ([UNBUFFERED], Sse::new(Box::pin(events)).keep_alive(KeepAlive::new().interval(ALIVE))).into_response()
}

struct Watch<S> {
    gateway: Arc<Gateway<S>>,
    endpoint: Endpoint,
    id: String,
    version: Version,
    /// The latest status object that was told, and how the job stood then.
    last: String,
    state: State,
    /// What is to be told.
    ready: VecDeque<Event>,
    over: bool,
}

impl<S: Store> Watch<S> {
    async fn next(&mut self) -> Option<Event> {
        let bell = self.gateway.hub.job(&self.endpoint.id, &self.id);
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            let rings = bell.notified();
            self.look().await;
            if self.ready.is_empty() && !self.over {
                let closing = self.gateway.closing.clone();
                self.over = closing.run_until_cancelled(rings).await.is_none();
            }
        }
    }

    async fn look(&mut self) {
        let seen = async {
            // First how it stands, then what is there: whoever has ended brings no more.
            let (record, object) = self.gateway.seen(&self.endpoint, &self.id, self.version).await?;
            let (chunks, more) = self.gateway.store.drain(&self.endpoint.id, &self.id, CHUNKS).await?;
            Ok::<_, super::reply::Fault>((record.state, more, object, chunks))
        };
        match seen.await {
            Ok((state, more, object, chunks)) => {
                let chunks = chunks.iter().filter_map(|chunk| std::str::from_utf8(chunk).ok());
                self.ready.extend(chunks.map(|chunk| Event::default().event("chunk").data(chunk)));
                if object != self.last {
                    self.ready.push_back(Event::default().event("status").data(&object));
                    self.last = object;
                }
                (self.state, self.over) = (state, state.is_end() && !more);
            }
            Err(fault) => {
                self.ready.push_back(Event::default().event("error").data(fault.late(&self.id, self.state)));
                self.over = true;
            }
        }
    }
}
