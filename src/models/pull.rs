//! Carries a plan out: all files, several at once, into a folder that becomes the model.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tracing::warn;

use super::digest::Digest;
use super::error::PullError;
use super::family::{CONFIG_BYTES, Recognised, of_file, of_folder};
use super::fetch::{Seen, WantedFile, fetch};
use super::hub::Hub;
use super::item::Item;
use super::manifest::Manifest;
use super::part::part;
use super::place::RelativePath;
use super::plan::PullPlan;
use super::staging::{Staged, Staging};
use crate::clock::UnixTime;
use crate::disk::whole;
use crate::net::DownloadClient;

/// Is told what becomes of each file of a plan, by its number.
pub type Watch = Arc<dyn Fn(usize, Seen) + Send + Sync>;

/// Fetches what `plan` tells of, `jobs` files at once, and has all of it checked and together when it is done.
///
/// Dropping the future ends it; what came is kept for the next.
///
/// # Errors
/// Another process pulls it, the disk lacks room, or a file does not come as it was published.
pub async fn pull(
    hub: &Hub,
    plan: &PullPlan,
    models_dir: &Path,
    jobs: usize,
    now: UnixTime,
    watch: &Watch,
) -> Result<Staged, PullError> {
    let staging = Staging::begin(models_dir, &plan.name)?;
    staging.room(plan.items.iter().map(|item| (staging.file(&item.path), item.bytes.unwrap_or_default())))?;
    let is_large = |(_, item): &(usize, &Item)| item.path.as_str().ends_with(".safetensors");
    let (large, small): (Vec<_>, Vec<_>) = plan.items.iter().enumerate().partition(is_large);
    let mut files = Vec::new();
    // The configuration first: it tells whether the rest is worth hours.
    for group in [small, large] {
        let wants = group.into_iter().map(|(number, item)| (number, want(item, &staging))).collect();
        files.extend(fetch_all(hub.downloads(), wants, jobs, watch).await?);
        refuse_other_family(plan, &staging)?;
    }
    let time = Timestamp::from_millisecond(now.as_millis() as i64).unwrap_or_default();
    let family = recognised(plan, &staging).unwrap_or_else(|cause| {
        warn!(%cause, "the files do not tell of which family the model is");
        Recognised::Other("other")
    });
    let family = family.to_string();
    let about = Manifest { family, pulled: Some(format!("{time:.0}")), ..plan.about.clone() };
    files.sort_by_key(|(number, ..)| *number);
    let path = |number: usize| plan.items[number].path.clone();
    let files: Vec<(RelativePath, u64, Digest)> =
        files.into_iter().map(|(number, bytes, sha256)| (path(number), bytes, sha256)).collect();
    staging.complete(about, files)
}

fn want(item: &Item, staging: &Staging) -> WantedFile {
    WantedFile {
        path: item.path.clone(),
        url: item.url.clone(),
        page: item.page.clone(),
        file: staging.file(&item.path),
        bytes: item.bytes,
        sha256: item.sha256,
        blob: item.blob.clone(),
    }
}

/// Size and hash of each file, by its number. The first that fails ends all.
async fn fetch_all(
    downloads: &DownloadClient,
    mut wants: VecDeque<(usize, WantedFile)>,
    jobs: usize,
    watch: &Watch,
) -> Result<Vec<(usize, u64, Digest)>, PullError> {
    let (mut running, mut files) = (JoinSet::new(), Vec::new());
    loop {
        while running.len() < jobs
            && let Some((number, want)) = wants.pop_front()
        {
            let (downloads, watch) = (downloads.clone(), Arc::clone(watch));
            running.spawn(async move {
                let (bytes, sha256) = fetch(&downloads, &want, |seen| watch(number, seen)).await?;
                Ok((number, bytes, sha256))
            });
        }
        match running.join_next().await {
            Some(Ok(Ok(file))) => files.push(file),
            Some(Ok(Err(error))) => {
                // Awaited, so that none of the others writes or tells anything after this.
                running.shutdown().await;
                return Err(error);
            }
            Some(Err(cause)) => match cause.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // None of them is cancelled alone.
                Err(_) => return Ok(files),
            },
            None => return Ok(files),
        }
    }
}

/// Refuses a repository whose configuration tells of a family that does not load. A single file is judged by who loads it.
fn refuse_other_family(plan: &PullPlan, staging: &Staging) -> Result<(), PullError> {
    let Some(repository) = &plan.about.repository else { return Ok(()) };
    match recognised(plan, staging) {
        Ok(Recognised::Other(name)) => Err(PullError::Family(repository.clone(), name.to_owned())),
        _ => Ok(()),
    }
}

/// What the files that have come tell of the family.
fn recognised(plan: &PullPlan, staging: &Staging) -> io::Result<Recognised> {
    let arrived = |item: Option<&Item>| match item {
        Some(item) => Ok(part(&staging.file(&item.path))),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    if plan.about.repository.is_none() {
        return of_file(&arrived(plan.items.first())?);
    }
    let read = |place: &str| {
        let item = plan.items.iter().find(|item| item.path.as_str() == place);
        whole::read(&arrived(item)?, CONFIG_BYTES)
    };
    of_folder(&read)
}
