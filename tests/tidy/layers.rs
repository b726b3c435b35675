//! Who may use whom: the layers of docs/architecture/00-overview.md, and the folders that keep a library, the environment or a clock to
//! themselves.

use crate::paths::{Named, paths};

/// Top-level modules by layer. A layer may use those below it.
const LAYERS: [&[&str]; 5] = [
    &["batch", "date", "hex", "job", "noise", "queue", "sampler", "suggest"],
    &["blocking", "clock", "config", "disk", "net", "stop", "telemetry"],
    &["deliver", "encode", "engine", "intake", "models", "source", "store"],
    &["gateway", "worker"],
    &["app", "lib", "main"],
];

/// Layers whose modules may also use each other. The parts of the line (2) and the roles (3) meet in `app` alone.
const SOCIABLE: [usize; 3] = [0, 1, 4];

/// What the pure layer may take from crates.io.
const PURE: [&str; 4] = ["serde", "serde_json", "strsim", "thiserror"];

/// Paths, the folders that alone may name them, and why.
const CONFINED: [(&str, &[&str], &str); 14] = [
    ("tch", &["engine/torch"], "tensors stay in the engine"),
    ("torch_sys", &["engine/torch"], "tensors stay in the engine"),
    ("libloading", &["engine/torch"], "only libtorch's CUDA half is opened at run time"),
    ("axum", &["gateway"], "only the gateway speaks HTTP to clients"),
    (
        "hyper",
        &["telemetry/admin", "gateway/serve"],
        "sockets are served in two places, which bound what a slow client costs",
    ),
    (
        "prometheus_client",
        &["telemetry/metrics", "telemetry/exposition", "gateway/metrics"],
        "numbers are named in one place of the worker's and one of the gateway's",
    ),
    ("opentelemetry", &["telemetry/traces"], "spans are made by telemetry, which knows what may be in them"),
    ("opentelemetry_sdk", &["telemetry/traces"], "spans are made by telemetry, which knows what may be in them"),
    ("tracing_opentelemetry", &["telemetry/traces"], "spans are made by telemetry, which knows what may be in them"),
    ("rusqlite", &["store/sqlite"], "SQL stays in its store"),
    ("redis", &["store/redis"], "Redis stays in its store"),
    ("std::env", &["config", "app/serve"], "the environment is read once, where every value is checked"),
    ("std::time::SystemTime", &["clock"], "the wall clock is a seam that tests replace"),
    ("std::process::Command", &["app/serve"], "the binary starts no other programs; serve restarts itself"),
];

/// Paths, the folders that may not name them, and why.
const BARRED: [(&str, &[&str], &str); 6] = [
    (
        "std::time::Instant",
        &["batch", "date", "hex", "job", "noise", "queue", "sampler"],
        "the pure layer has no clock: take a duration",
    ),
    (
        "std::time::Instant",
        &["deliver", "gateway", "intake", "net", "source", "store", "worker"],
        "tests can pause tokio's clock",
    ),
    ("std::fs", &["batch", "date", "hex", "job", "noise", "queue", "sampler"], "the pure layer does no I/O"),
    ("std::net", &["batch", "date", "hex", "job", "noise", "queue", "sampler"], "the pure layer does no I/O"),
    ("std::process", &["batch", "date", "hex", "job", "noise", "queue", "sampler"], "the pure layer does no I/O"),
    ("std::thread", &["batch", "date", "hex", "job", "noise", "queue", "sampler"], "the pure layer starts nothing"),
];

/// A module's place in `src`.
pub(crate) struct Place<'a> {
    path: &'a str,
    module: Vec<&'a str>,
}

