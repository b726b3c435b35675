//! The real gateway, as clients and workers meet it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod commands;
mod shared;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway_process;

/// A gateway on a free port, killed when it is let go of.
struct Gateway {
    process: Child,
    address: String,
}

impl Gateway {
    fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::of("gateway", folder, variables)
    }

    fn of(command: &str, folder: &Path, variables: &[(&str, &str)]) -> Self {
        let store = format!("sqlite:{}", folder.join("queue.db").display());
        let (process, address) = gateway_process::start(command, folder, &store, variables);
        Self { process, address }
    }

    fn asks(&self, key: &str, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let head = format!(
            "{method} /v2/stable-diffusion-v1{path} HTTP/1.0\r\nhost: {}\r\nauthorization: {key}",
            self.address
        );
        write!(stream, "{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Prometheus' text.
    fn numbers(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    /// Waits until the webhook of a job was tried so.
    fn sees_tries(&self, id: &str, taken: &[bool]) {
        let began = Instant::now();
        loop {
            let log = self.json("GET", &format!("/history/{id}"), "")["webhooks"].clone();
            let tried: Vec<bool> =
                log.as_array().unwrap().iter().map(|told| told["taken"].as_bool().unwrap()).collect();
            if tried == taken {
                return;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "{log}");
        }
    }

    fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, reply) = self.asks("", method, path, body);
        assert_eq!(status, 200, "{method} {path}: {reply}");
        serde_json::from_str(&reply).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

#[test]
fn what_was_answered_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), &[]);
    let ids: Vec<String> = (0..20)
        .map(|number| {
            let reply = gateway.json("POST", "/run", &format!(r#"{{"input":{{"number":{number}}}}}"#));
            reply["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let taken = gateway.json("GET", "/job-take/w1?", "");
    assert_eq!((taken["id"].as_str(), &taken["input"]["number"]), (Some(&*ids[0]), &0.into()));
    // SIGKILL.
    drop(gateway);
    let gateway = Gateway::start(folder.path(), &[]);
    assert_eq!(
        gateway.asks("", "POST", &format!("/job-done/w1/{}?isStream=false", ids[0]), r#"{"output": [1]}"#).0,
        200
    );
    let status = gateway.json("GET", &format!("/status/{}", ids[0]), "");
    assert_eq!((status["status"].as_str(), &status["output"][0]), (Some("COMPLETED"), &1.into()));
    let rest = gateway.json("GET", "/job-take-batch/w1?batch_size=50", "");
    let rest: Vec<_> = rest.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rest, ids[1..], "in the order in which they came");
    let jobs = &gateway.json("GET", "/health", "")["jobs"];
    assert_eq!((&jobs["completed"], &jobs["inProgress"], &jobs["inQueue"]), (&1.into(), &19.into(), &0.into()));
}

#[test]
fn whatever_the_umask_only_its_owner_reads_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("made/here/queue.db");
    let store = format!("sqlite:{}", at.display());
    let line = format!("umask 000; exec {} gateway", env!("CARGO_BIN_EXE_latentd"));
    let mut process = Command::new("/bin/sh");
    process.args(["-c", &line]).env_clear().env("LATENTD_LISTEN", "127.0.0.1:0").env("LATENTD_STORE", store);
    let mut process =
        process.env("LATENTD_HANDLER", "external").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let address = gateway_process::address(&mut process);
    let gateway = Gateway { process, address };
    gateway.json("POST", "/run", r#"{"input":1}"#);
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777;
    let names = ["queue.db", "queue.db-wal", "queue.db-shm", "queue.db-gateway"];
    assert_eq!(names.map(|name| mode(&at.with_file_name(name))), [0o600; 4]);
    assert_eq!([mode(&folder.path().join("made")), mode(&folder.path().join("made/here"))], [0o700; 2]);
}

/// Somebody who is told by webhook.
struct Receiver(TcpListener);

impl Receiver {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}/told?secret=1", self.0.local_addr().unwrap())
    }

    /// The next call's headers and body; it is answered with `status`.
    fn hears(&self, status: u16) -> (String, Value) {
        let (mut stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "cut off: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if let Ok(body) = serde_json::from_str(body) {
                write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
                return (head.to_lowercase(), body);
            }
        }
    }
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name}: {head}")).to_owned()
}

