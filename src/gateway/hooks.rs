//! Webhooks: whom a job names is told of each of its ends (PROTOCOL 2.12).
//!
//! What is to be told lies in the store with the job, so it outlives the process, and one of several gateways tells it. At least once: who
//! dies after a receiver has answered is followed by another, who sends the same `webhook-id`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::deliver::webhook::{Hook, Signer, call};
use crate::job::Webhook;
use crate::net::{self, Client};
use crate::queue::{Record, State, Tried, Turn};
use crate::store::Store;

use super::reply::Fault;
use super::{Gateway, told};

/// Receivers that are called at the same time. Others are put off.
const CALLS: usize = 256;

/// Calls webhooks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its guard decides who may be called.
    pub client: Client,
    /// Signs, if webhooks are signed.
    pub signer: Option<Signer>,
    /// Whether an end that the client brought about itself is told.
    pub cancelled: bool,
}

impl<S: Store> Gateway<S> {
    /// Begins to tell of a job's end, if that is due.
    pub(super) async fn tell(self: &Arc<Self>, calls: &mut JoinSet<()>, endpoint: String, id: String) {
        while calls.try_join_next().is_some() {}
        let (now, tells, full) = (self.now(), self.settings.rules.tells, calls.len() >= CALLS);
        let event = move |record: &mut Record| match &mut record.hook {
            Some(hook) if full && hook.due.is_some_and(|due| due <= now) => {
                hook.put_off(&tells, now);
                Turn::Changed
            }
            Some(hook) if !full => {
                if hook.begin(&tells, now) {
                    Turn::Changed
                } else {
                    Turn::Nothing
                }
            }
            _ => Turn::Nothing,
        };
        let begun = told("webhooks", self.store.change(&endpoint, &id, event, Vec::new(), None).await).flatten();
        if let Some((record, Turn::Changed)) = begun.filter(|_| !full) {
            calls.spawn(self.clone().tell_of(endpoint, record));
        }
    }

    async fn tell_of(self: Arc<Self>, endpoint: String, record: Record) {
        let Some(hook) = &record.hook else { return };
        let (message, tries) = (hook.message, hook.tries);
        let went = self.call(&endpoint, &record).await;
        let (now, tells) = (self.now(), self.settings.rules.tells);
        let event = {
            let went = went.clone();
            move |record: &mut Record| {
                if let Some(hook) = &mut record.hook {
                    hook.told(message, &went, &tells, now);
                }
                Turn::Changed
            }
        };
        told("webhooks", self.store.change(&endpoint, &record.id, event, Vec::new(), None).await);
        let (id, host) = (&record.id, net::host(&hook.url).unwrap_or_default());
        match went {
            Tried::Taken => info!(id, host, attempt = tries, "the webhook was taken"),
            Tried::Failed(why) if tries < tells.tries => {
                warn!(id, host, attempt = tries, "the webhook failed and will be sent again: {why}");
            }
            Tried::Failed(why) | Tried::Refused(why) => {
                error!(id, host, attempt = tries, "the webhook is given up: {why}");
            }
        }
    }

    async fn call(&self, endpoint: &str, record: &Record) -> Tried {
        let (Some(caller), Some(hook)) = (&self.settings.hooks, &record.hook) else {
            return Tried::Refused("this gateway calls no webhooks".into());
        };
        if record.state == State::Cancelled && !caller.cancelled {
            return Tried::Taken;
        }
        let body = match self.webhook_body(endpoint, record).await {
            Ok(body) => Bytes::from(body),
            Err(Fault::Store(error)) => return Tried::Failed(error.to_string()),
            Err(fault) => return Tried::Refused(fault.to_string()),
        };
        let to = Webhook { url: hook.url.clone(), headers: hook.headers.clone(), left_out: 0 };
        let event = format!("{}:{}", hook.message, record.state);
        let named = Hook::new(&record.id, &event, &to);
        let (signer, time) = (caller.signer.as_ref(), self.settings.rules.tells.time);
        call(&caller.client, &named, signer, self.now(), body, time).await
    }
}
