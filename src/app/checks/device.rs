//! The devices that engines compute on.

use super::{Check, Verdict};
use crate::config::{CudaConfig, Device, Dtype};
use crate::engine::torch::device::cuda::Helper;
use crate::engine::torch::{Target, device};
use crate::models::size;

/// Memory that activations want beside the weights at 512×512, in bytes.
const ACTIVATIONS: u64 = 1 << 30;

/// Whether every device that `device` stands for can be used, and has memory for weights of so many bytes.
pub(in super::super) fn check(device: Device, dtype: Dtype, weights: u64) -> Vec<Check> {
    let targets = device::each(device).and_then(|devices| {
        devices.into_iter().map(|device| Target::choose(device, dtype)).collect::<Result<Vec<_>, _>>()
    });
    match targets {
        Ok(targets) => targets.into_iter().flat_map(|target| of(target, weights)).collect(),
        Err(cause) => {
            let advice = "change device or dtype, or mend what it says";
            vec![Check::not_ok("device", Verdict::Fail, cause.to_string(), advice)]
        }
    }
}

/// The CUDA helper; `None` where there is no GPU to use.
pub(in super::super) fn helper(device: Device, dtype: Dtype, settings: &CudaConfig) -> Option<Check> {
    let targets = device::each(device).ok()?;
    let on_gpu = targets.into_iter().any(|device| Target::choose(device, dtype).is_ok_and(|target| !target.is_cpu()));
    if !on_gpu {
        return None;
    }
    Some(match Helper::open(settings) {
        Ok(helper) if settings.kernels && !helper.has_kernels() => {
            let found = format!("{} was built without kernels", helper.path().display());
            let advice = "scripts/setup-cuda-helper --kernels; without them a GPU is slower";
            Check::not_ok("helper", Verdict::Warn, found, advice)
        }
        Ok(helper) => Check::ok("helper", helper.path().display().to_string()),
        Err(cause) => {
            Check::not_ok("helper", Verdict::Warn, cause.to_string(), "without it a GPU draws the same, and slower")
        }
    })
}

fn of(target: Target, weights: u64) -> Vec<Check> {
    let found = target.to_string();
    if target.is_cpu() {
        let advice = "fine for small models; SD 1.5 takes minutes a picture without a GPU";
        return vec![Check::not_ok("device", Verdict::Warn, found, advice)];
    }
    vec![Check::ok("device", found), memory(target, weights)]
}

/// Of a GPU; the processor's memory is the machine's.
fn memory(target: Target, weights: u64) -> Check {
    let wanted = weights + ACTIVATIONS;
    match target.memory() {
        Err(cause) => {
            Check::not_ok("gpu", Verdict::Fail, cause.to_string(), "see whether other processes hold the GPU")
        }
        Ok((free, total)) => {
            let (free, total) = (free as u64, total as u64);
            let found = format!("{} of {} free; {} should do", size(free), size(total), size(wanted));
            if free >= wanted {
                return Check::ok("gpu", found);
            }
            Check::not_ok("gpu", Verdict::Warn, found, "stop other processes, or take a smaller model or dtype")
        }
    }
}
