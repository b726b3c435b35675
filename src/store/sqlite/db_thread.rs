//! A thread that owns a connection, and does what it is asked to.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::request::{DbRequest, Syncs};
use super::status_cache::StatusCache;
use super::writer::{join, write};

/// Requests that a thread has waiting before whoever asks waits, too.
const MAX_PENDING_REQUESTS: usize = 1024;

struct Call<T, W> {
    work: Option<W>,
    loose: bool,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, W: FnOnce(&Connection) -> Result<T, StoreError> + Send> DbRequest for Call<T, W> {
    fn run(&mut self, db: &Connection) {
        self.done = self.work.take().map(|work| work(db));
    }

    fn is_loose(&self) -> bool {
        self.loose
    }

    fn fault(&self) -> Option<&StoreError> {
        self.done.as_ref()?.as_ref().err()
    }

    fn answer(self: Box<Self>, error: Option<&StoreError>) {
        let Self { done, reply, .. } = *self;
        let answer = match (done, error) {
            (Some(Ok(_)) | None, Some(error)) => Err(error.clone()),
            (Some(done), _) => done,
            (None, None) => Err(closed()),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
    }
}

/// Where requests are left. The thread ends with it, after the last request.
#[derive(Debug)]
pub(super) struct DbThread {
    requests: Option<mpsc::Sender<Box<dyn DbRequest>>>,
    thread: Option<JoinHandle<()>>,
}

impl DbThread {
    /// One that reads.
    pub(super) fn reader(name: &str, db: Connection) -> Result<Self, StoreError> {
        Self::new(name, move |mut inbox| {
            while let Some(mut request) = inbox.blocking_recv() {
                request.run(&db);
                request.answer(None);
            }
        })
    }

    /// One that writes, and has what it wrote brought to the disk by `sync`.
    pub(super) fn writer(db: Connection, cache: Arc<StatusCache>, sync: impl Syncs) -> Result<Self, StoreError> {
        Self::new("store-writer", move |inbox| write(&db, inbox, &cache, sync))
    }

    fn new(
        name: &str,
        work: impl FnOnce(mpsc::Receiver<Box<dyn DbRequest>>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (requests, inbox) = mpsc::channel(MAX_PENDING_REQUESTS);
        let thread = Builder::new().name(name.to_owned()).spawn(move || work(inbox));
        let thread = thread.map_err(|error| StoreError::Failed(format!("no thread for the store: {error}")))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Has something done, which is on the disk when it is answered. It is done even if the answer is no longer waited for.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        self.send(false, work)
    }

    /// Has something done that a crash of the machine may undo: it is on the disk with what is asked for next, and outlives the process.
    pub(super) fn call_unsynced<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        self.send(true, work)
    }

    /// Boxed before it is waited for: the work, which may have a whole job in it, would be part of each future around this one.
    fn send<T: Send + 'static>(
        &self,
        loose: bool,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        let (reply, answer) = oneshot::channel();
        let request: Box<dyn DbRequest> = Box::new(Call { work: Some(work), loose, done: None, reply });
        async move {
            match &self.requests {
                Some(requests) => requests.send(request).await.map_err(|_| closed())?,
                None => return Err(closed()),
            }
            answer.await.unwrap_or_else(|_| Err(closed()))
        }
    }
}

impl Drop for DbThread {
    fn drop(&mut self) {
        self.requests = None;
        self.thread.take().into_iter().for_each(join);
    }
}

fn closed() -> StoreError {
    StoreError::Failed("its thread has ended".into())
}
