//! `latentd worker` as process 1 of a container: nothing stops that one by default, and whatever loses its parent becomes its child.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use serde_json::json;

use crate::worker::engine::input;
use crate::worker::queue::{LONG, Queue};

/// What makes a process the first of its own world.
const ALONE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

/// Whether this machine lets us; who has not the right to it is told what was not tested.
fn allowed() -> bool {
    let tried = Command::new(ALONE[0]).args(&ALONE[1..]).arg("true").output();
    let why = match tried {
        Ok(tried) if tried.status.success() => return true,
        Ok(tried) => String::from_utf8_lossy(&tried.stderr).into_owned(),
        Err(cause) => cause.to_string(),
    };
    // Past what captures the output of tests.
    let skipped = "SKIPPED: process 1 is not tested, because this machine permits no PID namespace (root may make one)";
    io::stderr().write_all(format!("{skipped}: {why}\n").as_bytes()).unwrap();
    false
}

/// A worker that is process 1, in a PID namespace below ours.
struct First {
    outside: Child,
    log: Receiver<String>,
    data: tempfile::TempDir,
}

impl First {
    fn start(queue: &Queue) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(ALONE[0]);
        command.args(&ALONE[1..]).args([
            env!("CARGO_BIN_EXE_latentd"),
            "worker",
            "--device",
            "cpu",
            "--queue",
            &queue.base(),
        ]);
        let settings = [("LATENTD_ADMIN__LISTEN", "off"), ("LATENTD_WORKER__CONCURRENCY", "1")];
        command.env_clear().env("XDG_DATA_HOME", data.path()).envs(settings).current_dir(data.path());
        let mut outside = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(outside.stderr.take().unwrap()).lines();
        let (said, log) = sync_channel(10_000);
        // Read on, so that the process is not held up by what it says.
        thread::Builder::new().spawn(move || lines.map_while(Result::ok).try_for_each(|line| said.send(line))).unwrap();
        Self { outside, log, data }
    }

    /// What we know process 1 by.
    fn id(&self) -> String {
        children(&self.outside.id().to_string()).pop().unwrap()
    }

    fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.id()]).status().unwrap().success());
    }

    /// Waits for a line with this.
    fn until(&self, part: &str) {
        while !self.log.recv_timeout(LONG).unwrap().contains(part) {}
    }

    fn end(mut self) -> Option<i32> {
        let code = self.outside.wait().unwrap().code();
        self.data.close().unwrap();
        code
    }
}

/// The children of all threads of a process.
fn children(id: &str) -> Vec<String> {
    let of = |task: &Path| fs::read_to_string(task.join("children")).unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let children: Vec<String> = tasks.map(|task| of(&task.unwrap().path())).collect();
    children.iter().flat_map(|children| children.split_whitespace()).map(str::to_owned).collect()
}

// The queue answers on another thread while this one waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_process_drains_on_a_signal_and_has_no_children() {
    if !allowed() {
        return;
    }
    let queue = Queue::start().await;
    queue.job("j1", input("a"));
    let first = First::start(&queue);
    queue.until("take", 2).await;
    let status = fs::read_to_string(format!("/proc/{}/status", first.id())).unwrap();
    let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(inside.split_whitespace().last(), Some("1"), "{status}");
    // None of ours that could become a zombie: so there is nothing to reap.
    assert_eq!(children(&first.id()), [""; 0]);
    first.terminate();
    queue.until("gone take", 1).await;
    assert_eq!(first.end(), Some(0));
    assert_eq!(queue.asked("done").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_first_process_at_once() {
    if !allowed() {
        return;
    }
    let queue = Queue::start().await;
    let mut long = input("a");
    for (key, value) in [("num_inference_steps", 500), ("width", 768), ("height", 768), ("num_outputs", 10)] {
        long[key] = json!(value);
    }
    queue.job("j1", long);
    let first = First::start(&queue);
    queue.until("progress", 1).await;
    first.terminate();
    // Two signals that come together are one.
    first.until("draining");
    first.terminate();
    assert_eq!(first.end(), Some(0));
    assert_eq!(queue.asked("done").len(), 0, "the job was given back");
}
