//! The real gateway, killed again and again under a load of submits, takes and results: what was answered stays so.
//!
//! `CRASH_KILLS` says how often, 5 without it; `make soak` has 50. `CRASH_STORE` names a store in place of a file that is thrown away.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]
#![expect(clippy::disallowed_methods, reason = "a test has no configuration, and this one's load has a pace")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway_process;

/// Threads that submit, and workers.
const CLIENTS: usize = 3;
const WORKERS: usize = 3;

/// However busy the machine is.
const LONG: Duration = Duration::from_mins(5);

/// A result that a worker posts.
#[derive(Debug, Clone)]
struct Post {
    output: String,
    began: Instant,
    answered: Option<Instant>,
}

/// What the clients and workers saw.
#[derive(Default)]
struct Seen {
    /// Jobs whose submission was answered 200.
    submitted: BTreeSet<String>,
    /// What was posted for each job that a worker was given.
    posts: BTreeMap<String, Vec<Post>>,
    /// The output that a client was told.
    told: BTreeMap<String, Value>,
}

/// A gateway that is killed and comes back, and all who ask it.
struct Scene {
    address: RwLock<String>,
    seen: Mutex<Seen>,
    /// No more is submitted.
    closing: AtomicBool,
    /// All has ended.
    over: AtomicBool,
    number: AtomicU64,
}

/// A process that is killed with its value.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(store: &str, folder: &Path) -> (Gateway, String) {
    let (process, address) = gateway_process::start("gateway", folder, store, &[]);
    (Gateway(process), address)
}

