//! What the parts and the program do together. One binary, so that it is linked once; a module is chosen by its name, as in
//! `cargo test --release --test integration worker::`.

mod cli;
mod docs;
mod fuzz;
mod gateway;
mod gateway_process;
mod handler_tests;
mod images_in;
mod model_files;
mod models_pull;
mod noise;
mod packaging;
mod redis_server;
mod run;
mod samplers;
mod tokenizer;
mod torch;
mod torch_golden;
mod waits;
mod worker;