#[test]
fn ends_are_told_to_whom_the_job_names_until_they_are_taken() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::new());
    let variables = [
        ("LATENTD_NET__ALLOW_PRIVATE", "127.0.0.0/8"),
        ("LATENTD_WEBHOOK__PAUSE", "1"),
        ("LATENTD_WEBHOOK__TIMEOUT", "5"),
        ("LATENTD_WEBHOOK__SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    let gateway = Gateway::start(folder.path(), &variables);
    let job = format!(r#"{{"input":{{"n":1}},"webhook":{{"url":"{}","headers":{{"x-mine":"yes"}}}}}}"#, receiver.url());
    let id = gateway.json("POST", "/run", &job)["id"].as_str().unwrap().to_owned();
    gateway.json("GET", "/job-take/w1?", "");
    gateway.asks("", "POST", &format!("/job-done/w1/{id}"), r#"{"output": [1]}"#);
    let (first, body) = receiver.hears(500);
    gateway.sees_tries(&id, &[false]);
    // SIGKILL, between two tries.
    drop(gateway);
    let gateway = Gateway::start(folder.path(), &variables);
    let (second, again) = receiver.hears(200);
    assert_eq!(body, again);
    assert_eq!((&body["status"], &body["output"][0], &body["input"]["n"]), (&"COMPLETED".into(), &1.into(), &1.into()));
    assert_eq!((body["id"].as_str(), body["webhook"].as_str()), (Some(&*id), Some(&*receiver.url())));
    assert_eq!(header(&first, "webhook-id"), header(&second, "webhook-id"));
    assert!(header(&second, "webhook-signature").starts_with("v1,"));
    assert_eq!(header(&second, "x-mine"), "yes");
    gateway.sees_tries(&id, &[false, true]);
}

/// Each of its calls takes as long as one may; those of others do not wait for that.
#[test]
fn a_silent_receiver_holds_up_no_other_s_webhooks() {
    let (folder, honest) = (tempfile::tempdir().unwrap(), Receiver::new());
    // It takes connections, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(folder.path(), &[("LATENTD_NET__ALLOW_PRIVATE", "127.0.0.0/8")]);
    let run = |to: &str| {
        let id = gateway.json("POST", "/run", &format!(r#"{{"input":1,"webhook":"{to}"}}"#))["id"].clone();
        id.as_str().unwrap().to_owned()
    };
    let to = format!("http://{}/", silent.local_addr().unwrap());
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| (0..100).for_each(|_| drop(run(&to))));
        }
    });
    assert_eq!(gateway.json("POST", "/purge-queue", "")["removed"], 2000);
    let (began, id) = (Instant::now(), run(&honest.url()));
    gateway.json("POST", &format!("/cancel/{id}"), "");
    honest.hears(200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    gateway.sees_tries(&id, &[true]);
}

#[test]
fn a_receiver_that_keeps_failing_is_paused_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(folder.path(), &[("LATENTD_NET__ALLOW_PRIVATE", "127.0.0.0/8")]);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for number in 0..9 {
        let job = format!(r#"{{"input":{number},"webhook":"http://{gone}/"}}"#);
        let id = gateway.json("POST", "/run", &job)["id"].as_str().unwrap().to_owned();
        gateway.json("POST", &format!("/cancel/{id}"), "");
    }
    let began = Instant::now();
    while !gateway.numbers().contains("latentd_webhook_receivers_paused 1\n") {
        assert!(began.elapsed() < Duration::from_mins(1), "{}", gateway.numbers());
    }
}

/// Half a head, a body that stalls, an answer that is never read.
#[test]
fn strangers_do_not_keep_a_gateway_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(folder.path(), &[]);
    let large = format!(r#"{{"input":"{}"}}"#, "x".repeat(9 << 20));
    let id = gateway.json("POST", "/run", &large)["id"].as_str().unwrap().to_owned();
    let open = |text: String| {
        let mut stream = TcpStream::connect(&gateway.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let post = "POST /v2/stable-diffusion-v1/run HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    let read = format!("GET /v1/stable-diffusion-v1/status/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let strangers = [open("GET /healthz HTT".into()), open(post.into()), open(read)];
    // By then it has heard them all.
    gateway.json("GET", "/health", "");
    let began = Instant::now();
    let told = Command::new("kill").args(["-TERM", &gateway.process.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(strangers);
}

#[test]
fn keys_are_asked_for_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [("LATENTD_API_KEYS", "user-1, user-2"), ("LATENTD_WORKER_KEYS", "work")];
    let gateway = Gateway::start(folder.path(), &keys);
    for (key, path, status) in [
        ("Bearer user-2", "/health", 200),
        ("work", "/health", 401),
        ("", "/health", 401),
        ("user-1", "/job-stop/w", 401),
    ] {
        assert_eq!(gateway.asks(key, "GET", path, "").0, status, "{key:?} {path}");
    }
    let shown =
        Command::new(env!("CARGO_BIN_EXE_latentd")).args(["config", "show"]).env_clear().envs(keys).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("api_keys") && !shown.contains("user-1"), "{shown}");
}

#[cfg(feature = "torch")]
#[test]
fn serve_is_a_gateway_with_a_worker() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool").display().to_string();
    let variables = [
        ("LATENTD_MODEL", "miniature"),
        ("LATENTD_DEVICE", "cpu"),
        ("LATENTD_ADMIN__LISTEN", "off"),
        ("LATENTD_SPOOL__DIR", &spool),
    ];
    let mut gateway = Gateway::of("serve", folder.path(), &variables);
    let refused = gateway.asks("", "POST", "/run", r#"{"input":{"prompt":"p","model":"emoji"}}"#);
    assert!(refused.0 == 400 && refused.1.contains("only miniature is"), "{refused:?}");
    let job = r#"{"input":{"prompt":"a red apple","width":128,"height":128,"num_inference_steps":2,"seed":7}}"#;
    let done = gateway.json("POST", "/runsync", job);
    assert_eq!((&done["status"], &done["output"][0]["seed"]), (&"COMPLETED".into(), &7.into()), "{done}");
    let told = Command::new("kill").args(["-TERM", &gateway.process.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(gateway.process.wait().unwrap().code(), Some(0), "it drains");
}
