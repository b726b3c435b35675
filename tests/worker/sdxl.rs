//! Jobs of the contracts `sdxl` and `sdxl_turbo` on an engine without a model: alone, beside jobs of Stable Diffusion v1, and through a real gateway as RunPod's
//! tutorial asks it.

use std::io::Cursor;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use latentd::clock::SystemClock;
use latentd::deliver::spool::Spool;
use latentd::deliver::upload::Uploads;
use latentd::encode;
use latentd::engine::fake::Fake;
use latentd::engine::host::Host;
use latentd::engine::pool::{EnginePool, ModelSpec, StartEngines};
use latentd::job::{Contract, OfferedModel, Picture};
use latentd::net::{Client, Guard};
use latentd::telemetry::{Metrics, Telemetry};
use latentd::worker::{Resources, WorkerEnd, WorkerOptions};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::gateway_process;
use crate::worker::engine::{OPTIONS, Worker, parts, resources, sink, sink_at, source_at};
use crate::worker::queue::{self, LONG, Queue};
use crate::worker::server::{Server, status};
use crate::worker::uploads::place;

/// A worker's models, each on an engine of its own.
async fn offering(models: Vec<OfferedModel>) -> Resources {
    let start: Box<StartEngines> = Box::new(|_| {
        let build = || Ok::<_, &str>(Fake::default());
        Box::pin(async move { Ok(vec![Host::with_metrics("engine-test", Metrics::default(), build).await?]) })
    });
    let specs = models.iter().map(|model| ModelSpec { name: model.name.clone(), bytes: 1 }).collect();
    let pool = Arc::new(EnginePool::new(specs, None, start));
    Resources { pool, models, ..resources(Fake::default()).await }
}

fn both() -> Vec<OfferedModel> {
    vec![OfferedModel::new("sd", Contract::Sd1), OfferedModel::new("xl", Contract::Sdxl)]
}

fn xl() -> Vec<OfferedModel> {
    vec![OfferedModel::new("xl", Contract::Sdxl)]
}

/// What a job comes to: its end, and what was streamed. Images go to `bucket` if there is one.
async fn drawn(models: Vec<OfferedModel>, job: Value, bucket: Option<&Server>) -> (Value, Vec<Value>) {
    let queue = Queue::start().await;
    queue.answer("take", queue::json(job));
    let mut parts = parts(sink(&queue), Spool::in_memory(1 << 30));
    if let Some(server) = bucket {
        let here = Client::new(Guard::open()).unwrap();
        parts.uploads = Uploads::new(here.clone(), here, Some(place(server, "b")), Arc::new(SystemClock));
    }
    let ready = async move { Ok((offering(models).await, WorkerOptions { send_timings: true, ..OPTIONS })) };
    let worker = Worker::when(&queue, parts, Telemetry::default(), ready);
    queue.until("done", 1).await;
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    let parts = queue.asked("stream").iter().map(|part| part.json()["output"].clone()).collect();
    (queue.asked("done")[0].json(), parts)
}

fn job(input: &Value) -> Value {
    json!({"id": "j1", "input": input})
}

/// The size of a PNG that is a data URI, and the input that it says it was made of.
fn look_into(image: &Value) -> ((u32, u32), Value) {
    let file = image.as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
    let mut reader = png::Decoder::new(Cursor::new(BASE64_STANDARD.decode(file).unwrap())).read_info().unwrap();
    reader.finish().unwrap();
    let info = reader.info();
    let text = &info.uncompressed_latin1_text.iter().find(|text| text.keyword == "latentd").unwrap().text;
    ((info.width, info.height), serde_json::from_str(text).unwrap())
}

fn image(width: u32, height: u32) -> String {
    let pixels = [10, 20, 30].repeat((width * height) as usize);
    let file = encode::png(&Picture { width, height, pixels }, &[]).unwrap();
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(file))
}

#[tokio::test]
async fn a_result_is_an_object_of_data_uris_and_its_parts_are_objects_too() {
    let input =
        json!({"prompt": "p", "width": 72, "height": 64, "num_images": 2, "num_inference_steps": 2, "seed": u64::MAX});
    let (end, mut parts) = drawn(xl(), job(&input), None).await;
    let output = &end["output"];
    assert!(output.as_object().unwrap().keys().eq(["image_url", "images", "seed", "seeds"]), "{output}");
    assert_eq!((&output["seed"], &output["seeds"]), (&json!(u64::MAX), &json!([u64::MAX, 0])));
    assert_eq!(output["image_url"], output["images"][0]);
    for (index, seed) in [u64::MAX, 0].into_iter().enumerate() {
        let (size, made_of) = look_into(&output["images"][index]);
        assert_eq!((size, &made_of["seed"], &made_of["width"]), ((72, 64), &json!(seed), &json!(72)));
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part["seed"].as_u64()));
    let expected = [0, 1].map(|at| json!({"image_url": output["images"][at], "seed": output["seeds"][at]}));
    assert_eq!(parts, expected);
    assert_eq!(end["warnings"], Value::Null);
}

