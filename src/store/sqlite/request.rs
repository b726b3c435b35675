//! What the threads of the store are asked, and how the one that syncs does it.

use std::io;

use rusqlite::Connection;

use super::StoreError;

/// Something to do with a connection.
pub(super) trait DbRequest: Send {
    /// Does it.
    fn run(&mut self, db: &Connection);

    /// Whether it may be answered before it is on the disk.
    fn is_loose(&self) -> bool;

    /// Why it did not.
    fn fault(&self) -> Option<&StoreError>;

    /// Answers; with `error`, if what was done could not be kept.
    fn answer(self: Box<Self>, error: Option<&StoreError>);
}

/// Brings what was written to the disk.
pub(super) trait Syncs: Fn() -> io::Result<()> + Send + 'static {}

impl<F: Fn() -> io::Result<()> + Send + 'static> Syncs for F {}
