//! The checks of a build with an engine, each standing on the one before it.

use std::fs;
use std::thread::available_parallelism;

use tokio::runtime;

use super::super::checks::{Check, Verdict, device, disk, hashes, memory, picture, weights};
use super::super::{engine, fitness, offer};
use crate::config::{Config, ServedModel};
use crate::engine::torch;
use crate::engine::torch::device::multiplies_bf16;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![libtorch(), processor()];
    let models = match config.models() {
        Ok(models) => models,
        Err(cause) => {
            checks.extend(engine::devices(config, 0));
            let advice = "set model, or put one where it is looked for";
            checks.push(Check::not_ok("model", Verdict::Fail, cause.to_string(), advice));
            return checks;
        }
    };
    let first = models.iter().filter(|served| served.at_start);
    let needed = first.clone().map(ServedModel::file_bytes).sum();
    checks.extend(engine::devices(config, needed));
    checks.extend(device::helper(config.device, config.dtype, &config.cuda));
    checks.push(memory::check(config.fitness.min_memory, needed));
    checks.push(disk::check(&fitness::spool(config), config.fitness.min_disk));
    checks.extend(first.clone().flat_map(ServedModel::paths).map(weights::check));
    checks.extend(first.clone().flat_map(ServedModel::paths).map(hashes::check));
    checks.extend(loras(config));
    if checks.iter().all(|check| check.name != "device" || check.verdict != Verdict::Fail) {
        checks.extend(first.flat_map(|served| model(config, &models, served)));
    }
    checks
}

/// Which library the process runs with: where there are several, that explains much.
fn libtorch() -> Check {
    let file = torch::device::libtorch().map(|file| file.display().to_string());
    Check::ok("libtorch", file.unwrap_or_else(|| "linked into the program".into()))
}

fn processor() -> Check {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1)).unwrap_or("unknown");
    let threads = available_parallelism().map_or(1, std::num::NonZero::get);
    let bf16 = if multiplies_bf16() { "multiplies bf16" } else { "does not multiply bf16, so f32 is faster" };
    Check::ok("cpu", format!("{name}, {threads} threads, {bf16}"))
}

/// Where LoRA files are to be had, how many there are.
fn loras(config: &Config) -> Option<Check> {
    let folder = config.lora_dir.as_ref()?;
    Some(match config.loras() {
        Err(cause) => {
            Check::not_ok("loras", Verdict::Fail, cause.to_string(), "set lora_dir, or leave it empty for none")
        }
        Ok(names) if names.is_empty() => {
            let found = format!("none in {}", folder.display());
            Check::not_ok("loras", Verdict::Warn, found, "put .safetensors files there, or leave lora_dir empty")
        }
        Ok(names) => Check::ok("loras", format!("{} in {}: {}", names.len(), folder.display(), names.join(", "))),
    })
}

/// Loads a model and draws with it.
fn model(config: &Config, models: &[ServedModel], served: &ServedModel) -> Vec<Check> {
    let name = &served.model.name;
    let failed = |name, found: String, advice: &str| Check::not_ok(name, Verdict::Fail, found, advice);
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return vec![failed("model", format!("no runtime: {cause}"), "see what limits this process has")],
    };
    runtime.block_on(async {
        let host = match engine::start_one(config, models, name.clone()).await {
            Ok(host) => host,
            Err(cause) => {
                return vec![failed(
                    "model",
                    format!("{name}: {}", cause.error),
                    "mend or replace the file named here",
                )];
            }
        };
        let (at, took) = (served.model.path.display(), host.load_time().as_millis());
        let loaded = Check::ok("model", format!("{name} from {at}, loaded in {took} ms"));
        let offered = match offer::model(served) {
            Ok(offered) => offered,
            Err(cause) => {
                return vec![loaded, failed("defaults", cause.to_string(), "mend or remove the file named here")];
            }
        };
        let size = offered.defaults.smallest();
        let drawn = match picture::draw(&host, &offered, size).await {
            Ok(took) => {
                Check::ok("picture", format!("{}×{} in one step took {} ms", size.width, size.height, took.as_millis()))
            }
            Err(cause) => failed("picture", cause, "try --dtype f32; if that draws, the model overflows"),
        };
        vec![loaded, drawn]
    })
}
