//! The status object, as clients and webhooks get it.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::record::{JobState, Record};

/// For whom a status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusView {
    /// Clients of `/v1`: always with the input, and with the GPU's memory in GB; this is the endpoint's, for workers that do not say.
    V1 {
        /// 0 if it is not said.
        gpu: u32,
    },
    /// Clients of `/v2`: with the input until the end.
    V2,
    /// A webhook: with the input, and with the webhook's URL.
    Webhook,
}

/// A job's payloads, as JSON; each if there is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Payloads<'a> {
    /// What it was given.
    pub input: Option<&'a RawValue>,
    /// What came of it, or the last word of its progress.
    pub output: Option<&'a RawValue>,
    /// Where its time went, as our own worker tells it.
    pub timings: Option<&'a RawValue>,
    /// What its client should know, as our own worker tells it.
    pub warnings: Option<&'a RawValue>,
}

/// Replies have their keys in the order of ASCII, and so have the fields here. Whole milliseconds, as the Go SDK demands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<Cow<'a, str>>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    status: JobState,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'a str>,
}

impl StatusView {
    /// Whether it shows the input of a job that stands so: who need not have it need not read it.
    pub fn shows_input(self, state: JobState) -> bool {
        self != Self::V2 || !state.is_end()
    }
}

/// The status object, as JSON.
pub fn status(record: &Record, view: StatusView, payloads: Payloads<'_>) -> String {
    let millis = |time: std::time::Duration| time.as_millis() as u64;
    let attempt = record.attempt.as_ref();
    let object = StatusObject {
        delay_time: record.delay().map(millis),
        error: record.error.as_deref(),
        execution_time: record.execution().map(millis),
        gpu: match view {
            StatusView::V1 { gpu } => {
                let told = attempt.and_then(|attempt| attempt.gpu.as_deref());
                Some(told.map_or_else(|| gpu.to_string().into(), Cow::Borrowed))
            }
            _ => None,
        },
        id: &record.id,
        input: payloads.input.filter(|_| view.shows_input(record.state)),
        output: payloads.output.filter(|_| record.output),
        retries: (record.retries > 0).then_some(record.retries),
        status: record.state,
        timings: payloads.timings,
        warnings: payloads.warnings,
        webhook: record.webhook.as_ref().filter(|_| view == StatusView::Webhook).map(|hook| &*hook.url),
        worker_id: attempt.map(|attempt| &*attempt.worker),
    };
    // Strings, whole numbers and JSON that was checked: none of them can fail.
    serde_json::to_string(&object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Claim, Finish, JobWebhook, Rules, Transition};
    use super::*;
    use crate::date::UnixTime;

    const START: UnixTime = UnixTime::from_millis(1_000);

    fn at(millis: u64) -> UnixTime {
        START + Duration::from_millis(millis)
    }

    fn shown(record: &Record, view: StatusView) -> String {
        let [input, output, timings] = [r#"{"prompt":"p"}"#, "[1.0]", r#"{"total":3}"#]
            .map(|text| serde_json::from_str::<&RawValue>(text).unwrap());
        let timings = record.state.is_end().then_some(timings);
        status(record, view, Payloads { input: Some(input), output: Some(output), timings, warnings: None })
    }

    #[test]
    fn it_grows_with_the_job_as_the_protocol_shows_it() {
        let mut job = Record::new("j", START);
        let input = r#""input":{"prompt":"p"}"#;
        assert_eq!(shown(&job, StatusView::V2), format!(r#"{{"id":"j",{input},"status":"IN_QUEUE"}}"#));
        assert_eq!(
            shown(&job, StatusView::V1 { gpu: 0 }),
            format!(r#"{{"gpu":"0","id":"j",{input},"status":"IN_QUEUE"}}"#)
        );
        assert_eq!(
            job.start(&Claim { worker: "w1".into(), gpu: Some("24".into()), sends_heartbeats: true, at: at(20) }),
            Transition::Changed
        );
        assert_eq!(
            shown(&job, StatusView::V2),
            format!(r#"{{"delayTime":20,"id":"j",{input},"status":"IN_PROGRESS","workerId":"w1"}}"#)
        );
        assert_eq!(job.progress("w1", at(50)), Transition::Changed);
        let progress = r#""output":[1.0],"status":"IN_PROGRESS","workerId":"w1""#;
        assert_eq!(
            shown(&job, StatusView::V2),
            format!(r#"{{"delayTime":20,"executionTime":30,"id":"j",{input},{progress}}}"#)
        );
        assert_eq!(job.finish(Finish { worker: "w1", error: None, output: true }, at(70)), Transition::Changed);
        let end = r#""output":[1.0],"status":"COMPLETED","timings":{"total":3},"workerId":"w1""#;
        assert_eq!(shown(&job, StatusView::V2), format!(r#"{{"delayTime":20,"executionTime":50,"id":"j",{end}}}"#));
        let old = format!(r#"{{"delayTime":20,"executionTime":50,"gpu":"24","id":"j",{input},{end}}}"#);
        assert_eq!(shown(&job, StatusView::V1 { gpu: 0 }), old);
    }

    #[test]
    fn a_failure_has_its_reason_and_a_webhook_its_url() {
        let mut job = Record::new("j", START);
        job.webhook = Some(JobWebhook::new("https://a.example/?key=1", vec![("secret".into(), "value".into())]));
        for (worker, begins, ends) in [("w1", 10, 20), ("w2", 30, 45)] {
            assert_eq!(
                job.start(&Claim { worker: worker.into(), gpu: None, sends_heartbeats: true, at: at(begins) }),
                Transition::Changed
            );
            assert_eq!(job.part(worker), Transition::Changed);
            assert_eq!(job.abandon(worker, "gone", &Rules::default(), at(ends)), Transition::Changed);
        }
        let front = r#"{"delayTime":30,"error":"job timed out after 1 retries","executionTime":15,"id":"j","#;
        let back = r#""retries":1,"status":"FAILED","timings":{"total":3},"#;
        assert_eq!(shown(&job, StatusView::V2), format!(r#"{front}{back}"workerId":"w2"}}"#));
        let told =
            format!(r#"{front}"input":{{"prompt":"p"}},{back}"webhook":"https://a.example/?key=1","workerId":"w2"}}"#);
        assert_eq!(shown(&job, StatusView::Webhook), told);
    }

    #[test]
    fn what_never_began_has_no_times() {
        let mut job = Record::new("j", START);
        assert_eq!(job.cancel(at(5)), Transition::Changed);
        assert_eq!(status(&job, StatusView::V2, Payloads::default()), r#"{"id":"j","status":"CANCELLED"}"#);
    }
}
