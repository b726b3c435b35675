//! K-LMS: linear multistep of order 4 in σ (k-diffusion's `sample_lms`), its weights integrated exactly.

use super::{
    adams::{history, remember},
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    sigmas::SigmaSchedule,
    table::{Plan, Update},
};

/// One row a step; slots 1 to 3 hold earlier outputs.
///
/// The order grows with the step's index even where a run begins later: the reference then integrates through outputs
/// that it does not have and leaves their terms out, and so does this.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let levels = SigmaSchedule::new(schedule, steps);
    let row = |i: usize| {
        let noise = levels.noise(schedule, i);
        let history = history(noise);
        let order = history.len().min(i + 1);
        let nodes: Vec<f64> = (0..order).map(|back| levels.sigmas[i - back]).collect();
        let known = history.iter().take(order.min(i - begin + 1)).enumerate();
        let x = known.fold(LinearCombination::X, |x, (back, &output)| {
            x + output * integrate(levels.sigmas[i], levels.sigmas[i + 1], |sigma| basis(&nodes, back, sigma))
        });
        levels.row(i, &Update::x_and(x, remember(noise)))
    };
    Plan::of(levels.initial_scale, &(begin..steps).map(row).collect::<Vec<_>>())
}

/// The Lagrange polynomial over `nodes` that is 1 at `nodes[which]` and 0 at the others.
fn basis(nodes: &[f64], which: usize, x: f64) -> f64 {
    let others = nodes.iter().enumerate().filter(|&(i, _)| i != which);
    others.map(|(_, node)| (x - node) / (nodes[which] - node)).product()
}

/// Gauss-Legendre with two points, exact for polynomials up to degree 3: all that four nodes make.
fn integrate(from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (middle, half) = (f64::midpoint(from, to), (to - from) / 2.0);
    let offset = half / 3.0_f64.sqrt();
    half * (f(middle - offset) + f(middle + offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubics_are_integrated_exactly() {
        let integral = integrate(-1.0, 3.0, |x| 4.0 * x.powi(3) - 3.0 * x * x + 1.0);
        assert!((integral - 56.0).abs() < 1e-12, "{integral}");
    }

    #[test]
    fn basis_is_one_at_its_own_node_and_zero_at_the_others() {
        let nodes = [5.0, 3.0, 2.5, 0.5];
        for which in 0..4 {
            let values = nodes.map(|node| basis(&nodes, which, node).to_bits());
            let mut expected = [0.0_f64; 4].map(f64::to_bits);
            expected[which] = 1.0_f64.to_bits();
            assert_eq!(values.map(|bits| f64::from_bits(bits).abs().to_bits()), expected);
        }
    }
}
