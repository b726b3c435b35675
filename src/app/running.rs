//! What commands that run until they are stopped have in common.

use tokio::runtime;
use tokio::select;
use tracing::error;

use super::{Exit, admin, complain, files};
use crate::config::Config;
use crate::stop::{Signals, Stop};
use crate::telemetry::Telemetry;

/// Runs on all processors.
pub(super) fn running(work: impl Future<Output = Exit>) -> Exit {
    files::raise();
    match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(work);
            // What still looks up a name is not waited for.
            runtime.shutdown_background();
            exit
        }
        Err(cause) => {
            complain(&format!("no runtime: {cause}"));
            Exit::Bug
        }
    }
}

/// Works, and passes on signals to what works: from the first moment, as process 1 of a container hears no signal that it does not
/// catch.
pub(super) async fn until_stopped(work: impl AsyncFnOnce(Stop) -> Exit) -> Exit {
    let stop = Stop::default();
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(cause) => {
            error!("signals cannot be caught: {cause}");
            return Exit::Failed;
        }
    };
    select! {
        exit = work(stop.clone()) => exit,
        () = signals.pass_on(stop.clone()) => Exit::Done,
    }
}

/// Works where an operator can see how it goes: on the admin port, from before the first thing that takes time.
pub(super) async fn watched(config: &Config, work: impl AsyncFnOnce(Telemetry) -> Exit) -> Exit {
    let telemetry = Telemetry::default();
    let admin = match admin::listen(config.admin).await {
        Ok(admin) => admin,
        Err(cause) => {
            error!("{cause}");
            return Exit::Failed;
        }
    };
    select! {
        exit = work(telemetry.clone()) => exit,
        never = admin::serve(admin, telemetry) => match never {},
    }
}
