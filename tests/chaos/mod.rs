//! The real worker, killed again and again, on a queue that answers badly: no job is lost, and each ends as it should.
//!
//! And left alone for long, it takes no more memory than it did at first. `CHAOS_JOBS` says how many jobs there are, 60 without it, and
//! `SOAK_JOBS` those of the long run, 300 without it; `make soak` has 500 and 2,000.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

mod broker;
mod worker;

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use broker::Broker;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use worker::{Worker, alone};

/// Times that the worker is killed.
const KILLS: usize = 12;

/// However busy the machine is.
const LONG: Duration = Duration::from_mins(5);

/// What is asked for: every job is one of these.
fn inputs() -> Vec<Value> {
    vec![
        json!({"prompt": "a red apple", "width": 128, "height": 128, "num_inference_steps": 2, "seed": 7}),
        json!({"prompt": "a blue pear", "width": 256, "height": 128, "num_inference_steps": 5, "seed": 1, "scheduler": "HEUN"}),
        json!({"prompt": "two plums", "width": 128, "height": 128, "num_inference_steps": 3, "seed": 40, "num_outputs": 3, "scheduler": "DDPM"}),
        json!({"prompt": "", "width": 128, "height": 128, "num_inference_steps": 9, "seed": 2, "guidance_scale": 1, "scheduler": "PNDM"}),
        json!({"prompt": "no such size", "width": 127, "seed": 3}),
        json!({"num_outputs": 11}),
    ]
}

/// How many jobs a test has.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
fn jobs(variable: &str, usual: usize) -> usize {
    env::var(variable).map_or(usual, |count| count.parse().unwrap())
}

/// Seeds and pixels of a result's images.
fn pictures(body: &Value) -> Vec<(u64, Vec<u8>)> {
    let images = body["output"].as_array().into_iter().flatten();
    let decode = |image: &Value| {
        let file = BASE64_STANDARD.decode(image["image"].as_str().unwrap()).unwrap();
        (image["seed"].as_u64().unwrap(), image::load_from_memory(&file).unwrap().into_rgb8().into_raw())
    };
    images.map(decode).collect()
}

/// Waits until so many jobs have ended.
async fn until(broker: &Broker, count: usize, worker: &mut Worker) {
    let began = Instant::now();
    while timeout(Duration::from_secs(1), broker.until(count)).await.is_err() {
        worker.check();
        let left = broker.left();
        assert!(began.elapsed() < LONG, "no end of {left:?}; the worker's last words: {}", worker.last_words());
    }
}

fn assert_empty(folder: &Path) {
    let left = worker::files(folder);
    assert!(left.is_empty(), "left behind: {left:?}");
}

// The queue answers while this thread waits for processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost() {
    let count = jobs("CHAOS_JOBS", 60);
    let kinds = inputs();
    let expected: Vec<Value> = kinds.iter().map(alone).collect();
    let jobs: BTreeMap<String, Value> =
        (0..count).map(|number| (format!("job-{number:04}"), kinds[number % kinds.len()].clone())).collect();
    let broker = Broker::start(jobs, Some(1)).await;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let mut worker = Worker::start(&broker.base, &folder);
    for kill in 0..KILLS {
        until(&broker, count * (kill + 1) / (KILLS + 2), &mut worker).await;
        // The first signal drains, unless the second follows; the third cannot be caught.
        worker.end(kill);
        worker = Worker::start(&broker.base, &folder);
    }
    until(&broker, count, &mut worker).await;
    for (number, body) in broker.results().values().enumerate() {
        let (input, wanted) = (&kinds[number % kinds.len()], &expected[number % kinds.len()]);
        // The queue gets all complaints one by one, as `errors` of `latentd run` has them.
        assert_eq!(body["error"], wanted["errors"], "{input}");
        let (found, alone) = (pictures(body), pictures(wanted));
        assert_eq!(found.len(), alone.len(), "{input}");
        for ((seed, pixels), (own, alone)) in found.iter().zip(&alone) {
            assert_eq!(seed, own, "{input}");
            // Who shared its evaluations may show in the last bit.
            let off = pixels.iter().zip(alone).map(|(one, other)| one.abs_diff(*other)).max();
            assert!(pixels.len() == alone.len() && off <= Some(1), "{input}: {off:?}");
        }
    }
    let tally = broker.tally();
    assert!(tally.faults > count / 2, "{tally:?}");
    assert_eq!(worker.drain(), Some(0));
    // A result whose answer was lost, or that was still refused when `worker.drain` was over, is the next worker's to send.
    broker.calm();
    if !worker::files(&folder).is_empty() {
        let mut heir = Worker::start(&broker.base, &folder);
        let began = Instant::now();
        while !worker::files(&folder).is_empty() {
            heir.check();
            assert!(began.elapsed() < LONG, "{:?} is not sent: {}", worker::files(&folder), heir.last_words());
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(heir.drain(), Some(0));
    }
    assert_empty(&folder);
    println!("{count} jobs, {KILLS} kills: {tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow() {
    let count = jobs("SOAK_JOBS", 300);
    let job = |number: usize| {
        let sampler = ["DDIM", "K-LMS", "KDPM2-A", "PNDM"][number % 4];
        json!({"prompt": format!("thing {number}"), "width": 128, "height": 128, "num_inference_steps": 2, "scheduler": sampler})
    };
    let broker =
        Broker::start((0..count).map(|number| (format!("job-{number:04}"), job(number))).collect(), None).await;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("spool");
    let mut worker = Worker::start(&broker.base, &folder);
    until(&broker, 100, &mut worker).await;
    let warm = worker.resident();
    until(&broker, count, &mut worker).await;
    let last = worker.resident();
    assert!(last < warm + warm / 20, "{warm} bytes after 100 jobs, {last} after {count}");
    assert_eq!(worker.drain(), Some(0));
    assert_empty(&folder);
    println!("{count} jobs: {} MiB after 100, {} MiB at the end", warm >> 20, last >> 20);
}
