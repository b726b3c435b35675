//! Files on their way into memory before anybody asks for what is in them.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::io::{ReadWriteFlags, preadv2};
use tracing::debug;

use super::whole;

/// Threads. A disk that is asked for one thing at a time gives less than it can, and where four or eight asked, it was slower again.
const THREADS: u64 = 2;

/// Bytes that a thread asks for at a time, and has room for.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// Reads files into the memory in which the system keeps what was read, until this is dropped. Nothing else keeps what is read here, so
/// that who needs memory meanwhile has it.
#[derive(Debug)]
pub struct Ahead {
    work: Arc<Work>,
}

#[derive(Debug)]
struct Work {
    files: Vec<(File, u64)>,
    /// The next piece's number, over all files.
    next: AtomicU64,
    enough: AtomicBool,
}

impl Ahead {
    /// Begins to read `files` in this order. What cannot be opened is left to who needs it.
    pub fn of(files: &[PathBuf]) -> Self {
        let open = |path: &PathBuf| {
            let file = whole::open(path).ok()?;
            let pieces = file.metadata().ok()?.len().div_ceil(READ_AHEAD_BYTES);
            Some((file, pieces))
        };
        let files: Vec<_> = files.iter().filter_map(open).collect();
        let pieces: u64 = files.iter().map(|(_, pieces)| pieces).sum();
        let work = Arc::new(Work { files, next: AtomicU64::new(0), enough: AtomicBool::new(false) });
        for number in 0..THREADS.min(pieces) {
            let work = Arc::clone(&work);
            let thread = thread::Builder::new().name(format!("ahead-{number}")).spawn(move || work.read());
            if let Err(cause) = thread {
                debug!("files are not read ahead: no thread for that: {cause}");
            }
        }
        Self { work }
    }
}

/// The threads end, each after the piece that it is at.
impl Drop for Ahead {
    fn drop(&mut self) {
        self.work.enough.store(true, Ordering::Relaxed);
    }
}

impl Work {
    fn read(&self) {
        let mut room = Vec::new();
        while let Some((file, offset)) = self.next() {
            if is_read(file, offset) {
                continue;
            }
            room.resize(READ_AHEAD_BYTES as usize, 0);
            if file.read_at(&mut room, offset).is_err() {
                return;
            }
        }
    }

    /// The piece to read next, by its file and where it begins.
    fn next(&self) -> Option<(&File, u64)> {
        if self.enough.load(Ordering::Relaxed) {
            return None;
        }
        let mut number = self.next.fetch_add(1, Ordering::Relaxed);
        for (file, pieces) in &self.files {
            match number.checked_sub(*pieces) {
                None => return Some((file, number * READ_AHEAD_BYTES)),
                Some(beyond) => number = beyond,
            }
        }
        None
    }
}

/// Whether both ends of a piece are in memory already, by asking for a byte of each that is not waited for; not, where the file system
/// cannot say.
fn is_read(file: &File, offset: u64) -> bool {
    let has = |offset| preadv2(file, &mut [IoSliceMut::new(&mut [0])], offset, ReadWriteFlags::NOWAIT).is_ok();
    has(offset) && has(offset + READ_AHEAD_BYTES - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Files of these lengths, and one that is missing.
    fn ahead(lengths: &[u64]) -> (tempfile::TempDir, Ahead) {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: usize| folder.path().join(number.to_string());
        for (number, length) in lengths.iter().enumerate() {
            File::create(path(number)).unwrap().set_len(*length).unwrap();
        }
        let mut files: Vec<PathBuf> = (0..lengths.len()).map(path).collect();
        files.insert(1, folder.path().join("missing"));
        let ahead = Ahead::of(&files);
        (folder, ahead)
    }

    #[test]
    fn every_piece_of_every_file_has_its_turn() {
        let (_folder, ahead) = ahead(&[READ_AHEAD_BYTES + 1, 0, 2 * READ_AHEAD_BYTES, 1]);
        let files = ahead.work.files.iter().map(|(file, pieces)| (file.try_clone().unwrap(), *pieces)).collect();
        let work = Work { files, next: AtomicU64::new(0), enough: AtomicBool::new(false) };
        let pieces = std::iter::from_fn(|| work.next()).map(|(file, at)| (file.metadata().unwrap().len(), at));
        let pieces: Vec<(u64, u64)> = pieces.collect();
        assert_eq!(
            pieces,
            [
                (READ_AHEAD_BYTES + 1, 0),
                (READ_AHEAD_BYTES + 1, READ_AHEAD_BYTES),
                (2 * READ_AHEAD_BYTES, 0),
                (2 * READ_AHEAD_BYTES, READ_AHEAD_BYTES),
                (1, 0)
            ]
        );
        work.read();
        assert!(work.next().is_none());
    }

    #[test]
    fn it_is_enough_when_nobody_waits_any_more() {
        let (_folder, ahead) = ahead(&[64 * READ_AHEAD_BYTES]);
        let work = Arc::clone(&ahead.work);
        drop(ahead);
        assert!(work.next().is_none());
    }
}
