//! What happens in a store, for polls that wait for it.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};

/// Something happened in a store. Gateways tell each other in Redis: the names of `serde` are those that other versions read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreEvent {
    /// A job waits at this endpoint.
    #[serde(rename = "Waiting")]
    JobQueued(String),
    /// A job that has not ended changed: endpoint and id.
    #[serde(rename = "Job")]
    JobChanged(String, String),
    /// A job has ended: endpoint and id.
    #[serde(rename = "End")]
    JobEnded(String, String),
    /// A worker should stop a job: endpoint and id of the worker.
    #[serde(rename = "Stop")]
    WorkerStop(String, String),
    /// A gateway tells of a worker what others should know at once.
    #[serde(rename = "Workers")]
    WorkersChanged,
    /// Events were missed: whoever waits looks again.
    #[serde(rename = "Much")]
    Lagged,
}

/// Receives what happens.
#[derive(Debug)]
pub struct Subscription(Receiver<StoreEvent>);

impl Subscription {
    /// The next event, as long as there can be any.
    pub async fn next(&mut self) -> Option<StoreEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(_)) => Some(StoreEvent::Lagged),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Events that a slow subscriber may be behind with.
const EVENT_BACKLOG: usize = 4096;

/// Tells the subscribers of this process.
#[derive(Debug)]
pub(super) struct EventSender(Sender<StoreEvent>);

impl EventSender {
    pub(super) fn new() -> Self {
        Self(broadcast::channel(EVENT_BACKLOG).0)
    }

    pub(super) fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }

    pub(super) fn publish(&self, events: impl IntoIterator<Item = StoreEvent>) {
        for event in events {
            // There may be no listener.
            let _ = self.0.send(event);
        }
    }
}
