//! A queue that keeps its jobs whatever happens to workers, and does what it can to make them lose some.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A job that no heartbeat lists for so long is given to the next who asks.
const LEASE: Duration = Duration::from_secs(4);

/// For a poll, before it is answered empty.
const POLL: Duration = Duration::from_millis(500);

/// How a job stands.
enum State {
    Queued,
    Taken(Instant),
    Ended(Value),
}

struct Job {
    input: Value,
    state: State,
}

/// What befalls a request.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It is refused for now.
    Status(u16),
    /// It is never read.
    Lost,
    /// It is heard, and the answer never comes.
    AnswerLost,
    /// The answer takes its time.
    Late,
    /// The answer is not JSON.
    Garbage,
    /// A job that is in somebody's hands already, or ended, is handed out.
    Again,
}

/// What is told in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Ends of jobs that had ended before.
    pub(crate) repeated: usize,
    /// Jobs that were given to another worker, because no heartbeat listed them.
    pub(crate) requeued: usize,
    /// Requests that met a fault.
    pub(crate) faults: usize,
}

struct Table {
    calm: bool,
    jobs: BTreeMap<String, Job>,
    rng: TestRng,
    tally: Tally,
}

/// A queue that ends with its value.
pub(crate) struct Broker {
    pub(crate) base: String,
    table: Arc<Mutex<Table>>,
    ended: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Broker {
    /// A queue of these inputs, by the ids of their jobs; the same `seed` has the same faults in store, and no seed none.
    pub(crate) async fn start(inputs: BTreeMap<String, Value>, seed: Option<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v2/ep1", listener.local_addr().unwrap());
        let jobs = inputs.into_iter().map(|(id, input)| (id, Job { input, state: State::Queued })).collect();
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.unwrap_or_default(); 32]);
        let table = Arc::new(Mutex::new(Table { calm: seed.is_none(), jobs, rng, tally: Tally::default() }));
        let (count, ended) = watch::channel(0);
        let mut task = JoinSet::new();
        let shared = Arc::clone(&table);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            let count = Arc::new(count);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (table, count) = (Arc::clone(&shared), Arc::clone(&count));
                let answer = service_fn(move |request| answer(request, Arc::clone(&table), Arc::clone(&count)));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                connections.spawn(async move {
                    // One that is broken off is meant to be.
                    let _ = connection.await;
                });
            }
        });
        Self { base, table, ended, _task: task }
    }

    /// Waits until so many jobs have ended.
    pub(crate) async fn until(&self, ended: usize) {
        self.ended.clone().wait_for(|count| *count >= ended).await.unwrap();
    }

    /// How the jobs ended, by id; a job that has not is left out.
    pub(crate) fn results(&self) -> BTreeMap<String, Value> {
        let table = self.table.lock().unwrap();
        let ended = table.jobs.iter().filter_map(|(id, job)| match &job.state {
            State::Ended(body) => Some((id.clone(), body.clone())),
            State::Queued | State::Taken(_) => None,
        });
        ended.collect()
    }

    /// The jobs that have not ended.
    pub(crate) fn left(&self) -> Vec<String> {
        let table = self.table.lock().unwrap();
        let left = table.jobs.iter().filter(|(_, job)| !matches!(job.state, State::Ended(_)));
        left.map(|(id, _)| id.clone()).collect()
    }

    /// From now on no request meets a fault.
    pub(crate) fn calm(&self) {
        self.table.lock().unwrap().calm = true;
    }

    pub(crate) fn tally(&self) -> Tally {
        self.table.lock().unwrap().tally.clone()
    }
}

impl Table {
    /// One request in three is met by a fault.
    fn fault(&mut self, take: bool) -> Fault {
        if self.calm {
            return Fault::None;
        }
        let fault = match self.rng.next_u32() % 24 {
            0 => Fault::Status(429),
            1 => Fault::Status(500),
            2 => Fault::Status(502),
            3 => Fault::Lost,
            4 => Fault::AnswerLost,
            5 => Fault::Late,
            6 => Fault::Garbage,
            7 if take => Fault::Again,
            _ => return Fault::None,
        };
        self.tally.faults += 1;
        fault
    }

    fn take(&mut self, again: bool) -> Option<Value> {
        let now = Instant::now();
        for job in self.jobs.values_mut() {
            if matches!(job.state, State::Taken(seen) if now - seen > LEASE) {
                job.state = State::Queued;
                self.tally.requeued += 1;
            }
        }
        let free: Vec<&String> =
            self.jobs.iter().filter(|(_, job)| matches!(job.state, State::Queued) != again).map(|(id, _)| id).collect();
        let place = self.rng.next_u32() as usize;
        let id = free.get(place % free.len().max(1)).map(|id| (*id).clone())?;
        let job = self.jobs.get_mut(&id)?;
        if !again {
            job.state = State::Taken(now);
        }
        Some(json!({"id": id, "input": job.input}))
    }

    /// Whether that was its end.
    fn done(&mut self, id: &str, body: Value) -> bool {
        let job = self.jobs.get_mut(id).unwrap();
        if body["status"] == "IN_PROGRESS" {
            return false;
        }
        if let State::Ended(_) = job.state {
            self.tally.repeated += 1;
            return false;
        }
        job.state = State::Ended(body);
        true
    }

    fn ping(&mut self, query: &str) {
        let ids = query.split('&').find_map(|pair| pair.strip_prefix("job_id=")).unwrap_or_default();
        for id in ids.split("%2C").flat_map(|ids| ids.split(',')) {
            if let Some(Job { state: State::Taken(seen), .. }) = self.jobs.get_mut(id) {
                *seen = Instant::now();
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    table: Arc<Mutex<Table>>,
    ended: Arc<watch::Sender<usize>>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.split('/').skip(3).collect();
    let take = parts[0].starts_with("job-take");
    let fault = table.lock().unwrap().fault(take);
    match fault {
        Fault::Status(status) => return Ok(reply(status, String::new())),
        Fault::Lost => return Err(Broken),
        _ => {}
    }
    let body = request.into_body().collect().await.map_err(|_| Broken)?.to_bytes();
    let said = match *parts.as_slice() {
        [route, ..] if route.starts_with("job-take") => {
            let again = fault == Fault::Again;
            let mut job = table.lock().unwrap().take(again);
            if job.is_none() {
                sleep(POLL).await;
                job = table.lock().unwrap().take(again);
            }
            let Some(job) = job else { return Ok(reply(204, String::new())) };
            if parts[0] == "job-take-batch" { json!([job]) } else { job }
        }
        ["job-done", _, id] => {
            let body = serde_json::from_slice(&body).unwrap();
            if table.lock().unwrap().done(id, body) {
                ended.send_modify(|count| *count += 1);
            }
            json!({})
        }
        ["ping", ..] => {
            table.lock().unwrap().ping(&query);
            json!({})
        }
        ["job-stop", ..] => {
            sleep(Duration::from_mins(1)).await;
            json!({})
        }
        _ => json!({}),
    };
    match fault {
        Fault::AnswerLost => return Err(Broken),
        Fault::Late => sleep(Duration::from_millis(700)).await,
        Fault::Garbage => return Ok(reply(200, said.to_string().replace('}', "]"))),
        _ => {}
    }
    Ok(reply(200, said.to_string()))
}

/// The connection is broken off.
#[derive(Debug, thiserror::Error)]
#[error("broken off")]
struct Broken;

fn reply(status: u16, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from(body))).unwrap()
}
