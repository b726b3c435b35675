//! The real binary as a process: exit codes, stdout, and what it says when something is wrong.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder to run in: nothing in it but a folder `models` with an empty model of the default's name.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("models/emoji/unet")).unwrap();
    folder
}

/// The binary in `folder`, with no variables but these.
fn latentd(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.current_dir(folder).env_clear().env("LATENTD_MODELS_DIR", "models");
    command.envs(variables.iter().copied()).args(arguments);
    command
}

/// Exit code, stdout and stderr.
fn outcome(variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    finish(&mut latentd(folder().path(), variables, arguments))
}

fn finish(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The one line of stdout, which must be the result of a failed job.
fn failed(variables: &[(&str, &str)], arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = outcome(variables, arguments);
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["status"], "FAILED");
    result
}

#[test]
fn help_and_version_are_no_faults() {
    for (arguments, word) in [
        (&["--help"][..], "Usage: latentd"),
        (&["run", "--help"], "--test-input"),
        (&["config", "show", "--help"], "--json"),
        (&["--version"], concat!("latentd ", env!("CARGO_PKG_VERSION"))),
    ] {
        let (code, stdout, stderr) = outcome(&[], arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(stdout.contains(word), "{stdout}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_64_and_says_why() {
    let queue = [("RUNPOD_WEBHOOK_GET_JOB", "http://127.0.0.1:9/v2/e/job-take/$ID?gpu=x")];
    let file = ("LATENTD_STORE", "sqlite:queue.db");
    let realtime = [("RUNPOD_REALTIME_PORT", "8000")];
    for (variables, arguments, word) in [
        (&[][..], &["--frobnicate"][..], "--frobnicate"),
        (&[], &["frobnicate"], "frobnicate"),
        (&[], &["run", "a", "--test-input", "{}"], "--test-input"),
        (&[], &["run", "--set", "seed=7"], "--set"),
        (&[], &["run", "a", "--set", "seed"], "KEY=VALUE"),
        (&[], &["worker"], "LATENTD_QUEUE"),
        (&[("LATENTD_LISTEN", "0.0.0.0:0"), file], &["serve"], "LATENTD_API_KEYS"),
        (&[("LATENTD_LISTEN", "0.0.0.0:0"), ("LATENTD_API_KEYS", "a"), file], &["gateway"], "LATENTD_WORKER_KEYS"),
        (&[("LATENTD_STORE", "http://host")], &["gateway"], "sqlite:FILE"),
        (&[("LATENTD_ENDPOINT", "a/b")], &["gateway"], "endpoint"),
        (&[("LATENTD_GATEWAY__LOST", "0")], &["gateway"], "gateway.lost"),
        (&[("LATENTD_GATEWAY__MIN_FREE", "none")], &["gateway"], "gateway.min_free"),
        (&[("LATENTD_API_KEYS", "secret,")], &["gateway"], "api_keys"),
        (&queue, &[], "RUNPOD_WEBHOOK_POST_OUTPUT"),
        (&realtime, &[], "RUNPOD_REALTIME_PORT"),
        (
            &[],
            &["--rp_serve_api", "--rp_api_host", "h", "--rp_api_port", "1", "--rp_api_concurrency", "2"],
            "listen = \"h:1\"",
        ),
        (&[], &["--rp_debugger"], "--rp_debugger"),
        (&[], &["--rp_log_level", "BOGUS"], "log.level = \"BOGUS\""),
        (&[("RUNPOD_LOG_LEVEL", "BOGUS")], &[], "from RUNPOD_LOG_LEVEL"),
        (&[], &["run", "a", "--device", "tpu"], "auto, cpu, cuda, cuda:N or cuda:all"),
        (&[], &["run", "a", "--model", "none"], "models (emoji)"),
        (&[("LATENTD_MODLE", "none")], &["config", "show"], "did you mean model?"),
        (
            &[("BUCKET_ENDPOINT_URL", "minio")],
            &["config", "show"],
            "bucket.endpoint_url = \"minio\" (from BUCKET_ENDPOINT_URL)",
        ),
        (&[], &["config", "show", "--config", "none.toml"], "none.toml"),
    ] {
        let (code, stdout, stderr) = outcome(variables, arguments);
        assert_eq!((code, stdout.as_str()), (64, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
}

#[test]
fn all_faults_of_a_configuration_are_told() {
    let folder = folder();
    fs::write(folder.path().join("latentd.toml"), "dtype = 'f64'\n[log]\ncolour = 'red'\n").unwrap();
    let (code, _, stderr) = finish(&mut latentd(folder.path(), &[("LATENTD_DEVICE", "gpu")], &["config", "show"]));
    assert_eq!(code, 64);
    for fault in [
        "log.colour (from latentd.toml)",
        "dtype = \"f64\" (from latentd.toml)",
        "device = \"gpu\" (from LATENTD_DEVICE)",
    ] {
        assert!(stderr.contains(fault), "{stderr}");
    }
}

#[test]
fn the_configuration_knows_where_it_came_from() {
    let folder = folder();
    fs::write(folder.path().join("latentd.toml"), "dtype = 'f32'\n[log]\nprompts = true\n").unwrap();
    let variables = [
        ("LATENTD_DTYPE", "bf16"),
        ("RUNPOD_DEBUG_LEVEL", "WARN"),
        ("LATENTD_NET__ALLOW_PRIVATE", "10.0.0.0/8"),
        ("RUNPOD_AI_API_KEY", "s3cret"),
        ("HF_TOKEN", "s3cret"),
        ("XDG_DATA_HOME", "/data"),
        ("BUCKET_ENDPOINT_URL", "https://s3.example"),
        ("BUCKET_ACCESS_KEY_ID", "s3cret"),
        ("BUCKET_SECRET_ACCESS_KEY", "s3cret"),
    ];
    let arguments = ["config", "show", "--json", "--device", "cpu"];
    let (code, stdout, stderr) = finish(&mut latentd(folder.path(), &variables, &arguments));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let expected = [
        ("model", json!("emoji"), "default"),
        ("refiner", json!(""), "default"),
        ("models_dir", json!("models"), "LATENTD_MODELS_DIR"),
        ("models", json!([]), "default"),
        ("models_memory", json!("auto"), "default"),
        ("lora_dir", json!(""), "default"),
        ("embeddings_dir", json!(""), "default"),
        ("queue", json!(""), "default"),
        ("listen", json!("127.0.0.1:8000"), "default"),
        ("store", json!("/data/latentd/queue.db"), "default"),
        ("endpoint", json!("stable-diffusion-v1"), "default"),
        ("handler", json!("latentd"), "default"),
        ("endpoints", json!([]), "default"),
        ("limits", json!(true), "default"),
        ("api_keys", json!(""), "default"),
        ("worker_keys", json!(""), "default"),
        ("gateway.lost", json!(40), "default"),
        ("gateway.max_waiting", json!(100_000), "default"),
        ("gateway.min_free", json!(268_435_456), "default"),
        ("gateway.hosts", json!([]), "default"),
        ("gateway.cors", json!([]), "default"),
        ("gateway.keep_alive", json!(75), "default"),
        ("gateway.in_flight", json!(268_435_456), "default"),
        ("device", json!("cpu"), "--device"),
        ("dtype", json!("bf16"), "LATENTD_DTYPE"),
        ("offload", json!("auto"), "default"),
        ("cuda.graphs", json!(true), "default"),
        ("cuda.kernels", json!(true), "default"),
        ("cuda.attention", json!("flash"), "default"),
        ("cuda.rows", json!("auto"), "default"),
        ("cuda.warm_up", json!("auto"), "default"),
        ("cuda.helper", json!("auto"), "default"),
        ("log.level", json!("WARN"), "RUNPOD_DEBUG_LEVEL"),
        ("log.format", json!("auto"), "default"),
        ("log.prompts", json!(true), "latentd.toml"),
        ("images.max_bytes", json!(20 << 20), "default"),
        ("images.max_pixels", json!(50_000_000), "default"),
        ("images.timeout", json!(30), "default"),
        ("net.allow_private", json!("10.0.0.0/8"), "LATENTD_NET__ALLOW_PRIVATE"),
        ("net.http_proxy", json!(""), "default"),
        ("net.https_proxy", json!(""), "default"),
        ("net.no_proxy", json!(""), "default"),
        ("hub.endpoint", json!("https://huggingface.co"), "default"),
        ("hub.token", json!("hidden"), "HF_TOKEN"),
        ("worker.concurrency", json!("auto"), "default"),
        ("worker.drain", json!(600), "default"),
        ("worker.start_deadline", json!("off"), "default"),
        ("worker.send_timings", json!(true), "default"),
        ("worker.refresh", json!(false), "default"),
        ("deliver.max_bytes", json!("auto"), "default"),
        ("admin.listen", json!("127.0.0.1:9090"), "default"),
        ("fitness.machine", json!(true), "default"),
        ("fitness.min_memory", json!("auto"), "default"),
        ("fitness.min_disk", json!("auto"), "default"),
        ("telemetry.otlp_endpoint", json!(""), "default"),
        ("runpod.get_job", json!(""), "default"),
        ("runpod.post_output", json!(""), "default"),
        ("runpod.post_stream", json!(""), "default"),
        ("runpod.ping", json!(""), "default"),
        ("runpod.ping_interval", json!(10000), "default"),
        ("runpod.api_key", json!("hidden"), "RUNPOD_AI_API_KEY"),
        ("runpod.pod_id", json!(""), "default"),
        ("spool.dir", json!("/data/latentd/spool"), "default"),
        ("spool.max_bytes", json!(1 << 30), "default"),
        ("webhook.deliver", json!("auto"), "default"),
        ("webhook.cancelled", json!(true), "default"),
        ("webhook.platform_hosts", json!(["api.runpod.ai"]), "default"),
        ("webhook.attempts", json!(3), "default"),
        ("webhook.pause", json!(10), "default"),
        ("webhook.timeout", json!(30), "default"),
        ("webhook.secret", json!(""), "default"),
        ("bucket.endpoint_url", json!("https://s3.example"), "BUCKET_ENDPOINT_URL"),
        ("bucket.access_key_id", json!("hidden"), "BUCKET_ACCESS_KEY_ID"),
        ("bucket.secret_access_key", json!("hidden"), "BUCKET_SECRET_ACCESS_KEY"),
        ("bucket.name", json!(""), "default"),
        ("bucket.prefix", json!(""), "default"),
        ("bucket.region", json!(""), "default"),
    ];
    let expected = expected.map(|(key, value, source)| (key.to_owned(), json!({"value": value, "source": source})));
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), Value::Object(expected.into_iter().collect()));
}

#[test]
fn a_job_that_cannot_be_read_fails() {
    for arguments in [&[][..], &["run"]] {
        let error = failed(&[], arguments)["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("test_input.json not found"), "{error}");
    }
    let no_input = "Job has no input parameter. Unable to run.";
    for (job, word) in [
        ("not json", "neither a file nor a JSON object"),
        ("{", "not valid JSON"),
        ("[]", "a JSON object"),
        ("{\"noinput\": 1}", no_input),
        ("{\"input\": null}", no_input),
    ] {
        for arguments in [&["--test_input", job][..], &["run", "--test-input", job], &["run", "--test_input", job]] {
            let error = failed(&[], arguments)["error"].as_str().unwrap().to_owned();
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }
}

#[test]
fn a_bad_input_fails_with_all_complaints() {
    let result = failed(&[], &["run", "--test-input", r#"{"id": "j1", "input": {"width": 500}}"#]);
    assert_eq!(result["id"], "j1");
    assert_eq!(result["error"], "width does not meet the constraints.; prompt is a required input.");
    assert_eq!(result["errors"], json!(["width does not meet the constraints.", "prompt is a required input."]));
    assert_eq!((&result["delayTime"], &result["workerId"]), (&json!(0), &json!("local")));
    assert_eq!(result.get("output"), None);
}

#[test]
fn the_usual_file_is_found() {
    let folder = folder();
    fs::write(folder.path().join("test_input.json"), r#"{"id": "myid", "input": {"prompt": 5}}"#).unwrap();
    let (code, stdout, _) = finish(&mut latentd(folder.path(), &[], &[]));
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &result["id"]), (1, &json!("myid")));
}

#[test]
fn a_person_reads_no_json() {
    let (code, stdout, stderr) = outcome(&[], &["run", "a red apple", "--set", "width=500", "--set", "seed=x"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    let told = "latentd: width does not meet the constraints.; seed should be <class 'int'> type, not <class 'str'>.\n\
                latentd: hint: width: use 128, 256, 384, 448, 512, 576, 640, 704 or 768\n\
                latentd: hint: seed: use a whole number below 2⁶⁴\n";
    assert_eq!(stderr, told);
}

#[test]
fn logs_go_to_stderr_as_text_or_json_and_hold_no_prompt() {
    let job = r#"{"input": {"prompt": "a secret"}}"#;
    let debug = ["run", "--test-input", job, "--log-level", "debug"];
    let (.., text) = outcome(&[], &debug);
    assert!(text.contains("job accepted") && !text.contains("a secret"), "{text}");
    let (.., text) = outcome(&[("LATENTD_LOG__PROMPTS", "true")], &debug);
    assert!(text.contains("a secret"), "{text}");
    let (.., lines) = outcome(&[("RUNPOD_ENDPOINT_ID", "ep1")], &debug);
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((&keys[..3], keys.last()), (&["requestId", "message", "level"][..], Some(&"time")));
    assert_eq!(
        (&line["requestId"], &line["message"], &line["level"]),
        (&json!("local_test"), &json!("job accepted"), &json!("DEBUG"))
    );
    assert_eq!(line["width"], 512);
    let job = format!(r#"{{"input": {{"prompt": "{}"}}}}"#, "x".repeat(5000));
    for endpoint in
        [&[("LATENTD_LOG__PROMPTS", "true")][..], &[("LATENTD_LOG__PROMPTS", "true"), ("RUNPOD_ENDPOINT_ID", "e")]]
    {
        let (.., cut) = outcome(endpoint, &["run", "--test-input", &job, "--log-level", "debug"]);
        assert!(cut.contains("...TRUNCATED 90") && !cut.contains(&"x".repeat(2049)), "{cut}");
    }
    let (.., silence) = outcome(&[], &["run", "--test-input", "{}", "--log-level", "off"]);
    assert_eq!(silence, "");
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_build_without_an_engine_says_so() {
    for arguments in [&["run", "a red apple"][..], &["run", "--test-input", r#"{"input": {"prompt": "p"}}"#]] {
        let (code, stdout, stderr) = outcome(&[], arguments);
        assert_eq!((code, stdout.as_str()), (64, ""));
        assert!(stderr.contains("has no engine"), "{stderr}");
    }
}
