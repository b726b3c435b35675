//! Images to storage that checks signatures, and to storage that misbehaves; alone, and from jobs.

use std::sync::Arc;

use bytes::Bytes;
use latentd::clock::{FakeClock, SystemClock, UnixTime};
use latentd::config::{Config, Environment, Flags};
use latentd::deliver::spool::Spool;
use latentd::deliver::upload::{UploadTarget, Uploads};
use latentd::net::{Client, Guard};
use latentd::worker::{WorkerEnd, WorkerOptions};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::worker::engine::{OPTIONS, Worker, input, parts, sink};
use crate::worker::queue::Queue;
use crate::worker::s3;
use crate::worker::server::{Answer, Request, Server, moved, said, status};

const SECRET: &str = "s3cret/key+with=all";

fn uploads() -> Uploads {
    let clock = FakeClock::at(UnixTime::from_millis(1_795_000_000_000));
    let [guarded, open] = [Guard::default(), Guard::open()].map(|guard| Client::new(guard).unwrap());
    Uploads::new(guarded, open, None, Arc::new(clock))
}

pub(crate) fn place(server: &Server, name: &str) -> UploadTarget {
    let variables = [
        ("BUCKET_ENDPOINT_URL", server.url("")),
        ("BUCKET_ACCESS_KEY_ID", "AKID".into()),
        ("BUCKET_SECRET_ACCESS_KEY", SECRET.into()),
        ("LATENTD_BUCKET__NAME", name.into()),
    ];
    let environment: Environment = variables.into_iter().map(|(name, value)| (name.into(), value)).collect();
    UploadTarget::new(&Config::load(&Flags::default(), &environment).unwrap().bucket.unwrap())
}

/// What S3 would say of a request.
fn fault(request: &Request) -> Option<String> {
    s3::fault(&request.method, &request.target, |name| request.header(name).to_owned(), SECRET)
}

#[tokio::test]
async fn an_image_is_put_under_its_name_and_a_link_comes_back() {
    let server = Server::start(|_, request| match fault(request) {
        None => status("200 OK"),
        Some(fault) => said("403 Forbidden", &format!("<Code>SignatureDoesNotMatch</Code>{fault}")),
    })
    .await;
    let png: Bytes = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
    let link = uploads().put(&place(&server, ""), "job-1", 2, png.clone()).await.unwrap();
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!((asked.method.as_str(), asked.header("content-type")), ("PUT", "image/png"));
    assert!(asked.target.starts_with("/11-26/job-1_2.png?"), "{}", asked.target);
    assert!(asked.target.contains("us-east-1") && asked.target.contains("content-type%3Bhost"), "{}", asked.target);
    assert_eq!(asked.body, png);

    let target = link.strip_prefix(&server.url("")).unwrap();
    assert!(target.starts_with("/11-26/job-1_2.png?") && target.contains("X-Amz-Expires=604800"), "{link}");
    let host = server.address.to_string();
    assert_eq!(s3::fault("GET", target, |_| host.clone(), SECRET), None, "the link is good");
    assert!(!link.contains(SECRET));
}

