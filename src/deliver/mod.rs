//! What lasts of a delivery: results and webhooks are on disk before they are sent, and images go to object storage.
//!
//! A worker opens one [`spool::Spool`] at start and takes no job while [`spool::Spool::has_room`] is false.
//!
//! * A result's body goes into a tray of it ([`spool::Tray::keep`]), is sent, and is removed by [`spool::Kept::done`]. What an earlier
//!   process left comes back from [`spool::Spool::tray`], to be sent first.
//! * A webhook's body goes into the [`outbox::Outbox`], with a [`webhook::Hook`] that says where to. A task of the worker's runs
//!   [`outbox::Deliveries`] and sees to the rest.
//! * [`upload::Uploads`] puts images into a [`upload::Place`], the operator's or the job's own, and returns links.

pub mod outbox;
pub mod spool;
pub mod upload;
pub mod webhook;
