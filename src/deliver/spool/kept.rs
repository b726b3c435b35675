//! A letter that is kept until it has arrived.

use std::io;
use std::mem::replace;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};

use bytes::Bytes;
use tracing::warn;

use super::letter::{DAMAGED, Damage, Head, settle};
use super::{Note, Shared, SpoolError};
use crate::blocking::blocking;
use crate::clock::UnixTime;

/// A letter on its way. Dropped before [`Kept::done`], it stays on disk for the next process, and counts until then.
pub struct Kept<N> {
    shared: Arc<Shared>,
    head: Head<N>,
    pub(super) place: Place,
}

/// Where the letter is.
pub(super) enum Place {
    Disk {
        path: PathBuf,
        size: u64,
    },
    Memory(Bytes),
    /// It is in memory, and the one that it was exchanged for still on disk, as the disk took none.
    Both {
        path: PathBuf,
        size: u64,
        body: Bytes,
    },
    /// It has arrived.
    Gone,
}

impl Place {
    /// What it counts.
    fn size(&self) -> u64 {
        match self {
            Self::Disk { size, .. } => *size,
            Self::Memory(body) => body.len() as u64,
            Self::Both { size, body, .. } => size + body.len() as u64,
            Self::Gone => 0,
        }
    }
}

impl<N> Kept<N> {
    pub(super) fn new(shared: Arc<Shared>, head: Head<N>, place: Place) -> Self {
        shared.account.add(place.size());
        Self { shared, head, place }
    }
}

impl<N: Note> Kept<N> {
    /// What stands on it.
    pub fn note(&self) -> &N {
        &self.head.note
    }

    /// Whether it would outlive this process.
    pub fn lasts(&self) -> bool {
        matches!(self.place, Place::Disk { .. })
    }

    /// When nobody waits for it any more.
    pub fn deadline(&self) -> UnixTime {
        UnixTime::from_millis(self.head.deadline)
    }

    /// Its body, read from disk and checked, so that what waits for its next try takes no memory.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`]: there is nothing to send any more.
    pub async fn body(&self) -> Result<Bytes, SpoolError> {
        let path = match &self.place {
            Place::Disk { path, .. } => path.clone(),
            Place::Memory(body) | Place::Both { body, .. } => return Ok(body.clone()),
            Place::Gone => return Ok(Bytes::new()),
        };
        let id = self.note().job().to_owned();
        blocking(move || match Head::<N>::read(&path) {
            Ok((_, body)) => Ok(body),
            Err(damage) => {
                set_aside(&path, &damage, Some(&id));
                Err(SpoolError::Damaged { file: path, why: damage.to_string() })
            }
        })
        .await
    }

    /// Puts another letter in its place, at once for whoever takes over: one of the two is there whatever happens. What the disk does not
    /// take is kept in memory, and the letter before stays on disk.
    pub async fn exchange(self, note: N, body: Bytes) -> Self {
        blocking(move || {
            let mut kept = self;
            kept.head.note = note;
            let before = kept.place.size();
            kept.place = match replace(&mut kept.place, Place::Gone) {
                Place::Disk { path, size } | Place::Both { path, size, .. } => match kept.head.write(&path, &body) {
                    Ok(size) => {
                        // Whichever of the two has the name after a crash.
                        kept.shared.say(settle(&path).as_ref().copied());
                        Place::Disk { path, size }
                    }
                    Err(cause) => {
                        kept.shared.say(Err(&cause));
                        Place::Both { path, size, body }
                    }
                },
                Place::Memory(_) | Place::Gone => Place::Memory(body),
            };
            kept.shared.account.add(kept.place.size());
            kept.shared.account.remove(before);
            kept
        })
        .await
    }

    /// It has arrived, or nobody will ever take it: removes it.
    pub async fn done(self) {
        blocking(move || {
            let mut kept = self;
            let place = replace(&mut kept.place, Place::Gone);
            if let Place::Disk { path, .. } | Place::Both { path, .. } = &place {
                remove(path, kept.note().job());
            }
            kept.shared.account.remove(place.size());
        })
        .await;
    }
}

impl<N> Drop for Kept<N> {
    fn drop(&mut self) {
        // What lies on disk still lies there; what was in memory ends here.
        if let Place::Memory(body) | Place::Both { body, .. } = &self.place {
            self.shared.account.remove(body.len() as u64);
        }
    }
}

/// Names the job and where the letter lies; bodies are pictures, and notes may hold what a stranger keeps secret.
impl<N: Note> fmt::Debug for Kept<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match &self.place {
            Place::Disk { path, .. } | Place::Both { path, .. } => Some(path),
            Place::Memory(_) | Place::Gone => None,
        };
        f.debug_struct("Kept").field("job", &self.note().job()).field("path", &path).finish_non_exhaustive()
    }
}

/// Renames what cannot be read, so that it is neither met again nor lost to who wants to look into it. `id` is the job, if it is known.
pub(super) fn set_aside(path: &Path, damage: &Damage, id: Option<&str>) {
    let aside = path.with_extension(DAMAGED);
    match fs::rename(path, &aside) {
        Ok(()) => warn!(id, "{} is no letter: {damage}; it is set aside as {}", path.display(), aside.display()),
        Err(cause) => warn!(id, "{} is no letter: {damage}; and cannot be set aside: {cause}", path.display()),
    }
}

/// Removes the letter about a job.
pub(super) fn remove(path: &Path, id: &str) {
    match fs::remove_file(path) {
        Ok(()) => {}
        // Who cleared the folder by hand was told by us that it was full.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => warn!(id, "{} cannot be removed, and will be sent again: {cause}", path.display()),
    }
}
