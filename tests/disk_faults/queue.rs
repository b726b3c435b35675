//! The gateway on a disk that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Fault, Faults};

/// For what failed to go on.
const SOON: Duration = Duration::from_mins(1);

/// A gateway, killed when it is let go of.
struct Gateway {
    process: Child,
    address: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

impl Gateway {
    /// On a queue in a folder, which is on the disk that fails; `None` if it does not come to listen.
    fn start(folder: &Path, faults: &Faults) -> Option<Self> {
        let process = Command::new(env!("CARGO_BIN_EXE_latentd"))
            .arg("gateway")
            .current_dir(folder)
            .env_clear()
            .envs([("LATENTD_LISTEN", "127.0.0.1:0"), ("LATENTD_HANDLER", "external"), ("LATENTD_LIMITS", "false")])
            .env("LATENTD_STORE", folder.join("queue.db"))
            .env("LATENTD_GATEWAY__MIN_FREE", "off")
            .envs(faults.variables(folder))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut gateway = Self { process, address: String::new() };
        let mut line = String::new();
        BufReader::new(gateway.process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().strip_prefix("listening on http://")?.clone_into(&mut gateway.address);
        Some(gateway)
    }

    /// Asks once. Whatever fails, there is an answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = format!("{method} /v2/stable-diffusion-v1{path} HTTP/1.0\r\nhost: {}", self.address);
        write!(stream, "{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    /// Asks until it is taken.
    fn insist(&self, method: &str, path: &str, body: &str) -> Value {
        let begun = Instant::now();
        loop {
            match self.ask(method, path, body) {
                (200..=204, reply) => return reply,
                refused => assert!(begun.elapsed() < SOON, "{path}: {refused:?}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What clients and workers were told.
#[derive(Default)]
struct Told {
    /// Jobs that were taken in.
    submitted: BTreeSet<String>,
    /// How often each was handed out.
    handed: BTreeMap<String, u64>,
    /// What was taken of each.
    done: BTreeMap<String, Value>,
    /// What workers have yet to bring: an output, or none of a failure.
    held: BTreeMap<String, Option<Value>>,
    /// How each stood when it had ended.
    stood: BTreeMap<String, Value>,
}

impl Told {
    fn submit(&mut self, gateway: &Gateway, body: &str) -> Option<String> {
        let (status, reply) = gateway.ask("POST", "/run", body);
        let id = reply["id"].as_str().filter(|_| status == 200)?.to_owned();
        self.submitted.insert(id.clone());
        Some(id)
    }

    fn take(&mut self, gateway: &Gateway) -> Vec<String> {
        // Who asks in vain waits.
        if gateway.ask("GET", "/health", "").1["jobs"]["inQueue"] == json!(0) {
            return Vec::new();
        }
        let (status, jobs) = gateway.ask("GET", "/job-take-batch/w?gpu=X&batch_size=2&job_in_progress=1", "");
        let jobs = jobs.as_array().cloned().filter(|_| status == 200).unwrap_or_default();
        let ids: Vec<_> = jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        for id in &ids {
            *self.handed.entry(id.clone()).or_default() += 1;
            let output = json!(format!("{id}{}", "x".repeat(9000)));
            assert!(self.held.insert(id.clone(), Some(output)).is_none(), "{id} was handed out while it was held");
        }
        ids
    }

    /// Brings a result, once. Returns whether it was taken.
    fn bring(&mut self, gateway: &Gateway, id: &str) -> bool {
        let output = self.held[id].clone();
        let body = output.as_ref().map_or_else(|| json!({ "error": "no" }), |output| json!({ "output": output }));
        let taken = gateway.ask("POST", &format!("/job-done/w/{id}?isStream=false"), &body.to_string()).0 == 200;
        if taken {
            self.held.remove(id);
            self.done.extend(output.map(|output| (id.to_owned(), output)));
        }
        taken
    }

    /// All that clients and workers do, each of it once, whatever comes of it.
    fn script(&mut self, gateway: &Gateway) {
        let ids: Vec<_> = ["a", "b", "c"].iter().filter_map(|n| self.submit(gateway, &body(n, 5000))).collect();
        let taken = self.take(gateway);
        if let Some(first) = taken.first() {
            let progress = r#"{"status": "IN_PROGRESS", "output": "half"}"#;
            gateway.ask("POST", &format!("/job-done/w/{first}?isStream=false"), progress);
            gateway.ask("POST", &format!("/job-stream/w/{first}"), r#"{"output": "part"}"#);
            gateway.ask("GET", &format!("/stream/{first}"), "");
            self.bring(gateway, first);
        }
        if let Some(second) = taken.get(1) {
            self.held.insert(second.clone(), None);
            if self.bring(gateway, second) {
                gateway.ask("POST", &format!("/retry/{second}"), "");
            }
        }
        if let Some(third) = ids.get(2) {
            gateway.ask("POST", &format!("/cancel/{third}"), "");
        }
        for id in &ids {
            let (status, _) = gateway.ask("GET", &format!("/status/{id}"), "");
            assert_eq!(status, 200, "what was taken in can be read");
        }
    }

    /// The fault is over: everything is brought to its end.
    fn finish(&mut self, gateway: &Gateway) {
        let late = gateway.insist("POST", "/run", &body("late", 10))["id"].as_str().unwrap().to_owned();
        self.submitted.insert(late);
        let begun = Instant::now();
        loop {
            for id in self.held.clone().keys() {
                self.bring(gateway, id);
            }
            if self.take(gateway).is_empty() && self.held.is_empty() {
                break;
            }
            assert!(begun.elapsed() < SOON, "{:?} are held", self.held);
        }
        for id in self.submitted.iter().filter(|id| !self.stood.contains_key(*id)).cloned().collect::<Vec<_>>() {
            let id = &id;
            let (status, stands) = gateway.ask("GET", &format!("/status/{id}"), "");
            let ended = ["COMPLETED", "FAILED", "CANCELLED"].iter().any(|end| stands["status"] == **end);
            assert!(status == 200 && ended, "{id} is {status} {stands}");
            if let Some(output) = self.done.get(id) {
                assert_eq!(&stands["output"], output, "{id} was taken: {stands}");
            }
            let (_, history) = gateway.ask("GET", &format!("/history/{id}"), "");
            let attempts = history["attempts"].as_array().unwrap().len() as u64;
            let handed = self.handed.get(id).copied().unwrap_or(0);
            assert_eq!(handed, attempts, "{id} was handed out as often as the queue knows: {history}");
            self.stood.insert(id.clone(), stands);
        }
    }

    /// Counts are those of what there is.
    fn count(gateway: &Gateway) {
        let (_, health) = gateway.ask("GET", "/health", "");
        let (_, completed) = gateway.ask("GET", "/requests?status=COMPLETED", "");
        assert_eq!(health["jobs"]["completed"], completed["total"], "{health}");
        assert_eq!((&health["jobs"]["inQueue"], &health["jobs"]["inProgress"]), (&json!(0), &json!(0)), "{health}");
    }

    /// All stands as it did.
    fn stays(&self, gateway: &Gateway) {
        for (id, stood) in &self.stood {
            assert_eq!(&gateway.ask("GET", &format!("/status/{id}"), ""), &(200, stood.clone()));
        }
        Self::count(gateway);
    }
}

fn body(number: &str, bytes: usize) -> String {
    json!({ "input": { "n": number, "pad": "x".repeat(bytes) } }).to_string()
}

/// A round with a fault after so many calls. Returns whether it was met.
fn round(gateway: &Gateway, told: &mut Told, faults: &Faults, (pass, fail, fault): (i64, i64, Fault)) -> bool {
    faults.arm(pass, fail, fault);
    told.script(gateway);
    faults.mend();
    told.finish(gateway);
    faults.failed() > 0
}

/// Each call of a round fails once; then from each on all do, as on a disk that is full until somebody makes room.
#[test]
fn whatever_call_fails_nothing_is_lost_or_done_twice_and_the_gateway_goes_on() {
    let (aside, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = Faults::new(aside.path());
    let mut gateway = Gateway::start(folder.path(), &faults).unwrap();
    let mut told = Told::default();
    told.script(&gateway);
    told.finish(&gateway);
    let before = faults.calls();
    told.script(&gateway);
    let calls = faults.calls() - before;
    told.finish(&gateway);
    assert!(calls > 50, "{calls}: its files are those that were counted");
    for (fail, fault, step) in [(1, Fault::Broken, 1), (i64::MAX, Fault::Full, 9), (i64::MAX, Fault::Broken, 31)] {
        let mut met = 0;
        for pass in (0..calls).step_by(step) {
            met += i64::from(round(&gateway, &mut told, &faults, (pass, fail, fault)));
            // What a crash leaves is the same.
            if pass % (16 * step as i64) == 0 {
                drop(gateway);
                gateway = Gateway::start(folder.path(), &faults).unwrap();
                told.stays(&gateway);
            }
        }
        assert!(met * step as i64 > calls / 2, "{met} of {calls} calls, each {step}th, failed");
    }
    drop(gateway);
    let gateway = Gateway::start(folder.path(), &faults).unwrap();
    told.stays(&gateway);
}

/// When its log is long enough it goes into the file, which are thousands of calls. Some of them fail, the first and the last among them.
#[test]
fn a_log_that_cannot_go_into_the_file_is_kept_until_it_can() {
    let (aside, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = Faults::new(aside.path());
    let gateway = Gateway::start(folder.path(), &faults).unwrap();
    let mut told = Told::default();
    let file = || std::fs::metadata(folder.path().join("queue.db")).unwrap().modified().unwrap();
    let large = body("large", 1 << 20);
    let mut rounds = 0;
    for fault in [Fault::Broken, Fault::Full] {
        for late in [0, 1, 1000, 4090] {
            // Until a commit has written the file: a quarter as large as those before.
            let before = file();
            let mut written = 0;
            while file() == before {
                assert!(written < 64, "it never goes into the file");
                faults.arm(600 + late, 200, fault);
                written += usize::from(told.submit(&gateway, &large).is_some());
                faults.mend();
                gateway.insist("POST", "/run", &body("small", 10));
            }
            rounds += i64::from(faults.failed() > 0);
        }
    }
    assert!(rounds > 0, "none failed");
    drop(gateway);
    let gateway = Gateway::start(folder.path(), &faults).unwrap();
    for id in &told.submitted {
        assert_eq!(gateway.ask("GET", &format!("/status/{id}"), "").1["status"], "IN_QUEUE", "{id}");
    }
}

/// One that cannot begin says so, and leaves what there is as it was.
#[test]
fn whatever_call_of_the_start_fails_the_next_finds_everything() {
    let (aside, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let faults = Faults::new(aside.path());
    let mut told = Told::default();
    for fault in [Fault::Broken, Fault::Full] {
        for pass in 0.. {
            faults.arm(pass, i64::MAX, fault);
            drop(Gateway::start(folder.path(), &faults));
            faults.mend();
            let met = faults.failed() > 0;
            let gateway = Gateway::start(folder.path(), &faults).expect("it begins when the fault is over");
            told.stays(&gateway);
            told.script(&gateway);
            told.finish(&gateway);
            drop(gateway);
            if !met {
                break;
            }
            assert!(pass < 500);
        }
    }
}
