//! The thread that writes, and the one that syncs.
//!
//! What comes while a sync goes on is written meanwhile, and shares the next. So the disk is never waited for but by those who are to be
//! answered, and a busy store makes one sync for all of them.

use std::mem::take;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::request::{DbRequest, Syncs};
use super::status_cache::StatusCache;

/// Requests of one transaction.
const MAX_REQUESTS_PER_COMMIT: usize = 256;

/// What is to be answered after a sync: if it did not fail before, by whether the sync did.
struct Batch {
    requests: Vec<(Box<dyn DbRequest>, Option<StoreError>)>,
    /// The last transaction of it.
    transaction: u64,
    /// Whether the sync went well.
    done: oneshot::Sender<bool>,
}

/// Does what is asked until no one can ask, and has answered then.
pub(super) fn write(
    db: &Connection,
    inbox: mpsc::Receiver<Box<dyn DbRequest>>,
    cache: &Arc<StatusCache>,
    sync: impl Syncs,
) {
    // One at a time.
    let (batches, to_sync) = sync_channel(1);
    let syncing = {
        let cache = cache.clone();
        Builder::new().name("store-syncer".into()).spawn(move || answer(&to_sync, &cache, sync))
    };
    let (Ok(syncing), Ok(runtime)) = (syncing, runtime::Builder::new_current_thread().build()) else {
        return tracing::error!("the store has no thread to sync by");
    };
    let writer = Writer { db, cache, open: Vec::new(), due: Vec::new(), transaction: 0, lost: false };
    runtime.block_on(writer.run(inbox, &batches));
    drop(batches);
    join(syncing);
}

/// Waits for a thread's end.
pub(super) fn join(thread: JoinHandle<()>) {
    // A panic was told by its hook.
    let _ = thread.join();
}

/// Syncs, and answers.
fn answer(batches: &Receiver<Batch>, cache: &StatusCache, sync: impl Syncs) {
    while let Ok(Batch { requests, transaction, done }) = batches.recv() {
        let failed = sync().err().map(|error| StoreError::Failed(format!("the disk did not take it: {error}")));
        let _ = done.send(failed.is_none());
        // After a failure, too: who reads is told what there is, as it is unknown what will stay.
        cache.mark_synced(transaction);
        for (request, error) in requests {
            request.answer(error.as_ref().or(failed.as_ref()));
        }
    }
}

/// What was done for requests that are not answered yet.
struct Writer<'a> {
    db: &'a Connection,
    cache: &'a StatusCache,
    /// In the transaction that goes on.
    open: Vec<Box<dyn DbRequest>>,
    /// In those since the last sync began.
    due: Vec<(Box<dyn DbRequest>, Option<StoreError>)>,
    /// The last of those.
    transaction: u64,
    /// Whether a sync failed, so that what is on the disk is unknown.
    lost: bool,
}

impl Writer<'_> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Box<dyn DbRequest>>, batches: &SyncSender<Batch>) {
        let mut syncing: Option<oneshot::Receiver<bool>> = None;
        let mut open = true;
        while open || syncing.is_some() {
            tokio::select! {
                biased;
                synced = async { syncing.as_mut()?.await.ok() }, if syncing.is_some() => {
                    self.lost |= synced != Some(true);
                    syncing = None;
                }
                request = inbox.recv(), if open && self.open.len() < MAX_REQUESTS_PER_COMMIT => match request {
                    Some(request) => self.perform(request),
                    None => open = false,
                },
            }
            while self.open.len() < MAX_REQUESTS_PER_COMMIT
                && let Ok(request) = inbox.try_recv()
            {
                self.perform(request);
            }
            // Who need not wait for a sync waits for none that goes on, either.
            if !self.open.is_empty() && (syncing.is_none() || self.open.iter().any(|request| request.is_loose())) {
                self.close(Ok(()));
            }
            if syncing.is_none() && !self.due.is_empty() {
                let (done, wait) = oneshot::channel();
                let (mut requests, error) = (take(&mut self.due), self.rescue().err());
                for (_, failed) in &mut requests {
                    *failed = failed.take().or_else(|| error.clone());
                }
                syncing = batches.send(Batch { requests, transaction: self.transaction, done }).is_ok().then_some(wait);
            }
        }
    }

    /// Does what is asked. A request that fails changes nothing, or ends the transaction: then all that was done in it is undone.
    fn perform(&mut self, mut request: Box<dyn DbRequest>) {
        let begun = if self.open.is_empty() { self.begin() } else { Ok(()) };
        let done = begun.map_err(StoreError::from).and_then(|()| {
            let before = self.db.total_changes();
            request.run(self.db);
            // SQLite undoes all of it by itself where it cannot undo a part.
            let undone = self.db.is_autocommit() || self.db.total_changes() != before;
            request.fault().filter(|_| undone).map_or(Ok(()), |fault| Err(fault.clone()))
        });
        self.open.push(request);
        if done.is_err() {
            self.close(done);
        }
    }

    fn begin(&self) -> rusqlite::Result<()> {
        // The one before could not even be undone, as there was no memory for that.
        if !self.db.is_autocommit() {
            run(self.db, "ROLLBACK")?;
        }
        run(self.db, "BEGIN IMMEDIATE")
    }

    /// After a sync that failed, the log may have less on the disk than we see in it, and what is added to it would be lost with that. So all of
    /// it goes into the file, which `SQLite` syncs.
    fn rescue(&mut self) -> Result<(), StoreError> {
        if self.lost {
            let busy: bool = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            if busy {
                return Err(StoreError::Failed("a sync has failed, and the file is in use".into()));
            }
            self.lost = false;
        }
        Ok(())
    }

    /// Ends the transaction.
    fn close(&mut self, done: Result<(), StoreError>) {
        let error = done.and_then(|()| Ok(run(self.db, "COMMIT")?)).err();
        if error.is_some() {
            // It may have been rolled back already.
            let _ = run(self.db, "ROLLBACK");
        }
        self.transaction = self.cache.end_transaction(error.is_some());
        for request in self.open.drain(..) {
            if request.is_loose() {
                request.answer(error.as_ref());
            } else {
                self.due.push((request, error.clone()));
            }
        }
    }
}

