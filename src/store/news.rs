//! What waiting polls wake for.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};

/// Something happened in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// A job waits at this endpoint.
    Waiting(String),
    /// Something came of a job that has not ended: endpoint and id.
    Job(String, String),
    /// A job has ended: endpoint and id.
    End(String, String),
    /// A worker works in vain: endpoint and id of the worker.
    Stop(String, String),
    /// A gateway tells of a worker what others should know at once.
    Workers,
    /// So much that nobody could follow: whoever waits, looks.
    Much,
}

/// Hears of news.
#[derive(Debug)]
pub struct Subscription(Receiver<News>);

impl Subscription {
    /// The next news, as long as there can be any.
    pub async fn next(&mut self) -> Option<News> {
        match self.0.recv().await {
            Ok(news) => Some(news),
            Err(RecvError::Lagged(_)) => Some(News::Much),
            Err(RecvError::Closed) => None,
        }
    }
}

/// News that a slow subscriber may be behind with.
const BEHIND: usize = 4096;

/// Tells the subscribers of this process.
#[derive(Debug)]
pub(super) struct Teller(Sender<News>);

impl Teller {
    pub(super) fn new() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }

    pub(super) fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }

    pub(super) fn tell(&self, news: impl IntoIterator<Item = News>) {
        for news in news {
            // Nobody may be listening.
            let _ = self.0.send(news);
        }
    }
}
