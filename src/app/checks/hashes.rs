//! Hashes of a model's weight files, compared with the `SHA256SUMS` beside them where there is one: a copy that is as long as it should
//! be can still be another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Check, Verdict};
use crate::config::weights::files;
use crate::disk::whole;
use crate::models::size;
use crate::models::{Digest, SUMS, read_sums};

/// Digits of a hash that people compare by eye.
const SHORT_HASH: usize = 12;

/// A weight file that was hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Where it is.
    pub file: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// How long that took.
    pub time: Duration,
    hash: Digest,
    /// What it should be, if somebody said so.
    listed: Option<Digest>,
}

/// A file that cannot be hashed, or compared.
#[derive(Debug, thiserror::Error)]
pub enum HashFault {
    /// It, or the list, cannot be read.
    #[error("{} cannot be read: {cause}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// A hash is not the listed one.
    #[error("{} is not the file that {SUMS} beside it lists: its sha256 is {found}, and not {listed}", file.display())]
    Other {
        /// Which file.
        file: PathBuf,
        /// Its hash.
        found: Digest,
        /// What it should be.
        listed: Digest,
    },
}

impl Hashed {
    /// The first digits of its hash.
    pub fn short(&self) -> String {
        format!("{:.SHORT_HASH$}", self.hash.to_string())
    }

    /// Whether it is the file that is listed, if one is.
    ///
    /// # Errors
    /// [`HashFault::Other`].
    pub fn compare(&self) -> Result<bool, HashFault> {
        match self.listed {
            Some(listed) if listed != self.hash => {
                Err(HashFault::Other { file: self.file.clone(), found: self.hash, listed })
            }
            listed => Ok(listed.is_some()),
        }
    }
}

/// Hashes the weight files at `path`, a folder or a file, and tells each; ends where it is told to `stop`. Blocks, and reads all of them.
pub fn each(path: &Path, stop: impl Fn() -> bool, mut tell: impl FnMut(Result<Hashed, HashFault>)) {
    let listed = list(path).unwrap_or_else(|fault| {
        tell(Err(fault));
        BTreeMap::new()
    });
    for file in files(path) {
        let began = Instant::now();
        match hash(&file, &stop) {
            Ok(Some((hash, bytes))) => {
                let listed = listed.get(&file).copied();
                tell(Ok(Hashed { file, bytes, time: began.elapsed(), hash, listed }));
            }
            Ok(None) => return,
            Err(cause) => tell(Err(HashFault::Read { file, cause })),
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
        let faults: Vec<String> = faults.iter().map(HashFault::to_string).collect();
        let advice = format!("fetch what is named here again, or mend {SUMS}");
        return Check::not_ok("hashes", Verdict::Fail, faults.join("; "), advice);
    }
    let as_listed = match compared {
        0 => format!("no {SUMS} lists them"),
        some => format!("{some} of {} as {SUMS} lists them", told.len()),
    };
    let seconds = began.elapsed().as_secs_f64();
    Check::ok("hashes", format!("{} in {seconds:.1} s, {as_listed}: {}", size(bytes), told.join(", ")))
}

/// The hash of a file and its bytes; `None` where it was stopped before its end.
fn hash(file: &Path, stop: &impl Fn() -> bool) -> io::Result<Option<(Digest, u64)>> {
    let mut bytes = 0;
    match Digest::of(&mut Until(whole::open(file)?, stop), |read| bytes += read) {
        Ok(hash) => Ok(Some((hash, bytes))),
        Err(_) if stop() => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// A file whose reading fails once it is stopped.
struct Until<'a, F>(File, &'a F);

impl<F: Fn() -> bool> Read for Until<'_, F> {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        if (self.1)() { Err(io::Error::other("stopped")) } else { self.0.read(block) }
    }
}

/// What is listed beside the model at `path`, by file; nothing where there is no list.
fn list(path: &Path) -> Result<BTreeMap<PathBuf, Digest>, HashFault> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let sums = read_sums(folder).map_err(|cause| HashFault::Read { file: folder.join(SUMS), cause })?;
    Ok(sums.unwrap_or_default().into_iter().map(|(place, hash)| (place.within(folder), hash)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

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
            fs::write(folder.path().join(SUMS), list).unwrap();
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
        fs::write(folder.path().join(SUMS), format!("{ABC}  one.safetensors\n")).unwrap();
        assert!(check(&file).found.contains("1 of 1 as"), "{:?}", check(&file));
    }

    #[test]
    fn hashing_can_be_stopped() {
        let (folder, _) = model("");
        each(folder.path(), || true, |told| assert!(told.is_err(), "{told:?}"));
    }
}
