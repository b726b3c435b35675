//! The disk that results are kept on until they have arrived.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::{Check, Verdict};
use crate::disk::{self, private};
use crate::models::size;

/// For a result that no queue takes for a while, where no setting says more: ten large images.
const MIN_FREE: u64 = 64 << 20;

/// What is written to see whether it can be.
const PROBE: &str = ".latentd-fitness";

/// Whether `folder`, which is made if need be, can be written to, and has room: `least` percent of its disk where somebody says so, else
/// some. Results find their way without a disk, so that only a limit that somebody set makes a worker unfit.
pub fn check(folder: &Path, least: Option<f64>) -> Check {
    let at = folder.display();
    if let Err(cause) = private::folder(folder).and_then(|()| probe(folder)) {
        let found = format!("{at} cannot be written to: {cause}");
        return Check::not_ok("disk", verdict(least), found, "mend its rights, make room, or set spool.dir elsewhere");
    }
    match disk::of(folder) {
        Ok(disk) => judge(&at.to_string(), disk.free, disk.all, least),
        Err(cause) => {
            let found = format!("{at}: how much is free is not known: {cause}");
            Check::not_ok("disk", Verdict::Warn, found, "see whether its file system is whole")
        }
    }
}

fn judge(at: &str, free: u64, all: u64, least: Option<f64>) -> Check {
    let (enough, asked) = match least {
        Some(percent) => {
            (free as f64 >= all as f64 * percent / 100.0, format!("fitness.min_disk asks for {percent} %"))
        }
        None => (free >= MIN_FREE, format!("{} MiB are the least", MIN_FREE >> 20)),
    };
    let found = format!("{} of {} free at {at}, and {asked}", size(free), size(all));
    if enough {
        Check::ok("disk", found)
    } else {
        Check::not_ok("disk", verdict(least), found, "make room, set spool.dir elsewhere, or ask for less")
    }
}

fn verdict(least: Option<f64>) -> Verdict {
    if least.is_some() { Verdict::Fail } else { Verdict::Warn }
}

/// Writes as a result would be.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!("{PROBE}-{}", std::process::id()));
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_has_room_or_not() {
        let verdict = |free, all, least| judge("/x", free, all, least).verdict;
        assert_eq!(verdict(MIN_FREE, 1 << 40, None), Verdict::Ok);
        assert_eq!(verdict(MIN_FREE - 1, 1 << 40, None), Verdict::Warn);
        assert_eq!(verdict(10, 100, Some(10.0)), Verdict::Ok);
        assert_eq!(verdict(9, 100, Some(10.0)), Verdict::Fail);
        assert_eq!(verdict(0, 100, Some(0.0)), Verdict::Ok);
    }

    #[test]
    fn a_folder_is_made_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        assert_eq!(check(&inner, Some(0.0)).verdict, Verdict::Ok);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
        let full = check(&inner, Some(100.5));
        assert!(full.verdict == Verdict::Fail && full.found.contains("asks for 100.5 %"), "{full:?}");
    }

    #[test]
    fn what_cannot_be_written_to_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (least, verdict) in [(None, Verdict::Warn), (Some(0.0), Verdict::Fail)] {
            let check = check(&file.join("inside"), least);
            assert!(check.verdict == verdict && check.found.contains("cannot be written to"), "{check:?}");
        }
    }
}
