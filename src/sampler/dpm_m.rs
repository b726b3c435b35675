//! DPM-Solver++, multistep (Lu et al., arXiv 2211.01095), as an ODE (2M) and as an SDE (2M SDE, 3M SDE).

use super::{
    level::Level,
    linear::LinearCombination,
    sampler_schedule::{SamplerSchedule, Spacing},
    solver_levels::{SolverLevels, solve},
    table::{DraftRow, Plan, Update},
};

/// Runs of fewer steps end with lower orders.
pub(super) const MANY_STEPS: usize = 15;

/// DPM-M: no noise.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    Run::new(schedule, steps, Equation::Ode).plan(begin)
}

/// DPM-M-SDE and DPM-3M-SDE: noise at every row.
pub(super) fn plan_sde(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    // With the last level clean the reference draws for the last row, too, and scales it by 0.
    let unused_draw = !schedule.options.ends_at_lowest;
    Plan { unused_draw, ..Run::new(schedule, steps, Equation::Sde).plan(begin) }
}

/// What is solved from level to level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Equation {
    Ode,
    Sde,
}

struct Run<'a> {
    schedule: &'a SamplerSchedule,
    steps: usize,
    levels: SolverLevels,
    equation: Equation,
}

impl<'a> Run<'a> {
    fn new(schedule: &'a SamplerSchedule, steps: usize, equation: Equation) -> Self {
        let spacing = schedule.options.spacing.unwrap_or(Spacing::Linspace);
        Self { schedule, steps, levels: SolverLevels::new(schedule, steps, spacing), equation }
    }

    /// One row a step; slots 1 and 2 hold the last predictions of the clean latents.
    fn plan(&self, begin: usize) -> Plan {
        let row = |i: usize| {
            let level = self.levels.at(i);
            let clean = self.schedule.clean(level);
            let x = match self.order(i, i - begin) {
                1 => self.first_order(i, clean),
                2 => self.first_order(i, self.second_order(i, clean)),
                _ => self.third_order(i, clean),
            };
            self.levels.row(i, &Update::x_and(x + self.noise(i), [clean, LinearCombination::slot(1)]))
        };
        Plan::of(1.0, &(begin..self.steps).map(row).collect::<Vec<DraftRow>>())
    }

    /// The order of step `i`, before which the run has made `known`.
    fn order(&self, i: usize, known: usize) -> usize {
        let options = &self.schedule.options;
        let is_short = options.lower_order_final.unwrap_or(true) && self.steps < MANY_STEPS;
        let left = self.steps - i;
        let most = match left {
            1 if options.euler_at_final || is_short || !options.ends_at_lowest => 1,
            2 if is_short => 2,
            _ => 3,
        };
        most.min(options.solver_order).min(known + 1)
    }

    /// To the next level with a prediction of the clean latents that stays what it is.
    fn first_order(&self, i: usize, clean: LinearCombination) -> LinearCombination {
        let (from, to) = (self.levels.at(i), self.levels.at(i + 1));
        match self.equation {
            Equation::Ode => solve(from, to, LinearCombination::X, clean),
            Equation::Sde => {
                let fall = to.sigma() / from.sigma();
                LinearCombination::X * (to.noise / from.noise * fall) + clean * (to.signal * (1.0 - fall * fall))
            }
        }
    }

    /// The prediction of the clean latents in the middle of the coming step.
    fn second_order(&self, i: usize, clean: LinearCombination) -> LinearCombination {
        // h₀/h: lengths of the last and the coming step in λ = -ln σ
        let ratio = self.levels.length(i - 1) / self.levels.length(i);
        clean + (clean - LinearCombination::slot(1)) * (0.5 / ratio)
    }

    fn third_order(&self, i: usize, clean: LinearCombination) -> LinearCombination {
        let [last, before] = [1, 2].map(LinearCombination::slot);
        let length = self.levels.length(i);
        let (ratio, ratio_before) = (self.levels.length(i - 1) / length, self.levels.length(i - 2) / length);
        let (near, far) = ((clean - last) / ratio, (last - before) / ratio_before);
        let second = (near - far) / (ratio + ratio_before);
        let first = near + second * ratio;
        let signal = self.levels.at(i + 1).signal;
        let (rate, constant) = match self.equation {
            Equation::Ode => (length, 0.5),
            // The reference has this sign, and the formula of the ODE the other.
            Equation::Sde => (2.0 * length, -0.5),
        };
        let fall = (-rate).exp_m1();
        self.first_order(i, clean)
            + first * (signal * (fall / rate + 1.0))
            + second * (signal * (constant - (fall + rate) / (rate * rate)))
    }

    fn noise(&self, i: usize) -> LinearCombination {
        let (from, to) = (self.levels.at(i), self.levels.at(i + 1));
        match self.equation {
            Equation::Ode => LinearCombination::ZERO,
            Equation::Sde => LinearCombination::NOISE * share(from, to),
        }
    }
}

/// Standard deviation of the noise that is added from one level to another.
fn share(from: Level, to: Level) -> f64 {
    to.noise * (1.0 - (to.sigma() / from.sigma()).powi(2)).sqrt()
}
