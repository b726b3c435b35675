//! What tells whether a file has changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Inode, size, and time of the last change in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::torch) struct FileState(u64, u64, i64, i64);

impl FileState {
    /// That of the file or folder at `path` now.
    pub(in crate::engine::torch) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self(found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    }
}
