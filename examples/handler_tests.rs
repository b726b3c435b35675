//! Sends the jobs of `handler-tests/` to an endpoint, `URL/runsync`, and compares what comes back. `scripts/handler-tests` runs it.
//!
//! An endpoint says less than a result object, and in its own form: ids are the endpoint's, and `errors` is in `error`, as a list in
//! JSON, joined, or inside of a report. So `id` is not compared, and each complaint must be somewhere in `error`. An endpoint that
//! refuses a job with 422 before it takes it for one, as the Python SDK's does with an `input` that is no object, has words of its own.

#![allow(clippy::print_stdout, clippy::disallowed_methods)]

#[path = "../tests/handler_tests/compare.rs"]
mod compare;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use compare::{HandlerTest, KINDS, folders, holds, seen};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// How often a job that is not done is asked after, and for how long.
const POLL: Duration = Duration::from_secs(1);
const POLLS: u32 = 1800;

/// Stands in the place of a status where a job was refused before it was one.
const REFUSED: &str = "refused";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(cause) => {
            println!("handler-tests: {cause:#}");
            ExitCode::from(64)
        }
    }
}

/// Runs all that are for an endpoint of Stable Diffusion v1, or with `--sdxl`, `--refined` or `--sdxl_turbo` of that kind of model, or of these those
/// whose folder's name has the last argument in it. Answers with the number of those that failed.
async fn run() -> anyhow::Result<usize> {
    let mut arguments = env::args().skip(1).peekable();
    let named = arguments.next_if(|argument| KINDS.iter().any(|(name, _)| argument.strip_prefix("--") == Some(name)));
    let kind = named.as_deref().map_or("sd1", |argument| argument.trim_start_matches('-'));
    let usage = "usage: handler-tests [--sdxl | --refined | --sdxl_turbo] URL [PART OF A NAME]";
    let url = arguments.next().context(usage)?;
    let part = arguments.next().unwrap_or_default();
    let endpoint = Endpoint::new(url.trim_end_matches('/').to_owned(), env::var("RUNPOD_API_KEY").ok())?;
    let (mut passed, mut failed) = (0, 0);
    for folder in folders(kind).map_err(|cause| anyhow!(cause))? {
        let test = HandlerTest::read(&folder).map_err(|cause| anyhow!(cause))?;
        if !test.name.contains(&part) {
            continue;
        }
        let fault = match endpoint.run(&test.job).await {
            Ok(result) => fault(&test.expected, &result),
            Err(cause) => Some(format!("{cause:#}")),
        };
        match fault {
            None => passed += 1,
            Some(fault) => {
                failed += 1;
                println!("FAIL {}: {fault}", test.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if passed + failed == 0 {
        bail!("no folder has {part:?} in its name");
    }
    Ok(failed)
}

/// What an endpoint's answer lacks.
fn fault(expected: &Value, result: &Value) -> Option<String> {
    if result["status"] == REFUSED {
        let detail = &result["error"];
        return (expected["status"] != "FAILED").then(|| format!("refused with 422: {detail}"));
    }
    let mut terms = expected.as_object()?.clone();
    terms.remove("id");
    let complaints = [terms.remove("error"), terms.remove("errors")].into_iter().flatten();
    let said = match &result["error"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let plain = said.replace('\\', "");
    for complaint in complaints {
        let all = complaint.as_array().cloned().unwrap_or_else(|| vec![complaint]);
        let texts = all.iter().filter_map(Value::as_str).flat_map(|text| text.split("; "));
        if let Some(text) = texts.into_iter().find(|text| !plain.contains(&text.replace('\\', ""))) {
            return Some(format!("{text:?} is not in its error, {said:?}"));
        }
    }
    let (terms, mut seen) = (Value::Object(terms), seen(result));
    if holds(&terms, &seen) {
        return None;
    }
    // Pictures would fill the screen.
    if let Some(seen) = seen.as_object_mut() {
        seen.remove("output");
    }
    Some(format!("expected {terms}, seen {seen}"))
}

/// An endpoint as the RunPod clients see it.
struct Endpoint {
    http: Client,
    url: String,
    key: Option<String>,
}

impl Endpoint {
    fn new(url: String, key: Option<String>) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = Client::builder().tls_backend_preconfigured(tls).timeout(Duration::from_mins(15)).build()?;
        Ok(Self { http, url, key })
    }

    /// Runs a job to its end, at once where the endpoint can do that.
    async fn run(&self, job: &str) -> anyhow::Result<Value> {
        let mut status = match self.call(Method::POST, "runsync", Some(job)).await? {
            Some(status) => status,
            None => self.call(Method::POST, "run", Some(job)).await?.context("it has neither /runsync nor /run")?,
        };
        let id = status["id"].as_str().unwrap_or_default().to_owned();
        for _ in 0..POLLS {
            match status["status"].as_str() {
                Some("IN_QUEUE" | "IN_PROGRESS") => {
                    tokio::time::sleep(POLL).await;
                    let path = format!("status/{id}");
                    status = self.call(Method::GET, &path, None).await?.context("it has forgotten the job")?;
                }
                // What was refused before it was a job has an error and no status.
                None if !status["error"].is_null() => {
                    status["status"] = json!("FAILED");
                    return Ok(status);
                }
                _ => return Ok(status),
            }
        }
        bail!("it was not done in time")
    }

    /// `None` if there is no such thing at the endpoint.
    async fn call(&self, method: Method, path: &str, body: Option<&str>) -> anyhow::Result<Option<Value>> {
        let url = format!("{}/{path}", self.url);
        let mut request = self.http.request(method, &url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let response = request.send().await?;
        let code = response.status();
        let text = response.text().await?;
        match code.as_u16() {
            404 => Ok(None),
            422 => Ok(Some(json!({"status": REFUSED, "error": text}))),
            401 | 403 => bail!("{url} answers {code}: set RUNPOD_API_KEY"),
            _ => serde_json::from_str(&text).map(Some).with_context(|| format!("{url} answers {code}: {text:.200}")),
        }
    }
}
