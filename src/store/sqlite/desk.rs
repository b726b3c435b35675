//! A thread that owns a connection, and does what it is asked to.

use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// Requests that wait at a desk before whoever asks waits, too.
const WAITING: usize = 1024;

/// Requests of one transaction.
const TOGETHER: usize = 256;

/// Something to do with a connection.
trait Request: Send {
    /// Does it. Returns whether it went well.
    fn run(&mut self, db: &Connection) -> bool;

    /// Whether it may be answered before it is on the disk.
    fn is_loose(&self) -> bool;

    /// Why it did not.
    fn fault(&self) -> Option<&StoreError>;

    /// Answers; with `error`, if what was done could not be kept.
    fn answer(self: Box<Self>, error: Option<&StoreError>);
}

struct Asked<T, W> {
    work: Option<W>,
    loose: bool,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, W: FnOnce(&Connection) -> Result<T, StoreError> + Send> Request for Asked<T, W> {
    fn run(&mut self, db: &Connection) -> bool {
        self.done = self.work.take().map(|work| work(db));
        matches!(self.done, Some(Ok(_)))
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
pub(super) struct Desk {
    requests: Option<mpsc::Sender<Box<dyn Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    pub(super) fn new(name: &str, db: Connection, writes: bool) -> Result<Self, StoreError> {
        let (requests, inbox) = mpsc::channel(WAITING);
        let work = move || if writes { write(&db, inbox) } else { read(&db, inbox) };
        let thread = Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|error| StoreError::Failed(format!("no thread for the store: {error}")))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Has something done, which is on the disk when it is answered. It is done even if nobody waits for the answer any more.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.leave(false, work).await
    }

    /// Has something done that a crash of the machine may undo: it is on the disk with what is asked for next, and outlives the process.
    pub(super) async fn ask_loosely<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.leave(true, work).await
    }

    async fn leave<T: Send + 'static>(
        &self,
        loose: bool,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Asked { work: Some(work), loose, done: None, reply });
        match &self.requests {
            Some(requests) => requests.send(request).await.map_err(|_| closed())?,
            None => return Err(closed()),
        }
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic was told by its hook.
            let _ = thread.join();
        }
    }
}

fn closed() -> StoreError {
    StoreError::Failed("its thread has ended".into())
}

fn read(db: &Connection, mut inbox: mpsc::Receiver<Box<dyn Request>>) {
    while let Some(mut request) = inbox.blocking_recv() {
        request.run(db);
        request.answer(None);
    }
}

fn write(db: &Connection, mut inbox: mpsc::Receiver<Box<dyn Request>>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while inbox.blocking_recv_many(&mut batch, TOGETHER) > 0 {
        // What need not be synced waits for no sync. What comes while one goes on shares the next.
        let (loose, kept): (Vec<_>, Vec<_>) = batch.drain(..).partition(|request| request.is_loose());
        for (mut requests, synced) in [(loose, "NORMAL"), (kept, "FULL")] {
            let error = together(db, &mut requests, synced).err();
            for request in requests {
                request.answer(error.as_ref());
            }
        }
    }
}

/// Runs requests in one transaction. One that fails is undone alone, unless the disk fails: then all are.
fn together(db: &Connection, batch: &mut [Box<dyn Request>], synced: &str) -> Result<(), StoreError> {
    if batch.is_empty() {
        return Ok(());
    }
    db.pragma_update(None, "synchronous", synced)?;
    run(db, "BEGIN IMMEDIATE")?;
    let done = batch.iter_mut().try_for_each(|request| -> Result<(), StoreError> {
        run(db, "SAVEPOINT request")?;
        let well = request.run(db);
        // SQLite undoes all of it where it cannot undo a part.
        if let Some(fault) = request.fault().filter(|_| db.is_autocommit()) {
            return Err(fault.clone());
        }
        if !well {
            run(db, "ROLLBACK TO request")?;
        }
        Ok(run(db, "RELEASE request")?)
    });
    let kept = done.and_then(|()| Ok(run(db, "COMMIT")?));
    if kept.is_err() {
        // It may have been rolled back already.
        let _ = run(db, "ROLLBACK");
    }
    kept
}

fn run(db: &Connection, text: &str) -> rusqlite::Result<()> {
    db.prepare_cached(text)?.execute([]).map(|_| ())
}
