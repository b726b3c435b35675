//! The torch engine on real, tiny models.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod developing;
mod drawing;
mod graphs;
mod lanes;
mod loras;
mod starts;
mod upcast;
mod warm_up;
