//! What the entries of a spool share: its folder, how full it is, and whether its disk takes entries.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{error, info};

use super::capacity::Capacity;
use super::process_dir::ProcessDir;

#[derive(Debug)]
pub(super) struct Shared {
    /// `None` if entries are kept in memory alone.
    pub(super) dir: Option<ProcessDir>,
    pub(super) capacity: Capacity,
    /// Where the folders of all queues are, if that is known.
    pub(super) all: Option<PathBuf>,
    /// Folders of the kinds that were opened: their entries are being delivered.
    pub(super) open: Mutex<Vec<PathBuf>>,
    /// Whether the disk refused the last entry.
    pub(super) refused: AtomicBool,
}

impl Shared {
    /// Says that the disk refuses entries when it begins to, and that it takes them when it does so again.
    pub(super) fn say(&self, written: Result<(), &io::Error>) {
        let folder = self.dir.as_ref().map(|dir| dir.folder.display()).into_iter();
        let folder = folder.fold(String::new(), |_, folder| folder.to_string());
        match (written, self.refused.swap(written.is_err(), Ordering::Relaxed)) {
            (Err(cause), false) => error!(
                "the spool {folder} cannot be written: {cause}; what is done is sent all the same, and what is not sent when this \
                 process ends is lost"
            ),
            (Ok(()), true) => info!("the spool {folder} can be written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
    }
}
