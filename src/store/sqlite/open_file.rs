//! Whether the file that is open is still the one at its path. One that was removed or replaced is written to all the same, and gone with the
//! process.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::StoreError;

/// A file that is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    /// Its device and inode.
    identity: (u64, u64),
    lost: AtomicBool,
}

impl OpenFile {
    /// The one that was opened at this path a moment ago.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)?, lost: AtomicBool::new(false) })
    }

    /// Checks that it is still there. Logs when that changes. Blocks.
    ///
    /// # Errors
    /// It was removed or replaced.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        // A folder that cannot be read says nothing of what is in it.
        let lost = match identity(&self.path) {
            Ok(found) => found != self.identity,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if self.lost.swap(lost, Ordering::Relaxed) != lost {
            if lost {
                tracing::error!("{}; put it back, or restart with a new one", self.why());
            } else {
                tracing::info!("the queue's file is at {} again", self.path.display());
            }
        }
        if lost { Err(StoreError::Failed(self.why())) } else { Ok(()) }
    }

    fn why(&self) -> String {
        let path = self.path.display();
        format!(
            "the queue's file was removed or replaced: what is in the one that is open is lost with this process, and is no longer at {path}"
        )
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}
