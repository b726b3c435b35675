//! latentd serves Stable Diffusion from one binary. docs/architecture/00-overview.md is the map of these modules.

pub mod app;
pub mod batch;
pub mod blocking;
pub mod clock;
pub mod config;
pub mod date;
pub mod deliver;
pub mod disk;
pub mod encode;
pub mod engine;
pub mod gateway;
pub mod hex;
pub mod intake;
pub mod job;
pub mod models;
pub mod net;
pub mod noise;
pub mod queue;
pub mod sampler;
pub mod source;
pub mod stop;
pub mod store;
pub mod suggest;
pub mod telemetry;
pub mod worker;
