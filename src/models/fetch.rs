//! Fetches one file, over as many connections as it takes.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::digest::Digest;
use super::error::PullError;
use super::limits::plausible;
use super::part::PartialFile;
use super::persist::PAUSES;
use super::place::RelativePath;
use crate::net::{DownloadClient, DownloadError, Resume, Url, jitter};

/// Tries in a row that bring nothing more.
const FRUITLESS_TRIES: u32 = 5;

/// A file to fetch.
#[derive(Debug, Clone)]
pub(super) struct WantedFile {
    /// What it is called.
    pub(super) path: RelativePath,
    /// Where it is.
    pub(super) url: Url,
    /// The repository it belongs to, for people, and its revision.
    pub(super) page: Option<(String, String)>,
    /// Where it goes.
    pub(super) file: PathBuf,
    /// What it must have, as far as that is known.
    pub(super) bytes: Option<u64>,
    /// What it must hash to, if that is known.
    pub(super) sha256: Option<Digest>,
    /// What names this state of it, if no hash does.
    pub(super) blob: Option<String>,
}

/// What is seen of a file on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// So many bytes are there, of so many, if that is known.
    At(u64, Option<u64>),
    /// A try ended like this, and another follows.
    Again(String),
    /// All of it is there, and is what it should be.
    Done,
}

/// How a try ended.
enum End {
    /// Another may bring more.
    Passing(String, Duration),
    /// None will.
    Final(PullError),
    /// What is there is of no use.
    Useless(PullError),
}

impl WantedFile {
    fn identity(&self) -> String {
        let hash = self.sha256.map(|sha256| format!("sha256:{sha256}"));
        hash.or_else(|| Some(format!("blob:{}", self.blob.as_ref()?))).unwrap_or_default()
    }

    fn refused(&self, cause: DownloadError) -> End {
        match (cause.retry(), cause) {
            (Some(pause), cause) => End::Passing(cause.to_string(), pause),
            (None, DownloadError::Refused(refusal)) => {
                let page = self.page.as_ref().map(|(page, revision)| (page.clone(), revision.as_str()));
                End::Final(PullError::refused(refusal, page))
            }
            (None, DownloadError::Failed(cause)) => End::Final(PullError::Host(cause)),
        }
    }

    fn disk(&self) -> impl Fn(std::io::Error) -> End {
        |cause| End::Final(PullError::disk(&self.file)(cause))
    }
}

/// Fetches the file to its part and gives its size and hash. What an earlier try left is gone on with.
pub(super) async fn fetch(
    downloads: &DownloadClient,
    want: &WantedFile,
    seen: impl Fn(Seen) + Send + Sync,
) -> Result<(u64, Digest), PullError> {
    let mut part = PartialFile::open(&want.file, &want.identity()).map_err(PullError::disk(&want.file))?;
    let (mut failures, mut most) = (0, part.len());
    loop {
        let (cause, pause) = match attempt(downloads, want, &mut part, &seen).await {
            Ok(sha256) => {
                seen(Seen::Done);
                return Ok((part.len(), sha256));
            }
            Err(End::Passing(cause, pause)) => (cause, pause),
            Err(End::Final(error)) => return Err(error),
            Err(End::Useless(error)) => {
                part.remove().map_err(PullError::disk(&want.file))?;
                return Err(error);
            }
        };
        // Only what brings a file further counts as a success: a host may send the same beginning for ever.
        failures = if part.len() > most { 0 } else { failures + 1 };
        most = most.max(part.len());
        if failures >= FRUITLESS_TRIES {
            return Err(PullError::Broken { file: want.path.to_string(), cause, tries: FRUITLESS_TRIES });
        }
        seen(Seen::Again(cause));
        sleep(PAUSES.after(failures.max(1), pause, jitter())).await;
    }
}

/// One try, from where the last one ended.
async fn attempt(
    downloads: &DownloadClient,
    want: &WantedFile,
    part: &mut PartialFile,
    seen: &(impl Fn(Seen) + Send + Sync),
) -> Result<Digest, End> {
    let mut sha256 = want.sha256;
    // A file that is whole needs no host, unless only that knows how long it is.
    if want.bytes.is_none_or(|bytes| part.len() < bytes || bytes == 0) {
        sha256 = sha256.or(receive(downloads, want, part, seen).await?);
    }
    let found = part.finish().map_err(want.disk())?;
    let (file, len) = (want.path.to_string(), part.len());
    match (want.bytes, sha256) {
        (Some(expected), _) if expected != len => Err(End::Useless(PullError::Size { file, expected, found: len })),
        (_, Some(expected)) if expected != found => Err(End::Useless(PullError::Hash { file, expected, found })),
        _ => Ok(found),
    }
}

/// Receives the rest of the file, and the hash that its host knows of it, if it does.
async fn receive(
    downloads: &DownloadClient,
    want: &WantedFile,
    part: &mut PartialFile,
    seen: &(impl Fn(Seen) + Send + Sync),
) -> Result<Option<Digest>, End> {
    plausible(&want.path, want.bytes.unwrap_or_default()).map_err(End::Useless)?;
    let from = Resume { byte: part.len(), tag: part.tag() };
    let mut incoming = match downloads.open(&want.url, from).await {
        Ok(incoming) => incoming,
        // What is there is not the beginning of what the host has.
        Err(DownloadError::Refused(refusal)) if refusal.status == 416 && part.len() > 0 => {
            part.begin("").map_err(want.disk())?;
            return Err(End::Passing("the host has no such part of it".into(), Duration::ZERO));
        }
        Err(cause) => return Err(want.refused(cause)),
    };
    let changed = !part.tag().is_empty() && incoming.tag != part.tag();
    if incoming.from > 0 && (incoming.from != part.len() || changed) {
        part.begin("").map_err(want.disk())?;
        return Err(End::Passing("the host sent another part than it was asked for".into(), Duration::ZERO));
    }
    if let (Some(expected), Some(found)) = (want.bytes, incoming.total)
        && expected != found
    {
        return Err(End::Useless(PullError::Size { file: want.path.to_string(), expected, found }));
    }
    plausible(&want.path, incoming.total.unwrap_or_default()).map_err(End::Useless)?;
    if incoming.from == 0 {
        part.begin(&incoming.tag).map_err(want.disk())?;
    }
    let total = want.bytes.or(incoming.total);
    loop {
        seen(Seen::At(part.len(), total));
        let Some(bytes) = incoming.next().await.map_err(|cause| want.refused(cause))? else { break };
        // Written where it is awaited: the runtime has a thread for each file, and its other tasks can wait for a disk.
        part.add(&bytes).map_err(want.disk())?;
        if let Some(expected) = total.filter(|total| part.len() > *total) {
            let found = part.len();
            return Err(End::Useless(PullError::Size { file: want.path.to_string(), expected, found }));
        }
        plausible(&want.path, part.len()).map_err(End::Useless)?;
    }
    match total {
        Some(total) if part.len() < total => {
            Err(End::Passing(format!("it broke off after {} of {total} bytes", part.len()), Duration::ZERO))
        }
        _ => Ok(incoming.linked.and_then(|tag| Digest::parse(tag.trim_matches('"')))),
    }
}
