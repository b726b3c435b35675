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
