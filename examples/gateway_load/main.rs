//! Asks a gateway, or the SDK's local server, as much as it can answer; `scripts/bench/gateway` runs it.
//!
//! `gateway_load BASE OPERATION CONNECTIONS SECONDS`, where BASE is `http://host:port` and what comes before `/run`. OPERATION is one of
//!
//! * `submit`: `POST /run`
//! * `status`: `GET /status/ID` of a job that has ended; `known`: `POST /status/ID` of one that the server does not know
//! * `cycle`: `POST /runsync`, and workers on as many connections that take jobs and bring results; `alone`: without workers
//! * `wake`: how long after a submit an open poll has the job, one after the other
//!
//! Prints one line of JSON: how many a second, and milliseconds at the median, at 99 of 100 and at most.

#![allow(clippy::print_stdout, clippy::disallowed_methods)]

mod line;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use line::Line;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// What is submitted.
const JOB: &str = r#"{"input":{"prompt":"a red apple","seed":7}}"#;

/// Not measured: what comes before all connections are up and all code was run once.
const WARM: Duration = Duration::from_millis(500);

/// What a worker is given.
#[derive(Debug, Deserialize)]
struct Job<'a> {
    id: &'a str,
    #[serde(borrow)]
    input: &'a RawValue,
}

/// What happens on each connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    Submit,
    Status,
    Known,
    Cycle,
    Alone,
}

/// One thread is enough: a server needs many times what its client does.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [base, operation, connections, seconds] = &arguments[..] else {
        bail!("gateway_load BASE OPERATION CONNECTIONS SECONDS");
    };
    let (connections, seconds) = (connections.parse()?, Duration::from_secs_f64(seconds.parse()?));
    let figures = match operation.as_str() {
        "submit" => load(base, Operation::Submit, connections, seconds).await?,
        "status" => load(base, Operation::Status, connections, seconds).await?,
        "known" => load(base, Operation::Known, connections, seconds).await?,
        "cycle" => load(base, Operation::Cycle, connections, seconds).await?,
        "alone" => load(base, Operation::Alone, connections, seconds).await?,
        "wake" => wake(base, seconds).await?,
        other => bail!("{other} is no operation"),
    };
    println!("{figures}");
    Ok(())
}

/// Asks on all connections, again as soon as it is answered.
async fn load(base: &str, operation: Operation, connections: usize, seconds: Duration) -> Result<Value> {
    let ended = if operation == Operation::Status { ended(base).await? } else { "none".to_owned() };
    let ended = Arc::new(ended);
    let begin = Instant::now() + WARM;
    let end = begin + seconds;
    let (mut clients, mut workers) = (JoinSet::new(), JoinSet::new());
    for number in 0..connections {
        let mut line = Line::new(base).await?;
        let ended = Arc::clone(&ended);
        clients.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                ask(&mut line, operation, &ended).await?;
                took.push((began, began.elapsed()));
            }
            anyhow::Ok(took)
        });
        if operation == Operation::Cycle {
            let mut line = Line::new(base).await?;
            workers.spawn(async move { work(&mut line, &format!("load-{number}")).await });
        }
    }
    let mut took = Vec::new();
    while let Some(client) = clients.join_next().await {
        took.extend(client??.into_iter().filter(|(began, _)| *began >= begin).map(|(_, took)| took));
    }
    if let Some(Ok(Err(cause))) = workers.try_join_next() {
        return Err(cause.context("a worker"));
    }
    let rate = took.len() as f64 / seconds.as_secs_f64();
    figures(took, Some(rate))
}

/// A job that has ended.
async fn ended(base: &str) -> Result<String> {
    let mut line = Line::new(base).await?;
    let (_, reply) = line.ask("POST", "/run", JOB).await?;
    let id = serde_json::from_slice::<Value>(reply)?["id"].as_str().context("no id")?.to_owned();
    finish_one(&mut line, "load").await?;
    Ok(id)
}

/// Takes a job, if there is one before the poll is over, and brings its result.
async fn finish_one(line: &mut Line, worker: &str) -> Result<()> {
    let (status, job) = line.ask("GET", &format!("/job-take/{worker}?gpu=X&job_in_progress=0"), "").await?;
    if status == 200 {
        let Job { id, input } = serde_json::from_slice(job)?;
        let (path, body) =
            (format!("/job-done/{worker}/{id}?gpu=X&isStream=false"), format!(r#"{{"output":{input}}}"#));
        let (status, _) = line.ask("POST", &path, &body).await?;
        ensure!(status == 200, "{status} for a result");
    }
    Ok(())
}

async fn work(line: &mut Line, worker: &str) -> Result<()> {
    loop {
        finish_one(line, worker).await?;
    }
}

async fn ask(line: &mut Line, operation: Operation, ended: &str) -> Result<()> {
    let (status, reply) = match operation {
        Operation::Submit => line.ask("POST", "/run", JOB).await?,
        Operation::Status => line.ask("GET", &format!("/status/{ended}"), "").await?,
        Operation::Known => line.ask("POST", &format!("/status/{ended}"), "").await?,
        Operation::Cycle | Operation::Alone => line.ask("POST", "/runsync", JOB).await?,
    };
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(reply));
    if matches!(operation, Operation::Status | Operation::Cycle | Operation::Alone) {
        let done = reply.windows(11).any(|part| part == br#""COMPLETED""#);
        ensure!(done, "not completed: {}", String::from_utf8_lossy(reply));
    }
    Ok(())
}

/// Submits while a poll is open, and waits until that has the job.
async fn wake(base: &str, seconds: Duration) -> Result<Value> {
    let mut client = Line::new(base).await?;
    let end = Instant::now() + WARM + seconds;
    let mut took = Vec::new();
    while Instant::now() < end {
        let mut worker = Line::new(base).await?;
        let poll = tokio::spawn(async move {
            let (status, _) = worker.ask("GET", "/job-take/wake?gpu=X&job_in_progress=0", "").await?;
            ensure!(status == 200, "{status} for a poll");
            anyhow::Ok(Instant::now())
        });
        // So that it is open for sure.
        sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        let (status, _) = client.ask("POST", "/run", JOB).await?;
        ensure!(status == 200, "{status} for a job");
        took.push(poll.await?? - began);
    }
    took.remove(0);
    figures(took, None)
}

fn figures(mut took: Vec<Duration>, rate: Option<f64>) -> Result<Value> {
    ensure!(!took.is_empty(), "nothing was answered in time");
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    Ok(json!({ "rate": rate, "p50": at(0.5), "p99": at(0.99), "most": at(1.0) }))
}
