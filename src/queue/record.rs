//! What a queue keeps of a job, but for its payloads.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::date::UnixTime;

use super::rules::Rules;

/// Where a job stands, in the words of the protocol. The numbers are for stores, and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// It waits for a worker.
    InQueue = 0,
    /// A worker has it.
    InProgress = 1,
    /// Its worker brought a result.
    Completed = 2,
    /// Its worker brought an error, or was lost too often.
    Failed = 3,
    /// Its client wants it no more.
    Cancelled = 4,
    /// It took longer than it may.
    TimedOut = 5,
}

impl JobState {
    /// As replies say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InQueue => "IN_QUEUE",
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::TimedOut => "TIMED_OUT",
        }
    }

    /// Whether nothing more comes of it by itself.
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::InQueue | Self::InProgress)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A job, but for what it was given and what came of it. The names for `serde` are those that stores have, and stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names it among all jobs of its endpoint.
    pub id: String,
    /// Where it stands.
    pub state: JobState,
    /// When it came.
    pub submitted: UnixTime,
    /// When it is forgotten, whatever it is by then.
    pub expires: UnixTime,
    /// How long one attempt may take.
    #[serde(rename = "patience")]
    pub execution_timeout: Duration,
    /// How long its result is kept.
    #[serde(rename = "kept")]
    pub retention: Duration,
    /// Whether it waits until no other job does.
    #[serde(rename = "low")]
    pub low_priority: bool,
    /// How often a worker was lost with it.
    pub retries: u32,
    /// The latest attempt, if there was one since it was submitted or retried.
    pub attempt: Option<Attempt>,
    /// The attempts before, oldest first, of many the newest.
    #[serde(rename = "past")]
    pub failed_attempts: Vec<FailedAttempt>,
    /// How many attempts there were before those.
    #[serde(rename = "forgotten", default)]
    pub forgotten_attempts: u32,
    /// Its end.
    pub ended: Option<UnixTime>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether there is an output: of its end, or the last word of its progress.
    pub output: bool,
    /// Whom to tell of its end.
    #[serde(rename = "hook")]
    pub webhook: Option<JobWebhook>,
    /// Whether clients no longer find it. What is left of it is kept only until its hook was told, and its submission may be sent again.
    #[serde(rename = "gone")]
    pub hidden: bool,
    /// Its submission, if its client may send it again and means the same job.
    #[serde(rename = "sent", default)]
    pub idempotency: Option<Idempotency>,
}

/// A submission that is known again (`Idempotency-Key`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// Tells its body from others.
    pub digest: String,
    /// Until when.
    pub until: UnixTime,
}

/// A worker takes a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its id.
    pub worker: String,
    /// The memory of its GPU in GB, if it said so.
    pub gpu: Option<String>,
    /// Whether it sends heartbeats, as far as is known.
    #[serde(rename = "beats", default)]
    pub sends_heartbeats: bool,
    /// The date.
    pub at: UnixTime,
}

/// A job in a worker's hands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1; over all that the job ever had.
    pub number: u32,
    /// Who has it.
    pub worker: String,
    /// The memory of the worker's GPU in GB, if it said so.
    pub gpu: Option<String>,
    /// Whether the worker sends heartbeats: one that does not may be silent because it works.
    #[serde(rename = "beats", default)]
    pub sends_heartbeats: bool,
    /// When it was handed out.
    pub began: UnixTime,
    /// Whether the worker has shown that it arrived.
    pub arrived: bool,
    /// The last heartbeat that named it, or since when another is waited for after a time without a listener.
    #[serde(rename = "listed")]
    pub last_heartbeat: Option<UnixTime>,
    /// Heartbeats since it was handed out that did not name it, while it had not arrived.
    #[serde(rename = "missed")]
    pub missed_heartbeats: u32,
    /// The last word on its progress.
    #[serde(rename = "progressed")]
    pub last_progress: Option<UnixTime>,
    /// When its worker first said that it has nothing in hand, though there was a sign of the job shortly before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_idle: Option<UnixTime>,
}

/// How long a heartbeat that names a job may have been on its way when its worker said that it has none.
const HEARTBEAT_DELAY: Duration = Duration::from_secs(2);

impl Attempt {
    /// The last sign that its worker has it, its handing out the first.
    pub fn last_sign(&self) -> UnixTime {
        self.last_heartbeat.into_iter().chain(self.last_progress).fold(self.began, UnixTime::max)
    }

