//! SHA-256 of files, and `SHA256SUMS` as the tool `sha256sum` reads and writes it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use super::place::RelativePath;
use crate::disk::whole;
use crate::hex;

/// The file that lists a folder's hashes.
pub const SUMS: &str = "SHA256SUMS";

/// Bytes of it: it may be of more than one model.
const SUMS_BYTES: u64 = 4 << 20;

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// What a file's bytes hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Hashes bytes as they come.
#[derive(Debug, Clone, Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    /// Takes more bytes in.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// What all bytes so far hash to.
    pub(super) fn digest(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }
}

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }

    /// Of the file at `path`; `seen` is told how many bytes were read, each time that some were.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of_file(path: &Path, seen: impl FnMut(u64)) -> io::Result<Self> {
        Self::of(&mut whole::open(path)?, seen)
    }

    /// Of all that comes from `source`; `seen` is told how many bytes came, each time that some did.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn of(source: &mut impl Read, seen: impl FnMut(u64)) -> io::Result<Self> {
        Ok(hash(source, seen)?.digest())
    }
}

/// Hashes the rest of `source`.
pub(super) fn hash(source: &mut impl Read, mut seen: impl FnMut(u64)) -> io::Result<Hasher> {
    let (mut hasher, mut chunk) = (Hasher::default(), vec![0; CHUNK]);
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok(hasher),
            Ok(read) => {
                hasher.update(&chunk[..read]);
                seen(read as u64);
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no SHA-256")))
    }
}

/// What `SHA256SUMS` in `folder` says; `None` if there is none.
///
/// # Errors
/// It cannot be read, or has a line that `sha256sum` would not have written, or one for a file outside of the folder.
pub fn read_sums(folder: &Path) -> io::Result<Option<Vec<(RelativePath, Digest)>>> {
    let text = match whole::read_text(&folder.join(SUMS), SUMS_BYTES) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let wrong = |number: usize| {
        io::Error::new(io::ErrorKind::InvalidData, format!("line {} of {SUMS} is not one of sha256sum's", number + 1))
    };
    lines.map(|(number, line)| parse_line(line).ok_or_else(|| wrong(number))).collect::<io::Result<_>>().map(Some)
}

/// `digest`, a space, a space or `*` (which says that the file was read as it is), and the file.
fn parse_line(line: &str) -> Option<(RelativePath, Digest)> {
    let (digest, rest) = line.split_at_checked(64)?;
    let place = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    Some((RelativePath::parse(place.strip_prefix("./").unwrap_or(place))?, Digest::parse(digest)?))
}

/// Writes `SHA256SUMS` in `folder` and sees to it that it is on the disk.
pub(super) fn write_sums<'a>(folder: &Path, sums: impl Iterator<Item = (&'a RelativePath, Digest)>) -> io::Result<()> {
    let mut file = File::create(folder.join(SUMS))?;
    for (place, digest) in sums {
        writeln!(file, "{digest}  {place}")?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    /// Of `abc`, from FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_hashes_as_the_standard_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let mut read = 0;
        let digest = Digest::of_file(&path, |bytes| read += bytes).unwrap();
        assert_eq!((digest.to_string().as_str(), read), (ABC, 3));
        assert_eq!(Digest::parse(&ABC.to_uppercase()), Some(digest));
        for wrong in ["", &ABC[1..], &format!("{ABC}0"), &ABC.replace('b', "g"), &"é".repeat(32)] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sums_are_those_of_the_tool() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_sums(folder.path()).unwrap(), None);
        let place = |text: &str| RelativePath::parse(text).unwrap();
        let (a, b, digest) = (place("a"), place("unet/b c"), Digest::parse(ABC).unwrap());
        write_sums(folder.path(), [(&a, digest), (&b, digest)].into_iter()).unwrap();
        let text = fs::read_to_string(folder.path().join(SUMS)).unwrap();
        assert_eq!(text, format!("{ABC}  a\n{ABC}  unet/b c\n"));
        let read = |text: String| {
            fs::write(folder.path().join(SUMS), text).unwrap();
            read_sums(folder.path())
        };
        assert_eq!(read(text).unwrap(), Some(vec![(a.clone(), digest), (b, digest)]));
        assert_eq!(read(format!("\n{ABC} *./a\n")).unwrap(), Some(vec![(a, digest)]));
        for line in ["x", ABC, &format!("{ABC} a"), &format!("{ABC}  ../a"), &format!("{ABC}  /a"), &"é".repeat(70)] {
            let error = read(format!("{ABC}  a\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }
}
