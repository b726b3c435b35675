//! Webhooks: whom a job names is told of each of its ends.
//!
//! What is to be told lies in the store with the job, so it outlives the process, and one of several gateways tells it. At least once: who
//! dies after a receiver has answered is followed by another, who sends the same `webhook-id`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::deliver::webhook::{CallResult, WebhookRequest, call};
use crate::job::Webhook;
use crate::net;
use crate::queue::{self, JobState, Record, Transition, WebhookOutcome};
use crate::store::{Store, StoreError};

use super::peer::ClientId;
use super::receivers::{CallPermit, MustWait, Receiver};
use super::reply::ApiError;
use super::{Gateway, log_failure, peer};

/// From a job's end, while a receiver that is paused may still come back. What is due later is tried no more than it would be otherwise.
const MAX_PAUSED: Duration = Duration::from_hours(1);

fn receiver(hook: &queue::JobWebhook) -> Receiver {
    Receiver { by: hook.client.clone(), host: net::host(&hook.url).unwrap_or_default().to_ascii_lowercase() }
}

impl<S: Store> Gateway<S> {
    /// Begins to tell of a job's end, if that is due. Returns what [`Gateway::send_webhook`] is to send then.
    pub(super) async fn begin_webhook(
        &self,
        endpoint: &str,
        id: &str,
    ) -> Result<Option<(Record, CallPermit)>, StoreError> {
        let (now, retry, receivers) = (self.now(), self.settings.rules.webhooks, self.receivers.clone());
        let taken: Arc<Mutex<Option<CallPermit>>> = Arc::default();
        let place = taken.clone();
        let event = move |record: &mut Record| {
            let ended = record.ended.unwrap_or(now);
            let Some(hook) = record.webhook.as_mut().filter(|hook| hook.due.is_some_and(|due| due <= now)) else {
                return Transition::Unchanged;
            };
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            // Of a change that is repeated, because another came first.
            *place = None;
            match receivers.enter(receiver(hook), now) {
                Ok(entered) => {
                    *place = Some(entered);
                    hook.begin_attempt(&retry, now);
                }
                Err(MustWait::Crowded(until)) => hook.postpone(until),
                Err(MustWait::Paused(until)) if ended.until(now) < MAX_PAUSED => hook.postpone(until),
                Err(MustWait::Paused(_)) => {
                    hook.begin_attempt(&retry, now);
                    let paused = WebhookOutcome::Failed("its receiver is paused: it did not answer others".into());
                    hook.record_attempt(hook.message, &paused, &retry, now);
                }
            }
            Transition::Changed
        };
        let begun = self.store.change(endpoint, id, event, Vec::new(), None).await?;
        let place = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let changed = begun.filter(|(_, transition)| *transition == Transition::Changed);
        Ok(changed.and_then(|(record, _)| Some((record, place?))))
    }

    /// Tells of a job's end.
    pub(super) async fn send_webhook(self: Arc<Self>, endpoint: String, record: Record, place: CallPermit) {
        let Some(hook) = &record.webhook else { return };
        let (message, tries) = (hook.message, hook.tries);
        let CallResult { tried: went, lives } = self.call_webhook(&endpoint, &record).await;
        let (now, retry) = (self.now(), self.settings.rules.webhooks);
        if let Some(pause) = place.went(lives, now) {
            let (host, pause_ms) = (net::host(&hook.url).unwrap_or_default(), pause.as_millis() as u64);
            warn!(host, pause_ms, "the receiver of webhooks keeps failing: its others wait");
        }
        let event = {
            let went = went.clone();
            move |record: &mut Record| {
                if let Some(hook) = &mut record.webhook {
                    hook.record_attempt(message, &went, &retry, now);
                }
                Transition::Changed
            }
        };
        log_failure("webhooks", self.store.change(&endpoint, &record.id, event, Vec::new(), None).await);
        let (id, host) = (&record.id, net::host(&hook.url).unwrap_or_default());
        match went {
            WebhookOutcome::Accepted => info!(id, host, attempt = tries, "the webhook was taken"),
            WebhookOutcome::Failed(why) if tries < retry.tries => {
                warn!(id, host, attempt = tries, "the webhook failed and will be sent again: {why}");
            }
            WebhookOutcome::Failed(why) | WebhookOutcome::Refused(why) => {
                error!(id, host, attempt = tries, "the webhook is given up: {why}");
            }
        }
    }

    async fn call_webhook(&self, endpoint: &str, record: &Record) -> CallResult {
        let (Some(caller), Some(hook)) = (&self.settings.webhooks, &record.webhook) else {
            return WebhookOutcome::Refused("this gateway calls no webhooks".into()).into();
        };
        if record.state == JobState::Cancelled && !caller.cancelled {
            return WebhookOutcome::Accepted.into();
        }
        let Receiver { by, host } = receiver(hook);
        let whose = ClientId::named(&format!("{} {host}", by.unwrap_or_default()));
        let body = match peer::on_behalf_of(whose, self.webhook_body(endpoint, record)).await {
            Ok(body) => body,
            Err(ApiError::Store(error)) => return WebhookOutcome::Failed(error.to_string()).into(),
            Err(fault @ ApiError::Busy) => return WebhookOutcome::Failed(fault.to_string()).into(),
            Err(fault) => return WebhookOutcome::Refused(fault.to_string()).into(),
        };
        let to = Webhook { url: hook.url.clone(), headers: hook.headers.clone(), left_out: 0 };
        let event = format!("{}:{}", hook.message, record.state);
        let named = WebhookRequest::new(&record.id, &event, &to);
        let (signer, time) = (caller.signer.as_ref(), self.settings.rules.webhooks.timeout);
        call(&caller.client, &named, signer, self.course.wall(), body, time).await
    }
}
