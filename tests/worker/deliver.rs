//! Results on their way to a queue that may not take them.

use std::time::{Duration, Instant};

use latentd::deliver::runpod::RunPodSink;
use latentd::deliver::{Payload, Sink};
use latentd::net::TrustedClient;

use crate::worker::engine::sink;
use crate::worker::queue::{Asked, Queue, Reply, status};
use crate::worker::server::{Answer, Server};

fn parcel(time: Duration) -> Payload {
    Payload { id: "j1".into(), body: br#"{"output":5}"#[..].into(), streamed: false, time }
}

const LONG: Duration = Duration::from_mins(10);

/// What was posted when the queue answered like this, and what of it came to nothing.
async fn posted(replies: Vec<Reply>, time: Duration) -> (Vec<Asked>, Option<String>) {
    let queue = Queue::start().await;
    for reply in replies {
        queue.answer("done", reply);
    }
    let failure = sink(&queue).done(parcel(time)).await.err();
    (queue.asked("done"), failure.map(|cause| cause.why))
}

#[tokio::test]
async fn a_result_looks_like_the_sdk_s() {
    let (posts, failure) = posted(vec![status(200)], LONG).await;
    assert_eq!(failure, None);
    let [post] = posts.as_slice() else { panic!("{posts:?}") };
    assert_eq!((post.method.as_str(), post.body.as_str()), ("POST", r#"{"output":5}"#));
    assert_eq!(post.path, "/v2/ep1/job-done/pod-abc/j1?gpu=X&isStream=false");
    for (name, value) in [
        ("authorization", "KEY123"),
        ("charset", "utf-8"),
        ("content-length", "12"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-request-id", "j1"),
    ] {
        assert_eq!(post.headers[name], value, "{name}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for first in [status(500), status(503), status(429), Reply::Drop] {
        let (posts, failure) = posted(vec![first], LONG).await;
        assert_eq!((posts.len(), failure), (2, None));
        assert_eq!(posts[0].body, posts[1].body);
    }
}

fn moved(status: u16) -> Reply {
    Reply::Answer { status, kind: "", more: "Location: /v2/ep1/job-done/there/j1\r\n", body: Vec::new() }
}

#[tokio::test]
async fn a_redirect_that_loses_the_body_delivers_nothing() {
    for code in [301, 302, 303, 304] {
        let (posts, failure) = posted(vec![moved(code)], LONG).await;
        assert_eq!((posts.len(), failure), (2, None), "{code}");
        let (posts, failure) = posted(vec![moved(code)], Duration::ZERO).await;
        assert_eq!(posts.len(), 1);
        let why = failure.unwrap();
        assert!(why.starts_with(&format!("the queue answered {code}, a redirect to 127.0.0.1:")), "{why}");
    }
}

#[tokio::test]
async fn a_redirect_that_keeps_the_body_is_followed() {
    for code in [307, 308] {
        let (posts, failure) = posted(vec![moved(code)], Duration::ZERO).await;
        assert_eq!(failure, None);
        let [first, second] = posts.as_slice() else { panic!("{posts:?}") };
        assert_eq!((second.method.as_str(), second.path.as_str()), ("POST", "/v2/ep1/job-done/there/j1"));
        assert_eq!(first.body, second.body);
    }
    let round = (0..6).map(|_| moved(307)).collect();
    assert!(posted(round, Duration::ZERO).await.1.unwrap().contains("too many redirects"));
}

#[tokio::test]
async fn what_the_queue_refuses_is_not_tried_again() {
    for refused in [400, 401, 404] {
        let (posts, failure) = posted(vec![status(refused)], LONG).await;
        assert_eq!((posts.len(), failure.unwrap()), (1, format!("the queue answered {refused}")));
    }
}

#[tokio::test]
async fn a_result_that_the_queue_finds_too_large_is_told_apart() {
    let queue = Queue::start().await;
    for answer in [413, 404] {
        queue.answer("done", status(503)).answer("done", status(answer));
        let failure = sink(&queue).done(parcel(LONG)).await.unwrap_err();
        assert_eq!((failure.tries, failure.too_large), (2, answer == 413), "{failure:?}");
    }
}

#[tokio::test]
async fn an_id_that_makes_no_url_is_not_tried_for_ever() {
    let (queue, id) = (Queue::start().await, "x".repeat(70_000));
    let failure = sink(&queue).done(Payload { id, ..parcel(LONG) }).await.unwrap_err();
    assert_eq!((failure.tries, queue.asked("done").len()), (1, 0), "{failure:?}");
}

#[tokio::test]
async fn a_part_that_is_too_large_becomes_no_error_in_the_stream() {
    let queue = Queue::start().await;
    queue.answer("stream", status(413));
    let failure = sink(&queue).part(parcel(LONG)).await.unwrap_err();
    assert_eq!((queue.asked("stream").len(), failure.why.as_str()), (1, "the queue answered 413"));
}

#[tokio::test]
async fn a_try_ends_with_the_time() {
    let begin = Instant::now();
    let (posts, failure) = posted(vec![Reply::Hold], Duration::from_secs(2)).await;
    assert_eq!(posts.len(), 1);
    assert!(failure.unwrap().contains("it took longer than"));
    assert!(begin.elapsed() < Duration::from_mins(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_success_is_one_whatever_its_body() {
    let broken = Reply::Answer { status: 200, kind: "", more: "Transfer-Encoding: chunked\r\n", body: b"zz".to_vec() };
    let large = Reply::Answer { status: 200, kind: "", more: "", body: vec![b' '; 2 << 20] };
    for reply in [broken, large] {
        let (posts, failure) = posted(vec![reply], LONG).await;
        assert_eq!((posts.len(), failure), (1, None));
    }
    let server = Server::start(|_, _| Answer::Whole("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".into())).await;
    let done = RunPodSink::new(TrustedClient::new(None).unwrap(), &server.url("/$ID"), None, "w").unwrap();
    done.done(parcel(LONG)).await.unwrap();
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn tries_end_with_the_time() {
    let (posts, failure) = posted(vec![status(500), status(500)], Duration::from_millis(10)).await;
    assert_eq!((posts.len(), failure.unwrap().as_str()), (1, "the queue answered 500"));
}

#[tokio::test]
async fn a_job_s_id_stays_inside_of_its_place() {
    let queue = Queue::start().await;
    let id = "../a?b&c\r\nd".to_owned();
    sink(&queue).done(Payload { id, ..parcel(LONG) }).await.unwrap();
    let post = &queue.asked("done")[0];
    assert_eq!(post.path, "/v2/ep1/job-done/pod-abc/..%2Fa%3Fb%26c%0D%0Ad?gpu=X&isStream=false");
    assert_eq!(post.headers.get("x-request-id"), None);
}
