//! Hashes of a model's weight files, compared with the `SHA256SUMS` beside them where there is one: a copy that is as long as it should
//! be can still be another.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::{Check, Verdict, gib};
use crate::config::weights::files;

/// What `sha256sum` writes of the files of a model: in its folder, or beside it if it is a file.
pub const LIST: &str = "SHA256SUMS";

/// Bytes between two looks at whether it is enough.
const BLOCK: usize = 1 << 20;

/// Digits of a hash that people compare by eye.
const SHORT: usize = 12;

/// A weight file that was hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Where it is.
    pub file: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// How long that took.
    pub time: Duration,
    /// In hexadecimal digits.
    hash: String,
    /// What it should be, if somebody said so.
    listed: Option<String>,
}

/// A file that cannot be hashed, or compared.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It, or the list, cannot be read.
    #[error("{} cannot be read: {cause}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The list is not what it should be.
    #[error("{}: line {number} is none that sha256sum writes: 64 hexadecimal digits, two spaces, a file's name", file.display())]
    Line {
        /// The list.
        file: PathBuf,
        /// Counted from 1.
        number: usize,
    },
    /// A hash is not the listed one.
    #[error("{} is not the file that {LIST} beside it lists: its sha256 is {found}, and not {listed}", file.display())]
    Other {
        /// Which file.
        file: PathBuf,
        /// Its hash.
        found: String,
        /// What it should be.
        listed: String,
    },
}

impl Hashed {
    /// The first digits of its hash.
    pub fn short(&self) -> &str {
        self.hash.get(..SHORT).unwrap_or(&self.hash)
    }

    /// Whether it is the file that is listed, if one is.
    ///
    /// # Errors
    /// [`Fault::Other`].
    pub fn compare(&self) -> Result<bool, Fault> {
        match &self.listed {
            Some(listed) if *listed != self.hash => {
                Err(Fault::Other { file: self.file.clone(), found: self.hash.clone(), listed: listed.clone() })
            }
            listed => Ok(listed.is_some()),
        }
    }
}

/// Hashes the weight files at `path`, a folder or a file, and tells each; stops where it is `enough`. Blocks, and reads all of them.
pub fn each(path: &Path, enough: impl Fn() -> bool, mut tell: impl FnMut(Result<Hashed, Fault>)) {
    let listed = list(path).unwrap_or_else(|fault| {
        tell(Err(fault));
        BTreeMap::new()
    });
    for file in files(path) {
        let began = Instant::now();
        match hash(&file, &enough) {
            Ok(Some((hash, bytes))) => {
                let listed = listed.get(&file).cloned();
                tell(Ok(Hashed { file, bytes, time: began.elapsed(), hash, listed }));
            }
            Ok(None) => return,
            Err(cause) => tell(Err(Fault::Read { file, cause })),
        }
    }
}

