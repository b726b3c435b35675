//! Why a spool or an entry cannot be used.

use std::io;
use std::path::PathBuf;

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It cannot be made, read or locked.
    #[error("the spool {} cannot be used: {cause}; check the folder, or set spool.dir to another", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// There are no folders left for this process.
    #[error("the spool {} serves {processes} processes already: set spool.dir to another folder", folder.display())]
    Taken {
        /// Which spool.
        folder: PathBuf,
        /// How many processes it serves.
        processes: usize,
    },
    /// An entry was whole and no longer is.
    #[error("{} is damaged and was set aside: {why}", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}
