//! A file of a plan.

use super::digest::Digest;
use super::place::RelativePath;
use crate::net::Url;

/// A file of a plan.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it goes.
    pub path: RelativePath,
    /// Where it is.
    pub url: Url,
    /// Its size, if that is known.
    pub bytes: Option<u64>,
    /// What it must hash to, if that is known.
    pub sha256: Option<Digest>,
    /// What names this state of it, if no hash does.
    pub(super) blob: Option<String>,
    /// Its repository's page, for people, and the commit.
    pub(super) page: Option<(String, String)>,
}
