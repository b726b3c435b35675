//! One entry in a file: a checksum of the rest, a line of JSON, and the body as it is sent.
//!
//! A file has its name only when it is whole: it is written under another, synced, renamed, and its folder synced. So a crash
//! leaves a draft, which is never read, or a whole entry.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex;

/// How the names of whole entries end: spools that lie on disks have the word of the first releases.
pub(super) const ENTRY: &str = "letter";

/// What entries that are being written are called at the end.
pub(super) const DRAFT: &str = "draft";

/// What entries that cannot be read are called at the end.
pub(super) const DAMAGED: &str = "damaged";

/// Counted up when the format changes: what another release wrote is set aside rather than misread.
const ENTRY_FORMAT: u32 = 1;

/// Hexadecimal digits of a checksum.
const CHECKSUM: usize = 64;

/// What stands over a body.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryHead<H> {
    format: u32,
    /// Milliseconds since 1970 after which it is not waited for.
    pub(super) deadline: u64,
    // Entries that lie on disks have it under this name.
    #[serde(rename = "note")]
    pub(super) header: H,
}

/// Why a file is no entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it was cut off or changed")]
    Checksum,
    #[error("another release wrote it: {0}")]
    EntryHead(String),
}

impl<H: Serialize + DeserializeOwned> EntryHead<H> {
    pub(super) fn new(header: H, deadline: u64) -> Self {
        Self { format: ENTRY_FORMAT, deadline, header }
    }

    /// Writes an entry to `entry`, in the place of what is there, and returns its size; whether a crash of the machine leaves it its name,
    /// [`sync_dir`] sees to. On an error what was there is there.
    pub(super) fn write(&self, entry: &Path, body: &[u8]) -> io::Result<u64> {
        let mut head = serde_json::to_vec(self)?;
        head.push(b'\n');
        let checksum = format!("{}\n", checksum(&head, body));
        let draft = entry.with_extension(DRAFT);
        let written =
            write_synced(&draft, &[checksum.as_bytes(), &head, body]).and_then(|()| fs::rename(&draft, entry));
        if let Err(cause) = written {
            let _ = fs::remove_file(&draft);
            return Err(cause);
        }
        Ok((checksum.len() + head.len() + body.len()) as u64)
    }

    /// Reads and checks the entry at `path`.
    pub(super) fn read(path: &Path) -> Result<(Self, Bytes), Damage> {
        let file = Bytes::from(fs::read(path)?);
        let (told, rest) = match file.get(CHECKSUM) {
            Some(b'\n') => (&file[..CHECKSUM], file.slice(CHECKSUM + 1..)),
            _ => return Err(Damage::Checksum),
        };
        if told != checksum(&rest, &[]).as_bytes() {
            return Err(Damage::Checksum);
        }
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Damage::Checksum)?;
        let head: Self = serde_json::from_slice(&rest[..end]).map_err(|cause| Damage::EntryHead(cause.to_string()))?;
        if head.format != ENTRY_FORMAT {
            return Err(Damage::EntryHead(format!("its format is {}, not {ENTRY_FORMAT}", head.format)));
        }
        Ok((head, rest.slice(end + 1..)))
    }
}

/// Brings the name of an entry to the disk.
pub(super) fn sync_dir(entry: &Path) -> io::Result<()> {
    File::open(entry.parent().unwrap_or(entry))?.sync_all()
}

fn write_synced(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    // Results are their owners': no other user of this machine reads them.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

fn checksum(head: &[u8], body: &[u8]) -> String {
    hex::encode(Sha256::new().chain_update(head).chain_update(body).finalize())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn written(header: &str, body: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.letter");
        let size = EntryHead::new(header.to_owned(), 7).write(&path, body).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), size);
        (folder, path)
    }

    #[test]
    fn only_its_owner_reads_an_entry_and_no_draft_is_left() {
        let (folder, path) = written("n", b"body");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_another_release_wrote_is_not_misread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.letter");
        EntryHead { format: 2, deadline: 0, header: 5 }.write(&path, b"").unwrap();
        let damage = EntryHead::<u32>::read(&path).unwrap_err();
        assert_eq!(damage.to_string(), "another release wrote it: its format is 2, not 1");
        let damage = EntryHead::<String>::read(&path).unwrap_err();
        assert!(matches!(damage, Damage::EntryHead(_)), "{damage}");
    }

    #[test]
    fn an_entry_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // Something that cannot be replaced lies where the entry should.
        fs::create_dir_all(folder.path().join("a.letter/x")).unwrap();
        EntryHead::new(1, 0).write(&folder.path().join("a.letter"), b"body").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Bodies with anything in them, lines and zeros among it.
        #[test]
        fn what_is_written_is_read(header in ".*", body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (_folder, path) = written(&header, &body);
            let (head, read) = EntryHead::<String>::read(&path).unwrap();
            prop_assert_eq!((head.header, head.deadline, read), (header, 7, Bytes::from(body)));
        }

        #[test]
        fn what_was_changed_or_cut_off_is_no_entry(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let (_folder, path) = written("header", b"some body");
            let whole = fs::read(&path).unwrap();
            let mut changed = whole.clone();
            changed[at.index(whole.len())] ^= flip;
            for broken in [&changed[..], &whole[..at.index(whole.len())]] {
                fs::write(&path, broken).unwrap();
                prop_assert!(EntryHead::<String>::read(&path).is_err());
            }
        }

        #[test]
        fn what_is_no_entry_is_refused(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_folder, path) = written("header", b"");
            fs::write(&path, garbage).unwrap();
            prop_assert!(EntryHead::<String>::read(&path).is_err());
        }
    }
}
