//! What lasts of a delivery: results and webhooks are on disk before they are sent, and images go to object storage.
//!
//! A worker opens one [`spool::Spool`] at start. Result bodies go into a tray of it ([`spool::Tray::keep`]), are sent, and are
//! removed with [`spool::Kept::done`]; what an earlier process left comes back from [`spool::Spool::tray`]. It takes
//! no job while [`spool::Spool::has_room`] is false.

pub mod spool;
