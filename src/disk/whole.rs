//! Files that others made and that are read to their end: it has to come, and soon.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file to read it.
///
/// # Errors
/// It cannot be opened; or it is a pipe, a device or a socket, which may have no end, or keep whoever opens it waiting for ever.
pub fn open(path: &Path) -> io::Result<File> {
    let kind = fs::metadata(path)?.file_type();
    let other = match () {
        () if kind.is_file() => None,
        // The system's own words for it are known.
        () if kind.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        () if kind.is_fifo() => Some("a pipe"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    };
    if let Some(other) = other {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {other}, not a file")));
    }
    // It could be a pipe by now.
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// A file's bytes, `most` of them at most.
///
/// # Errors
/// As for [`open`]; or it has more.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    to_end(open(path)?, most)
}

/// A file's text, `most` bytes of it at most.
///
/// # Errors
/// As for [`read`]; or it is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    text(read(path, most)?)
}

/// The bytes of what a person names, `most` of them at most: a pipe, too, which shells make of `<(…)`, for as long as it is open.
///
/// # Errors
/// It cannot be read, or it has more.
pub fn read_named(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    to_end(File::open(path)?, most)
}

/// The text of what a person names, as of [`read_named`].
///
/// # Errors
/// As for [`read_named`]; or it is no UTF-8.
pub fn read_named_text(path: &Path, most: u64) -> io::Result<String> {
    text(read_named(path, most)?)
}

fn to_end(file: File, most: u64) -> io::Result<Vec<u8>> {
    let found = file.metadata()?;
    let told = if found.is_file() { found.len() } else { 0 };
    let too_large = |size: String| {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {size} bytes, and at most {most} are read")))
    };
    if told > most {
        return too_large(told.to_string());
    }
    let mut bytes = Vec::new();
    // What grows meanwhile, or says nothing of its size, is counted.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { too_large(format!("more than {most}")) } else { Ok(bytes) }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause.utf8_error()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_file_is_read_if_it_is_no_larger_than_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "abc").unwrap();
        for read in [read_text, read_named_text] {
            assert_eq!(read(&path, 3).unwrap(), "abc");
            let error = read(&path, 2).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
            assert_eq!(error.to_string(), "it has 3 bytes, and at most 2 are read");
            assert_eq!(read(&folder.path().join("b"), 3).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(read(folder.path(), 3).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        }
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read(&path, 2).unwrap_err().to_string().contains("it has 1099511627776 bytes"));
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, socket] = ["pipe", "socket"].map(|name| folder.path().join(name));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, kind) in [(&*pipe, "a pipe"), (&*socket, "a socket"), (Path::new("/dev/zero"), "a device")] {
            let error = read(path, 3).unwrap_err();
            assert_eq!(error.to_string(), format!("it is {kind}, not a file"));
        }
        let error = read_named(Path::new("/dev/zero"), 3).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 3 bytes, and at most 3 are read");
    }
}
