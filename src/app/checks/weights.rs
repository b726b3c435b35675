//! A model's weight files, as far as their headers and sizes tell whether they are whole: a copy that broke off is found before
//! minutes are spent on loading it.

use std::io::{self, Read};
use std::path::Path;

use safetensors::tensor::Metadata;

use super::{Check, Verdict};
use crate::config::weights::{files, indexes};
use crate::disk::whole;
use crate::job::sharded;

/// Bytes of a header: what the format allows.
const MAX_HEADER: u64 = 100 << 20;

/// What is wrong with a weight file.
#[derive(Debug, thiserror::Error)]
enum WeightsFault {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it has {0} bytes, too few for a header: the copy broke off, or it is no safetensors file")]
    Short(u64),
    #[error("its header would have {0} bytes: it is no safetensors file")]
    Header(u64),
    #[error("its header is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has {found} bytes and its header tells of {told}: the copy broke off, or has been added to")]
    Size { found: u64, told: u64 },
}

/// Whether every weight file at `path`, a folder or a file, is whole.
pub fn check(path: &Path) -> Check {
    let files = files(path);
    let (mut bytes, mut faults) = (0, Vec::new());
    for file in &files {
        match size(file) {
            Ok(size) => bytes += size,
            Err(fault) => faults.push(format!("{}: {fault}", file.display())),
        }
    }
    faults.extend(indexes(path).iter().filter_map(|index| missing(index)));
    let advice = "fetch it again";
    match (files.len(), faults.as_slice()) {
        (0, _) => {
            let found = format!("{} holds no .safetensors file", path.display());
            Check::not_ok("weights", Verdict::Fail, found, "set model to a folder or file that does")
        }
        (count, []) => {
            Check::ok("weights", format!("{count} files of {} in all are whole", crate::models::size(bytes)))
        }
        (_, faults) => Check::not_ok("weights", Verdict::Fail, faults.join("; "), advice),
    }
}

/// Says what is wrong with the weight files at `path`, if anything, to who is about to load them.
///
/// # Errors
/// What is wrong, in words for people.
pub fn sound(path: &Path) -> Result<(), String> {
    let Check { verdict, found, .. } = check(path);
    if verdict == Verdict::Fail { Err(found) } else { Ok(()) }
}

/// The first of the files that `index` names and that is not there, where others are: without any of them another precision is loaded, and
/// whether the index can be read is told by who needs it.
fn missing(index: &Path) -> Option<String> {
    let shards = sharded::shards(&whole::read(index, sharded::INDEX_BYTES).ok()?).ok()?;
    let (there, missing): (Vec<_>, Vec<_>) =
        shards.iter().map(|name| index.with_file_name(name)).partition(|file| file.is_file());
    let first = missing.first().filter(|_| !there.is_empty())?;
    Some(format!("{}: it is missing, and {} names it", first.display(), index.display()))
}

/// Bytes of a file that is as long as its header says.
fn size(path: &Path) -> Result<u64, WeightsFault> {
    let mut file = whole::open(path)?;
    let found = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| WeightsFault::Short(found))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(WeightsFault::Header(length));
    }
    if length > found {
        return Err(WeightsFault::Short(found));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let header: Metadata = serde_json::from_slice(&header)?;
    let told = 8 + length + header.data_len() as u64;
    if found == told { Ok(found) } else { Err(WeightsFault::Size { found, told }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::config::weights::bytes;

    /// A file with one tensor of 4 bytes.
    fn whole() -> Vec<u8> {
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        [(header.len() as u64).to_le_bytes().as_slice(), header, &[0; 4]].concat()
    }

    #[test]
    fn a_file_is_as_long_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unet/a.safetensors");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let with = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            check(folder.path())
        };
        let good = with(&whole());
        assert!(good.verdict == Verdict::Ok && good.found.starts_with("1 files"), "{good:?}");
        assert_eq!(sound(folder.path()), Ok(()));
        assert_eq!(bytes(folder.path()), whole().len() as u64);
        let longer = [whole(), vec![0]].concat();
        for (bytes, fault) in [
            (&whole()[..whole().len() - 1], "tells of 66"),
            (&longer, "tells of 66"),
            (&whole()[..20], "too few for a header"),
            (b"", "too few for a header"),
            (b"<html><body>not found", "is no safetensors file"),
            (&[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'x'], "its header is not valid"),
        ] {
            let check = with(bytes);
            assert_eq!((check.verdict, sound(folder.path())), (Verdict::Fail, Err(check.found.clone())));
            assert!(check.found.contains(fault) && check.found.contains("a.safetensors"), "{fault}: {}", check.found);
        }
    }

    #[test]
    fn of_weights_in_several_files_all_are_there_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let index = r#"{"weight_map": {"a": "u-00001-of-00002.safetensors", "b": "u-00002-of-00002.safetensors"}}"#;
        fs::write(at("u.safetensors.index.json"), index).unwrap();
        fs::write(at("u.fp16.safetensors"), whole()).unwrap();
        assert_eq!(sound(folder.path()), Ok(()), "the other precision was not copied");
        fs::write(at("u-00002-of-00002.safetensors"), whole()).unwrap();
        let fault = sound(folder.path()).unwrap_err();
        let (gone, index) = (at("u-00001-of-00002.safetensors"), at("u.safetensors.index.json"));
        assert_eq!(fault, format!("{}: it is missing, and {} names it", gone.display(), index.display()));
        fs::write(gone, whole()).unwrap();
        assert_eq!(sound(folder.path()), Ok(()));
    }

    #[test]
    fn a_model_without_weights_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check(folder.path()).verdict, Verdict::Fail);
        assert_eq!(check(Path::new("/nowhere.safetensors")).verdict, Verdict::Fail);
    }
}
