//! `UniPC`: predictor and corrector of one family, multistep, for a prediction of the clean latents (Zhao et al., arXiv 2302.04867).

use super::{
    linear::LinearCombination,
    sampler_schedule::{SamplerSchedule, Spacing},
    sigma_spacing::SigmaCurve,
    solver_levels::{SolverLevels, solve},
    table::{Plan, Update},
};

/// Slot of x as it was corrected before the last step; those behind it hold the last predictions of the clean latents.
const STARTED: LinearCombination = LinearCombination::slot(1);

/// One row a step. The evaluation at a level first corrects the step that led there, then predicts the next.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let spacing = schedule.options.spacing.unwrap_or(Spacing::Linspace);
    let mut levels = SolverLevels::new(schedule, steps, spacing);
    if schedule.options.ends_at_lowest && schedule.options.curve != SigmaCurve::Trained {
        // The reference takes the last σ of the curve for the lowest one.
        levels = levels.ending_where_it_is();
    }
    let run = Run { schedule, levels };
    let order = |i: usize| {
        let most = if schedule.options.lower_order_final.unwrap_or(true) { steps - i } else { steps };
        most.min(schedule.options.solver_order).min(i - begin + 1)
    };
    let row = |i: usize| {
        let clean = schedule.clean(run.levels.at(i));
        let x = if i == begin { LinearCombination::X } else { run.corrected(i, order(i - 1), clean) };
        let predicted = run.predicted(i, order(i), x, clean);
        let [last, before] = [2, 3].map(LinearCombination::slot);
        run.levels.row(i, &Update::x_and(predicted, [x, clean, last, before]))
    };
    Plan::of(1.0, &(begin..steps).map(row).collect::<Vec<_>>())
}

struct Run<'a> {
    schedule: &'a SamplerSchedule,
    levels: SolverLevels,
}

impl Run<'_> {
    /// `UniP`: from level `i`, where x is `x` and the prediction `clean`, to the next.
    fn predicted(&self, i: usize, order: usize, x: LinearCombination, clean: LinearCombination) -> LinearCombination {
        let changes = self.changes(i, order, clean, [2, 3]);
        let weights = match order {
            2 => vec![0.5],
            _ => self.weights(i, order, order - 1),
        };
        self.step(i, x, clean, changes.into_iter().zip(weights))
    }

    /// `UniC` of the step that led to level `i`, by the prediction `clean` that was made there.
    fn corrected(&self, i: usize, order: usize, clean: LinearCombination) -> LinearCombination {
        let last = LinearCombination::slot(2);
        let mut changes = self.changes(i - 1, order, last, [3, 4]);
        changes.push(clean - last);
        let weights = match order {
            1 => vec![0.5],
            _ => self.weights(i - 1, order, order),
        };
        self.step(i - 1, STARTED, last, changes.into_iter().zip(weights))
    }

    /// From level `i` to the next by a prediction `clean` and its weighted changes.
    fn step(
        &self,
        i: usize,
        x: LinearCombination,
        clean: LinearCombination,
        changes: impl Iterator<Item = (LinearCombination, f64)>,
    ) -> LinearCombination {
        let (from, to) = (self.levels.at(i), self.levels.at(i + 1));
        let change = changes.fold(LinearCombination::ZERO, |sum, (change, weight)| sum + change * weight);
        solve(from, to, x, clean) - change * (to.signal * self.b(self.levels.length(i)))
    }

    /// Differences of earlier predictions, which are in `slots`, from that at level `i`, by their distance in units of the coming step.
    fn changes(&self, i: usize, order: usize, clean: LinearCombination, slots: [usize; 2]) -> Vec<LinearCombination> {
        let earlier = slots.into_iter().zip(self.distances(i, order));
        earlier.map(|(slot, distance)| (LinearCombination::slot(slot) - clean) / distance).collect()
    }

    /// How far from level `i` the `order - 1` levels before it lie in λ, in units of the coming step: below 0.
    fn distances(&self, i: usize, order: usize) -> impl Iterator<Item = f64> {
        (1..order).map(move |back| {
            let length: f64 = (i - back..i).map(|step| self.levels.length(step)).sum();
            -length / self.levels.length(i)
        })
    }

    /// B(h) of the paper for a step of this length, with the sign of a prediction of the clean latents.
    fn b(&self, length: f64) -> f64 {
        if self.schedule.options.linear_b { -length } else { (-length).exp_m1() }
    }

    /// Weights of the first `count` changes of order `order` at level `i`: the solution of R ρ = b (eq. 11).
    fn weights(&self, i: usize, order: usize, count: usize) -> Vec<f64> {
        let rate = -self.levels.length(i);
        let distances: Vec<f64> = self.distances(i, order).chain([1.0]).take(count).collect();
        let mut phi = rate.exp_m1() / rate - 1.0;
        let mut factorial = 1.0;
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(count);
        for power in 0..count as i32 {
            let b = phi * factorial / self.b(-rate);
            rows.push(distances.iter().map(|distance| distance.powi(power)).chain([b]).collect());
            factorial *= f64::from(power + 2);
            phi = phi / rate - 1.0 / factorial;
        }
        solved(rows)
    }
}

/// The solution of linear equations, at most three, each with its right side last: by Gauss and Jordan. The matrices are those of Vandermonde
/// over distinct places, whose pivots are not 0.
fn solved(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    for pivot in 0..rows.len() {
        let scaled: Vec<f64> = rows[pivot].iter().map(|value| value / rows[pivot][pivot]).collect();
        for row in rows.iter_mut().enumerate().filter(|(i, _)| *i != pivot).map(|(_, row)| row) {
            let factor = row[pivot];
            row.iter_mut().zip(&scaled).for_each(|(value, pivot)| *value -= factor * pivot);
        }
        rows[pivot] = scaled;
    }
    rows.iter().filter_map(|row| row.last().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_equations_are_solved() {
        let rows = vec![vec![1.0, 1.0, 1.0, 6.0], vec![-2.0, -1.0, 1.0, -1.0], vec![4.0, 1.0, 1.0, 9.0]];
        let found = solved(rows);
        for (value, expected) in found.iter().zip([1.0, 2.0, 3.0]) {
            assert!((value - expected).abs() < 1e-12, "{found:?}");
        }
    }
}
