//! The torch engine on real, tiny models.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod decoding;
mod drawing;
mod embeddings;
mod engine;
mod fast;
mod graphs;
mod inpainting;
mod loras;
mod prompts;
mod refiner;
mod scheduler_files;
mod sdxl;
mod starts;
mod upcast;
mod warm_up;
mod xl_loras;
mod xl_single_file;
mod xl_twins;
mod xl_twins_autoencoder;
