//! What others read of this repository: the RunPod Hub the files it wants (its publishing guide), in the shapes it wants, with variables
//! and jobs that latentd takes; and who deploys, examples that hold.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use latentd::config::{Config, Environment, Flags, StoreLocation};
use latentd::gateway::GatewaySettings;
use latentd::job::{Contract, Offer, OfferedModel, validate};
use latentd::models::Manifest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Hub {
    title: String,
    description: String,
    r#type: String,
    category: String,
    #[serde(default)]
    icon_url: Option<String>,
    config: HubConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct HubConfig {
    runs_on: String,
    container_disk_in_gb: u32,
    gpu_count: u32,
    gpu_ids: String,
    allowed_cuda_versions: Vec<String>,
    env: Vec<Variable>,
    presets: Vec<Preset>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    key: String,
    input: Input,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Input {
    name: String,
    r#type: String,
    description: String,
    default: Value,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    advanced: bool,
    min: Option<f64>,
    max: Option<f64>,
    true_value: Option<String>,
    false_value: Option<String>,
    #[serde(default)]
    options: Vec<Choice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    label: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    name: String,
    defaults: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tests {
    tests: Vec<Test>,
    config: TestsConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: String,
    input: Value,
    timeout: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TestsConfig {
    gpu_type_id: String,
    gpu_count: u32,
    env: Vec<Fixed>,
    allowed_cuda_versions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixed {
    key: String,
    value: String,
}

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn read<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_str(&text(path)).unwrap()
}

/// The configuration with these variables, where an empty one is none.
fn configured<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Config {
    let environment: Environment =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Config::load(&Flags::default(), &environment).unwrap()
}

/// The values that the form of the Hub may set a variable to, at its edges.
fn values(input: &Input) -> Vec<String> {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let flags = [&input.true_value, &input.false_value].into_iter().flatten().cloned();
    let edges = [input.min, input.max].into_iter().flatten().map(|edge| edge.to_string());
    let choices = input.options.iter().map(|choice| choice.value.clone());
    let default = (input.r#type != "boolean").then(|| plain(&input.default));
    flags.chain(edges).chain(choices).chain(default).collect()
}

#[test]
fn the_listing_has_what_the_hub_asks_for() {
    let hub: Hub = read(".runpod/hub.json");
    assert!(!hub.title.is_empty() && !hub.description.is_empty() && hub.icon_url.is_none());
    assert_eq!(
        (hub.r#type.as_str(), hub.category.as_str(), hub.config.runs_on.as_str()),
        ("serverless", "image", "GPU")
    );
    assert!(hub.config.container_disk_in_gb >= 10 && hub.config.gpu_count == 1 && !hub.config.gpu_ids.contains(' '));
    assert_eq!(hub.config.allowed_cuda_versions, ["13.0"], "libtorch in the image is the CUDA 13.0 build");
    for file in ["Dockerfile", "README.md", "handler.py"] {
        assert!(!text(file).is_empty(), "{file}");
    }
    assert!(text("Dockerfile").contains("ENTRYPOINT [\"latentd\"]\nCMD [\"worker\"]"));
    assert!(text("handler.py").contains(r#"os.execvp("latentd", ["latentd", "worker"])"#));
}

#[test]
fn every_value_of_the_form_is_a_configuration() {
    let hub: Hub = read(".runpod/hub.json");
    for Variable { key, input } in &hub.config.env {
        let Input { name, r#type: kind, description, .. } = input;
        assert!(!name.is_empty() && !description.is_empty(), "{key}");
        assert!(["string", "huggingface", "number", "boolean"].contains(&kind.as_str()), "{key}: {kind}");
        assert_eq!(kind == "boolean", input.true_value.is_some() && input.false_value.is_some(), "{key}");
        assert!(!(input.required && input.advanced), "{key} must be set and is hidden");
        assert!(input.options.iter().all(|choice| !choice.label.is_empty()));
        for value in values(input) {
            let config = configured([(key.as_str(), value.as_str())]);
            // What nothing reads would be no fault, so it must be seen to have come in.
            let came = config.entries().iter().any(|entry| entry.source.contains(key));
            assert!(came || value.is_empty(), "{key} = {value}");
        }
    }
}

#[test]
fn every_preset_sets_what_the_form_has() {
    let hub: Hub = read(".runpod/hub.json");
    let known = |key: &String| hub.config.env.iter().any(|variable| &variable.key == key);
    for Preset { name, defaults } in &hub.config.presets {
        assert!(!name.is_empty() && defaults.keys().all(known), "{name}");
        configured(defaults.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }
}

#[test]
fn presets_name_known_models_and_a_refiner_after_sdxl_alone() {
    let hub: Hub = read(".runpod/hub.json");
    let family = |repository: &str| {
        let known = ["sd-1.5", "sd-1.4", "dreamshaper-8", "sdxl", "sdxl-turbo", "sdxl-refiner"];
        let manifests = known.into_iter().filter_map(Manifest::known);
        manifests.into_iter().find(|known| known.repository.as_deref() == Some(repository)).map(|known| known.family)
    };
    let mut refined = 0;
    for Preset { name, defaults } in &hub.config.presets {
        let model = defaults["LATENTD_MODEL"].as_str();
        let of_model = family(model).unwrap_or_default();
        assert!(["sd1", "sdxl"].contains(&of_model.as_str()) || model == "emoji", "{name}");
        if let Some(refiner) = defaults.get("LATENTD_REFINER") {
            assert_eq!((of_model.as_str(), family(refiner).as_deref()), ("sdxl", Some("sdxl-refiner")), "{name}");
            refined += 1;
        }
    }
    assert_eq!(refined, 1);
}

#[test]
fn the_hub_s_tests_are_jobs_that_are_accepted() {
    let Tests { tests, config } = read(".runpod/tests.json");
    assert!(tests.len() >= 3 && tests.iter().all(|test| !test.name.is_empty() && test.timeout >= 1000));
    assert!(!config.gpu_type_id.is_empty() && config.gpu_count == 1);
    assert_eq!(config.allowed_cuda_versions, ["13.0"]);
    let offer = Offer { models: vec![OfferedModel::new("m", Contract::Sd1)], ..Offer::default() };
    for test in &tests {
        validate(&test.input, &offer, 0).map_err(|complaints| complaints.texts()).unwrap();
    }
    configured(config.env.iter().map(|Fixed { key, value }| (key.as_str(), value.as_str())))
        .model()
        .expect("the tests' model is in the image");
}

#[test]
fn every_variable_of_the_example_is_read() {
    let example = text("deploy/worker.env");
    // Those that are commented out, too.
    let lines = example.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).filter(|line| !line.contains(". "));
    let variables: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once('=')).collect();
    assert!(variables.len() >= 12, "{variables:?}");
    let set: Vec<(&str, &str)> = variables
        .into_iter()
        .map(|(name, value)| match name {
            "LATENTD_WEBHOOK__SECRET" => (name, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            _ if value.is_empty() => (name, "x"),
            _ => (name, value),
        })
        .collect();
    let config = configured(set.iter().copied());
    config.queue().unwrap();
    for (name, _) in set {
        assert!(config.entries().iter().any(|entry| entry.source.contains(name)), "{name}");
    }
}

/// What follows `before` on a line that has it, up to `end`: once for each.
fn between<'a>(text: &'a str, before: &'a str, end: char) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(end).next()).collect()
}

#[test]
fn the_variables_of_gateways_are_read_and_their_redis_loses_nothing() {
    let (stack, keda) = (text("deploy/stack.yaml"), text("deploy/keda.yaml"));
    let lines = stack.lines().filter_map(|line| line.trim().split_once(": "));
    let of_stack = lines.filter(|(name, _)| name.starts_with("LATENTD_") || name.starts_with("RUNPOD_"));
    // Who deploys says the keys.
    let of_stack: Vec<_> =
        of_stack.map(|(name, value)| (name, if value.starts_with('$') { "k" } else { value })).collect();
    let of_keda: Vec<_> = between(&keda, "- { name: LATENTD_", '}')
        .into_iter()
        .map(|line| {
            let (name, value) = line.split_once(", ").unwrap();
            (
                format!("LATENTD_{name}"),
                value.strip_prefix("value: ").map_or("k", |value| value.trim().trim_matches('"')),
            )
        })
        .collect();
    let of_keda: Vec<_> = of_keda.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for (variables, count) in [(of_stack, 6), (of_keda, 5)] {
        assert_eq!(variables.len(), count, "{variables:?}");
        let config = configured(variables.iter().copied());
        for (name, _) in &variables {
            assert!(config.entries().iter().any(|entry| entry.source.contains(name)), "{name}");
        }
        let gateway = &config.gateway;
        assert!(matches!(gateway.store, StoreLocation::Redis(_)) && !gateway.listen.ip().is_loopback());
        assert!(!gateway.api_keys.is_empty() && !gateway.worker_keys.is_empty());
    }
    for redis in [stack.replace(',', ""), keda.replace(',', "").replace("\"yes\"", "yes")] {
        for setting in ["--appendonly yes", "--appendfsync always", "--maxmemory 3gb", "--maxmemory-policy noeviction"]
        {
            assert!(redis.contains(setting), "{setting}");
        }
    }
}

#[test]
fn workers_are_scaled_by_what_a_gateway_tells() {
    let (keda, workers) = (text("deploy/keda.yaml"), text("deploy/kubernetes.yaml"));
    let told = ["jobs.inQueue", "jobs.inProgress", r#"latentd_queue_oldest_seconds{endpoint="stable-diffusion-v1"}"#];
    assert_eq!(between(&keda, "valueLocation: ", '\n'), told, "as in /health and /metrics");
    assert!(keda.contains("minReplicaCount: 0") && keda.contains("kind: StatefulSet, name: latentd-worker }"));
    assert!(workers.contains("kind: StatefulSet\nmetadata:\n  name: latentd-worker\n"));
}

/// Whoever stops a worker must wait for its drain, and that for the longest job.
#[test]
fn who_stops_a_worker_waits_for_its_drain() {
    let drain = configured([]).worker.drain.as_secs();
    let after = |file: &str, label: &str| -> u64 {
        let text = text(file);
        let rest = text.split_once(label).unwrap().1;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    assert!(drain >= GatewaySettings::default().endpoints[0].execution_timeout.as_secs());
    assert!(after("deploy/compose.yaml", "stop_grace_period: ") * 60 > drain);
    assert!(after("deploy/stack.yaml", "stop_grace_period: ") * 60 > drain);
    assert!(after("deploy/latentd-worker.service", "TimeoutStopSec=") > drain);
    assert!(after("deploy/kubernetes.yaml", "terminationGracePeriodSeconds: ") > drain);
}
