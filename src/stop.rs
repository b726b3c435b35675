//! Being told to stop: first in order, then at once.

use std::io;

use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// What everything that waits also waits for.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Take nothing more, finish what is in hand.
    pub draining: CancellationToken,
    /// Let go of everything.
    pub now: CancellationToken,
}

/// The signals that stop a process, caught from when this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them, which process 1 of a container must, as it is not stopped by default.
    ///
    /// # Errors
    /// The system does not let a signal be caught.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Passes the first signal on as a wish to drain, the second as one to end at once. Never ends.
    pub async fn pass_on(mut self, stop: Stop) {
        self.next().await;
        info!("draining: no more jobs are taken; a second signal ends at once");
        stop.draining.cancel();
        self.next().await;
        info!("ending at once");
        stop.now.cancel();
        std::future::pending::<()>().await;
    }

    async fn next(&mut self) {
        select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
