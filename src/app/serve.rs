//! `latentd serve`: a whole endpoint on one machine, a gateway and a worker in one process.
//!
//! The worker takes its jobs over loopback as any other would, so that there is one way for all; other workers may take from the same
//! queue.

use std::env;
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::process::Command;
use std::time::Duration;

use tokio::select;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::gateway::GatewayServer;
use super::running::{running, until_stopped, watched};
use super::{Exit, complain, worker};
use crate::config::{Config, ConfigError, QueueConfig, Secret, ServedModel};
use crate::stop::Stop;
use crate::telemetry::Telemetry;

/// For clients to be answered that still wait when the worker has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Serves until it is told to stop, or its worker cannot go on.
pub(super) fn execute(config: &Config) -> Exit {
    let (models, loras) = (config.models(), config.loras());
    [models.as_ref().err(), loras.as_ref().err()].into_iter().flatten().for_each(complain);
    let models = models.and_then(|models| loras.map(|_| models));
    running(until_stopped(async |stop| {
        watched(config, async |telemetry| both(config, models, telemetry, stop).await).await
    }))
}

async fn both(
    config: &Config,
    models: Result<Vec<ServedModel>, ConfigError>,
    telemetry: Telemetry,
    stop: Stop,
) -> Exit {
    let key = Secret::new(&Uuid::new_v4().to_string());
    let server = match GatewayServer::open(config, Some(&key)).await {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    let base = format!("http://{}/v2/{}", server.address(), config.gateway.endpoints[0].id);
    let closing = CancellationToken::new();
    let mut serving = pin!(server.serve(closing.clone()));
    let exit = select! {
        exit = worker::start(config, QueueConfig::of(&base, Some(key)), models, telemetry, stop) => exit,
        exit = &mut serving => return exit,
    };
    // Only now: the worker's last results go through it.
    closing.cancel();
    if timeout(LAST_ANSWERS, serving).await.is_err() {
        warn!("not everybody could be answered");
    }
    exit
}

/// Begins again in a new process that takes the place of this one, as nothing else does it for a server that somebody started by hand.
pub(super) fn again() -> Exit {
    let cause = match env::current_exe() {
        Ok(program) => Command::new(program).args(env::args_os().skip(1)).exec(),
        Err(cause) => cause,
    };
    error!("latentd serve cannot be restarted: {cause}");
    Exit::Restart
}
