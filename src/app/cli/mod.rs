//! The command line. Its help is the reference; `config` has the last word on values.

mod bench;
mod field;

use std::path::PathBuf;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::config::Flags;
use crate::models::Digest;
pub(super) use bench::BenchArgs;
use field::field;

/// Serves Stable Diffusion: prompts in, pictures out.
///
/// Without a command it does what the RunPod SDK would: one local job, or the worker where `RUNPOD_WEBHOOK_GET_JOB` is
/// set.
#[derive(Debug, Parser)]
#[command(version)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) settings: SettingFlags,
    #[command(flatten)]
    pub(super) sdk: SdkFlags,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs one job here: a prompt becomes PNG files, or a job file becomes a result on stdout.
    Run(RunArgs),
    /// Tells about the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Examines this machine: libtorch, device, memory, model; says what to do about what it finds.
    Doctor {
        /// As one JSON object: `{checks: […], fit}`.
        #[arg(long)]
        json: bool,
    },
    /// Measures how fast the model draws here: one image, many side by side, jobs of all kinds; start-up and memory.
    Bench(BenchArgs),
    /// Pulls models, checks their files, lists them.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Takes jobs from a queue and delivers their results, until it is told to stop.
    Worker,
    /// Serves the endpoint that clients and workers speak to, on a queue in a file.
    Gateway,
    /// Serves a whole endpoint from this machine: gateway and worker in one process.
    Serve,
    /// Makes, lists and revokes keys that open endpoints, in the store of the gateways.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Writes a copy of the gateway's queue to a new file, while the gateway runs.
    Backup {
        /// Where to; what is there is not overwritten.
        file: PathBuf,
    },
    /// Prints the endpoint's routes as an OpenAPI document.
    Openapi,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Shows every setting, its value and where that came from.
    Show {
        /// As one JSON object: `{key: {value, source}}`.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Makes a key and prints it, this once: the store has only its hash.
    Create {
        /// Whom it is for.
        #[arg(long)]
        role: KeyRole,
        /// The endpoint that it opens; without, all.
        #[arg(long)]
        endpoint: Option<String>,
        /// What to revoke it by.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists the keys: name, role, endpoint and how their hash begins.
    List {
        /// As one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Forgets a key: gateways refuse it within five seconds.
    Revoke {
        /// As it is listed.
        name: String,
    },
}

/// What a key opens.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum KeyRole {
    /// What clients ask.
    User,
    /// What workers ask.
    Worker,
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Fetches a model into --models-dir; what an earlier try left is gone on with.
    Pull(PullArgs),
    /// Compares a model's files with their SHA256SUMS, and their headers with their sizes.
    Verify {
        /// Its name or path.
        name: String,
    },
    /// Lists the models that there are: name, family, size, licence, place, and what is wrong with those that are broken.
    List {
        /// As one JSON array.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// A repository on the hub, the URL of a .safetensors file, or a known model: sd-1.5, sdxl and others.
    #[arg(value_name = "REPO[@REVISION]|URL|NAME")]
    pub(super) what: String,
    /// The branch, tag or commit of the repository, if it is not behind an @.
    #[arg(long)]
    pub(super) revision: Option<String>,
    /// Half-precision weights, half as large.
    #[arg(long, value_parser = ["fp16"])]
    pub(super) variant: Option<String>,
    /// An autoencoder that takes the place of the model's own, such as sdxl-vae-fp16-fix.
    #[arg(long, value_name = "REPO[@REVISION]|NAME")]
    pub(super) vae: Option<String>,
    /// What to call it here, if not as there.
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Files that are fetched at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(super) jobs: u8,
    /// What the file at a URL must hash to.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub(super) sha256: Option<Digest>,
}

#[derive(Debug, Default, Args)]
pub(super) struct RunArgs {
    /// What to draw; each image becomes a PNG file that is named after it.
    #[arg(conflicts_with = "test_input")]
    pub(super) prompt: Option<String>,
    /// The job, `{"input": {…}}`, as a file or as JSON; without it and a prompt it is `test_input.json`.
    #[arg(long, alias = "test_input", value_name = "FILE|JSON")]
    pub(super) test_input: Option<String>,
    /// One more field of the input, such as `seed=7`; the value is JSON if it reads as JSON, else text.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = field, requires = "prompt")]
    pub(super) fields: Vec<(String, Value)>,
    /// Where PNG files go: the current folder for a prompt, nowhere for a job.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

/// Settings that may be given with any command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct SettingFlags {
    /// Configuration file instead of ./latentd.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A model's name under --models-dir, its folder, or its .safetensors file.
    #[arg(long, global = true)]
    model: Option<String>,
    /// The SDXL refiner that goes on after it, named as a model is.
    #[arg(long, global = true, value_name = "MODEL")]
    refiner: Option<String>,
    /// Where models have names.
    #[arg(long, global = true, value_name = "DIR")]
    models_dir: Option<String>,
    /// Where LoRA files lie; a job names one without .safetensors.
    #[arg(long, global = true, value_name = "DIR")]
    lora_dir: Option<String>,
    /// Where textual inversions lie, which prompts name.
    #[arg(long, global = true, value_name = "DIR")]
    embeddings_dir: Option<String>,
    /// The worker's queue, such as <http://host:8000/v2/stable-diffusion-v1>.
    #[arg(long, global = true, value_name = "URL")]
    queue: Option<String>,
    /// Where a gateway listens, such as 127.0.0.1:8000.
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// auto, cpu, cuda, cuda:N or cuda:all.
    #[arg(long, global = true)]
    device: Option<String>,
    /// auto, f32, bf16 or f16.
    #[arg(long, global = true)]
    dtype: Option<String>,
    /// notset, trace, debug, info, warn, error or off.
    #[arg(long, global = true, alias = "rp_log_level", value_name = "LEVEL")]
    log_level: Option<String>,
    /// auto, text or json.
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// The RunPod SDK's own flags, for `latentd` without a command.
#[derive(Debug, Args)]
#[command(next_help_heading = "As the RunPod SDK has them, without a command", args = server_flags())]
pub(super) struct SdkFlags {
    /// One local job, as JSON or as a file.
    #[arg(long = "test_input", value_name = "JSON")]
    pub(super) test_input: Option<String>,
    /// A local server: `latentd serve`.
    #[arg(long = "rp_serve_api")]
    pub(super) serve_api: bool,
    /// Where that listens: a host's address, or localhost.
    #[arg(long = "rp_api_host", value_name = "HOST")]
    pub(super) api_host: Option<String>,
    /// And its port.
    #[arg(long = "rp_api_port", value_name = "PORT")]
    pub(super) api_port: Option<u16>,
    /// The SDK's debugger output: not to be had here.
    #[arg(long = "rp_debugger")]
    pub(super) debugger: bool,
}

/// Belongs to `--rp_serve_api`, and is accepted without effect: one process serves all.
fn server_flags() -> [Arg; 1] {
    ["rp_api_concurrency"].map(|name| Arg::new(name).long(name).hide(true))
}

impl SdkFlags {
    /// Where the local server listens, as the SDK has it: localhost and 8000 unless it is said.
    fn listen(&self) -> Option<String> {
        let asked = self.serve_api && (self.api_host.is_some() || self.api_port.is_some());
        let host = match self.api_host.as_deref() {
            None | Some("localhost") => "127.0.0.1",
            Some(host) => host,
        };
        asked.then(|| format!("{host}:{}", self.api_port.unwrap_or(8000)))
    }
}

impl Cli {
    /// The flags by the names of their settings.
    pub(super) fn flags(&self) -> Flags {
        let mut flags = self.settings.flags();
        flags.settings.extend(self.sdk.listen().map(|listen| ("listen", listen)));
        flags
    }
}

impl SettingFlags {
    fn flags(&self) -> Flags {
        let given = [
            ("model", &self.model),
            ("refiner", &self.refiner),
            ("models_dir", &self.models_dir),
            ("lora_dir", &self.lora_dir),
            ("embeddings_dir", &self.embeddings_dir),
            ("queue", &self.queue),
            ("listen", &self.listen),
            ("device", &self.device),
            ("dtype", &self.dtype),
            ("log.level", &self.log_level),
            ("log.format", &self.log_format),
        ];
        let settings = given.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
        Flags { file: self.config.clone(), settings }
    }
}

fn sha256(text: &str) -> Result<Digest, String> {
    Digest::parse(text).ok_or_else(|| "no 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
