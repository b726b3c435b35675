//! What the binary does: reads the command line and the configuration, starts logging, and does what was asked for.

mod admin;
mod backup;
#[cfg(feature = "torch")]
mod bench;
pub mod checks;
mod cli;
mod delivery;
#[cfg(feature = "torch")]
mod doctor;
mod engine;
mod exit;
mod files;
pub mod fitness;
mod gateway;
mod hashing;
mod key;
mod model;
mod offer;
pub mod run;
mod running;
mod serve;
mod settings;
mod terminal;
mod worker;

use std::panic;
use std::path::PathBuf;

use clap::Parser;

use crate::config::{Config, Environment};
use crate::telemetry::{Traces, logs};
use cli::{BenchArgs, Cli, Command, ConfigCommand, KeyCommand, ModelCommand, RunArgs};
pub use exit::Exit;
use terminal::{complain, say, usage};

/// The whole program.
pub fn main() -> Exit {
    // The panic's message is on stderr by then.
    panic::catch_unwind(obey).unwrap_or(Exit::Bug)
}

fn obey() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            let exit = if answer.use_stderr() { Exit::Usage } else { Exit::Done };
            // There may be no listener, which is no fault of the command line.
            let _ = answer.print();
            return exit;
        }
    };
    let environment = Environment::of_process();
    let flags = cli.flags();
    let command = match command(cli.command, cli.sdk, &environment) {
        Ok(command) => command,
        Err(missing) => return usage(&missing),
    };
    let config = match Config::load(&flags, &environment) {
        Ok(config) => config,
        Err(faults) => return usage(&faults),
    };
    let collector = config.otlp_endpoint.as_deref().filter(|_| matches!(command, Task::Work | Task::Serve));
    let traces = match collector.map(|collector| Traces::start(collector, &config.net.proxies)).transpose() {
        Ok(traces) => traces,
        Err(fault) => return usage(&fault),
    };
    logs::init(config.log, traces.as_ref());
    let serves = matches!(command, Task::Serve);
    let exit = match command {
        Task::Run(args) => run::execute(&args, &config),
        Task::Work => worker::execute(&config),
        Task::Gateway => gateway::execute(&config),
        Task::Serve => serve::execute(&config),
        Task::Openapi => openapi(),
        Task::Backup(file) => backup::execute(&file, &config),
        Task::Key(command) => key::execute(command, &config),
        Task::ShowConfig { json } => settings::show(&config, json),
        Task::Model(command) => model::execute(command, &config),
        #[cfg(feature = "torch")]
        Task::Doctor { json } => doctor::examine(&config, json),
        #[cfg(not(feature = "torch"))]
        Task::Doctor { json } => without_engine(json.then_some(r#"{"checks":[],"fit":false}"#)),
        #[cfg(feature = "torch")]
        Task::Bench(args) => bench::execute(&args, &config),
        #[cfg(not(feature = "torch"))]
        Task::Bench(args) => without_engine(args.json.then_some("null")),
    };
    if let Some(traces) = traces {
        traces.finish();
    }
    if serves && exit == Exit::Restart { serve::again() } else { exit }
}

/// There is nothing to examine or to measure, which a program learns on stdout too.
#[cfg(not(feature = "torch"))]
fn without_engine(as_json: Option<&str>) -> Exit {
    // A closed stdout leaves the exit code to tell it.
    let _ = as_json.map(|nothing| say(&nothing));
    usage(&engine::MISSING)
}

/// Prints the document as the repository has it.
fn openapi() -> Exit {
    match serde_json::to_string_pretty(&crate::gateway::openapi(&[])).map(|text| say(&text)) {
        Ok(Ok(())) => Exit::Done,
        _ => Exit::Failed,
    }
}

/// What this release can do.
enum Task {
    Run(RunArgs),
    Work,
    Gateway,
    Serve,
    Openapi,
    Backup(PathBuf),
    Key(KeyCommand),
    ShowConfig { json: bool },
    Model(ModelCommand),
    Doctor { json: bool },
    Bench(BenchArgs),
}

/// What is not there, and what to do instead.
#[derive(Debug, thiserror::Error)]
enum Missing {
    #[error("{0} is not supported: {1}")]
    OnPurpose(&'static str, &'static str),
}

/// The command that was given, else what the RunPod SDK would do.
fn command(command: Option<Command>, sdk: cli::SdkFlags, environment: &Environment) -> Result<Task, Missing> {
    if sdk.debugger {
        return Err(Missing::OnPurpose("--rp_debugger", "every result has its timings"));
    }
    match command {
        Some(Command::Run(args)) => Ok(Task::Run(args)),
        Some(Command::Config(ConfigCommand::Show { json })) => Ok(Task::ShowConfig { json }),
        Some(Command::Doctor { json }) => Ok(Task::Doctor { json }),
        Some(Command::Bench(args)) => Ok(Task::Bench(args)),
        Some(Command::Model(command)) => Ok(Task::Model(command)),
        Some(Command::Worker) => Ok(Task::Work),
        Some(Command::Gateway) => Ok(Task::Gateway),
        Some(Command::Serve) => Ok(Task::Serve),
        Some(Command::Openapi) => Ok(Task::Openapi),
        Some(Command::Backup { file }) => Ok(Task::Backup(file)),
        Some(Command::Key(command)) => Ok(Task::Key(command)),
        None if sdk.serve_api => Ok(Task::Serve),
        None if environment.get("RUNPOD_REALTIME_PORT").is_some_and(is_port) => {
            Err(Missing::OnPurpose("RUNPOD_REALTIME_PORT", "the queue protocol is the way in"))
        }
        None if sdk.test_input.is_none() && environment.get("RUNPOD_WEBHOOK_GET_JOB").is_some() => Ok(Task::Work),
        None => Ok(Task::Run(RunArgs { test_input: sdk.test_input, ..RunArgs::default() })),
    }
}

/// The SDK takes the variable for unset when it is zero.
fn is_port(text: &str) -> bool {
    text.trim().parse::<u32>().is_ok_and(|port| port != 0)
}
