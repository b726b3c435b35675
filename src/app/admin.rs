//! The admin port of a worker: up before anything that takes time, down with the process.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use tracing::{info, warn};

use crate::config;
use crate::telemetry::Telemetry;
use crate::telemetry::admin::AdminPort;

/// An admin port that somebody asked for cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("admin.listen = {address}: it cannot be listened on ({cause}); use another address or port, or off")]
pub(super) struct NoPort {
    address: SocketAddr,
    cause: io::Error,
}

/// Listens where the configuration says. The default port may be taken by another worker of this machine, which is no reason
/// not to work.
///
/// # Errors
/// Somebody asked for a port that cannot be had.
pub(super) async fn listen(admin: config::AdminConfig) -> Result<Option<AdminPort>, NoPort> {
    let Some(address) = admin.listen else { return Ok(None) };
    match AdminPort::listen(address).await {
        Ok(port) => {
            info!("admin port on http://{}", port.address());
            Ok(Some(port))
        }
        Err(cause) if admin.asked_for => Err(NoPort { address, cause }),
        Err(cause) => {
            warn!("no admin port: {}", NoPort { address, cause });
            Ok(None)
        }
    }
}

/// Answers for as long as the process lives, if there is a port to answer on.
pub(super) async fn serve(admin: Option<AdminPort>, telemetry: Telemetry) -> Infallible {
    match admin {
        Some(admin) => admin.serve(telemetry).await,
        None => std::future::pending().await,
    }
}
