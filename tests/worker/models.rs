//! What a job may ask for, and what it is told of a model that this machine cannot load.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use latentd::deliver::spool::Spool;
use latentd::engine::fake::Fake;
use latentd::engine::host::Host;
use latentd::engine::pool::{EnginePool, ModelSpec, StartEngines};
use latentd::job::{Contract, OfferedModel};
use latentd::telemetry::Telemetry;
use latentd::worker::{Resources, WorkerEnd, WorkerOptions};

use crate::worker::engine::{OPTIONS, Patient, Worker, input, parts, resources, sink};
use crate::worker::queue::{LONG, Queue};

fn work(queue: &Queue, resources: Resources, slots: usize) -> Worker {
    let parts = parts(sink(queue), Spool::in_memory(1 << 30));
    Worker::when(queue, parts, Telemetry::default(), async move { Ok((resources, WorkerOptions { slots, ..OPTIONS })) })
}

#[tokio::test]
async fn a_client_hears_which_model_cannot_be_had_and_nothing_of_this_machine() {
    let queue = Queue::start().await;
    let start: Box<StartEngines> = Box::new(|_| {
        Box::pin(async { Ok(vec![Host::start("e", || Err::<Fake, _>("/srv/models/torn: no tensor w")).await?]) })
    });
    let pool = Arc::new(EnginePool::new(vec![ModelSpec { name: "torn".into(), bytes: 1 }], None, start));
    let resources = Resources {
        pool,
        models: vec![OfferedModel::new("torn", Contract::Sd1)],
        ..resources(Patient::default()).await
    };
    queue.job("j1", input("a")).job("j2", input("b"));
    let worker = work(&queue, resources, 1);
    for post in queue.until("done", 2).await {
        assert_eq!(post.body, r#"{"error":"the model torn cannot be loaded on this worker"}"#);
    }
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
}

// One thread for all jobs: a folder that is read on it would hold up every one of them.
#[tokio::test]
async fn a_folder_of_loras_is_read_for_who_names_one_and_holds_up_nobody() {
    let (queue, reads, (done, wait)) = (Queue::start().await, Arc::new(AtomicUsize::new(0)), mpsc::sync_channel(1));
    let (count, wait) = (Arc::clone(&reads), Mutex::new(wait));
    let loras = move || {
        count.fetch_add(1, Ordering::SeqCst);
        let other_is_done = wait.lock().unwrap().recv_timeout(LONG).is_ok();
        if other_is_done { vec!["ink".to_owned()] } else { Vec::new() }
    };
    let resources = Resources { loras: Arc::new(loras), ..resources(Patient::default()).await };
    let mut with = input("a");
    with["lora"] = "ink".into();
    queue.job("j1", with).job("j2", input("b"));
    let worker = work(&queue, resources, 2);
    let first = queue.until("done", 1).await;
    assert!(first[0].path.contains("/j2?"), "{first:?}");
    done.send(()).unwrap();
    let posts = queue.until("done", 2).await;
    assert!(posts[1].json()["output"].is_array(), "{}", posts[1].body);
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!(reads.load(Ordering::SeqCst), 1);
}
