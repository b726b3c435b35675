//! What a worker delivers with, as the configuration has it.

use std::sync::Arc;

use tracing::error;

use crate::blocking::blocking;
use crate::clock::{SystemClock, WallClock};
use crate::config::{Config, QueueConfig, WebhookDelivery};
use crate::deliver::outbox::{Outbox, RetryPolicy, WebhookClient};
use crate::deliver::results::Results;
use crate::deliver::runpod::RunPodSink;
use crate::deliver::spool::Spool;
use crate::deliver::upload::{UploadTarget, Uploads};
use crate::deliver::webhook::Signer;
use crate::deliver::{DeliveryParts, WorkerWebhooks};
use crate::net::{self, Client, Guard, NoClient};
use crate::telemetry::Metrics;

/// Opens everything that the worker called `id` delivers with. Results go to `sink`; `metrics` counts what is sent again. A disk may be
/// slow, or far away, and holds up no other.
pub(super) async fn open(
    config: &Config,
    queue: &QueueConfig,
    id: &str,
    sink: RunPodSink,
    metrics: &Metrics,
) -> Result<DeliveryParts<RunPodSink>, NoClient> {
    let (config, queue, id, metrics) = (config.clone(), queue.clone(), id.to_owned(), metrics.clone());
    blocking(move || open_here(&config, &queue, &id, sink, &metrics)).await
}

/// Blocks.
fn open_here(
    config: &Config,
    queue: &QueueConfig,
    id: &str,
    sink: RunPodSink,
    metrics: &Metrics,
) -> Result<DeliveryParts<RunPodSink>, NoClient> {
    let clock: Arc<dyn WallClock> = Arc::new(SystemClock);
    let guarded = Client::new(Guard::new(config.net.allow_private.clone()))?;
    let usual = config.bucket.as_ref().map(UploadTarget::new);
    let uploads = Uploads::new(guarded.clone(), Client::open(&config.net.proxies)?, usual, Arc::clone(&clock));
    let uploads = uploads.with_metrics(metrics.clone());
    // What was meant for one queue is not posted to another.
    let spool = Spool::of_queue(&config.spool.dir, sink.spool_key(), config.spool.max_bytes).unwrap_or_else(|cause| {
        error!(
            "{cause}; results and webhooks are sent all the same, and what is not sent when this process ends is lost"
        );
        Spool::in_memory(config.spool.max_bytes)
    });
    let (results, left) = Results::open(&spool, sink, Arc::clone(&clock));
    let hooks = &config.webhook;
    let (webhooks, deliveries) = by_worker(config, queue)
        .then(|| {
            let retry = RetryPolicy { most: hooks.attempts, pause: hooks.pause, time: hooks.timeout };
            let signer = hooks.secret.clone().map(Signer::new);
            let (outbox, deliveries) =
                Outbox::open(&spool, WebhookClient { client: guarded, signer, retry, clock, metrics: metrics.clone() });
            let always = hooks.deliver == WebhookDelivery::Worker;
            (WorkerWebhooks { outbox, always, cancelled: hooks.cancelled, worker: id.to_owned() }, deliveries)
        })
        .unzip();
    Ok(DeliveryParts { spool, results, left, uploads, webhooks, deliveries })
}

/// Whether webhooks are the worker's, as far as that is known before the queue has answered.
fn by_worker(config: &Config, queue: &QueueConfig) -> bool {
    match config.webhook.deliver {
        WebhookDelivery::Worker => true,
        WebhookDelivery::Gateway | WebhookDelivery::Off => false,
        WebhookDelivery::Auto => {
            let host = net::host(&queue.take).unwrap_or_default();
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            !config.webhook.platform_hosts.iter().any(|known| [host.as_str(), name].contains(&known.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::unreachable)]
    use std::pin::pin;

    use tokio::select;

    use super::*;
    use crate::config::{Environment, Flags};
    use crate::net::TrustedClient;

    fn config(variables: &[(&str, &str)]) -> Config {
        let environment: Environment =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Config::load(&Flags::default(), &environment).unwrap()
    }

    #[tokio::test]
    async fn a_disk_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        let config = config(&[("LATENTD_QUEUE", "http://q/v2/e"), ("LATENTD_SPOOL__DIR", at)]);
        let queue = config.queue().unwrap();
        let sink = RunPodSink::new(TrustedClient::new(None).unwrap(), &queue.done, None, "w").unwrap();
        let metrics = Metrics::default();
        let mut opening = pin!(open(&config, &queue, "w", sink, &metrics));
        select! {
            biased;
            _ = &mut opening => unreachable!("it was opened before others could go on"),
            () = std::future::ready(()) => {}
        }
        assert!(opening.await.unwrap().left.is_empty() && folder.path().read_dir().unwrap().count() == 1);
    }

    #[test]
    fn webhooks_are_the_worker_s_unless_the_queue_is_known_to_call_them() {
        for (queue, deliver, hosts, worker) in [
            ("https://api.runpod.ai/v2/e", "auto", "", false),
            ("https://API.runpod.ai/v2/e", "worker", "", true),
            ("http://api.runpod.ai.example/v2/e", "auto", "", true),
            ("http://q:8000/v2/e", "auto", "", true),
            ("http://q:8000/v2/e", "auto", "a, q", false),
            ("http://q:8000/v2/e", "auto", "q:8000", false),
            ("http://q:8000/v2/e", "auto", "q:80", true),
            ("http://q:8000/v2/e", "gateway", "", false),
            ("http://q:8000/v2/e", "off", "", false),
        ] {
            let variables = [
                ("LATENTD_QUEUE", queue),
                ("LATENTD_WEBHOOK__DELIVER", deliver),
                ("LATENTD_WEBHOOK__PLATFORM_HOSTS", hosts),
            ];
            let config = config(&variables);
            assert_eq!(by_worker(&config, &config.queue().unwrap()), worker, "{queue} {deliver} {hosts}");
        }
    }
}
