//! How jobs stand that were asked for lately: most of what a queue is asked is how a job stands, again and again.
//!
//! No one is told here what a crash could undo: a job that was changed is unknown until the change is on the disk, and who reads it from the
//! file meanwhile waits for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::super::PayloadKind;
use crate::queue::Record;

/// Jobs that are kept at most.
const MAX_CACHED_JOBS: usize = 1024;

/// Bytes of one that is: of its record and its payloads.
const MAX_JOB_BYTES: usize = 16 << 10;

/// Changes that are remembered before those are forgotten that are on the disk.
const MAX_CHANGES: usize = 4096;

/// A job with some of its payloads, of which there may be none.
pub(super) type CachedRead = (Arc<Record>, Vec<(PayloadKind, Option<Bytes>)>);

/// The same, of what was asked for.
type CacheHit = (Arc<Record>, Vec<Option<Bytes>>);

/// What was read, and what changed since.
#[derive(Debug)]
pub(super) struct StatusCache {
    state: Mutex<CacheState>,
    /// The last transaction that is on the disk.
    synced: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct CacheState {
    /// By id, which two endpoints have in common at worst: then it is the job that was read last.
    known: HashMap<String, CachedJob>,
    changed: HashMap<String, Change>,
    /// The number of the transaction that is being written.
    transaction: u64,
    /// The last of which changes may be forgotten.
    forgotten: u64,
    /// Of the file, as other processes changed it.
    version: u64,
}

#[derive(Debug)]
struct CachedJob {
    endpoint: String,
    read: CachedRead,
    /// The transaction that is to be on the disk before.
    from: u64,
}

/// The transactions that changed a job last: whichever, and one that is not to be undone by a crash.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    last: u64,
    kept: u64,
}

impl StatusCache {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(CacheState { transaction: 1, ..CacheState::default() }),
            synced: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job with the payloads that are wanted of it, if all of that is known; else the number to [keep](StatusCache::insert) it by once it is read.
    pub(super) fn get(
        &self,
        endpoint: &str,
        id: &str,
        wanted: impl Fn(&Record) -> Vec<PayloadKind>,
    ) -> Result<CacheHit, u64> {
        let (state, synced) = (self.state(), *self.synced.borrow());
        let known = state.known.get(id).filter(|known| known.endpoint == endpoint && known.from <= synced);
        let found = known.and_then(|CachedJob { read: (record, parts), .. }| {
            let part = |wanted| parts.iter().find(|(part, _)| *part == wanted).map(|(_, body)| body.clone());
            let parts = wanted(record).into_iter().map(part).collect::<Option<_>>()?;
            Some((record.clone(), parts))
        });
        found.ok_or(state.transaction)
    }

    /// Keeps what was read since [`StatusCache::get`] gave the number `at`, if it is still so. Returns once it is on the disk.
    pub(super) async fn insert(&self, endpoint: &str, id: &str, at: u64, read: Option<&CachedRead>) {
        let kept = {
            let mut state = self.state();
            let Change { last, kept } = state.changed.get(id).copied().unwrap_or_default();
            let is_synced = kept <= *self.synced.borrow();
            if let Some(read) = read.filter(|_| is_synced && last < at && state.forgotten < at) {
                state.know(endpoint, read.clone(), 0);
            }
            (!is_synced).then_some(kept)
        };
        if let Some(kept) = kept {
            // It is told by a value that is as old as this.
            let _ = self.synced.subscribe().wait_for(|synced| *synced >= kept).await;
        }
    }

    /// The transaction that is being written changes a job; one that is `loose`, so that a crash may undo it.
    pub(super) fn invalidate(&self, id: &str, loose: bool) {
        let mut state = self.state();
        let transaction = state.transaction;
        state.known.remove(id);
        let change = state.changed.entry(id.to_owned()).or_default();
        change.last = transaction;
        if !loose {
            change.kept = transaction;
        }
    }

    /// The transaction leaves a job that it has changed as it says: who waits for that need not read it.
    pub(super) fn insert_pending(&self, endpoint: &str, read: CachedRead) {
        let mut state = self.state();
        let transaction = state.transaction;
        state.know(endpoint, read, transaction);
    }

    /// The transaction is written, or was `undone`. Returns its number.
    pub(super) fn end_transaction(&self, undone: bool) -> u64 {
        let mut state = self.state();
        let transaction = state.transaction;
        if undone {
            state.known.retain(|_, known| known.from != transaction);
        }
        state.transaction += 1;
        transaction
    }

    /// All transactions up to this one are on the disk.
    pub(super) fn mark_synced(&self, transaction: u64) {
        let mut state = self.state();
        if state.changed.len() >= MAX_CHANGES {
            // Who reads now may have begun before.
            state.changed.retain(|_, change| change.last > transaction);
            state.forgotten = transaction;
        }
        self.synced.send_replace(transaction);
    }

    /// Another process may have changed anything, if it is not this `version` of the file that was seen the last time.
    pub(super) fn invalidate_if_changed(&self, version: u64) {
        let mut state = self.state();
        if version != state.version {
            state.known.clear();
            (state.version, state.forgotten) = (version, state.transaction);
        }
    }
}

