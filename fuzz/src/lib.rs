//! What may be said of the code that reads what strangers send, whatever they send. Each function takes any bytes, and panics where that
//! does not hold. `make fuzz` looks for such bytes; `tests/fuzz.rs` tries the corpus and fixed changes of it in every test run.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use latentd::date::UnixTime;
use latentd::deliver::upload::UploadTarget;
use latentd::intake::{Intake, IntakeLimits};
use latentd::job::{Contract, Delivered, ImageSource, Img2Img, Offer, OfferedModel, StartImage, validate};
use latentd::net::{self, Client, Guard, Url, shown};
use latentd::queue::{
    Claim, Finish, Payloads, Record, StatusView, SubmissionContext, WorkerPost, parse_job_done, parse_submission,
    status,
};
use latentd::source::runpod::wire;
use latentd::{models, queue};
use serde_json::Value;

/// Looks into what some bytes do.
pub type Target = fn(&[u8]);

/// All of them, by the names of their folders in `corpus`.
pub const TARGETS: [(&str, Target); 9] = [
    ("job_input", job_input),
    ("submission", submitted),
    ("take_answer", take_answer),
    ("job_done", job_done),
    ("webhook", webhook),
    ("s3_config", s3_config),
    ("url", url),
    ("weights", weights),
    ("picture", picture),
];

/// An input is a job within the documented bounds, or a few complaints.
pub fn job_input(data: &[u8]) {
    let Ok(input) = serde_json::from_slice::<Value>(data) else { return };
    for contract in Contract::ALL {
        checked(*contract, &input);
    }
}

fn checked(contract: Contract, input: &Value) {
    let offer = Offer { models: vec![OfferedModel::new("emoji", contract)], loras: vec!["ink".into()] };
    match validate(input, &offer, 7) {
        Ok(spec) => {
            assert!([spec.size.width, spec.size.height].iter().all(|side| contract.sides().contains(*side)));
            assert!(spec.denoising_end.is_none_or(|end| end > 0.0 && end < 1.0));
            assert!(offer.warnings(input).iter().all(|warning| warning.ends_with("image_url")));
            assert!((1..=10).contains(&spec.num_outputs) && (1..=500).contains(&spec.steps));
            assert!((0.0..=20.0).contains(&spec.guidance_scale));
            assert!(spec.prompt.len() <= 32 << 10 && spec.model == "emoji");
            assert!(spec.start.is_none_or(|start| (0.0..=1.0).contains(&start.strength)));
        }
        Err(complaints) => {
            let texts = complaints.texts();
            assert!(!texts.is_empty() && texts.iter().all(|text| !text.is_empty()));
        }
    }
}

/// A submission that is taken has times within the bounds of the protocol, and its other keys are JSON as they were sent.
pub fn submitted(data: &[u8]) {
    let now = UnixTime::from_millis(1_000_000);
    let manner = SubmissionContext {
        id: "x".into(),
        now,
        execution_timeout: Duration::from_mins(10),
        ttl: None,
        wait: Some(90_000),
    };
    let Ok(job) = parse_submission(data, manner) else { return };
    let week = Duration::from_hours(7 * 24);
    assert!(job.record.execution_timeout >= Duration::from_secs(5) && job.record.execution_timeout <= week);
    assert!(job.record.expires >= now + Duration::from_secs(10) && job.record.expires <= now + week);
    assert!(!job.rest.contains_key("id") && !job.rest.contains_key("input"));
    let stands = status(&job.record, StatusView::V2, Payloads { input: Some(&job.input), ..Payloads::default() });
    assert!(serde_json::from_str::<Box<serde_json::value::RawValue>>(&stands).is_ok(), "{stands}");
    let kept = serde_json::to_string(&job.record).map(|text| serde_json::from_str::<Record>(&text));
    assert!(kept.is_ok_and(|kept| kept.is_ok_and(|kept| kept == job.record)), "a store reads what it wrote");
}

/// A queue's answer is jobs that can be answered, each alone, or an error.
pub fn take_answer(data: &[u8]) {
    for job in wire::jobs(data).unwrap_or_default() {
        let id = match &job {
            Ok(job) => Some(&job.id),
            Err(none) => none.id.as_ref(),
        };
        assert!(id.is_none_or(|id| (1..=1024).contains(&id.len()) && id != "." && id != ".."), "{id:?}");
        if let Ok(Some(policy)) = job.map(|job| job.policy.execution_timeout_ms) {
            assert!(policy > 0);
        }
    }
    let _ = wire::stops(data);
}

/// What a worker posts ends its job or tells of its progress, and the status after that is JSON.
pub fn job_done(data: &[u8]) {
    let Ok(posted) = parse_job_done(data) else { return };
    let now = UnixTime::from_millis(1_000_000);
    let mut record = Record::new("x", now);
    let _ = record.start(&Claim { worker: "w".into(), gpu: None, sends_heartbeats: true, at: now });
    let (output, timings) = match posted {
        WorkerPost::Progress(word) => {
            let _ = record.progress("w", now);
            (Some(word), None)
        }
        WorkerPost::End(mut end) => {
            let finish = Finish { worker: "w", error: end.error.clone(), output: end.output.is_some() };
            let _ = record.finish(finish, now);
            assert!(record.state.is_end() && record.state == ended(end.error.is_some()));
            (end.output, end.more.remove("timings"))
        }
    };
    let payloads = Payloads { output: output.as_deref(), timings: timings.as_deref(), ..Payloads::default() };
    for view in [StatusView::V1 { gpu: 0 }, StatusView::V2, StatusView::Webhook] {
        let stands = status(&record, view, payloads);
        assert!(serde_json::from_str::<Box<serde_json::value::RawValue>>(&stands).is_ok(), "{stands}");
    }
}

