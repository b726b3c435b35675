//! Jobs that need memory on their way to a worker: who waits for it, how much they hold, and that no job is forgotten meanwhile.

use std::io::{Seek, read_to_string, sink};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tracing::Dispatch;
use tracing::subscriber::set_default;

use super::peer::ClientId;
use super::*;
use crate::gateway::memory_budget::Reservation;
use crate::gateway::{ApiKey, Role};

const MIB: usize = 1 << 20;

/// Bytes of a job's input; a tenth of [`MIB`].
const LARGE: usize = 100 << 10;

const TAKES: [&str; 2] = ["/job-take/w1?", "/job-take-batch/w1?batch_size=9"];

fn gateway(in_flight: usize) -> TestGateway {
    TestGateway::with(GatewaySettings { in_flight, ..GatewaySettings::default() })
}

impl TestGateway {
    /// Queues a job with an input of so many bytes. Returns its id.
    async fn run_large(&self, bytes: usize) -> String {
        self.run(&format!(r#"{{"input":"{}"}}"#, "x".repeat(bytes))).await
    }

    /// So many bytes for jobs on their way to workers, held by another client.
    async fn another_holds(&self, bytes: usize) -> Reservation {
        let reserved = self.gateway.budgets.takes.reserve(bytes);
        peer::on_behalf_of(ClientId::named("another"), reserved).await.unwrap()
    }

    fn held(&self, in_flight: usize) -> usize {
        in_flight - self.gateway.budgets.takes.free()
    }
}

#[tokio::test(start_paused = true)]
async fn small_jobs_are_handed_out_though_another_holds_all_memory() {
    let gateway = gateway(MIB);
    let _all = gateway.another_holds(MIB).await;
    for path in TAKES {
        let id = gateway.run(START).await;
        let (status, jobs) = gateway.get(path).now_or_never().unwrap();
        assert!(status == 200 && jobs.contains(&id), "{path}: {status} {jobs}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_job_waits_for_memory_and_holds_as_much_as_it_has_until_it_is_read() {
    let gateway = gateway(MIB);
    for path in TAKES {
        let (id, all, began) = (gateway.run_large(LARGE).await, gateway.another_holds(MIB).await, Instant::now());
        let (unread, ()) = tokio::join!(gateway.unread(path, "*/*"), async {
            sleep(Duration::from_secs(9)).await;
            assert_eq!(gateway.field(&id, "status").await, "IN_QUEUE");
            drop(all);
        });
        assert_eq!(began.elapsed().as_secs(), 9, "{path}");
        let held = gateway.held(MIB);
        assert!((LARGE..LARGE + 1000).contains(&held), "{path}: {held}");
        let read = to_bytes(Body::from_stream(unread), usize::MAX).await.unwrap();
        assert!(String::from_utf8_lossy(&read).contains(&id) && gateway.held(MIB) > 0, "{path}");
        drop(read);
        gateway.run_large(LARGE).await;
        let unread = gateway.unread(path, "*/*").await;
        assert!(gateway.held(MIB) >= LARGE);
        drop(unread);
        assert_eq!(gateway.held(MIB), 0, "{path}: nobody read it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_all_jobs_for_which_there_is_memory_and_one_at_least() {
    let all = 64 * MIB;
    let gateway = gateway(all);
    for (input, free, come) in
        [(600, 64 * MIB, 64..65), (LARGE, 64 * MIB, 64..65), (600, MIB, 20..30), (LARGE, MIB, 1..2)]
    {
        for _ in 0..64 {
            gateway.run_large(input).await;
        }
        let held = gateway.another_holds(all - free).await;
        let (status, jobs) = gateway.get("/job-take-batch/w1?batch_size=64").await;
        let jobs: Vec<Value> = serde_json::from_str(&jobs).unwrap();
        assert!(status == 200 && come.contains(&jobs.len()), "{input}, {free}: {}", jobs.len());
        assert_eq!(gateway.held(all), held.bytes(), "{input}, {free}");
        drop(held);
        while gateway.get("/job-take-batch/w2?batch_size=64").await.0 == 200 {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_no_more_bytes_than_all_memory() {
    let gateway = gateway(4 * MIB);
    for _ in 0..64 {
        gateway.run_large(LARGE).await;
    }
    let (status, jobs) = gateway.get("/job-take-batch/w1?batch_size=64").await;
    let jobs: Vec<Value> = serde_json::from_str(&jobs).unwrap();
    assert_eq!((status, jobs.len()), (200, 4 * MIB / LARGE));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_memory_is_in_no_one_s_way() {
    let gateway = gateway(MIB);
    let (all, began) = (gateway.another_holds(MIB).await, Instant::now());
    let large = gateway.run_large(LARGE).await;
    let first = gateway.get("/job-take/w1?");
    let second = async {
        sleep(Duration::from_secs(1)).await;
        (gateway.get("/job-take/w2?").await, began.elapsed().as_secs())
    };
    let jobs = async {
        sleep(Duration::from_secs(2)).await;
        assert_eq!(gateway.post(&format!("/cancel/{large}"), "").await.0, 200);
        sleep(Duration::from_secs(1)).await;
        gateway.run(START).await
    };
    let (first, (second, ended), small) = tokio::join!(first, second, jobs);
    assert_eq!((first.0, second.0, ended), (204, 200, 3), "the small job is for who is there");
    assert!(second.1.contains(&small), "{}", second.1);
    drop(all);
}

#[tokio::test(start_paused = true)]
async fn a_large_job_is_for_a_poll_that_has_memory() {
    let key = |key, role| ApiKey::new(key, role, None);
    let keys = vec![key("poor", Role::Worker), key("rich", Role::Worker), key("user", Role::User)];
    let gateway = TestGateway::with(GatewaySettings { in_flight: MIB, keys, ..GatewaySettings::default() });
    let began = Instant::now();
    let poll = |key: &'static str| gateway.sends(request("GET", "/job-take/w1?", &[("authorization", key)], ""));
    // All that one client may have, and there is as much again.
    let reserved = gateway.gateway.budgets.takes.reserve(MIB / 2);
    let _unread = peer::on_behalf_of(ClientId::named("poor"), reserved).await.unwrap();
    let first = poll("poor");
    let second = async {
        sleep(Duration::from_secs(1)).await;
        (poll("rich").await, began.elapsed().as_secs())
    };
    let submits = async {
        sleep(Duration::from_secs(2)).await;
        let large = format!(r#"{{"input":"{}"}}"#, "x".repeat(LARGE));
        gateway.sends(request("POST", "/run", &[("authorization", "user")], &large)).await.0
    };
    let (first, (second, ended), queued) = tokio::join!(first, second, submits);
    assert_eq!((queued, first.0, second.0, ended), (200, 204, 200, 2));
    assert!(second.1.len() > LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_leaves_without_the_large_job_it_was_woken_for_wakes_the_next() {
    // By the end of its hold, after 20 seconds, and because its client goes away.
    for (client_stays, status) in [(60, Some(204)), (10, None)] {
        let gateway = gateway(MIB);
        let (all, began) = (gateway.another_holds(MIB).await, Instant::now());
        let first = timeout(Duration::from_secs(client_stays), gateway.get("/job-take/w1?"));
        let second = async {
            sleep(Duration::from_secs(5)).await;
            (gateway.get("/job-take/w2?").await, began.elapsed().as_secs())
        };
        let submits = async {
            sleep(Duration::from_secs(6)).await;
            let id = gateway.run_large(LARGE).await;
            sleep(Duration::from_secs(16)).await;
            drop(all);
            id
        };
        let (first, (second, ended), id) = tokio::join!(first, second, submits);
        assert_eq!(first.ok().map(|(status, _)| status), status);
        assert!(second.0 == 200 && second.1.contains(&id), "{} {}", second.0, second.1);
        assert_eq!(ended, 22, "as soon as there is memory");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_says_once_a_minute_that_polls_end_without_a_job_for_lack_of_memory() {
    let gateway = gateway(MIB);
    let _all = gateway.another_holds(MIB).await;
    gateway.run_large(LARGE).await;
    let log = Arc::new(tempfile::tempfile().unwrap());
    // While there is one log alone, a line is off for good if a thread without a log is the first to come by it.
    let _another = Dispatch::new(tracing_subscriber::fmt().with_writer(sink).finish());
    let _logging = set_default(tracing_subscriber::fmt().with_writer(log.clone()).finish());
    // For twenty seconds each.
    for _ in 0..4 {
        assert_eq!(gateway.get("/job-take/w1?").await.0, 204);
    }
    (&*log).rewind().unwrap();
    let lines = read_to_string(&*log).unwrap();
    assert_eq!(lines.matches("no memory for a job").count(), 2, "{lines}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_larger_than_all_memory_for_jobs_takes_all_of_it() {
    let gateway = gateway(MIB);
    for path in TAKES {
        let id = gateway.run_large(2 * MIB).await;
        let unread = gateway.unread(path, "*/*").await;
        assert_eq!(gateway.held(MIB), MIB, "{path}");
        let job = to_bytes(Body::from_stream(unread), usize::MAX).await.unwrap();
        assert!(job.len() > 2 * MIB && String::from_utf8_lossy(&job).contains(&id), "{path}");
    }
    assert_eq!(gateway.held(MIB), 0);
}