    /// Until when a worker's word that it has nothing is doubted, because of a sign of the job: another worker under its id may have it,
    /// and would name it in a heartbeat by then.
    pub fn idle_doubted_until(&self, rules: &Rules) -> UnixTime {
        self.last_sign() + rules.lost_after / 2
    }

    /// Whether its worker named it long after it said that it has nothing: then those are two workers under one id.
    pub fn contradicts_idle_report(&self) -> bool {
        self.reported_idle.zip(self.last_heartbeat).is_some_and(|(idle, named)| idle + HEARTBEAT_DELAY <= named)
    }

    /// When it is taken for lost, if no sign comes until then.
    pub fn lost_at(&self, rules: &Rules) -> Option<UnixTime> {
        self.sends_heartbeats.then(|| self.last_sign() + rules.lost_after)
    }
}

/// An attempt that came to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// As of [`Attempt`].
    pub number: u32,
    /// Who had it.
    pub worker: String,
    /// When it was handed out.
    pub began: UnixTime,
    /// When it was given up.
    pub ended: UnixTime,
    /// In a few words.
    #[serde(rename = "why")]
    pub reason: String,
}

/// A webhook, and how far its telling is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobWebhook {
    /// Where to POST. It can hold a secret.
    pub url: String,
    /// What to send along; secrets, too.
    pub headers: Vec<(String, String)>,
    /// What its client is known by; `None` if by nothing.
    #[serde(rename = "by", default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// How often the job has ended: tells one message from the next.
    pub message: u32,
    /// When it is due; `None` while nothing is.
    pub due: Option<UnixTime>,
    /// How often this message was tried.
    pub tries: u32,
    /// What came of the latest tries, oldest first.
    #[serde(default)]
    pub log: Vec<WebhookAttempt>,
}

/// A try of a webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookAttempt {
    /// As of [`JobWebhook`].
    pub message: u32,
    /// When it ended.
    pub at: UnixTime,
    /// Why its receiver has not taken it, if so.
    #[serde(rename = "why")]
    pub error: Option<String>,
}

impl Record {
    /// A job that has just come.
    pub fn new(id: impl Into<String>, submitted: UnixTime) -> Self {
        Self {
            id: id.into(),
            state: JobState::InQueue,
            submitted,
            expires: submitted + Duration::from_hours(24),
            execution_timeout: Duration::from_mins(10),
            retention: Duration::from_mins(30),
            low_priority: false,
            retries: 0,
            attempt: None,
            failed_attempts: Vec::new(),
            forgotten_attempts: 0,
            ended: None,
            error: None,
            output: false,
            webhook: None,
            hidden: false,
            idempotency: None,
        }
    }

    /// The worker that has it now.
    pub fn holder(&self) -> Option<&str> {
        self.attempt.as_ref().filter(|_| self.state == JobState::InProgress).map(|attempt| &*attempt.worker)
    }

    /// Bytes that it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let long = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let past =
            self.failed_attempts.iter().map(|past| size_of::<FailedAttempt>() + past.worker.len() + past.reason.len());
        let hook = self.webhook.iter().map(|hook| {
            let headers =
                hook.headers.iter().map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len());
            let log = hook.log.iter().map(|told| size_of::<WebhookAttempt>() + long(&told.error));
            hook.url.len() + long(&hook.client) + headers.sum::<usize>() + log.sum::<usize>()
        });
        let attempt = self.attempt.iter().map(|attempt| attempt.worker.len() + long(&attempt.gpu));
        let sent = self.idempotency.iter().map(|sent| sent.digest.len());
        let rest: usize = past.chain(hook).chain(attempt).chain(sent).sum();
        size_of::<Self>() + self.id.len() + long(&self.error) + rest
    }

    /// From its coming to the start of its latest attempt.
    pub fn delay(&self) -> Option<Duration> {
        self.attempt.as_ref().map(|attempt| self.submitted.until(attempt.began))
    }

    /// How long the latest attempt took; while it goes on, how long it took until its last word.
    pub fn execution(&self) -> Option<Duration> {
        let attempt = self.attempt.as_ref()?;
        let until =
            if self.state.is_end() { self.ended } else { attempt.last_progress.filter(|_| self.holder().is_some()) };
        until.map(|until| attempt.began.until(until))
    }
}
