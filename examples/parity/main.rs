//! Compares latentd with what the reference computed: `cargo run --release --example parity -- DIR PART...`, where DIR holds
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

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((dir, parts)) = arguments.split_first().filter(|(_, parts)| !parts.is_empty()) else {
        eprintln!("usage: parity DIR samplers|calls|loras|PICTURES...");
        return ExitCode::from(64);
    };
    // Miniatures are too small for a second thread to help.
    #[cfg(feature = "torch")]
    tch::set_num_threads(1);
    let mut report = Report::new();
    for part in parts {
        if let Err(error) = check(Path::new(dir), part, &mut report) {
            report.broken(part, &error);
        }
    }
    report.finish()
}

fn check(dir: &Path, part: &str, report: &mut Report) -> Result<()> {
    match part {
        "samplers" => samplers::check(dir, report),
        #[cfg(feature = "torch")]
        "calls" => calls::check(dir, report),
        #[cfg(feature = "torch")]
        "loras" => loras::check(dir, report),
        #[cfg(feature = "torch")]
        list => pictures::check(dir, list, report),
        #[cfg(not(feature = "torch"))]
        _ => anyhow::bail!("this build has no torch"),
    }
}
