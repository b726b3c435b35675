//! What operators ask of jobs beside the protocol: which there are, and what was tried with each.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::clock::{Course, UnixTime};
use crate::queue::{self, Payloads, Record};
use crate::store::{JobPage, PageQuery, Store};

use super::job_status::view;
use super::reply::{ApiError, RawJson};
use super::version::Version;
use super::{Endpoint, Gateway};

/// Jobs of a page: at most, and by default.
const PAGE_SIZE: (usize, usize) = (100, 10);

/// What goes on comes first, then what waits, then what has ended.
const STATE_ORDER: [queue::JobState; 6] = [
    queue::JobState::InProgress,
    queue::JobState::InQueue,
    queue::JobState::Completed,
    queue::JobState::Failed,
    queue::JobState::TimedOut,
    queue::JobState::Cancelled,
];

#[derive(Debug, Deserialize)]
pub(super) struct RequestsQuery {
    offset: Option<usize>,
    limit: Option<usize>,
    status: Option<queue::JobState>,
}

/// The jobs of an endpoint, a page of them, without inputs and outputs.
pub(super) async fn requests<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    version: Version,
    Path(name): Path<String>,
    page: Result<Query<RequestsQuery>, QueryRejection>,
) -> Result<RawJson, ApiError> {
    let endpoint = gateway.endpoint(&name)?;
    let Query(page) = page.map_err(|_| {
        ApiError::BadRequest("`offset` and `limit` should be whole numbers, and `status` one such as IN_QUEUE".into())
    })?;
    let (offset, limit) = (page.offset.unwrap_or(0), page.limit.unwrap_or(PAGE_SIZE.1).clamp(1, PAGE_SIZE.0));
    let states = STATE_ORDER.into_iter().filter(|state| page.status.is_none_or(|only| only == *state)).collect();
    let JobPage { jobs, total } = gateway.store.page(&endpoint.id, PageQuery { states, offset, limit }).await?;
    let mut shown = Vec::new();
    for record in jobs.iter().filter(|record| gateway.check_visible(record).is_ok()) {
        let object = queue::status(record, view(version, endpoint), Payloads::default());
        shown.extend(RawValue::from_string(object).ok());
    }
    let has_more = offset.saturating_add(limit) < total;
    let page = json!({ "hasMore": has_more, "limit": limit, "offset": offset, "requests": shown, "total": total });
    Ok(RawJson(page.to_string()))
}

/// Each attempt at a job, of very many the newest and how many were before; and each try of its webhook.
pub(super) async fn history<S: Store>(
    State(gateway): State<Arc<Gateway<S>>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<RawJson, ApiError> {
    let endpoint: &Endpoint = gateway.endpoint(&name)?;
    let record = gateway.visible(endpoint, &id).await?;
    let history = json!({
        "attempts": attempts(&record, &gateway.course),
        "forgotten": record.forgotten_attempts,
        "id": record.id,
        "status": record.state,
        "submitted": shown(&gateway.course, record.submitted),
        "webhooks": webhooks(&record, &gateway.course),
    });
    Ok(RawJson(history.to_string()))
}

/// A date as the wall clock has it, in milliseconds since 1970.
fn shown(course: &Course, date: UnixTime) -> u64 {
    course.shown(date).as_millis()
}

fn attempts(record: &Record, course: &Course) -> Vec<Value> {
    let shown = |date| shown(course, date);
    let past = record.failed_attempts.iter().map(|past| {
        json!({
            "began": shown(past.began), "ended": shown(past.ended), "number": past.number, "why": past.reason,
            "workerId": past.worker,
        })
    });
    let latest = record.attempt.iter().map(|latest| {
        json!({
            "began": shown(latest.began), "ended": record.ended.map(shown),
            "number": latest.number, "why": record.error, "workerId": latest.worker,
        })
    });
    past.chain(latest).collect()
}

fn webhooks(record: &Record, course: &Course) -> Vec<Value> {
    let log = record.webhook.iter().flat_map(|hook| &hook.log);
    log.map(|told| json!({ "at": shown(course, told.at), "end": told.message, "error": told.error, "taken": told.error.is_none() }))
        .collect()
}
