//! `latentd worker` as a process.

use std::net::TcpListener;
use std::process::{Command, Output};

use crate::worker::queue::Queue;

/// The binary in an empty folder, with no variables but these.
fn latentd(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command
        .current_dir(folder.path())
        .env_clear()
        .env("LATENTD_ADMIN__LISTEN", "off")
        .envs(variables.iter().copied())
        .args(arguments);
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_worker_without_a_queue_says_how_to_name_one() {
    let output = latentd(&[], &["worker"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("LATENTD_QUEUE"), "{}", stderr(&output));
}

#[test]
fn all_faults_come_at_once() {
    let output = latentd(&[("RUNPOD_WEBHOOK_GET_JOB", "http://127.0.0.1:9/job-take/$ID")], &["--model", "none"]);
    assert_eq!(output.status.code(), Some(64));
    for fault in ["RUNPOD_WEBHOOK_POST_OUTPUT", "model = \"none\""] {
        assert!(stderr(&output).contains(fault), "{}", stderr(&output));
    }
}

#[test]
fn a_queue_that_is_no_url_can_never_work() {
    for (take, done, setting) in
        [("nowhere", "http://h/$ID", "runpod.get_job"), ("http://h/$ID", "JOB_DONE_URL", "runpod.post_output")]
    {
        let variables =
            [("RUNPOD_WEBHOOK_GET_JOB", take), ("RUNPOD_WEBHOOK_POST_OUTPUT", done), ("RUNPOD_AI_API_KEY", "s3cret")];
        // Without a command: the variable makes it a worker.
        let output = latentd(&variables, &[]);
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
        assert!(stderr(&output).contains(setting) && !stderr(&output).contains("s3cret"), "{}", stderr(&output));
    }
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_spool_that_cannot_be_is_told_and_no_reason_to_end() {
    let queue = ["worker", "--queue", "http://127.0.0.1:9/v2/e"];
    let output = latentd(&[("LATENTD_SPOOL__DIR", "/dev/null/spool")], &queue);
    // What ends it is that this build has no engine.
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("/dev/null/spool") && said.contains("set spool.dir") && said.contains("no engine"), "{said}");
}

#[test]
fn a_collector_that_is_no_url_is_a_fault_of_the_configuration() {
    let output = latentd(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")], &["worker", "--queue", "http://h"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("telemetry.otlp_endpoint = \"collector:4317\""), "{}", stderr(&output));
}

#[test]
fn an_admin_port_that_was_asked_for_must_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = latentd(&[("LATENTD_ADMIN__LISTEN", &address)], &["worker", "--queue", "http://127.0.0.1:9/v2/e"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("admin.listen = {address}")), "{}", stderr(&output));
}

/// The exit code of a worker that does not start, and what it told the queue.
async fn told(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let queue = Queue::start().await;
    let base = queue.base();
    let arguments = [&["worker", "--queue", &base], arguments].concat();
    let output = latentd(variables, &arguments);
    // Its last word; heartbeats may have come before.
    let ping = queue.asked("ping").pop().unwrap_or_else(|| panic!("{}", stderr(&output)));
    assert_eq!(queue.asked("take").len(), 0, "no job was asked for");
    assert!(ping.path.contains("?status=unhealthy&check="), "{}", ping.path);
    (output.status.code(), ping.path.split("&check=").nth(1).unwrap().to_owned())
}

// The queue answers on another thread while this one waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_start_tells_the_queue() {
    let (code, why) = told(&[], &["--model", "none"]).await;
    assert!(
        code == Some(64) && why.starts_with("configuration&reason=FitnessError%3A%20model%20%3D"),
        "{code:?} {why}"
    );

    let (code, why) = told(&[("RUNPOD_MIN_DISK_PERCENT", "101")], &["--device", "cpu"]).await;
    assert!(code == Some(1) && why.starts_with("disk&reason=FitnessError%3A%20"), "{code:?} {why}");

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.safetensors"), "broken off").unwrap();
    let model = folder.path().join("x.safetensors");
    let (code, why) = told(&[], &["--device", "cpu", "--model", model.to_str().unwrap()]).await;
    assert!(code == Some(1) && why.starts_with("weights&reason="), "{code:?} {why}");

    #[cfg(not(feature = "torch"))]
    {
        let (code, why) = told(&[], &[]).await;
        assert!(code == Some(64) && why.starts_with("engine&reason="), "{code:?} {why}");
    }
}

#[cfg(feature = "torch")]
mod with_an_engine {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use serde_json::json;

    use super::*;
    use crate::worker::engine::input;

    /// The real binary, with the model in the box, between its first job and its end by SIGTERM.
    // The queue answers on another thread while this one waits for the process.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_worker_draws_delivers_and_drains_on_sigterm() {
        let (queue, data) = (Queue::start().await, tempfile::tempdir().unwrap());
        queue.job("j1", input("a"));
        let mut command = worker(&queue.base());
        command.env("XDG_DATA_HOME", data.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        // Read on, so that the process is not held up by what it says.
        let reader = std::thread::Builder::new().spawn(move || log.lines().map(Result::unwrap).collect::<Vec<_>>());
        queue.until("take", 2).await;
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        queue.until("gone take", 1).await;
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let log = reader.unwrap().join().unwrap().join("\n");
        let body = queue.asked("done").pop().unwrap().json();
        assert_eq!(body["output"][0]["seed"], 7, "{log}");
        assert_eq!(body["timings"]["evaluations"], json!(2));
        assert!(log.contains("draining") && !log.contains("s3cret") && !log.contains("iVBOR"), "{log}");
    }

    fn worker(base: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
        // One slot: the second poll means that the job is delivered.
        command
            .env_clear()
            .env("LATENTD_ADMIN__LISTEN", "off")
            .env("RUNPOD_AI_API_KEY", "s3cret")
            .env("LATENTD_WORKER__CONCURRENCY", "1");
        command.args(["worker", "--device", "cpu", "--queue", base]);
        command
    }
}
