//! A file as a hub tells of it.

use super::digest::Digest;
use super::place::RelativePath;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Where it lies.
    pub path: RelativePath,
    /// Its size.
    pub bytes: Option<u64>,
    /// Its hash; hubs give it for large files only.
    pub sha256: Option<Digest>,
    /// What names this state of it among all others, where no hash does.
    pub blob: Option<String>,
}
