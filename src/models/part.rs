//! A file that is on its way: what of it came, and enough about it to go on with it in another process.
//!
//! `NAME.part` holds its bytes, `NAME.from` two lines: what names the state of the file that they are of, and the host's tag for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::digest::{Digest, Hasher, hash};

/// A file that is on its way.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
    identity_file: PathBuf,
    /// What names the state of the file; empty if only the host's tag does.
    identity: String,
    tag: String,
    file: File,
    hasher: Hasher,
    len: u64,
}

/// Where the bytes of the file that will be at `path` are until then.
pub(super) fn part(path: &Path) -> PathBuf {
    with(path, ".part")
}

/// Refuses a named pipe, which would be waited for without end, and a socket.
fn only_file(path: &Path) -> io::Result<()> {
    match fs::metadata(path).map(|there| there.file_type()) {
        Ok(kind) if kind.is_fifo() || kind.is_socket() => {
            Err(io::Error::other(format!("{} is no file", path.display())))
        }
        _ => Ok(()),
    }
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

impl PartialFile {
    /// Opens what an earlier process left of the file at `path`, if it is of the state that `identity` names; else begins again.
    pub(super) fn open(path: &Path, identity: &str) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let (part, identity_file) = (part(path), with(path, ".from"));
        // A process that was killed while it put files in their places.
        if path.exists() && !part.exists() {
            fs::rename(path, &part)?;
        }
        for there in [&part, &identity_file] {
            only_file(there)?;
        }
        let told = fs::read_to_string(&identity_file).unwrap_or_default();
        let (known, tag) = told.split_once('\n').unwrap_or_default();
        let tag = tag.trim_end();
        let usable = told.ends_with('\n') && known == identity && !(identity.is_empty() && tag.is_empty());
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&part)?;
        let mut whole = Self {
            path: path.to_owned(),
            identity_file,
            identity: identity.to_owned(),
            tag: if usable { tag.to_owned() } else { String::new() },
            hasher: Hasher::default(),
            len: 0,
            file: file.try_clone()?,
        };
        if usable {
            whole.hasher = hash(&mut file, |read| whole.len += read)?;
        } else {
            whole.begin("")?;
        }
        Ok(whole)
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The host's tag for them; empty if it gave none.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// Drops what is there, for a file that the host calls `tag`.
    pub(super) fn begin(&mut self, tag: &str) -> io::Result<()> {
        // In this order bytes are never taken for those of another state.
        if self.file.metadata()?.len() > 0 {
            self.file.set_len(0)?;
        }
        (self.hasher, self.len, self.tag) = (Hasher::default(), 0, tag.replace(['\r', '\n'], ""));
        fs::write(&self.identity_file, format!("{}\n{}\n", self.identity, self.tag))
    }

    /// Adds bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// What all of it hashes to, when it is on the disk.
    pub(super) fn finish(&self) -> io::Result<Digest> {
        self.file.sync_all()?;
        Ok(self.hasher.digest())
    }

    /// Removes all of it.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.identity_file)?;
        fs::remove_file(part(&self.path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn leave(path: &Path, identity: &str, tag: &str) {
        let mut part = PartialFile::open(path, identity).unwrap();
        part.begin(tag).unwrap();
        part.add(b"abc").unwrap();
    }

    #[test]
    fn what_was_left_is_used_if_it_is_of_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unet/w.safetensors");
        for (left, tag, asked, used) in [
            ("sha256:1", "", "sha256:1", 3),
            ("sha256:1", "\"t\"", "sha256:1", 3),
            ("sha256:1", "\"t\"", "sha256:2", 0),
            ("", "\"t\"", "", 3),
            ("", "", "", 0),
            ("", "\"t\"", "sha256:1", 0),
        ] {
            leave(&path, left, tag);
            let part = PartialFile::open(&path, asked).unwrap();
            assert_eq!(part.len(), used, "{left} {tag} {asked}");
            assert_eq!(part.tag(), if used == 0 { "" } else { tag });
        }
        leave(&path, "sha256:1", "");
        let mut part = PartialFile::open(&path, "sha256:1").unwrap();
        part.add(b"def").unwrap();
        let mut whole = Hasher::default();
        whole.update(b"abcdef");
        assert_eq!(part.finish().unwrap(), whole.digest());
        part.remove().unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        for there in ["w.part", "w.from"] {
            let pipe = folder.path().join(there);
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let error = PartialFile::open(&path, "sha256:1").unwrap_err().to_string();
            assert!(error.contains(there) && error.contains("is no file"), "{error}");
            fs::remove_file(pipe).unwrap();
        }
    }

    #[test]
    fn a_note_that_was_cut_or_lost_is_no_note() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        leave(&path, "sha256:1", "\"tag\"");
        fs::write(folder.path().join("w.from"), "sha256:1").unwrap();
        assert_eq!(PartialFile::open(&path, "sha256:1").unwrap().len(), 0);
        leave(&path, "sha256:1", "\"tag\"");
        fs::remove_file(folder.path().join("w.from")).unwrap();
        assert_eq!(PartialFile::open(&path, "sha256:1").unwrap().len(), 0);
    }

    #[test]
    fn a_file_that_was_in_its_place_already_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        leave(&path, "sha256:1", "");
        fs::rename(part(&path), &path).unwrap();
        assert_eq!(PartialFile::open(&path, "sha256:1").unwrap().len(), 3);
        assert!(!path.exists());
    }
}
