//! DEIS: exponential integrator over the logarithm of ρ = σ/α, multistep (Zhang and Chen, arXiv 2204.13902).

use super::{
    dpm_m::MANY_STEPS,
    level::Level,
    linear::LinearCombination,
    sampler_schedule::{SamplerSchedule, Spacing},
    sigma_spacing::SigmaCurve,
    solver_levels::SolverLevels,
    table::{Plan, Update},
};

/// One row a step; slots 1 and 2 hold the last predictions of the noise. The last step leads to the level of timestep 0, which is not quite
/// clean, or with a curve of σ nowhere: so the reference has it.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let spacing = schedule.options.spacing.unwrap_or(Spacing::Linspace);
    let levels = SolverLevels::new(schedule, steps, spacing);
    let levels = match schedule.options.curve {
        SigmaCurve::Trained => levels.ending_at(schedule.level(0, true)),
        _ => levels.ending_where_it_is(),
    };
    let row = |i: usize| {
        let (level, next) = (levels.at(i), levels.at(i + 1));
        let noise = schedule.noise(level);
        let history = [noise, LinearCombination::slot(1), LinearCombination::slot(2)];
        let order = order(schedule, steps, i).min(i - begin + 1);
        let nodes: Vec<f64> = (0..order).map(|back| levels.at(i - back).sigma()).collect();
        let x = if order == 1 {
            change(level, next, LinearCombination::X, noise)
        } else {
            let terms = history.into_iter().zip(0..order);
            let mean = terms.fold(LinearCombination::ZERO, |sum, (output, which)| {
                sum + output * weight(&nodes, which, (level.sigma(), next.sigma()))
            });
            (LinearCombination::X / level.signal + mean) * next.signal
        };
        levels.row(i, &Update::x_and(x, [noise, LinearCombination::slot(1)]))
    };
    Plan::of(1.0, &(begin..steps).map(row).collect::<Vec<_>>())
}

/// The order of step `i`, if the run has made enough before.
fn order(schedule: &SamplerSchedule, steps: usize, i: usize) -> usize {
    let is_short = schedule.options.lower_order_final.unwrap_or(true) && steps < MANY_STEPS;
    let most = if is_short { steps - i } else { steps };
    most.min(schedule.options.solver_order)
}

/// x from one level to another with its noise held.
fn change(from: Level, to: Level, x: LinearCombination, noise: LinearCombination) -> LinearCombination {
    x * (to.signal / from.signal) - noise * (to.noise * (from.sigma() / to.sigma() - 1.0))
}

/// The polynomial in ln ρ over `nodes` that is 1 at `nodes[which]` and 0 at the others, integrated over ρ.
fn weight(nodes: &[f64], which: usize, (from, to): (f64, f64)) -> f64 {
    let logs =
        |rho: f64| nodes.iter().enumerate().filter(move |&(i, _)| i != which).map(move |(_, node)| (rho / node).ln());
    let scale: f64 = logs(nodes[which]).product();
    let integral = |rho: f64| {
        let (sum, product) = logs(rho).fold((0.0, 1.0), |(sum, product), log| (sum + log, product * log));
        // ∫ Π ln(ρ/node) dρ by parts, for one node and for two
        rho * if nodes.len() == 2 { product - 1.0 } else { product - sum + 2.0 }
    };
    (integral(to) - integral(from)) / scale
}