#[tokio::test]
async fn a_result_of_turbo_says_what_was_asked_for_and_how_long_it_took() {
    let input =
        json!({"prompt": "p", "width": 72, "height": 64, "num_images": 2, "num_inference_steps": 2, "seed": u64::MAX});
    let turbo = vec![OfferedModel::new("turbo", Contract::SdxlTurbo)];
    let (end, mut parts) = drawn(turbo, job(&input), None).await;
    let output = &end["output"];
    assert!(output.as_object().unwrap().keys().eq(["generation_time", "images", "parameters"]), "{output}");
    let parameters = json!({
        "guidance_scale": 0.0, "height": 64, "negative_prompt": null, "num_inference_steps": 2, "prompt": "p", "seed": u64::MAX, "width": 72,
    });
    assert_eq!(output["parameters"], parameters);
    let timings = &end["timings"];
    let parts_of_it = ["text", "encode", "denoise", "decode"].map(|part| timings[part].as_f64().unwrap() / 1000.0);
    let time = output["generation_time"].as_f64().unwrap();
    // Each of the timings is cut to whole milliseconds.
    assert!((0.0..0.004).contains(&(time - parts_of_it.iter().sum::<f64>())), "{time}: {timings}");
    assert_eq!([0, 1].map(|at| output["images"][at]["seed"].clone()), [json!(u64::MAX), json!(0)]);
    let png = output["images"][0]["image"].as_str().unwrap();
    let (size, made_of) = look_into(&format!("data:image/png;base64,{png}").into());
    assert_eq!((size, &made_of["num_images"]), ((72, 64), &json!(1)));
    parts.sort_by_key(|part| std::cmp::Reverse(part["seed"].as_u64()));
    assert_eq!(json!(parts), output["images"]);
}

#[tokio::test]
async fn images_in_a_bucket_are_links() {
    let server = Server::start(|_, _| status("200 OK")).await;
    let input = json!({"prompt": "p", "width": 64, "height": 64, "num_images": 2, "num_inference_steps": 1, "seed": 7});
    let (end, _) = drawn(xl(), job(&input), Some(&server)).await;
    for index in 0..2 {
        let link = end["output"]["images"][index].as_str().unwrap();
        assert!(link.starts_with(&server.url(&format!("/b/j1_{index}.png?"))), "{link}");
    }
    assert_eq!(end["output"]["image_url"], end["output"]["images"][0]);
    assert_eq!(end["output"]["seeds"], json!([7, 8]));
}

