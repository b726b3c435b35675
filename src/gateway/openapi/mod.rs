//! The endpoint as an OpenAPI 3.1 document: what `/openapi.json`, `latentd openapi` and the page at `/docs` show.
//!
//! What an input may say is written from the table of its contract ([`crate::job::Contract`]), the other schemas are in `schemas.json`: what
//! clients and workers of other makes send and expect. They are not derived from types (as the crate utoipa would): the store keeps most of
//! what they describe as the text that came, so that there is no type to derive from, and inputs follow from a table that also has bounds,
//! complaints and the defaults of the loaded model, which no attribute could say.
//!
//! [`ROUTES`] is the list that people and programs read; a test asks the gateway for each of its lines, and finds none that is missing.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::Gateway;
use super::reply::RawJson;
use crate::job::{Contract, Family, OfferedModel};
use crate::store::Store;

/// A route of an endpoint, in words.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Below `/v2/{endpoint}`; `{id}` and `{worker}` are its parameters.
    pub(super) path: &'static str,
    summary: &'static str,
    /// Its query's parameters: name and meaning.
    query: &'static [(&'static str, &'static str)],
    /// The schemas of its body and of its reply; none of the latter: 200 or 204 without a body.
    body: Option<&'static str>,
    reply: Option<&'static str>,
}

const WAIT: (&str, &str) = ("wait", "milliseconds to wait for the end, 1000 to 300000; 90000 if it is not said");
const TTL: (&str, &str) = ("ttl", "milliseconds after which the job is forgotten, 10000 to 604800000");
const NAMED: (&str, &str) = ("job_id", "the jobs that it has, separated by commas");
const HAS: (&str, &str) = ("job_in_progress", "1 while it has jobs, else 0");
const MEMORY: (&str, &str) = ("vram_gb", "the memory of its GPU in GB");

/// Why a submission may be refused that is not at fault. `Retry-After` says when to send it again.
const REFUSED: [(&str, &str); 2] = [
    ("429", "sent more often than the key may, or as many jobs wait as may (gateway.max_waiting): send it again later"),
    (
        "503",
        "the queue is away or has no room, or too much is being sent at the moment: nothing was changed, send it again later",
    ),
];

/// The list, clients' routes before workers'.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route("post", "/run", "Queues a job and answers at once").query(&[TTL]).body("Submission").reply("Submitted"),
    route("post", "/runsync", "Queues a job and answers at its end, or with its status when the time is over; its id comes at once, in X-Job-Id").query(&[WAIT, TTL]).body("Submission").reply("Status"),
    route("get", "/status/{id}", "A job as it is now").reply("Status"),
    route("post", "/status/{id}", "The same, as some clients ask").reply("Status"),
    route("get", "/status-sync/{id}", "A job at its end, or as it is when the time is over").query(&[WAIT]).reply("Status"),
    route("post", "/status-sync/{id}", "The same, as some clients ask").query(&[WAIT]).reply("Status"),
    route("get", "/stream/{id}", "The parts of its result that were not taken yet; as server-sent events to the end, with Accept: text/event-stream").query(&[WAIT]).reply("Stream"),
    route("post", "/stream/{id}", "The same, as some clients ask").query(&[WAIT]).reply("Stream"),
    route("post", "/cancel/{id}", "Ends a job that is no longer needed").reply("Submitted"),
    route("get", "/cancel/{id}", "The same").reply("Submitted"),
    route("post", "/retry/{id}", "Queues a job again that has FAILED or TIMED_OUT").reply("Submitted"),
    route("post", "/purge-queue", "Cancels all jobs that wait").reply("Purged"),
    route("get", "/health", "How many jobs and workers there are").reply("Health"),
    route("get", "/requests", "A page of all jobs, without inputs and outputs").query(&[("offset", "jobs to leave out"), ("limit", "jobs of the page, 1 to 100; 10 if it is not said"), ("status", "only jobs that stand so")]).reply("Requests"),
    route("get", "/history/{id}", "Each attempt at a job, and each try of its webhook").reply("History"),
    route("get", "/job-take/{worker}", "Worker: waits for a job; 204 if none comes").query(&[HAS, MEMORY]).reply("Job"),
    route("get", "/job-take-batch/{worker}", "Worker: waits for jobs; 204 if none comes").query(&[("batch_size", "jobs at most"), HAS, MEMORY]).reply("Jobs"),
    route("post", "/job-done/{worker}/{id}", "Worker: brings a job's end, or a word on its progress").body("Done"),
    route("post", "/job-stream/{worker}/{id}", "Worker: brings a part of a job's result").body("Done"),
    route("get", "/job-stop/{worker}", "Worker: waits for jobs that it works on in vain; 204 if there are none").reply("Stops"),
    route("get", "/ping/{worker}", "Worker: shows that it lives").query(&[NAMED, ("runpod_version", "what it is"), ("status", "unhealthy: it can do no job")]),
];

