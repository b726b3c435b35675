//! Compares latentd with what the reference computed: `cargo run --release --example parity -- DIR`, where DIR holds
//! what the scripts of `scripts/parity/` recorded. Prints a table; fails if any figure exceeds its bound.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

#[cfg(feature = "torch")]
mod calls;
#[cfg(feature = "torch")]
mod loras;
#[cfg(feature = "torch")]
mod pictures;
mod report;
mod samplers;
mod trajectory;

use std::{path::PathBuf, process::ExitCode};

use report::Report;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: parity DIR");
        return ExitCode::from(64);
    };
    let mut report = Report::new();
    if let Err(error) = samplers::check(&dir, &mut report) {
        report.broken("samplers", &error);
    }
    #[cfg(feature = "torch")]
    {
        // Miniatures are too small for a second thread to help.
        tch::set_num_threads(1);
        if let Err(error) = calls::check(&dir, &mut report) {
            report.broken("calls", &error);
        }
        if let Err(error) = pictures::check(&dir, &mut report) {
            report.broken("pictures", &error);
        }
        if let Err(error) = loras::check(&dir, &mut report) {
            report.broken("loras", &error);
        }
    }
    report.finish()
}
