//! Disks that fail and memory that ends, at every call: nothing that was answered is lost, nothing is done twice, and what failed goes on by
//! itself when the fault is over.
//!
//! `faults.c`, preloaded, makes calls fail.

#![allow(clippy::unwrap_used, clippy::panic)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test has no configuration, and waits for a process that it cannot hear"
)]

mod memory;
mod queue;
mod spool;

use std::env;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What a call fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `EIO`.
    Broken = 5,
    /// `ENOSPC`.
    Full = 28,
}

/// What is shared with a process whose calls fail.
struct Faults {
    file: File,
    path: PathBuf,
}

impl Faults {
    /// None fail for now.
    fn new(folder: &Path) -> Self {
        let path = folder.join("faults");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(40).unwrap();
        Self { file, path }
    }

    /// What a process is to be started with, of whose files those in a folder are on the disk that fails.
    fn variables(&self, folder: &Path) -> [(&'static str, PathBuf); 3] {
        [("LD_PRELOAD", library().to_owned()), ("FAULTS", self.path.clone()), ("FAULTS_IN", folder.to_owned())]
    }

    /// What another process shares.
    fn shared() -> Option<Self> {
        let path = PathBuf::from(env::var_os("FAULTS")?);
        Some(Self { file: OpenOptions::new().read(true).write(true).open(&path).unwrap(), path })
    }

    fn read(&self, place: u64) -> i64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, place * 8).unwrap();
        i64::from_ne_bytes(bytes)
    }

    fn write(&self, place: u64, number: i64) {
        self.file.write_all_at(&number.to_ne_bytes(), place * 8).unwrap();
    }

    fn calls(&self) -> i64 {
        self.read(0)
    }

    /// Calls that have failed since it was asked the last time.
    fn failed(&self) -> i64 {
        let failed = self.read(4);
        self.write(4, 0);
        failed
    }

    /// Lets a number of calls pass, and has so many fail after them.
    fn arm(&self, pass: i64, fail: i64, fault: Fault) {
        self.mend();
        self.write(3, fault as i64);
        let from = self.calls() + pass;
        self.write(1, from);
        self.write(2, from.saturating_add(fail));
    }

    fn mend(&self) {
        self.write(2, 0);
    }
}

/// `faults.c`, for this machine.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (library, draft) = (folder.join("faults.so"), folder.join(format!("faults-{}.so", std::process::id())));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk_faults/faults.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Werror", "-fPIC", "-shared", "-o"]).arg(&draft).arg(source);
        assert!(compiler.status().unwrap().success());
        // A process that runs has the one before.
        std::fs::rename(draft, &library).unwrap();
        library
    })
}
