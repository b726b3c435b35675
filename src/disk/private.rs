//! Files and folders that their owner alone may look into, whatever the umask: prompts, pictures, hashes of keys.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a folder and those above it that are not there. Those that are stay as somebody made them.
///
/// # Errors
/// One cannot be made.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file to be written, or makes it.
///
/// # Errors
/// It cannot be opened or made.
pub fn file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a file if there is none. One that is there is not even opened: closing it would undo the locks that this process has on it.
///
/// # Errors
/// It is not there and cannot be made.
pub fn begin(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes a file from everybody but its owner. Returns whether others could have read or written it.
///
/// # Errors
/// It is not there, or belongs to somebody else.
pub fn withdraw(path: &Path) -> io::Result<bool> {
    let mode = fs::metadata(path)?.mode() & 0o777;
    let open = mode & 0o077 != 0;
    if open {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o700))?;
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_made_is_its_owner_s_and_what_was_open_is_withdrawn() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let (inner, path) = (root.path().join("a/b"), root.path().join("a/b/f"));
        folder(&inner).unwrap();
        begin(&path).unwrap();
        assert_eq!([mode(&root.path().join("a")), mode(&inner), mode(&path)], [0o700, 0o700, 0o600]);
        assert!(!withdraw(&path).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        file(&path).unwrap();
        assert!(withdraw(&path).unwrap() && mode(&path) == 0o600);
    }
}