#[tokio::test]
async fn a_webhook_is_told_the_same_output() {
    let server = Server::start(|_, _| status("200 OK")).await;
    let input = json!({"prompt": "p", "width": 64, "height": 64, "num_inference_steps": 1, "seed": 7});
    let (end, _) = drawn(xl(), json!({"id": "j1", "input": input, "webhook": server.url("/hook")}), None).await;
    let told = timeout(LONG, async {
        loop {
            if let Some(told) = server.asked().first() {
                return serde_json::from_slice::<Value>(&told.body).unwrap();
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    let told = told.await.unwrap();
    assert_eq!((&told["status"], &told["output"]), (&json!("COMPLETED"), &end["output"]));
}

#[tokio::test]
async fn a_picture_that_begins_from_an_image_has_its_size() {
    for (sides, drawn_as, scaled) in [((79, 71), (72, 64), false), ((20, 30), (64, 96), true)] {
        let input = json!({
            "image_url": image(sides.0, sides.1), "width": 512, "num_images": 3, "strength": 0.5, "refiner_inference_steps": 4, "seed": 7,
        });
        let (end, parts) = drawn(xl(), job(&input), None).await;
        assert_eq!((&end["output"]["seeds"], parts.len()), (&json!([7]), 0), "{end}");
        let (size, made_of) = look_into(&end["output"]["image_url"]);
        assert_eq!(
            (size, &made_of["refiner_inference_steps"], &made_of["strength"]),
            (drawn_as, &json!(4), &json!(0.5))
        );
        assert_eq!(end["timings"]["evaluations"], 2);
        let mut warnings = vec!["width has no effect beside image_url", "num_images has no effect beside image_url"];
        warnings.extend(scaled.then_some("image_url has 20 x 30 pixels and is scaled to 64 x 96"));
        assert_eq!(end["warnings"], json!(warnings));
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_used_is_told_by_the_name_of_its_field() {
    let (end, _) = drawn(xl(), job(&json!({"image_url": "AAAA"})), None).await;
    let why = "image_url cannot be used: it is no PNG, JPEG or WebP file but something else";
    assert_eq!(end["error"], why);
}

#[tokio::test]
async fn one_worker_has_models_of_both_contracts() {
    let small = json!({"prompt": "p", "width": 128, "height": 128, "num_inference_steps": 1, "seed": 7});
    let with = |more: &[(&str, Value)]| {
        let mut input = small.clone();
        for (key, value) in more {
            input[key] = value.clone();
        }
        job(&input)
    };
    let (end, _) = drawn(both(), with(&[("num_outputs", json!(2))]), None).await;
    assert_eq!((&end["output"][1]["seed"], end["output"].as_array().map(Vec::len)), (&json!(8), Some(2)));
    let (end, _) = drawn(both(), with(&[("model", json!("xl")), ("num_images", json!(2))]), None).await;
    assert_eq!(end["output"]["seeds"], json!([7, 8]));
    for (model, key) in [("xl", "num_outputs"), ("sd", "num_images")] {
        let (end, _) = drawn(both(), with(&[("model", json!(model)), (key, json!(2))]), None).await;
        assert_eq!(end["error"], json!([format!("Unexpected input. {key} is not a valid input option.")]));
    }
}

/// What RunPod's tutorial sends, but for host, key and ids; and its script's way from output.json to a picture.
#[tokio::test]
async fn the_lines_of_the_tutorial_lead_to_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = "[[endpoints]]\nid = 'ENDPOINT_ID'\nhandler = 'latentd'\ncontract = 'sdxl'\n";
    std::fs::write(folder.path().join("latentd.toml"), endpoints).unwrap();
    let store = format!("sqlite:{}", folder.path().join("queue.db").display());
    let keys = [("LATENTD_API_KEYS", "YOUR_API_KEY"), ("LATENTD_WORKER_KEYS", "KEY123")];
    let (mut gateway, address) = gateway_process::start("gateway", folder.path(), &store, &keys);
    let curl = async |line: &str, id: &str| -> Value {
        let line = line.replace("https://api.runpod.ai", &format!("http://{address}")).replace("JOB_ID", id);
        let (here, told) = (folder.path().to_owned(), line.clone());
        let mut asking = JoinSet::new();
        asking.spawn_blocking(move || Command::new("bash").args(["-c", &told]).current_dir(here).output());
        let done = asking.join_next().await.unwrap().unwrap().unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let submitted = curl(
        r#"curl -sS -X POST https://api.runpod.ai/v2/ENDPOINT_ID/run \
    -H 'Content-Type: application/json'                             \
    -H 'Authorization: Bearer YOUR_API_KEY' \
    -d '{"input": {"prompt": "A cute fluffy white dog in the style of a Pixar animation 3D drawing."}}'"#,
        "",
    )
    .await;
    assert_eq!(submitted["status"], "IN_QUEUE");
    let status = r"curl -sS https://api.runpod.ai/v2/ENDPOINT_ID/status/JOB_ID \
-H 'Content-Type: application/json' \
    -H 'Authorization: Bearer YOUR_API_KEY'";
    let id = submitted["id"].as_str().unwrap();
    let waiting = curl(status, id).await;
    assert_eq!((&waiting["status"], &waiting["id"]), (&json!("IN_QUEUE"), &submitted["id"]));

    let base = format!("http://{address}/v2/ENDPOINT_ID");
    let ready = async { Ok((offering(xl()).await, OPTIONS)) };
    let parts = parts(sink_at(&base), Spool::in_memory(1 << 30));
    let worker = Worker::of(source_at(&base), parts, Telemetry::default(), ready);
    let data = timeout(LONG, async {
        loop {
            let data = curl(status, id).await;
            if data["status"] == "COMPLETED" {
                return data;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let data = data.await.unwrap();
    assert_eq!(worker.stop().await, WorkerEnd::Drained);
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    for key in ["delayTime", "executionTime", "id", "output", "status", "workerId"] {
        assert!(data.get(key).is_some(), "{key}");
    }
    let (size, made_of) = look_into(&data["output"]["image_url"]);
    assert_eq!((size, &made_of["num_inference_steps"]), ((1024, 1024), &json!(25)));
    assert_eq!(data["output"]["seed"], made_of["seed"]);
}