impl Scene {
    /// Asks once. An error is an answer that never came, or not in full.
    fn ask(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
        let address = self.address.read().unwrap().clone();
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(LONG))?;
        let head = format!("{method} /v2/stable-diffusion-v1{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close");
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(cut)?;
        let length = head
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
        if body.len() < length {
            return Err(cut());
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, serde_json::from_str(body).unwrap_or_default()))
    }

    /// Asks until it is answered.
    fn ask_on(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        while !self.over.load(Ordering::Relaxed) {
            match self.ask(method, path, body) {
                Ok(reply) => return Some(reply),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
        None
    }

    /// Submits jobs, and asks after those that were taken in.
    fn client(&self) {
        let mut last: Option<String> = None;
        while !self.closing.load(Ordering::Relaxed) {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            if let Ok((200, reply)) = self.ask("POST", "/run", &json!({"input": {"number": number}}).to_string()) {
                let id = reply["id"].as_str().unwrap().to_owned();
                self.seen.lock().unwrap().submitted.insert(id.clone());
                if let Some(last) = last.replace(id) {
                    self.look(&last);
                }
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Waits until so many more jobs were taken in.
    fn until_submitted(&self, more: usize) {
        let count = || self.seen.lock().unwrap().submitted.len();
        let (began, wanted) = (Instant::now(), count() + more);
        while count() < wanted {
            assert!(began.elapsed() < LONG, "{} of {wanted} jobs are taken in", count());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A job that was taken in is there, and an end that was told is its only one.
    fn look(&self, id: &str) -> bool {
        let Some((code, status)) = self.ask_on("GET", &format!("/status/{id}"), "") else { return false };
        assert_eq!(code, 200, "{id} is forgotten: {status}");
        let ended = status["status"] == "COMPLETED";
        let mut seen = self.seen.lock().unwrap();
        if let Some(told) = seen.told.get(id) {
            assert!(ended && status["output"] == *told, "{id} had ended with {told}: {status}");
        } else if ended {
            seen.told.insert(id.to_owned(), status["output"].clone());
        } else {
            assert!(status["status"] == "IN_QUEUE" || status["status"] == "IN_PROGRESS", "{status}");
        }
        ended
    }

    /// Takes jobs and brings their results, some of them twice and each with another output, until it is answered.
    fn work(&self, name: &str, held: &Mutex<BTreeSet<String>>) {
        while !self.over.load(Ordering::Relaxed) {
            // What an answer that is lost on the way held comes back, as no heartbeat names it.
            let taken = self.ask("GET", &format!("/job-take-batch/{name}?batch_size=4"), "");
            let Ok((200, Value::Array(jobs))) = taken else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let ids = jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned());
            held.lock().unwrap().extend(ids);
            for job in jobs {
                let id = job["id"].as_str().unwrap();
                let twice = if job["input"]["number"].as_u64().unwrap().is_multiple_of(3) { 2 } else { 1 };
                for time in 0..twice {
                    self.bring(name, id, &format!("{name} {time} {}", self.number.fetch_add(1, Ordering::Relaxed)));
                }
                held.lock().unwrap().remove(id);
            }
        }
    }

    fn bring(&self, name: &str, id: &str, output: &str) {
        let post = Post { output: output.to_owned(), began: Instant::now(), answered: None };
        let place = {
            let mut seen = self.seen.lock().unwrap();
            let posts = seen.posts.entry(id.to_owned()).or_default();
            posts.push(post);
            posts.len() - 1
        };
        let body = json!({ "output": output }).to_string();
        if let Some((code, reply)) = self.ask_on("POST", &format!("/job-done/{name}/{id}?isStream=false"), &body) {
            assert_eq!(code, 200, "{id}: {reply}");
            self.seen.lock().unwrap().posts.get_mut(id).unwrap()[place].answered = Some(Instant::now());
        }
    }

    /// Heartbeats, of all that a worker has in hand.
    fn beat(&self, name: &str, held: &Mutex<BTreeSet<String>>) {
        while !self.over.load(Ordering::Relaxed) {
            let named: Vec<String> = held.lock().unwrap().iter().cloned().collect();
            let _ = self.ask("GET", &format!("/ping/{name}?job_id={}", named.join("%2C")), "");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Every job that was taken in has ended once, with what was brought first.
    fn check(&self) {
        let seen = self.seen.lock().unwrap();
        for id in &seen.submitted {
            let (told, posts) = (seen.told[id].as_str().unwrap(), &seen.posts[id]);
            let first = posts.iter().find(|post| post.output == told).unwrap_or_else(|| panic!("{id}: {told}"));
            let earlier = posts.iter().find(|post| post.answered.is_some_and(|answered| answered < first.began));
            assert!(earlier.is_none(), "{id} ended with {first:?}, and {earlier:?} had been answered");
        }
    }
}

/// Kills a gateway on this store.
fn survives(store: &str, folder: &Path, kills: u64) {
    let (mut gateway, address) = start(store, folder);
    let scene = Scene {
        address: RwLock::new(address),
        seen: Mutex::default(),
        closing: AtomicBool::new(false),
        over: AtomicBool::new(false),
        number: AtomicU64::new(0),
    };
    let workers: Vec<(String, Mutex<BTreeSet<String>>)> =
        (0..WORKERS).map(|number| (format!("w{number}"), Mutex::default())).collect();
    thread::scope(|threads| {
        let scene = &scene;
        let _stop = Stop(&scene.over, &scene.closing);
        for (name, held) in &workers {
            threads.spawn(move || scene.work(name, held));
            threads.spawn(move || scene.beat(name, held));
        }
        for _ in 0..CLIENTS {
            threads.spawn(move || scene.client());
        }
        for kill in 0..kills {
            // Anywhere in its work: after some more submits, or at once.
            let more = (kill as usize * 17 + 11) % 37;
            scene.until_submitted(more);
            drop(gateway);
            let address;
            (gateway, address) = start(store, folder);
            *scene.address.write().unwrap() = address;
        }
        scene.closing.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let jobs: Vec<String> = scene.seen.lock().unwrap().submitted.iter().cloned().collect();
        for id in &jobs {
            while !scene.look(id) {
                assert!(began.elapsed() < LONG, "{id} does not end");
                thread::sleep(Duration::from_millis(20));
            }
        }
        // Whatever was kept of what was not answered has ended as well.
        let (mut health, idle) = (Value::Null, |health: &Value| health["inQueue"] == 0 && health["inProgress"] == 0);
        while !idle(&health) {
            assert!(began.elapsed() < LONG, "{health}");
            health = scene.ask("GET", "/health", "").unwrap().1["jobs"].take();
        }
        let ended = scene.seen.lock().unwrap().posts.len();
        assert_eq!((&health["completed"], &health["failed"]), (&json!(ended), &json!(0)), "each job ends once");
        // Polls in the air end with it.
        drop(gateway);
        println!("{kills} kills, {} jobs submitted, {ended} ended, {} given again", jobs.len(), health["retried"]);
    });
    scene.check();
}

/// Ends all threads, also when the test has failed.
struct Stop<'a>(&'a AtomicBool, &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.store(true, Ordering::Relaxed);
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

#[test]
fn what_was_answered_survives_every_crash() {
    let folder = tempfile::tempdir().unwrap();
    let store = variable("CRASH_STORE").unwrap_or_else(|| format!("sqlite:{}/queue.db", folder.path().display()));
    let kills = variable("CRASH_KILLS").map_or(5, |kills| kills.parse().unwrap());
    survives(&store, folder.path(), kills);
}