fn ended(failed: bool) -> queue::JobState {
    if failed { queue::JobState::Failed } else { queue::JobState::Completed }
}

/// A job's webhook has no more headers than are sent, and all else of the job is kept.
pub fn webhook(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let job = serde_json::json!({"id": "x", "input": null, "webhook": value});
    let Some(webhook) = Delivered::from_value(job).ok().and_then(|job| job.webhook) else { return };
    let bytes: usize = webhook.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(webhook.headers.len() <= 32 && bytes <= 8 << 10, "{} headers, {bytes} bytes", webhook.headers.len());
}

/// A place in a bucket has a host; what is wrong with one is told without a secret.
pub fn s3_config(data: &[u8]) {
    let Ok(mut config) = serde_json::from_slice::<Value>(data) else { return };
    let told = told_of_upload(&config);
    let secret = config.get("accessSecret").and_then(Value::as_str).map(str::trim).filter(|text| text.len() > 8);
    let Some(secret) = secret.filter(|secret| told.contains(secret)).map(str::to_owned) else { return };
    // What is told of any other secret has these letters by chance.
    config["accessSecret"] = "another-0123456789".into();
    assert!(told_of_upload(&config).contains(&secret), "{told}");
}

fn told_of_upload(config: &Value) -> String {
    match UploadTarget::of_job(config) {
        Ok(place) => format!("{place:?}"),
        Err(why) => why.to_string(),
    }
}

/// A URL is shown without its password, and no way of writing an address passes the guard that its plain form does not.
pub fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let told = shown(&text);
    if let Ok(url) = text.parse::<Url>() {
        // What the rest of the URL says as well is no secret.
        let mut bare = url.clone();
        let is_bare = bare.set_password(None).is_ok();
        if let Some(password) = url.password().filter(|password| password.len() > 8) {
            assert!(!told.contains(password) || is_bare && bare.as_str().contains(password), "{told}");
        }
        assert_eq!(net::host(&text).is_some(), url.has_host());
    }
    let guard = Guard::default();
    if let Some(&[a, b, c, d]) = data.first_chunk::<4>() {
        let plain = Ipv4Addr::new(a, b, c, d);
        let (four, six) = (IpAddr::V4(plain), IpAddr::V6(plain.to_ipv6_mapped()));
        assert_eq!(guard.judge(four, &[]).is_ok(), guard.judge(six, &[]).is_ok(), "{plain}");
        assert!(guard.judge(four, &[six]).is_err(), "an address of this machine");
        assert!(
            !plain.is_private() && !plain.is_loopback() && !plain.is_link_local() || guard.judge(four, &[]).is_err()
        );
    }
}

/// A weight file is of some family, or is refused with a reason.
pub fn weights(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors");
    std::fs::write(&file, data).expect("a file");
    match models::recognise(&file) {
        Ok(found) => {
            assert!(found.to_string().bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'));
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// A picture has a size that its contract draws, the one that was asked for if that is up to the job, or is refused with the field's name.
pub fn picture(data: &[u8]) {
    let image = ImageSource::Inline(BASE64_STANDARD.encode(data));
    for contract in Contract::ALL {
        if let Some(start) = contract.table().start {
            begun(*contract, start, image.clone());
        }
    }
}

fn begun(contract: Contract, start: StartImage, image: ImageSource) {
    thread_local!(static TOOLS: OnceCell<(tokio::runtime::Runtime, Intake)> = const { OnceCell::new() });
    let input = serde_json::json!({"prompt": "p", "width": 128, "height": 256});
    let offer = Offer { models: vec![OfferedModel::new("m", contract)], loras: Vec::new() };
    let spec =
        validate(&input, &offer, 0).expect("a job").with_start(Some(Img2Img { image, strength: 1.0, mask: None }));
    let brought = TOOLS.with(|tools| {
        let (runtime, intake) = tools.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let limits = IntakeLimits { bytes: 1 << 20, pixels: 1 << 20, time: Duration::from_secs(1) };
            (runtime, Intake::new(Client::new(Guard::default()).expect("a client"), limits))
        });
        runtime.block_on(intake.bring(spec, contract))
    });
    match brought.map(|(spec, _)| (spec.size, spec.start.expect("a start").image.picture)) {
        Ok((size, picture)) => {
            assert_eq!((picture.width, picture.height), (size.width, size.height));
            let sides = [size.width, size.height];
            assert!(
                sides == [128, 256] || start.sets_size && sides.iter().all(|side| contract.sides().contains(*side))
            );
        }
        Err(why) => assert!(why.message.starts_with(start.field), "{}", why.message),
    }
}
