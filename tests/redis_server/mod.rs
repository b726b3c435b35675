//! A Redis of a test's own: on a free port of the loopback, in a folder of its own, killed when it is let go of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// How often a port that was free may be somebody else's a moment later.
const TRIES: usize = 5;

pub struct Server {
    process: Child,
    folder: TempDir,
    settings: Vec<String>,
    port: u16,
}

impl Server {
    /// Starts one with settings as in `["--appendonly", "yes"]`; `%p` in one is its port. A file with more may come first, and `--sentinel`
    /// after it makes it a Sentinel.
    pub fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings: Vec<_> = settings.iter().map(|&word| word.to_owned()).collect();
        let found = (0..TRIES).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            Some((port, run(folder.path(), &settings, port)?))
        });
        let (port, process) = found.expect("redis-server starts");
        Self { process, folder, settings, port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }

    /// On the same port, with what is on its disk.
    pub fn start_again(&mut self) {
        self.process = run(self.folder.path(), &self.settings, self.port).expect("redis-server starts again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that can be asked; `None` if it ended.
fn run(folder: &Path, settings: &[String], port: u16) -> Option<Child> {
    let laid = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/redis-server");
    let program = if laid.exists() { laid.as_path() } else { Path::new("redis-server") };
    let (file, settings) = settings.split_at(usize::from(settings.first().is_some_and(|word| !word.starts_with("--"))));
    let sentinel = settings.first().is_some_and(|word| word == "--sentinel");
    let mut process = Command::new(program)
        .args(file)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"])
        .args(if sentinel { [].as_slice() } else { &["--save", ""] })
        .args(settings.iter().map(|word| word.replace("%p", &port.to_string())))
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|cause| panic!("{} (7.0 or later): {cause}: run scripts/setup-redis", program.display()));
    // It says when it has read what is on its disk.
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    if lines.any(|line| {
        line.is_ok_and(|line| line.contains("Ready to accept connections") || line.contains("Sentinel ID is"))
    }) {
        return Some(process);
    }
    process.wait().unwrap();
    None
}