#[tokio::test(start_paused = true)]
async fn a_failed_upload_is_tried_again() {
    let server = Server::start(|number, _| match number {
        0 => status("503 Slow Down"),
        1 => Answer::HangUp,
        _ => status("200 OK"),
    })
    .await;
    let start = Instant::now();
    uploads().put(&place(&server, "pics"), "j", 0, Bytes::from_static(b"png")).await.unwrap();
    assert_eq!((server.asked().len(), start.elapsed().as_secs()), (3, 3));
    assert!(
        server.asked().iter().all(|request| request.body == b"png" && request.target.starts_with("/pics/j_0.png?"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_names_host_and_bucket_and_no_key() {
    let echo = "<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKID</AWSAccessKeyId><StringToSign>s3cret</StringToSign></Error>";
    for (line, tries, why) in [
        ("403 Forbidden", 1, "it answered 403 Forbidden (InvalidAccessKeyId)"),
        ("500 Internal Server Error", 3, "it answered 500 Internal Server Error (InvalidAccessKeyId)"),
    ] {
        let server = Server::start(move |_, _| said(line, echo)).await;
        let error = uploads().put(&place(&server, "pics"), "j", 0, Bytes::new()).await.unwrap_err().to_string();
        let expected = format!("the upload of j_0.png to bucket pics of {} failed: {why}", server.address);
        assert_eq!((error, server.asked().len()), (expected, tries));
    }
}

#[tokio::test(start_paused = true)]
async fn storage_does_not_send_us_elsewhere() {
    let other = Server::start(|_, _| status("200 OK")).await;
    let target = other.url("/");
    let server = Server::start(move |_, _| moved("307", &target)).await;
    let error = uploads().put(&place(&server, ""), "j", 0, Bytes::new()).await.unwrap_err();
    assert_eq!((error.why.as_str(), other.asked().len()), ("it answered 307 Temporary Redirect", 0));
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_of_a_job_is_called_under_the_guard() {
    let server = Server::start(|_, _| status("200 OK")).await;
    let config = json!({"endpointUrl": server.url(""), "accessId": "AKID", "accessSecret": SECRET, "bucketName": "b"});
    let stranger = UploadTarget::of_job(&config).unwrap().unwrap();
    let error = uploads().put(&stranger, "j", 0, Bytes::new()).await.unwrap_err().to_string();
    assert!(error.contains("net.allow_private") && !error.contains(SECRET), "{error}");
    assert_eq!(server.asked().len(), 0);

    let clock = FakeClock::at(UnixTime::EPOCH);
    let guards = [Guard::new(vec!["127.0.0.1/32".parse().unwrap()]), Guard::open()];
    let [allowing, open] = guards.map(|guard| Client::new(guard).unwrap());
    let allowing = Uploads::new(allowing, open, None, Arc::new(clock));
    allowing.put(&stranger, "j", 0, Bytes::from_static(b"png")).await.unwrap();
    assert_eq!(server.asked()[0].body, b"png");
}

/// What a job with two images comes to: its end, whether it was streamed, and what was streamed.
async fn drawn(s3_config: Value, usual: Option<UploadTarget>, max_bytes: u64) -> (Value, bool, Vec<Value>) {
    let queue = Queue::start().await;
    let mut two = input("a");
    two["num_outputs"] = json!(2);
    queue.answer("take", crate::worker::queue::json(json!({"id": "j1", "input": two, "s3Config": s3_config})));
    let mut parts = parts(sink(&queue), Spool::in_memory(1 << 30));
    let here = Client::new(Guard::open()).unwrap();
    parts.uploads = Uploads::new(here.clone(), here, usual, Arc::new(SystemClock));
    let worker = Worker::at(&queue, parts, WorkerOptions { max_bytes: Some(max_bytes), ..OPTIONS }).await;
    queue.until("done", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    let end = &queue.asked("done")[0];
    let parts = queue.asked("stream").iter().map(|part| part.json()["output"].clone()).collect();
    (end.json(), end.path.ends_with("isStream=true"), parts)
}

fn s3_config(server: &Server, name: &str) -> Value {
    json!({"endpointUrl": server.url(""), "accessId": "AKID", "accessSecret": SECRET, "bucketName": name})
}

#[tokio::test]
async fn a_result_that_is_too_large_fails_unless_there_is_a_bucket() {
    let server = Server::start(|_, request| match fault(request) {
        None => status("200 OK"),
        Some(fault) => said("403 Forbidden", &fault),
    })
    .await;
    let (end, ..) = drawn(json!(null), None, 1400).await;
    let error = end["error"].as_str().unwrap();
    assert!(error.contains("deliver.max_bytes is 1400") && error.contains("BUCKET_ENDPOINT_URL"), "{error}");
    for (of_job, usual, name) in [
        (s3_config(&server, "own"), None, "own"),
        (json!({}), Some(place(&server, "usual")), "usual"),
        (s3_config(&server, "own"), Some(place(&server, "usual")), "own"),
    ] {
        let before = server.asked().len();
        let (end, streamed, mut parts) = drawn(of_job, usual, 1400).await;
        let puts = &server.asked()[before..];
        assert_eq!(puts.len(), 2);
        assert!(puts.iter().all(|put| put.method == "PUT" && put.body.starts_with(b"\x89PNG")));
        let images = end["output"].as_array().unwrap();
        for (index, image) in images.iter().enumerate() {
            let link = image["image"].as_str().unwrap();
            assert!(link.starts_with(&server.url(&format!("/{name}/j1_{index}.png?"))), "{link}");
            assert!(link.contains("X-Amz-Expires=604800") && !link.contains(SECRET), "{link}");
            assert_eq!(image["seed"], 7 + index as u64);
        }
        // The first that is uploaded is the first that is streamed.
        parts.sort_by_key(|part| part["seed"].as_u64());
        assert_eq!((&parts, streamed), (images, true));
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_uploaded_fails_its_job() {
    let server = Server::start(|_, _| said("403 Forbidden", "<Code>AccessDenied</Code>")).await;
    let (end, streamed, parts) = drawn(s3_config(&server, "b"), None, 1 << 20).await;
    let error = end["error"].as_str().unwrap();
    assert!(error.contains("bucket b of 127.0.0.1") && error.ends_with("403 Forbidden (AccessDenied)"), "{error}");
    assert!(!error.contains("AKID") && !error.contains(SECRET));
    assert_eq!((streamed, parts.len(), end.get("output")), (false, 0, None));
}

#[tokio::test]
async fn a_job_with_half_a_bucket_fails_before_it_is_drawn() {
    let (end, ..) = drawn(json!({"endpointUrl": "http://h", "accessId": SECRET}), None, 1 << 20).await;
    let error = end["error"].as_str().unwrap();
    assert!(error.starts_with("s3Config: accessSecret is missing") && !error.contains(SECRET), "{error}");
}
