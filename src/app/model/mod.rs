//! `latentd model`: models as files.

mod list;
mod pull;
mod verify;

use super::cli::ModelCommand;
use super::{Exit, complain, say, usage};
use crate::config::Config;

/// Does what `command` asks for.
pub(super) fn execute(command: ModelCommand, config: &Config) -> Exit {
    match command {
        ModelCommand::Pull(args) => pull::execute(args, config),
        ModelCommand::Verify { name } => verify::execute(&name, config),
        ModelCommand::List { json } => list::execute(config, json),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1000.0 { format!("{:.2} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}
