//! Adams-Bashforth: the model's output extrapolated from its history.

use super::linear::LinearCombination;

/// The model's output and what it was one, two and three evaluations ago, for samplers that keep it in slots 1 to 3.
pub(super) const HISTORY: [LinearCombination; 4] =
    [LinearCombination::OUTPUT, LinearCombination::slot(1), LinearCombination::slot(2), LinearCombination::slot(3)];

/// What slots 1 to 3 hold after an evaluation, so that the next finds its [`HISTORY`] in place.
pub(super) const REMEMBER: [LinearCombination; 3] = [HISTORY[0], HISTORY[1], HISTORY[2]];

/// Mean of the output over the coming step, extrapolated from `known` evaluations (this one included, at least 1, used
/// up to 4), as if steps were of even length.
pub(super) fn extrapolate(known: usize) -> LinearCombination {
    let [now, back1, back2, back3] = HISTORY;
    match known {
        0 | 1 => now,
        2 => (now * 3.0 - back1) / 2.0,
        3 => (now * 23.0 - back1 * 16.0 + back2 * 5.0) / 12.0,
        _ => (now * 55.0 - back1 * 59.0 + back2 * 37.0 - back3 * 9.0) / 24.0,
    }
}
