//! Jobs from the queue to the queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use latentd::engine::fake::Fake;
use latentd::worker::{WorkerEnd, WorkerOptions};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::worker::engine::{Hand, OPTIONS, Worker, input};
use crate::worker::log::Log;
use crate::worker::queue::{Queue, Reply, json, status, text};

/// The body that was posted for a job at last, and whether it said that images were streamed.
fn done(queue: &Queue, id: &str) -> Option<(Value, bool)> {
    let posts = queue.asked("done");
    let post = posts.iter().rev().find(|post| post.path.contains(&format!("/{id}?")))?;
    Some((post.json(), post.path.ends_with("&isStream=true")))
}

/// What is posted for one job.
async fn told(job: Value, options: WorkerOptions) -> (Value, bool) {
    let queue = Queue::start().await;
    let id = job["id"].as_str().unwrap().to_owned();
    queue.answer("take", json(job));
    let worker = Worker::start(&queue, options).await;
    queue.until("done", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    done(&queue, &id).unwrap()
}

fn is_png(image: &Value) -> bool {
    image["image"].as_str().is_some_and(|text| text.starts_with("iVBORw0KGgo"))
}

#[tokio::test]
async fn a_job_is_taken_drawn_and_delivered_and_the_next_taken_at_once() {
    let queue = Queue::start().await;
    queue.job("j1", input("a")).job("j2", input("b"));
    let worker = Worker::start(&queue, OPTIONS).await;
    queue.until("take", 3).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    for id in ["j1", "j2"] {
        let (body, streamed) = done(&queue, id).unwrap();
        assert!(is_png(&body["output"][0]) && !streamed);
        let expected = json!({"output": [{"image": body["output"][0]["image"], "seed": 7}]});
        assert_eq!(body, expected);
    }
    let order: Vec<String> =
        queue.routes().into_iter().filter(|route| ["take", "done"].contains(&route.as_str())).collect();
    assert_eq!(order[..5], ["take", "done", "take", "done", "take"]);
    let takes = queue.asked("take");
    assert!(takes.iter().all(|take| take.path == "/v2/ep1/job-take/pod-abc?gpu=X&job_in_progress=0"), "{takes:?}");
}

#[tokio::test]
async fn a_result_has_timings_and_warnings_beside_it() {
    let job = json!({"id": "j1", "input": input("a")});
    let (body, _) = told(job, WorkerOptions { send_timings: true, ..OPTIONS }).await;
    assert!(body.as_object().unwrap().keys().eq(["output", "timings", "warnings"]), "{body}");
    assert_eq!((&body["timings"]["evaluations"], &body["timings"]["load"]), (&json!(2), &json!(0)));
    assert_eq!(body["warnings"], json!(["a warning"]));
}

#[tokio::test]
async fn what_is_wrong_with_an_input_is_a_list() {
    for (wrong, complaints) in [
        (json!({}), json!(["prompt is a required input."])),
        (
            json!({"width": 500, "x": 1}),
            json!([
                "width does not meet the constraints.",
                "Unexpected input. x is not a valid input option.",
                "prompt is a required input."
            ]),
        ),
        (json!(null), json!(["input should be <class 'dict'> type, not <class 'NoneType'>."])),
    ] {
        assert_eq!(told(json!({"id": "j1", "input": wrong}), OPTIONS).await, (json!({"error": complaints}), false));
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_a_sentence() {
    let mut wanted = input("a");
    wanted["init_image"] = json!("http://127.0.0.1:9/s3cret.png?s3cret");
    let (body, _) = told(json!({"id": "j1", "input": wanted}), OPTIONS).await;
    let error = body["error"].as_str().unwrap();
    assert!(error.starts_with("init_image cannot be fetched") && !error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn images_of_a_job_of_several_are_streamed() {
    let queue = Queue::start().await;
    let mut three = input("a");
    three["num_outputs"] = json!(3);
    queue.job("j1", three);
    let worker = Worker::start(&queue, OPTIONS).await;
    queue.until("done", 1).await;
    worker.stop().await;
    let (body, streamed) = done(&queue, "j1").unwrap();
    assert!(streamed);
    // Each is sent when its file is written, which may be after the next one's.
    let mut whole: Vec<Value> = queue.asked("stream").iter().map(|part| part.json()["output"].clone()).collect();
    whole.sort_by_key(|image| image["seed"].as_u64());
    assert_eq!(body, json!({"output": whole}));
    assert_eq!(whole.iter().map(|image| image["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(queue.asked("stream")[0].path, "/v2/ep1/job-stream/pod-abc/j1?gpu=X&isStream=false");
}

#[tokio::test]
async fn a_stream_that_fails_costs_no_job() {
    let queue = Queue::start().await;
    let mut two = input("a");
    two["num_outputs"] = json!(2);
    // An error in its place would be an image to the client.
    queue.answer("stream", status(413)).job("j1", two);
    let worker = Worker::start(&queue, OPTIONS).await;
    queue.until("done", 1).await;
    worker.stop().await;
    assert_eq!(queue.asked("stream").len(), 1, "no more is streamed after a failure");
    assert_eq!(done(&queue, "j1").unwrap().0["output"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn jobs_share_the_engine_and_one_of_them_is_stopped() {
    let queue = Queue::start().await;
    let job = |id: &str, prompt: &str| json!({"id": id, "input": input(prompt)});
    queue.answer("take", json(json!([job("c1", "endless"), job("c2", "endless"), job("c3", "a")])));
    let now = Arc::new(Notify::new());
    let stop = json(json!({"jobsToStop": ["c2", "nope"]}));
    queue.answer("stop", Reply::After(Arc::clone(&now), Box::new(stop)));
    let worker = Worker::start(&queue, WorkerOptions { slots: 3, ..OPTIONS }).await;
    // c3 does not wait for the others, and its slot is filled again.
    queue.until("done", 1).await;
    queue.until("take", 1).await;
    let takes = [&queue.asked("take-batch")[0].path, &queue.asked("take")[0].path];
    assert_eq!(takes[0], "/v2/ep1/job-take-batch/pod-abc?gpu=X&batch_size=3&job_in_progress=0");
    assert_eq!(takes[1], "/v2/ep1/job-take/pod-abc?gpu=X&job_in_progress=1");
    queue.when(|log| log.iter().any(|asked| asked.path.contains("&job_id=c1%2Cc2&"))).await;

    now.notify_one();
    queue.when(|log| log.iter().any(|asked| asked.path.contains("&job_id=c1&"))).await;
    worker.hand.release();
    queue.until("done", 2).await;
    assert_eq!(worker.hand.cancelled(), 1);
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert!(done(&queue, "c1").is_some() && done(&queue, "c2").is_none());
}

#[tokio::test]
async fn progress_has_a_preview_for_who_asks() {
    let queue = Queue::start().await;
    let mut asking = input("endless");
    asking["preview"] = json!(true);
    queue.answer("take-batch", json(json!([{"id": "j1", "input": asking}, {"id": "j2", "input": input("endless")}])));
    let worker = Worker::start(&queue, WorkerOptions { slots: 2, ..OPTIONS }).await;
    let posts = queue.until("progress", 4).await;
    worker.hand.release();
    worker.stop().await;
    let previews: Vec<(bool, Option<String>)> = posts
        .iter()
        .map(|asked| {
            let preview = asked.json()["output"]["preview"].as_str().map(str::to_owned);
            (asked.path.contains("/j1"), preview)
        })
        .collect();
    assert!(previews.iter().any(|(asks, _)| *asks) && previews.iter().any(|(asks, _)| !*asks));
    for (asks, preview) in previews {
        let file = preview.as_ref().and_then(|uri| uri.strip_prefix("data:image/jpeg;base64,"));
        // The first three bytes of a JPEG.
        assert_eq!((file.is_some_and(|file| file.starts_with("/9j/")), preview.is_some()), (asks, asks));
    }
}

#[tokio::test]
async fn progress_is_told_now_and_then_and_never_after_the_end() {
    let queue = Queue::start().await;
    queue.job("j1", input("endless"));
    let worker = Worker::start(&queue, OPTIONS).await;
    let posts = queue.until("progress", 2).await;
    let progress = posts[1].json();
    assert_eq!(progress["status"], "IN_PROGRESS");
    assert!(progress["output"]["evaluation"].as_u64() > posts[0].json()["output"]["evaluation"].as_u64());
    assert_eq!(progress["output"]["total"], u32::MAX);
    worker.hand.release();
    worker.stop().await;
    let routes = queue.routes();
    let last = |wanted: &str| routes.iter().rposition(|route| route == wanted);
    assert!(last("progress") < last("done"), "{routes:?}");
    assert!(is_png(&done(&queue, "j1").unwrap().0["output"][0]));
    assert!(queue.asked("progress").len() < 60);
}

#[tokio::test]
async fn a_job_has_the_time_of_its_policy() {
    let policy = json!({"executionTimeout": 200, "ttl": 86_400_000});
    let job = json!({"id": "j1", "input": input("endless"), "policy": policy});
    let expected = json!({"error": "the job took longer than the 200 ms that its policy gives it"});
    assert_eq!(told(job, OPTIONS).await, (expected, false));
}

#[tokio::test]
async fn a_job_that_waited_for_as_long_as_it_is_wanted_is_not_drawn() {
    let job = |delay| json!({"id": "j1", "input": input("a"), "delayTime": delay, "policy": {"ttl": 60_000}});
    let why = "the job was not done within the 60000 ms from its submission that its policy (ttl) gives it";
    assert_eq!(told(job(60_000), OPTIONS).await, (json!({"error": why}), false));
    assert!(is_png(&told(job(1_000), OPTIONS).await.0["output"][0]));
}

#[tokio::test]
async fn a_job_that_ran_out_of_time_says_that_images_were_streamed() {
    let mut two = input("first");
    two["num_outputs"] = json!(2);
    let policy = json!({"executionTimeout": 1000});
    let (body, streamed) = told(json!({"id": "j1", "input": two, "policy": policy}), OPTIONS).await;
    assert!(body["error"].as_str().unwrap().contains("1000 ms") && streamed, "{body}");
}

#[tokio::test]
async fn what_is_no_job_is_answered_where_it_can_be_and_harms_no_other() {
    let queue = Queue::start().await;
    let good = json!({"id": "good", "input": input("a")});
    queue.answer("take", json(json!([{"input": {}}, {"id": 5, "input": {}}, {"id": "empty"}, null, good, good])));
    let worker = Worker::start(&queue, WorkerOptions { slots: 2, ..OPTIONS }).await;
    queue.until("done", 2).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert_eq!(done(&queue, "empty").unwrap().0, json!({"error": "Job has missing field(s): input."}));
    assert!(is_png(&done(&queue, "good").unwrap().0["output"][0]));
    assert_eq!(queue.asked("done").len(), 2);
}

#[tokio::test]
async fn odd_ids_are_answered_where_a_url_can_name_them_and_logged_where_not() {
    let ((log, _guard), queue) = (Log::of_this_thread(), Queue::start().await);
    let million = format!("\"{}\"", "x".repeat(1 << 20));
    let none =
        ["NaN", "-Infinity", "5", "1e400", "null", "\"\"", "\".\"", "\"..\"", "[\"j\"]", &million, "\"\\ud83d\""];
    let odd = [("a/../b", "a%2F..%2Fb"), ("a?b#c%", "a%3Fb%23c%25"), ("\n\u{0}\"", "%0A%00%22"), (" é,", "%20%C3%A9,")];
    let nobody = none.map(|id| format!("{{\"id\": {id}, \"input\": {{}}}}"));
    let jobs = odd.map(|(id, _)| json!({"id": id, "input": input("a"), "webhook": "ftp://x"}).to_string());
    queue.answer("take", text(&format!("[{}]", [&nobody[..], &jobs[..]].concat().join(", "))));
    let worker = Worker::start(&queue, WorkerOptions { slots: 2, ..OPTIONS }).await;
    queue.until("done", odd.len()).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    let mut paths: Vec<String> = queue.asked("done").into_iter().map(|asked| asked.path).collect();
    let mut expected = odd.map(|(_, id)| format!("/v2/ep1/job-done/pod-abc/{id}?gpu=X&isStream=false"));
    paths.sort();
    expected.sort();
    assert_eq!(paths, expected);
    let text = log.text();
    assert_eq!(text.matches("is no job, and has no id to answer to").count(), none.len(), "{text}");
    for (id, _) in odd {
        assert!(log.said("Finished.").iter().any(|finished| finished["id"] == id), "{id:?}");
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_read_is_answered_and_harms_no_other() {
    let queue = Queue::start().await;
    let good = json!({"id": "good", "input": input("a")});
    queue.answer("take", text(&format!(r#"[{{"id": "half", "input": {{"prompt": "\ud83d"}}}}, {good}]"#)));
    queue.answer("take", text(r#"{"id": "huge", "input": {"seed": 1e400}}"#));
    let worker = Worker::start(&queue, WorkerOptions { slots: 2, ..OPTIONS }).await;
    queue.until("done", 3).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    assert!(is_png(&done(&queue, "good").unwrap().0["output"][0]));
    for id in ["half", "huge"] {
        let error = done(&queue, id).unwrap().0["error"].to_string();
        assert!(error.contains("cannot be read"), "{id}: {error}");
    }
}

#[tokio::test]
async fn answers_that_begin_no_job_are_asked_for_ever_less_often() {
    for again in ["{}", r#"{"id": "j1", "input": {}}"#] {
        let queue = Queue::start().await;
        queue.job("j1", input("endless"));
        for _ in 0..9 {
            queue.answer("take", text(again));
        }
        let began = Instant::now();
        let worker = Worker::start(&queue, WorkerOptions { slots: 2, ..OPTIONS }).await;
        // After the one that began: at once, then after 100 ms, 200 ms, 300 ms.
        queue.when(|log| log.iter().filter(|asked| asked.route().starts_with("take")).count() >= 6).await;
        assert!(began.elapsed() >= Duration::from_millis(600), "{again}: {:?}", began.elapsed());
        worker.hand.release();
        assert_eq!(worker.stop().await, WorkerEnd::Drained);
        assert_eq!(queue.asked("done").len(), 1);
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_fails_with_its_size() {
    let options = WorkerOptions { max_bytes: Some(100), ..OPTIONS };
    let (body, _) = told(json!({"id": "sync-1", "input": input("a")}), options).await;
    let error = body["error"].as_str().unwrap();
    assert!(error.starts_with("the result has ") && error.contains("deliver.max_bytes is 100"), "{error}");
}

#[tokio::test]
async fn a_worker_that_wants_to_be_fresh_ends_after_one_job() {
    let queue = Queue::start().await;
    queue.job("j1", json!({})).job("j2", input("a"));
    // However many it could have: the queue may end it with its first result.
    let worker = Worker::start(&queue, WorkerOptions { refresh: true, slots: 4, ..OPTIONS }).await;
    assert_eq!(worker.end().await, WorkerEnd::Drained);
    let expected = json!({"error": ["prompt is a required input."], "stopPod": true});
    assert_eq!(done(&queue, "j1").unwrap().0, expected);
    assert_eq!((queue.asked("take").len(), queue.asked("done").len()), (1, 1));
}

#[tokio::test]
async fn an_engine_that_is_lost_gives_its_jobs_back() {
    for fake in [Fake::poisoned_after(2), Fake::panicking_after(2)] {
        let queue = Queue::start().await;
        queue.job("j1", input("a")).job("j2", input("b"));
        let worker = Worker::with(&queue, OPTIONS, fake, Hand::default()).await;
        assert_eq!(worker.end().await, WorkerEnd::EngineLost);
        assert_eq!((queue.asked("take").len(), queue.asked("done").len()), (1, 0));
    }
}

#[tokio::test]
async fn a_queue_that_is_not_there_ends_the_worker() {
    let queue = Queue::start().await;
    queue.answer("take", status(404));
    let WorkerEnd::NoQueue(why) = Worker::start(&queue, OPTIONS).await.end().await else { panic!("it went on") };
    assert!(why.contains("404"), "{why}");

    let queue = Queue::start().await;
    // The first may come before a millisecond has passed.
    queue.answer("take", status(500)).answer("take", status(500));
    let options = WorkerOptions { start_deadline: Some(Duration::from_millis(1)), ..OPTIONS };
    let WorkerEnd::NoQueue(why) = Worker::start(&queue, options).await.end().await else { panic!("it went on") };
    assert!(why.contains("worker.start_deadline"), "{why}");
}
