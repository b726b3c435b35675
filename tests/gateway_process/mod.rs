//! The real gateway on a free port of the loopback.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts `latentd COMMAND` in `folder` with these variables and no others; returns it with its address, once it listens.
pub fn start(command: &str, folder: &Path, store: &str, variables: &[(&str, &str)]) -> (Child, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_latentd"))
        .arg(command)
        .current_dir(folder)
        .env_clear()
        .envs([("LATENTD_LISTEN", "127.0.0.1:0"), ("LATENTD_STORE", store)])
        .envs([("LATENTD_HANDLER", "external"), ("LATENTD_LIMITS", "false")])
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = address(&mut process);
    (process, address)
}

/// Where it listens, once it does.
pub fn address(process: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}")).to_owned()
}
