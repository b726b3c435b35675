//! How jobs stand that were asked for lately: most of what a queue is asked is how a job stands, again and again.
//!
//! Nobody is told here what a crash could undo: a job that was changed is unknown until the change is on the disk, and who reads it from the
//! file meanwhile waits for that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::super::Part;
use crate::queue::Record;

/// Jobs that are known at most.
const MOST: usize = 1024;

/// Bytes of one that is: of its record and its payloads.
const SMALL: usize = 16 << 10;

/// Changes that are remembered before those are forgotten that are on the disk.
const CHANGES: usize = 4096;

/// A job with some of its payloads, of which there may be none.
pub(super) type Read = (Record, Vec<(Part, Option<Bytes>)>);

/// The same, of what was asked for.
type Found = (Record, Vec<Option<Bytes>>);

/// What was read, and what changed since.
#[derive(Debug)]
pub(super) struct Memo {
    seen: Mutex<Seen>,
    /// The last transaction that is on the disk.
    synced: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Seen {
    /// By id, which two endpoints have in common at worst: then it is the job that was read last.
    known: HashMap<String, Known>,
    changed: HashMap<String, Change>,
    /// The number of the transaction that is being written.
    turn: u64,
    /// The last of which changes may be forgotten.
    forgotten: u64,
    /// Of the file, as other processes changed it.
    version: u64,
}

#[derive(Debug)]
struct Known {
    endpoint: String,
    read: Read,
    /// The transaction that is to be on the disk before.
    from: u64,
}

/// The transactions that changed a job last: whichever, and one that is not to be undone by a crash.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    last: u64,
    kept: u64,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { seen: Mutex::new(Seen { turn: 1, ..Seen::default() }), synced: watch::Sender::new(0) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job with the payloads that are wanted of it, if all of that is known; else the number to [keep](Memo::keep) it by once it is read.
    pub(super) fn look(&self, endpoint: &str, id: &str, wanted: impl Fn(&Record) -> Vec<Part>) -> Result<Found, u64> {
        let (seen, synced) = (self.seen(), *self.synced.borrow());
        let known = seen.known.get(id).filter(|known| known.endpoint == endpoint && known.from <= synced);
        let found = known.and_then(|Known { read: (record, parts), .. }| {
            let part = |wanted| parts.iter().find(|(part, _)| *part == wanted).map(|(_, body)| body.clone());
            let parts = wanted(record).into_iter().map(part).collect::<Option<_>>()?;
            Some((record.clone(), parts))
        });
        found.ok_or(seen.turn)
    }

    /// Keeps what was read since [`Memo::look`] gave the number `at`, if it is still so. Returns once it is on the disk.
    pub(super) async fn keep(&self, endpoint: &str, id: &str, at: u64, read: Option<&Read>) {
        let kept = {
            let mut seen = self.seen();
            let Change { last, kept } = seen.changed.get(id).copied().unwrap_or_default();
            let is_synced = kept <= *self.synced.borrow();
            if let Some(read) = read.filter(|_| is_synced && last < at && seen.forgotten < at) {
                seen.know(endpoint, read.clone(), 0);
            }
            (!is_synced).then_some(kept)
        };
        if let Some(kept) = kept {
            // It is told by a value that is as old as this.
            let _ = self.synced.subscribe().wait_for(|synced| *synced >= kept).await;
        }
    }

    /// The transaction that is being written changes a job; one that is `loose`, so that a crash may undo it.
    pub(super) fn change(&self, id: &str, loose: bool) {
        let mut seen = self.seen();
        let turn = seen.turn;
        seen.known.remove(id);
        let change = seen.changed.entry(id.to_owned()).or_default();
        change.last = turn;
        if !loose {
            change.kept = turn;
        }
    }

    /// The transaction leaves a job that it has changed as it says: who waits for that need not read it.
    pub(super) fn leave(&self, endpoint: &str, read: Read) {
        let mut seen = self.seen();
        let turn = seen.turn;
        seen.know(endpoint, read, turn);
    }

    /// The transaction is written, or was `undone`. Returns its number.
    pub(super) fn turn_over(&self, undone: bool) -> u64 {
        let mut seen = self.seen();
        let turn = seen.turn;
        if undone {
            seen.known.retain(|_, known| known.from != turn);
        }
        seen.turn += 1;
        turn
    }

    /// All transactions up to this one are on the disk.
    pub(super) fn settle(&self, turn: u64) {
        let mut seen = self.seen();
        if seen.changed.len() >= CHANGES {
            // Who reads now may have begun before.
            seen.changed.retain(|_, change| change.last > turn);
            seen.forgotten = turn;
        }
        self.synced.send_replace(turn);
    }

    /// Another process may have changed anything, if it is not this `version` of the file that was seen the last time.
    pub(super) fn heed(&self, version: u64) {
        let mut seen = self.seen();
        if version != seen.version {
            seen.known.clear();
            (seen.version, seen.forgotten) = (version, seen.turn);
        }
    }
}

impl Seen {
    fn know(&mut self, endpoint: &str, read: Read, from: u64) {
        let payloads: usize = read.1.iter().flat_map(|(_, body)| body).map(Bytes::len).sum();
        if read.0.bytes() + payloads > SMALL {
            return;
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(read.0.id.clone(), Known { endpoint: endpoint.to_owned(), read, from });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::date::UnixTime;

    fn read(id: &str) -> Read {
        (Record::new(id, UnixTime::EPOCH), vec![(Part::Input, Some("1".into())), (Part::Output, None)])
    }

    fn input(_: &Record) -> Vec<Part> {
        vec![Part::Input]
    }

    /// Whether it was kept; `None` if who read it waits.
    fn keeps(memo: &Memo, id: &str, at: u64) -> Option<bool> {
        memo.keep("e", id, at, Some(&read(id))).now_or_never()?;
        Some(memo.look("e", id, input).is_ok())
    }

    #[test]
    fn what_was_read_is_known_with_what_was_read_of_it_until_it_changes() {
        let memo = Memo::new();
        let at = memo.look("e", "a", input).unwrap_err();
        assert_eq!(keeps(&memo, "a", at), Some(true));
        let all = |_: &Record| vec![Part::Output, Part::Input];
        assert_eq!(memo.look("e", "a", all), Ok((read("a").0, vec![None, Some("1".into())])));
        assert!(memo.look("f", "a", input).is_err(), "another endpoint's");
        assert!(memo.look("e", "a", |_| vec![Part::Rest]).is_err(), "nobody has read that");
        memo.change("a", true);
        assert!(memo.look("e", "a", input).is_err());
        let large = (read("b").0, vec![(Part::Input, Some(Bytes::from(vec![0; SMALL + 1])))]);
        memo.keep("e", "b", 9, Some(&large)).now_or_never().unwrap();
        assert!(memo.look("e", "b", input).is_err());
    }

    #[test]
    fn a_large_record_is_not_kept_whatever_it_is_large_by() {
        let text = || "x".repeat(SMALL);
        let kept = |alter: &dyn Fn(&mut Record)| {
            let (memo, mut small) = (Memo::new(), read("a"));
            alter(&mut small.0);
            memo.keep("e", "a", 1, Some(&small)).now_or_never().unwrap();
            memo.look("e", "a", input).is_ok()
        };
        let hook = |url: String, headers| Some(crate::queue::Hook::new(url, headers));
        let headers = |count: usize| vec![("name".to_owned(), "value".to_owned()); count];
        assert!(kept(&|_| ()) && kept(&|record| record.hook = hook("https://x".into(), headers(32))));
        assert!(!kept(&|record| record.error = Some(text())));
        assert!(!kept(&|record| record.hook = hook(text(), Vec::new())));
        assert!(!kept(&|record| record.hook = hook(String::new(), vec![("name".into(), text())])));
        assert!(!kept(&|record| record.hook = hook(String::new(), headers(SMALL / 32))));
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_kept_and_not_told_before_it_is_on_the_disk() {
        let memo = Memo::new();
        let before = memo.look("e", "a", input).unwrap_err();
        memo.change("a", false);
        assert_eq!(keeps(&memo, "a", before), None);
        let turn = memo.turn_over(false);
        assert_eq!(keeps(&memo, "a", turn + 1), None, "it is not yet on the disk");
        memo.settle(turn);
        assert_eq!(keeps(&memo, "a", before), Some(false), "it may be what was before");
        assert_eq!(keeps(&memo, "a", turn + 1), Some(true));
        // Who was handed the job, a crash may undo: nobody waits for a sync that may be long in coming.
        memo.change("a", true);
        assert_eq!(keeps(&memo, "a", turn + 1), Some(false));
        assert_eq!(keeps(&memo, "a", memo.turn_over(false) + 1), Some(true));
    }

    #[test]
    fn what_a_transaction_leaves_is_known_once_it_is_on_the_disk_unless_it_was_undone() {
        let memo = Memo::new();
        let leaves = |undone: bool| {
            memo.change("a", false);
            memo.leave("e", read("a"));
            let turn = memo.turn_over(undone);
            let before = memo.look("e", "a", input).is_ok();
            memo.settle(turn);
            (before, memo.look("e", "a", input).is_ok())
        };
        assert_eq!([leaves(false), leaves(true)], [(false, true), (false, false)]);
    }

    #[test]
    fn changes_that_are_forgotten_keep_no_older_look() {
        let memo = Memo::new();
        let before = memo.look("e", "0", input).unwrap_err();
        for number in 0..CHANGES {
            memo.change(&number.to_string(), false);
        }
        let turn = memo.turn_over(false);
        memo.settle(turn);
        assert!(memo.seen().changed.is_empty());
        assert_eq!((keeps(&memo, "0", before), keeps(&memo, "0", turn + 1)), (Some(false), Some(true)));
        memo.heed(1);
        assert_eq!((keeps(&memo, "0", turn + 1), keeps(&memo, "0", turn + 2)), (Some(false), Some(true)));
        memo.heed(1);
        assert!(memo.look("e", "0", input).is_ok(), "nobody else has changed anything");
    }
}