/// Whether the weight files at `path` are those that are listed, where a list is.
pub fn check(path: &Path) -> Check {
    let (mut told, mut faults, mut compared, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
    let began = Instant::now();
    let mut tell = |hashed: &Hashed| {
        let name = hashed.file.strip_prefix(path).ok().filter(|name| !name.as_os_str().is_empty());
        told.push(format!("{} {}", name.unwrap_or(&hashed.file).display(), hashed.short()));
        bytes += hashed.bytes;
        compared += usize::from(hashed.compare()?);
        Ok(())
    };
    each(path, || false, |hashed| faults.extend(hashed.and_then(|hashed| tell(&hashed)).err()));
    if !faults.is_empty() {
        let faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
        let advice = format!("fetch what is named here again, or mend {LIST}");
        return Check::not_ok("hashes", Verdict::Fail, faults.join("; "), advice);
    }
    let as_listed = match compared {
        0 => format!("no {LIST} lists them"),
        some => format!("{some} of {} as {LIST} lists them", told.len()),
    };
    let seconds = began.elapsed().as_secs_f64();
    Check::ok("hashes", format!("{} in {seconds:.1} s, {as_listed}: {}", gib(bytes), told.join(", ")))
}

/// The hash of a file, in hexadecimal digits, and its bytes; `None` where it was enough before its end.
fn hash(file: &Path, enough: &impl Fn() -> bool) -> io::Result<Option<(String, u64)>> {
    let (mut file, mut block) = (File::open(file)?, vec![0; BLOCK]);
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while !enough() {
        match file.read(&mut block) {
            Ok(0) => return Ok(Some((hex(&hash.finalize()), bytes))),
            Ok(read) => {
                hash.update(block.get(..read).unwrap_or_default());
                bytes += read as u64;
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(None)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What is listed beside the model at `path`, by file; nothing where there is no list.
fn list(path: &Path) -> Result<BTreeMap<PathBuf, String>, Fault> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let file = folder.join(LIST);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(cause) => return Err(Fault::Read { file, cause }),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(before, line)| {
            let (hash, name) = entry(line).ok_or_else(|| Fault::Line { file: file.clone(), number: before + 1 })?;
            Ok((folder.join(name), hash))
        })
        .collect()
}

/// Hash and name of a line, of a file that was read as text or as binary.
fn entry(line: &str) -> Option<(String, &str)> {
    let (hash, rest) = line.split_at_checked(64)?;
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *")).filter(|name| !name.is_empty())?;
    hash.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| (hash.to_ascii_lowercase(), name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Of `abc`, from FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// A model of two files, and what is listed of them.
    fn model(list: &str) -> (tempfile::TempDir, Check) {
        let folder = tempfile::tempdir().unwrap();
        for part in ["unet", "vae"] {
            fs::create_dir(folder.path().join(part)).unwrap();
            fs::write(folder.path().join(part).join("w.safetensors"), "abc").unwrap();
            fs::write(folder.path().join(part).join("config.json"), "{}").unwrap();
        }
        if !list.is_empty() {
            fs::write(folder.path().join(LIST), list).unwrap();
        }
        let check = check(folder.path());
        (folder, check)
    }

    #[test]
    fn files_are_compared_with_what_is_listed() {
        for (list, compared) in [
            (
                String::new(),
                "no SHA256SUMS lists them: unet/w.safetensors ba7816bf8f01, vae/w.safetensors ba7816bf8f01",
            ),
            (format!("{ABC}  unet/w.safetensors\n"), "1 of 2 as SHA256SUMS lists them"),
            (
                format!("{} *./unet/w.safetensors\r\n\n{ABC}  vae/w.safetensors\n{ABC}  gone\n", ABC.to_uppercase()),
                "2 of 2 as SHA256SUMS lists them",
            ),
        ] {
            let (_folder, check) = model(&list);
            assert!(check.verdict == Verdict::Ok && check.found.contains(compared), "{list}: {check:?}");
        }
    }

    #[test]
    fn another_file_than_the_listed_one_is_a_fault() {
        let other = ABC.replace('b', "c");
        let (folder, check) = model(&format!("{ABC}  unet/w.safetensors\n{other}  vae/w.safetensors\n"));
        let file = folder.path().join("vae/w.safetensors");
        let words = format!("{} is not the file that SHA256SUMS beside it lists: its sha256 is {ABC}", file.display());
        assert!(check.verdict == Verdict::Fail && check.found.starts_with(&words), "{check:?}");
        for (list, number) in [("x", 1), (&*format!("{ABC}  a\n{ABC}\n"), 2), (&*format!("{ABC} a"), 1)] {
            let (_folder, check) = model(list);
            assert!(check.verdict == Verdict::Fail && check.found.contains(&format!("line {number}")), "{check:?}");
        }
    }

    #[test]
    fn a_checkpoint_of_one_file_has_its_list_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.safetensors");
        fs::write(&file, "abc").unwrap();
        fs::write(folder.path().join(LIST), format!("{ABC}  one.safetensors\n")).unwrap();
        assert!(check(&file).found.contains("1 of 1 as"), "{:?}", check(&file));
    }

    #[test]
    fn enough_is_enough() {
        let (folder, _) = model("");
        each(folder.path(), || true, |told| assert!(told.is_err(), "{told:?}"));
    }
}
