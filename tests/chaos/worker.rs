//! `latentd worker` as a process that is started, killed and started again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// The binary, with no variables but ours.
fn latentd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    // Pictures of f32 are the same whoever shares their evaluations, but for the last bit; of bf16, which some processors compute in, they are not.
    command
        .env_clear()
        .env("LATENTD_DTYPE", "f32")
        .env("OMP_NUM_THREADS", "1")
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    command
}

/// What comes of an input where nothing disturbs it.
pub(crate) fn alone(input: &Value) -> Value {
    let job = json!({"input": input}).to_string();
    let output = latentd().args(["run", "--device", "cpu", "--test-input", &job]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All files below a folder, but for the locks that say whose it is.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    below.filter(|path| !path.ends_with("lock")).collect()
}

/// A worker's process, which is killed with its value.
pub(crate) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// One that keeps its spool in `folder`, and its log beside that.
    pub(crate) fn start(base: &str, folder: &Path) -> Self {
        let mut command = latentd();
        command.env("LATENTD_SPOOL__DIR", folder).env("LATENTD_WORKER__DRAIN", "1").env("LATENTD_ADMIN__LISTEN", "off");
        command.env("RUNPOD_PING_INTERVAL", "1000").env("RUNPOD_POD_ID", "pod");
        command.args(["worker", "--device", "cpu", "--queue", base]).stdout(Stdio::null());
        let log = folder.with_extension("log");
        command.stderr(File::options().create(true).append(true).open(&log).unwrap());
        Self { child: command.spawn().unwrap(), log }
    }

    /// Bytes of its memory that are in use now.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the worker ended, {ended:?}: {}", self.last_words());
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends it: by SIGKILL, by SIGTERM, or by SIGTERM and then SIGKILL.
    pub(crate) fn end(mut self, way: usize) {
        let way = way % 3;
        if way > 0 {
            self.signal("-TERM");
        }
        if way == 1 {
            self.child.wait().unwrap();
        }
    }

    /// Ends it by SIGTERM; tells its exit code.
    pub(crate) fn drain(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