impl<'a> Place<'a> {
    /// The module of a file, named as in `src/engine/torch/mod.rs`; `None` outside of `src`.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let inside = path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let mut module: Vec<&str> = inside.split('/').collect();
        if module.last() == Some(&"mod") || inside == "lib" || inside == "main" {
            module.pop();
        }
        Some(Self { path, module })
    }

    /// The path of its file.
    pub(crate) fn path(&self) -> &'a str {
        self.path
    }

    /// Its name in the crate, part by part; none for the root.
    pub(crate) fn module(&self) -> &[&'a str] {
        &self.module
    }

    fn top(&self) -> &'a str {
        self.module.first().copied().unwrap_or("lib")
    }

    /// Whether the module is the one of `folder`, or inside it.
    fn within(&self, folder: &str) -> bool {
        let mut module = self.module.iter();
        folder.split('/').all(|part| module.next().is_some_and(|name| *name == part))
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// What is wrong with the paths in a file's shipped code. `dependencies` are the names of all external crates.
pub(crate) fn faults(place: &Place<'_>, code: &str, dependencies: &[String]) -> Vec<String> {
    let Some(from) = layer(place.top()) else {
        return vec![format!(
            "{}: {} belongs to no layer; give it one in tests/tidy/layers.rs",
            place.path,
            place.top()
        )];
    };
    let named = paths(code, &place.module);
    // A client may be handed on; only `net` makes one.
    let makes_clients = named.iter().any(|path| path.starts_with("reqwest")) && !place.within("net");
    named
        .iter()
        .filter_map(|path| {
            let why = upward(place, from, path)
                .or_else(|| misplaced(place, path))
                .or_else(|| impure(from, path, dependencies))
                .or_else(|| {
                    (makes_clients && is_client(path)).then(|| "HTTP clients are built only in net".to_owned())
                })?;
            Some(format!("{}:{}: {}: {why}", place.path, path.line, path.segments.join("::")))
        })
        .collect()
}

fn upward(place: &Place<'_>, from: usize, path: &Named) -> Option<String> {
    let (first, rest) = path.segments.split_first()?;
    if first != "crate" {
        return None;
    }
    let to = rest.first().map_or("*", String::as_str);
    if to == place.top() || from == LAYERS.len() - 1 {
        return None;
    }
    match layer(to) {
        Some(to_layer) if to_layer < from || (to_layer == from && SOCIABLE.contains(&from)) => None,
        Some(to_layer) if to_layer == from => {
            Some(format!("{} and {to} share layer {from}, and may not know each other", place.top()))
        }
        Some(to_layer) => Some(format!("{} (layer {from}) may not use {to} (layer {to_layer})", place.top())),
        None => Some(format!("{to} belongs to no layer")),
    }
}

fn misplaced(place: &Place<'_>, path: &Named) -> Option<String> {
    let confined = CONFINED
        .iter()
        .find(|(prefix, folders, _)| path.starts_with(prefix) && !folders.iter().any(|folder| place.within(folder)));
    let barred = BARRED
        .iter()
        .find(|(prefix, folders, _)| path.starts_with(prefix) && folders.iter().any(|folder| place.within(folder)));
    confined.or(barred).map(|(_, _, why)| (*why).to_owned())
}

fn impure(from: usize, path: &Named, dependencies: &[String]) -> Option<String> {
    let name = path.segments.first()?;
    let foreign = from == 0 && dependencies.contains(name) && !PURE.contains(&name.as_str());
    foreign.then(|| format!("the pure layer uses {} and nothing else", PURE.join(", ")))
}

fn is_client(path: &Named) -> bool {
    path.segments.iter().any(|segment| segment == "ClientBuilder")
        || path.starts_with("reqwest::get")
        || path
            .segments
            .windows(2)
            .any(|pair| pair[0] == "Client" && matches!(pair[1].as_str(), "new" | "builder" | "default"))
}

/// Pairs of sociable modules that use each other: a circle cannot be understood, or taken out, one by one.
pub(crate) fn circles(files: &[(Place<'_>, &str)]) -> Vec<String> {
    let mut uses: Vec<(&str, String)> = files
        .iter()
        .filter(|(place, _)| layer(place.top()).is_some_and(|layer| layer < LAYERS.len() - 1))
        .flat_map(|(place, code)| paths(code, &place.module).into_iter().map(|path| (place.top(), path)))
        .filter(|(_, path)| path.starts_with("crate"))
        .filter_map(|(from, path)| Some((from, path.segments.get(1)?.clone())))
        .filter(|(from, to)| from != to)
        .collect();
    uses.sort();
    uses.dedup();
    let back = |from: &str, to: &str| uses.iter().any(|(other, its)| *other == to && its == from);
    uses.iter()
        .filter(|(from, to)| *from < to.as_str() && back(from, to))
        .map(|(from, to)| format!("src/{from} and src/{to} use each other"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(path: &str, code: &str) -> Vec<String> {
        let dependencies = ["serde", "tokio", "sha2", "tch", "axum"].map(str::to_owned);
        Place::of(path).map_or_else(Vec::new, |place| faults(&place, code, &dependencies))
    }

    #[test]
    fn what_the_layers_allow_passes() {
        for (path, code) in [
            ("src/job/spec.rs", "use crate::sampler::Sampler; use serde::Serialize; use std::time::Duration;"),
            ("src/telemetry/mod.rs", "use crate::config::Log;"),
            ("src/engine/torch/lanes.rs", "use crate::{batch, job::Spec}; use super::super::Event; use tch::Tensor;"),
            ("src/engine/torch.rs", "use tch::Tensor;"),
            ("src/engine/host.rs", "use std::time::Instant; use super::Engine; use crate::engine::Event;"),
            ("src/worker/mod.rs", "use crate::{engine, source::JobSource, stop::Stop};"),
            ("src/app/run.rs", "use crate::worker; use crate::gateway; use super::cli;"),
            ("src/main.rs", "fn main() { latentd::app::main() }"),
            ("src/lib.rs", "pub mod app;"),
            ("src/config/mod.rs", "use std::env; fn f() { env!(_____); }"),
            ("src/app/mod.rs", "fn f() { env!(_____); }"),
            ("src/net/client.rs", "use reqwest::Client; fn f() { Client::builder() }"),
            ("src/deliver/webhook.rs", "use reqwest::Client; struct W(Client); fn f() { Url::new() }"),
            ("tests/cli.rs", "use std::env; use tch::Tensor;"),
            ("build.rs", "use std::env;"),
        ] {
            assert_eq!(faults_of(path, code), [""; 0], "{path}: {code}");
        }
    }

    #[test]
    fn what_the_layers_forbid_is_found() {
        for (path, code, expected) in [
            (
                "src/job/spec.rs",
                "\nuse crate::engine::Picture;",
                "src/job/spec.rs:2: crate::engine::Picture: job (layer 0) may not use engine (layer 2)",
            ),
            ("src/job/spec.rs", "use super::super::config::Config;", "config (layer 1)"),
            ("src/job/spec.rs", "use crate::*;", "belongs to no layer"),
            ("src/job/spec.rs", "use crate as all;", "belongs to no layer"),
            ("src/job/spec.rs", "fn f() { tokio::spawn(x) }", "tokio::spawn: the pure layer uses serde"),
            ("src/job/spec.rs", "use {serde::Serialize, sha2::Sha256};", "sha2::Sha256"),
            (
                "src/noise/mod.rs",
                "use std::{time::{Duration, Instant}};",
                "std::time::Instant: the pure layer has no clock",
            ),
            ("src/sampler/x.rs", "let x = std::fs::read(y);", "no I/O"),
            ("src/config/mod.rs", "use crate::encode::png;", "config (layer 1) may not use encode (layer 2)"),
            ("src/encode/mod.rs", "use crate::engine::Picture;", "encode and engine share layer 2"),
            ("src/encode/mod.rs", "fn f(p: &super::engine::Picture) {}", "encode and engine share layer 2"),
            (
                "src/worker/mod.rs",
                "use crate::{engine, gateway::routes};",
                "crate::gateway::routes: worker and gateway share layer 3",
            ),
            ("src/engine/host.rs", "use tch::Tensor;", "tensors stay in the engine"),
            ("src/engine/torchlike.rs", "use torch_sys as t;", "tensors stay in the engine"),
            ("src/app/mod.rs", "let x = std::env::var(y);", "the environment is read once"),
            ("src/app/mod.rs", "use std::{env as surroundings};", "the environment is read once"),
            ("src/app/mod.rs", "use axum::Router;", "only the gateway"),
            ("src/store/redis/mod.rs", "use rusqlite::Connection;", "SQL stays"),
            ("src/gateway/mod.rs", "use redis::Client;", "Redis stays"),
            ("src/worker/mod.rs", "use std::time::Instant;", "tokio's clock"),
            ("src/app/mod.rs", "std::time::SystemTime::now()", "wall clock"),
            (
                "src/deliver/mod.rs",
                "use reqwest::Client; fn f() { Client::new() }",
                "Client::new: HTTP clients are built only in net",
            ),
            ("src/misc/mod.rs", "", "misc belongs to no layer"),
        ] {
            let faults = faults_of(path, code);
            assert!(faults.len() == 1 && faults[0].contains(expected), "{path}: {code}: {faults:?}");
        }
    }

    #[test]
    fn a_circle_is_found_once() {
        let file = |path, code| Some((Place::of(path)?, code));
        let one_way = [file("src/config/a.rs", "use crate::net::x;"), file("src/net/b.rs", "use crate::job::Spec;")];
        let one_way: Vec<_> = one_way.into_iter().flatten().collect();
        assert_eq!(circles(&one_way), [""; 0]);
        let circle = [file("src/config/a.rs", "use crate::net::x;"), file("src/net/b.rs", "use super::super::config;")];
        let circle: Vec<_> = circle.into_iter().flatten().collect();
        assert_eq!(circles(&circle), ["src/config and src/net use each other"]);
    }
}
