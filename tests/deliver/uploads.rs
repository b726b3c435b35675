//! Images to storage that checks signatures, and to storage that misbehaves.

use std::sync::Arc;

use bytes::Bytes;
use latentd::clock::{FakeClock, UnixTime};
use latentd::config::{Config, Environment, Flags};
use latentd::deliver::upload::{Place, Uploads};
use latentd::net::{Client, Guard};
use serde_json::json;
use tokio::time::Instant;

use crate::s3;
use crate::server::{Answer, Request, Server, moved, said, status};

const SECRET: &str = "s3cret/key+with=all";

fn uploads() -> Uploads {
    let clock = FakeClock::at(UnixTime::from_millis(1_795_000_000_000));
    let [guarded, open] = [Guard::default(), Guard::open()].map(|guard| Client::new(guard).unwrap());
    Uploads::new(guarded, open, Arc::new(clock))
}

fn place(server: &Server, name: &str) -> Place {
    let variables = [
        ("BUCKET_ENDPOINT_URL", server.url("")),
        ("BUCKET_ACCESS_KEY_ID", "AKID".into()),
        ("BUCKET_SECRET_ACCESS_KEY", SECRET.into()),
        ("LATENTD_BUCKET__NAME", name.into()),
    ];
    let environment: Environment = variables.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Place::new(&Config::load(&Flags::default(), &environment).unwrap().bucket.unwrap())
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
    let stranger = Place::of_job(&config).unwrap();
    let error = uploads().put(&stranger, "j", 0, Bytes::new()).await.unwrap_err().to_string();
    assert!(error.contains("net.allow_private") && !error.contains(SECRET), "{error}");
    assert_eq!(server.asked().len(), 0);

    let clock = FakeClock::at(UnixTime::EPOCH);
    let guards = [Guard::new(vec!["127.0.0.1/32".parse().unwrap()]), Guard::open()];
    let [allowing, open] = guards.map(|guard| Client::new(guard).unwrap());
    let allowing = Uploads::new(allowing, open, Arc::new(clock));
    allowing.put(&stranger, "j", 0, Bytes::from_static(b"png")).await.unwrap();
    assert_eq!(server.asked()[0].body, b"png");
}
