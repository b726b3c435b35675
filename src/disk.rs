//! How much of a disk is free, what is read from it whole or before it is asked for, and what others on it may not read.

pub mod ahead;
pub mod private;
pub mod whole;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

/// A file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// That we may still write.
    pub free: u64,
    /// All that it has.
    pub all: u64,
}

/// The disk that `path` lies on, which must be there.
///
/// # Errors
/// There is nothing at `path`, or the system does not say.
pub fn of(path: &Path) -> io::Result<Disk> {
    let disk = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Disk { free: bytes(disk.f_bavail), all: bytes(disk.f_blocks) })
}

/// Where that disk is mounted, as people know it; `path` itself, if that cannot be told.
pub fn mount(path: &Path) -> PathBuf {
    let Ok(path) = path.canonicalize() else { return path.to_owned() };
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    let own = device(&path);
    let mount = path.ancestors().take_while(|above| device(above) == own).last();
    mount.unwrap_or(&path).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_has_a_size_and_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let disk = of(folder.path()).unwrap();
        assert!(disk.all > 0 && disk.free <= disk.all, "{disk:?}");
        assert!(of(&folder.path().join("missing")).is_err());
        let mount = mount(folder.path());
        assert!(folder.path().canonicalize().unwrap().starts_with(&mount));
        let above = mount.parent().map(|above| above.metadata().unwrap().dev());
        assert_ne!(above, Some(mount.metadata().unwrap().dev()), "{}", mount.display());
        assert_eq!(super::mount(Path::new("/proc/self")), Path::new("/proc"));
    }
}
