//! The URLs of a worker, from the templates that it was given.

use crate::net::{InvalidUrl, Template, Url};

/// How a template names the worker's place.
const WORKER_PLACEHOLDER: &str = "$RUNPOD_POD_ID";

/// How the take template names the worker's place; others name the job's so.
const ID_PLACEHOLDER: &str = "$ID";

/// What marks a take URL that others can be made of.
const TAKE_PATH: &str = "/job-take/";

/// What every heartbeat ends with.
const VERSION: (&str, &str) = ("runpod_version", concat!("latentd/", env!("CARGO_PKG_VERSION")));

/// Takes, stops and heartbeats.
#[derive(Debug, Clone)]
pub struct Urls {
    take: Template,
    ping: Option<Template>,
}

impl Urls {
    /// URLs of the worker with this id.
    ///
    /// # Errors
    /// A template that makes no URL, with the name of its setting.
    pub fn new(take: &str, ping: Option<&str>, worker: &str) -> Result<Self, (&'static str, InvalidUrl)> {
        let take = Template::new(take).fill(ID_PLACEHOLDER, worker).fill(WORKER_PLACEHOLDER, worker);
        take.url().map_err(|cause| ("runpod.get_job", cause))?;
        let ping = ping.map(|ping| Template::new(ping).fill(WORKER_PLACEHOLDER, worker));
        if let Some(Err(cause)) = ping.as_ref().map(Template::url) {
            return Err(("runpod.ping", cause));
        }
        Ok(Self { take, ping })
    }

    /// For `most` jobs at once; `batch` says whether the queue knows how.
    pub(super) fn take(&self, most: usize, batch: bool, busy: bool) -> Result<Url, InvalidUrl> {
        let take = match (most, batch) {
            (0 | 1, _) | (_, false) => self.take.clone(),
            (most, true) => self.take.exchange(TAKE_PATH, "/job-take-batch/").with("batch_size", &most.to_string()),
        };
        take.with("job_in_progress", if busy { "1" } else { "0" }).url()
    }

    /// `None` where the take URL tells nothing about it.
    pub(super) fn stop(&self) -> Option<Url> {
        self.take.has(TAKE_PATH).then(|| self.take.exchange(TAKE_PATH, "/job-stop/").url().ok())?
    }

    /// Whether a heartbeat is wanted.
    pub(super) fn has_ping(&self) -> bool {
        self.ping.is_some()
    }

    /// With the jobs in hand; `None` where no heartbeat is wanted.
    pub(super) fn ping(&self, jobs: &[String]) -> Result<Option<Url>, InvalidUrl> {
        let Some(mut ping) = self.ping.clone() else { return Ok(None) };
        if !jobs.is_empty() {
            ping = ping.with("job_id", &listed(jobs));
        }
        ping.with(VERSION.0, VERSION.1).url().map(Some)
    }

    /// With what makes the worker unfit; `None` where no heartbeat is wanted.
    pub(super) fn unhealthy(&self, check: &str, reason: &str) -> Result<Option<Url>, InvalidUrl> {
        let Some(ping) = self.ping.clone() else { return Ok(None) };
        let ping = ping.with("status", "unhealthy").with("check", check).with("reason", reason);
        ping.with(VERSION.0, VERSION.1).url().map(Some)
    }
}

/// Ids joined by commas, as many as fit into what the SDK sends.
fn listed(jobs: &[String]) -> String {
    const MAX_LIST: usize = 65_534;
    let mut list = String::new();
    for job in jobs {
        if list.len() + 1 + job.len() > MAX_LIST {
            continue;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(job);
    }
    list
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PING: &str = "http://q/v2/ep1/ping/$RUNPOD_POD_ID?gpu=RTX+4090";

    fn urls(take: &str) -> Urls {
        Urls::new(take, Some(PING), "pod-abc").unwrap()
    }

    #[test]
    fn urls_are_those_of_the_sdk() {
        let urls = urls("http://q/v2/ep1/job-take/$ID?gpu=RTX+4090");
        let take = |most, batch, busy| urls.take(most, batch, busy).unwrap().to_string();
        assert_eq!(take(1, true, false), "http://q/v2/ep1/job-take/pod-abc?gpu=RTX+4090&job_in_progress=0");
        assert_eq!(
            take(3, true, true),
            "http://q/v2/ep1/job-take-batch/pod-abc?gpu=RTX+4090&batch_size=3&job_in_progress=1"
        );
        assert_eq!(take(3, false, true), "http://q/v2/ep1/job-take/pod-abc?gpu=RTX+4090&job_in_progress=1");
        assert_eq!(urls.stop().unwrap().as_str(), "http://q/v2/ep1/job-stop/pod-abc?gpu=RTX+4090");
    }

    #[test]
    fn a_template_without_a_query_gets_one() {
        let urls = urls("http://q/v2/ep1/job-take/$ID");
        assert_eq!(urls.take(1, true, false).unwrap().as_str(), "http://q/v2/ep1/job-take/pod-abc?job_in_progress=0");
    }

    #[test]
    fn a_take_url_of_another_shape_has_no_stop_channel() {
        let urls = urls("http://q/next?worker=$ID");
        assert_eq!(urls.stop(), None);
        assert_eq!(
            urls.take(2, true, false).unwrap().as_str(),
            "http://q/next?worker=pod-abc&batch_size=2&job_in_progress=0"
        );
    }

    #[test]
    fn a_ping_lists_what_is_held() {
        let urls = urls("http://q/job-take/$ID");
        let version = concat!("runpod_version=latentd%2F", env!("CARGO_PKG_VERSION"));
        let base = "http://q/v2/ep1/ping/pod-abc?gpu=RTX+4090";
        let ping = |jobs: &[&str]| {
            let jobs: Vec<String> = jobs.iter().map(|job| (*job).to_owned()).collect();
            urls.ping(&jobs).unwrap().unwrap().to_string()
        };
        assert_eq!(ping(&[]), format!("{base}&{version}"));
        assert_eq!(ping(&["c1", "c3"]), format!("{base}&job_id=c1%2Cc3&{version}"));
        let many: Vec<String> = (0..10_000).map(|n| format!("job-{n:05}")).collect();
        let list = listed(&many);
        assert!(list.len() < 65_535 && list.ends_with(|c: char| c.is_ascii_digit()), "{}", list.len());
        assert!(list.len() > 65_500);
        let one_too_long = ["a".to_owned(), "x".repeat(65_535), "b".to_owned()];
        assert_eq!(listed(&one_too_long), "a,b");
    }

    #[test]
    fn what_is_no_url_is_told_with_its_setting() {
        assert_eq!(Urls::new("nowhere", None, "w").unwrap_err().0, "runpod.get_job");
        assert_eq!(Urls::new("http://q/$ID", Some("PING_NOT_SET"), "w").unwrap_err().0, "runpod.ping");
    }
}