const fn route(method: &'static str, path: &'static str, summary: &'static str) -> Route {
    Route { method, path, summary, query: &[], body: None, reply: None }
}

impl Route {
    const fn query(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }

    const fn body(self, schema: &'static str) -> Self {
        Self { body: Some(schema), ..self }
    }

    const fn reply(self, schema: &'static str) -> Self {
        Self { reply: Some(schema), ..self }
    }

    fn document(&self) -> Value {
        let of = |schema: &str| json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
        let within = ["endpoint", "id", "worker"]
            .into_iter()
            .filter(|name| *name == "endpoint" || self.path.contains(&format!("{{{name}}}")));
        let within =
            within.map(|name| json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } }));
        let beside = self.query.iter().map(|(name, meaning)| {
            json!({ "in": "query", "name": name, "description": meaning, "schema": { "type": "string" } })
        });
        let mut well = json!({ "description": "done" });
        if let Some(schema) = self.reply {
            well["content"] = of(schema);
        }
        let mut operation = json!({
            "summary": self.summary,
            "parameters": within.chain(beside).collect::<Vec<_>>(),
            "responses": { "200": well, "default": { "description": "refused", "content": of("Error") } },
            "tags": [if self.is_worker_s() { "workers" } else { "clients" }],
        });
        if self.body == Some("Submission") {
            for (status, why) in REFUSED {
                operation["responses"][status] = json!({ "description": why, "content": of("Error") });
            }
        }
        if let Some(schema) = self.body {
            operation["requestBody"] = json!({ "required": true, "content": of(schema) });
        }
        operation
    }

    pub(super) fn is_worker_s(&self) -> bool {
        self.path.contains("{worker}")
    }
}

/// The whole document. An input is that of the first of `models` of each contract, with its defaults; of no models, that of every contract.
pub fn document(models: &[OfferedModel]) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(format!("/v2/{{endpoint}}{}", route.path)).or_insert_with(|| json!({}));
        path[route.method] = route.document();
    }
    let mut schemas: Value = serde_json::from_str(include_str!("schemas.json")).unwrap_or_default();
    inputs(models, &mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "latentd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "An endpoint for {}. /v1/{{endpoint}} has the same routes; their status objects have `gpu` and always `input`.",
                Family::titles()
            ),
        },
        // Relative to the document, which a proxy may have put below a path of its own.
        "servers": [{ "url": "." }],
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

/// Adds the schema of an input, from the table of its contract; where there are several contracts, a schema for each.
fn inputs(models: &[OfferedModel], schemas: &mut Value) {
    let contracts = Contract::ALL.iter().filter_map(|contract| {
        let model = models.iter().find(|model| model.defaults.contract == *contract);
        let usual = models.is_empty().then(|| OfferedModel::new("", *contract));
        Some((contract, input(&model.cloned().or(usual)?)))
    });
    let mut contracts: Vec<_> = contracts.collect();
    if let ([(_, schema)], false) = (contracts.as_mut_slice(), models.is_empty()) {
        schemas["Input"] = schema.take();
        return;
    }
    let name = |contract: &Contract| format!("Input.{contract}");
    let link =
        |(contract, _): &(&Contract, Value)| json!({ "$ref": format!("#/components/schemas/{}", name(contract)) });
    schemas["Input"] = json!({
        "description": "by the contract of the model that draws",
        "anyOf": contracts.iter().map(link).collect::<Vec<_>>(),
    });
    for (contract, schema) in contracts {
        schemas[name(contract)] = schema;
    }
}

fn input(model: &OfferedModel) -> Value {
    let mut schema = model.defaults.schema();
    let contract = model.defaults.contract;
    let of = match model.name.as_str() {
        "" => String::new(),
        name => format!(", with the defaults of the model {name}"),
    };
    schema["description"] = format!(
        "of an endpoint whose workers are latentd with a model of the contract {contract}{of}; other workers have inputs of their own"
    )
    .into();
    schema
}

pub(super) async fn json<S: Store>(State(gateway): State<Arc<Gateway<S>>>) -> RawJson {
    let models: Vec<OfferedModel> =
        gateway.settings.endpoints.iter().flat_map(|endpoint| endpoint.handler.models()).collect();
    RawJson(document(&models).to_string())
}

/// A page that shows the document. Nothing of it comes from elsewhere.
pub(super) async fn page() -> Response {
    let policy = "default-src 'self'; style-src 'self'; script-src 'self'; frame-ancestors 'none'";
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)], include_str!("page.html"))
        .into_response()
}

pub(super) async fn script() -> Response {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page.js")).into_response()
}

pub(super) async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page.css")).into_response()
}