fn run(db: &Connection, text: &str) -> rusqlite::Result<()> {
    db.prepare_cached(text)?.execute([]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::pin::pin;
    use std::sync::mpsc;

    use futures_util::FutureExt;
    use tempfile::TempDir;

    use super::super::db_thread::DbThread;
    use super::super::schema;
    use super::*;

    /// A writer whose syncs go on until they are told how they went, or that is unknown.
    fn writer(folder: &TempDir) -> (DbThread, mpsc::SyncSender<io::Result<()>>) {
        let db = Connection::open(folder.path().join("queue.db")).unwrap();
        schema::prepare(&db).unwrap();
        schema::writes(&db).unwrap();
        let (tell, told) = mpsc::sync_channel(9);
        let sync = move || told.recv().unwrap_or(Ok(()));
        (DbThread::writer(db, Arc::new(StatusCache::new()), sync).unwrap(), tell)
    }

    fn note(text: &'static str) -> impl FnOnce(&Connection) -> Result<&'static str, StoreError> + Send + 'static {
        move |db| Ok(db.execute("INSERT INTO tallies VALUES (?1, ?1, 1)", [text]).map(|_| text)?)
    }

    /// What the file has without its log: nothing, before it is once written to.
    fn notes(folder: &TempDir) -> i64 {
        let copy = folder.path().join("copy.db");
        fs::copy(folder.path().join("queue.db"), &copy).unwrap();
        Connection::open(&copy).unwrap().query_row("SELECT count(*) FROM tallies", [], |row| row.get(0)).unwrap_or(0)
    }

    #[tokio::test]
    async fn what_may_be_undone_waits_for_no_sync_and_all_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let (desk, tell) = writer(&folder);
        let mut first = pin!(desk.call(note("first")));
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(desk.call_unsynced(note("loose")).await, Ok("loose"));
        // Two that come while a sync goes on share the next.
        let mut more = pin!(futures_util::future::join(desk.call(note("more")), desk.call(note("most"))));
        assert!(more.as_mut().now_or_never().is_none());
        assert_eq!(desk.call_unsynced(|_| Ok(())).await, Ok(()));
        assert!(first.as_mut().now_or_never().is_none() && more.as_mut().now_or_never().is_none());
        tell.send(Ok(())).unwrap();
        assert_eq!(first.await, Ok("first"));
        assert!(more.as_mut().now_or_never().is_none());
        tell.send(Ok(())).unwrap();
        assert_eq!(more.await, (Ok("more"), Ok("most")));
    }

    #[tokio::test]
    async fn a_request_that_fails_is_alone_with_that_unless_it_has_changed_something() {
        let folder = tempfile::tempdir().unwrap();
        let (desk, tell) = writer(&folder);
        drop(tell);
        let fault = StoreError::Failed("x".into());
        let (no, half) = (fault.clone(), fault.clone());
        let fails = desk.call::<()>(move |_| Err(no));
        assert_eq!(
            tokio::join!(desk.call(note("a")), fails, desk.call(note("b"))),
            (Ok("a"), Err(fault.clone()), Ok("b"))
        );
        let half = desk.call::<()>(move |db| note("c")(db).and(Err(half)));
        assert_eq!(half.await, Err(fault));
        let count = |db: &Connection| Ok(db.query_row("SELECT count(*) FROM tallies", [], |row| row.get::<_, i64>(0))?);
        assert_eq!(desk.call(count).await, Ok(2));
    }

    #[tokio::test]
    async fn after_a_sync_that_failed_the_log_is_not_relied_on() {
        let folder = tempfile::tempdir().unwrap();
        let (desk, tell) = writer(&folder);
        tell.send(Err(io::Error::other("broken"))).unwrap();
        let failed = desk.call(note("a")).await.unwrap_err().to_string();
        assert!(failed.contains("the disk did not take it: broken"), "{failed}");
        assert_eq!(notes(&folder), 0);
        drop(tell);
        assert_eq!(desk.call(note("b")).await, Ok("b"));
        assert_eq!(notes(&folder), 2, "what is or was in doubt is in the file");
    }
}