impl CacheState {
    fn know(&mut self, endpoint: &str, read: CachedRead, from: u64) {
        let payloads: usize = read.1.iter().flat_map(|(_, body)| body).map(Bytes::len).sum();
        if read.0.bytes() + payloads > MAX_JOB_BYTES {
            return;
        }
        if self.known.len() >= MAX_CACHED_JOBS {
            self.known.clear();
        }
        self.known.insert(read.0.id.clone(), CachedJob { endpoint: endpoint.to_owned(), read, from });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::date::UnixTime;

    fn read(id: &str) -> CachedRead {
        (
            Record::new(id, UnixTime::EPOCH).into(),
            vec![(PayloadKind::Input, Some("1".into())), (PayloadKind::Output, None)],
        )
    }

    fn input(_: &Record) -> Vec<PayloadKind> {
        vec![PayloadKind::Input]
    }

    /// Whether it was kept; `None` if who read it waits.
    fn keeps(cache: &StatusCache, id: &str, at: u64) -> Option<bool> {
        cache.insert("e", id, at, Some(&read(id))).now_or_never()?;
        Some(cache.get("e", id, input).is_ok())
    }

    #[test]
    fn what_was_read_is_known_with_what_was_read_of_it_until_it_changes() {
        let cache = StatusCache::new();
        let at = cache.get("e", "a", input).unwrap_err();
        assert_eq!(keeps(&cache, "a", at), Some(true));
        let all = |_: &Record| vec![PayloadKind::Output, PayloadKind::Input];
        assert_eq!(cache.get("e", "a", all), Ok((read("a").0, vec![None, Some("1".into())])));
        assert!(cache.get("f", "a", input).is_err(), "another endpoint's");
        assert!(cache.get("e", "a", |_| vec![PayloadKind::Rest]).is_err(), "nobody has read that");
        cache.invalidate("a", true);
        assert!(cache.get("e", "a", input).is_err());
        let large = (read("b").0, vec![(PayloadKind::Input, Some(Bytes::from(vec![0; MAX_JOB_BYTES + 1])))]);
        cache.insert("e", "b", 9, Some(&large)).now_or_never().unwrap();
        assert!(cache.get("e", "b", input).is_err());
    }

    #[test]
    fn a_large_record_is_not_kept_whatever_it_is_large_by() {
        let text = || "x".repeat(MAX_JOB_BYTES);
        let kept = |alter: &dyn Fn(&mut Record)| {
            let (cache, mut small) = (StatusCache::new(), read("a"));
            alter(Arc::make_mut(&mut small.0));
            cache.insert("e", "a", 1, Some(&small)).now_or_never().unwrap();
            cache.get("e", "a", input).is_ok()
        };
        let hook = |url: String, headers| Some(crate::queue::JobWebhook::new(url, headers));
        let headers = |count: usize| vec![("name".to_owned(), "value".to_owned()); count];
        assert!(kept(&|_| ()) && kept(&|record| record.webhook = hook("https://x".into(), headers(32))));
        assert!(!kept(&|record| record.error = Some(text())));
        assert!(!kept(&|record| record.webhook = hook(text(), Vec::new())));
        assert!(!kept(&|record| record.webhook = hook(String::new(), vec![("name".into(), text())])));
        assert!(!kept(&|record| record.webhook = hook(String::new(), headers(MAX_JOB_BYTES / 32))));
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_kept_and_not_told_before_it_is_on_the_disk() {
        let cache = StatusCache::new();
        let before = cache.get("e", "a", input).unwrap_err();
        cache.invalidate("a", false);
        assert_eq!(keeps(&cache, "a", before), None);
        let transaction = cache.end_transaction(false);
        assert_eq!(keeps(&cache, "a", transaction + 1), None, "it is not yet on the disk");
        cache.mark_synced(transaction);
        assert_eq!(keeps(&cache, "a", before), Some(false), "it may be what was before");
        assert_eq!(keeps(&cache, "a", transaction + 1), Some(true));
        // Who was handed the job, a crash may undo: there is no wait for a sync that may be long in coming.
        cache.invalidate("a", true);
        assert_eq!(keeps(&cache, "a", transaction + 1), Some(false));
        assert_eq!(keeps(&cache, "a", cache.end_transaction(false) + 1), Some(true));
    }

    #[test]
    fn what_a_transaction_leaves_is_known_once_it_is_on_the_disk_unless_it_was_undone() {
        let cache = StatusCache::new();
        let leaves = |undone: bool| {
            cache.invalidate("a", false);
            cache.insert_pending("e", read("a"));
            let transaction = cache.end_transaction(undone);
            let before = cache.get("e", "a", input).is_ok();
            cache.mark_synced(transaction);
            (before, cache.get("e", "a", input).is_ok())
        };
        assert_eq!([leaves(false), leaves(true)], [(false, true), (false, false)]);
    }

    #[test]
    fn changes_that_are_forgotten_keep_no_older_look() {
        let cache = StatusCache::new();
        let before = cache.get("e", "0", input).unwrap_err();
        for number in 0..MAX_CHANGES {
            cache.invalidate(&number.to_string(), false);
        }
        let transaction = cache.end_transaction(false);
        cache.mark_synced(transaction);
        assert!(cache.state().changed.is_empty());
        assert_eq!((keeps(&cache, "0", before), keeps(&cache, "0", transaction + 1)), (Some(false), Some(true)));
        cache.invalidate_if_changed(1);
        assert_eq!(
            (keeps(&cache, "0", transaction + 1), keeps(&cache, "0", transaction + 2)),
            (Some(false), Some(true))
        );
        cache.invalidate_if_changed(1);
        assert!(cache.get("e", "0", input).is_ok(), "nobody else has changed anything");
    }
}
