//! Sampler tables against diffusers' schedulers.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use anyhow::{Context, Result};
use latentd::sampler::Sampler;

use crate::{
    report::{Report, Worst},
    trajectory,
};

/// Allowed relative difference of a run from its start.
const BOUND: f64 = 1e-5;

/// The same for a run that begins later. It has less noise for measure, and at 500 steps the reference's float32 is off
/// by 1.3e-5 of that (K-LMS from step 250, against the reference's own formulas in float64).
const BEGUN_BOUND: f64 = 2e-5;

/// The same for third order as an SDE, whose factors make more of the rounding of x.
const THIRD_ORDER_BOUND: f64 = 1e-4;

/// Compares `dir/samplers`: one row for the noise schedules, and for each sampler one of whole runs, one of those begun later, and one for each
/// bound that configurations have of their own.
pub(crate) fn check(dir: &Path, report: &mut Report) -> Result<()> {
    let dir = dir.join("samplers");
    let mut schedules = HashMap::new();
    let mut bits = Worst::default();
    for config in trajectory::configs(&dir)? {
        let schedule = config.schedule()?;
        bits.see(if config.is_same(&schedule) { 0.0 } else { 1.0 }, || config.name.clone());
        schedules.insert(config.name, (schedule, config.bound));
    }
    report.row("samplers", "alphas_cumprod, bits", &bits, 0.0);

    for &sampler in Sampler::ALL {
        let (mut whole, mut begun) = (Worst::default(), Worst::default());
        let mut rounded: BTreeMap<String, (f64, Worst)> = BTreeMap::new();
        for case in trajectory::cases(&dir, sampler)? {
            let place = || format!("{} steps {} begin {}", case.config, case.steps, case.begin);
            let (schedule, bound) = schedules.get(&case.config).with_context(place)?;
            let difference = case.difference(sampler, schedule).with_context(|| format!("{sampler} {}", place()))?;
            let group = match bound {
                Some(bound) => &mut rounded.entry(format!("{bound:e}")).or_insert((*bound, Worst::default())).1,
                None if case.begin == 0 => &mut whole,
                None => &mut begun,
            };
            group.see(difference, place);
        }
        let least = if sampler == Sampler::Dpm3MSde { THIRD_ORDER_BOUND } else { 0.0 };
        report.row("samplers", sampler.name(), &whole, BOUND.max(least));
        report.row("samplers", &format!("{sampler}, begun later"), &begun, BEGUN_BOUND.max(least));
        for (bound, worst) in rounded.values() {
            report.row("samplers", &format!("{sampler}, other files"), worst, *bound);
        }
    }
    Ok(())
}
