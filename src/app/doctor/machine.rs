//! The checks of a build with an engine, each standing on the one before it.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Check, Verdict};
use crate::config::{Config, Model as Named};
use crate::engine::torch::device::multiplies_bf16;
use crate::engine::torch::{Lanes, Model, Target};
use crate::engine::{Engine, Event, Ticket};
use crate::job::{Offer, validate};

/// Memory that activations want beside the weights at 512×512, in bytes.
const HEADROOM: usize = 1 << 30;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![libtorch(), processor()];
    match Target::choose(config.device, config.dtype) {
        Err(cause) => checks.push(Check::not_ok(
            "device",
            Verdict::Fail,
            cause.to_string(),
            "change device or dtype, or mend what it says",
        )),
        Ok(target) => {
            checks.push(device(target));
            match config.model() {
                Err(cause) => {
                    checks.push(Check::not_ok(
                        "model",
                        Verdict::Fail,
                        cause.to_string(),
                        "set model, or put one where it is looked for",
                    ));
                }
                Ok(named) => {
                    checks.push(memory(target, &named));
                    checks.extend(loras(config));
                    checks.extend(model(config, &named, target));
                }
            }
        }
    }
    checks
}

/// Which library the process runs with: where there are several, that explains much.
fn libtorch() -> Check {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().last());
    Check::ok("libtorch", files.find(|path| path.ends_with("/libtorch_cpu.so")).unwrap_or("linked into the program"))
}

fn processor() -> Check {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1)).unwrap_or("unknown");
    let threads = available_parallelism().map_or(1, std::num::NonZero::get);
    let bf16 = if multiplies_bf16() { "multiplies bf16" } else { "does not multiply bf16, so f32 is faster" };
    Check::ok("cpu", format!("{name}, {threads} threads, {bf16}"))
}

fn device(target: Target) -> Check {
    let found = target.to_string();
    if target.is_cpu() {
        let advice = "fine for small models; SD 1.5 takes minutes a picture without a GPU";
        return Check::not_ok("device", Verdict::Warn, found, advice);
    }
    Check::ok("device", found)
}

fn memory(target: Target, model: &Named) -> Check {
    let needed = size_of(&model.path) as usize + HEADROOM;
    match target.memory() {
        Err(cause) => {
            Check::not_ok("memory", Verdict::Fail, cause.to_string(), "see whether other processes hold the GPU")
        }
        Ok((free, total)) => {
            let found = format!("{} of {} free; {} should do for this model", gib(free), gib(total), gib(needed));
            if free >= needed {
                return Check::ok("memory", found);
            }
            Check::not_ok("memory", Verdict::Warn, found, "stop other processes, or take a smaller model or dtype")
        }
    }
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

/// Loads the model and draws with it; then its neighbours, by name.
fn model(config: &Config, named: &Named, target: Target) -> Vec<Check> {
    let Named { name, path } = named;
    let began = Instant::now();
    let tokenizer = config.models_dir.join("clip-tokenizer");
    let model = match Model::load(path, &tokenizer, target) {
        Ok(model) => model,
        Err(cause) => {
            return vec![Check::not_ok(
                "model",
                Verdict::Fail,
                format!("{name}: {cause}"),
                "mend or replace the file named here",
            )];
        }
    };
    let loaded =
        Check::ok("model", format!("{name} from {}, loaded in {} ms", path.display(), millis(began.elapsed())));
    let began = Instant::now();
    let drawn = match draw(&mut Lanes::new(model), name) {
        Ok(()) => Check::ok("picture", format!("128×128 in 2 steps took {} ms", millis(began.elapsed()))),
        Err(cause) => {
            Check::not_ok("picture", Verdict::Fail, cause, "try --dtype f32; if that draws, the model overflows")
        }
    };
    vec![loaded, drawn]
}

/// The smallest job there is.
fn draw(engine: &mut Lanes, model: &str) -> Result<(), String> {
    let input = json!({"prompt": "a test", "width": 128, "height": 128, "num_inference_steps": 2, "scheduler": "DDIM"});
    let spec = validate(&input, &Offer { models: vec![model.to_owned()], ..Offer::default() }, 0)
        .map_err(|cause| cause.to_string())?
        .with_start(None);
    engine.admit(Ticket(0), &spec).map_err(|cause| cause.to_string())?;
    while engine.busy() {
        for (_, event) in engine.advance().map_err(|cause| cause.to_string())? {
            if let Event::Failed(cause) = event {
                return Err(cause.to_string());
            }
        }
    }
    Ok(())
}

/// Bytes of all files below `path`.
fn size_of(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size_of(&entry.path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |file| file.len()),
    }
}

fn gib(bytes: usize) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn millis(time: Duration) -> u128 {
    time.as_millis()
}
