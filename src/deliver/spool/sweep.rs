//! Removes what no process will ever come for: entries to a queue that was given up, kinds that are no longer in use, files that were set
//! aside or never became entries.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::sleep;
use tracing::warn;

use super::Spool;
use super::entry_file::{DAMAGED, DRAFT, ENTRY};
use super::process_dir::{LOCK, ProcessDir, files, folders};
use super::shared::Shared;
use crate::blocking::blocking;
use crate::clock::{UnixTime, WallClock};

/// Days that a file lies there, untouched. Whatever waits for anything waits for less.
const MAX_AGE_DAYS: u64 = 7;

/// Between two rounds.
const SWEEP_INTERVAL: Duration = Duration::from_hours(24);

impl Spool {
    /// Removes, now and once a day, what lies there for 7 days and is no entry that somebody has in hand: in the folders of this queue,
    /// and of all others that are known, unless a process has them, which then does this itself. What is removed is logged.
    pub async fn tend(&self, clock: &dyn WallClock) -> Infallible {
        loop {
            let (shared, now) = (Arc::clone(&self.0), clock.now());
            blocking(move || shared.sweep(now)).await;
            sleep(SWEEP_INTERVAL).await;
        }
    }
}

impl Shared {
    pub(super) fn sweep(&self, now: UnixTime) {
        let Some(own) = &self.dir else { return };
        let queues = match &self.all {
            Some(all) => folders(all),
            None => Ok(own.folder.parent().map(Path::to_owned).into_iter().collect()),
        };
        let dirs = queues.map(|queues| queues.iter().filter_map(|queue| folders(queue).ok()).flatten().collect());
        match dirs {
            Ok(dirs) => {
                let dirs: Vec<PathBuf> = dirs;
                // Only what a worker made is ours to remove from.
                for dir in dirs.iter().filter(|dir| dir.join(LOCK).is_file()) {
                    if let Err(cause) = self.sweep_seat(own, dir, now) {
                        warn!("what is old in {} stays there: {cause}", dir.display());
                    }
                }
            }
            Err(cause) => warn!("what is old in the spool stays there: {cause}"),
        }
    }

    fn sweep_seat(&self, own: &ProcessDir, dir: &Path, now: UnixTime) -> io::Result<()> {
        let mut old = Vec::new();
        for kind in folders(dir)? {
            for ending in [ENTRY, DRAFT, DAMAGED] {
                if ending != ENTRY || !self.open.lock().unwrap_or_else(PoisonError::into_inner).contains(&kind) {
                    old.extend(files(&kind, ending)?.into_iter().filter(|file| is_old(file, now)));
                }
            }
        }
        // A process that has it needs no help. Where there is nothing to do, no process that starts is kept from it, either.
        let _seat = match old.as_slice() {
            [] => return Ok(()),
            _ if dir == own.folder => None,
            _ => match ProcessDir::take_if_free(dir.to_owned())? {
                None => return Ok(()),
                free => free,
            },
        };
        for file in old {
            fs::remove_file(&file)?;
            warn!("{} lay there for {MAX_AGE_DAYS} days and no process sends it: it is removed", file.display());
        }
        Ok(())
    }
}

/// By the date of its last change; what cannot be looked at is not.
fn is_old(file: &Path, now: UnixTime) -> bool {
    let changed = fs::metadata(file).and_then(|file| file.modified()).ok();
    let changed = changed.and_then(|changed| changed.duration_since(UNIX_EPOCH).ok());
    changed.is_some_and(|changed| {
        changed + Duration::from_hours(24 * MAX_AGE_DAYS) <= Duration::from_millis(now.as_millis())
    })
}
