//! Adams-Bashforth: a derivative extrapolated from its history.

use super::linear::LinearCombination;

/// The derivative `now` and what it was one, two and three evaluations ago, for samplers that keep it in slots 1 to 3.
pub(super) const fn history(now: LinearCombination) -> [LinearCombination; 4] {
    [now, LinearCombination::slot(1), LinearCombination::slot(2), LinearCombination::slot(3)]
}

/// What slots 1 to 3 hold after an evaluation, so that the next finds its [`history`] in place.
pub(super) const fn remember(now: LinearCombination) -> [LinearCombination; 3] {
    [now, LinearCombination::slot(1), LinearCombination::slot(2)]
}

/// Mean of the derivative over the coming step, extrapolated from `known` evaluations (that of `now` included, at least 1, used up to 4), as if
/// steps were of even length.
pub(super) fn extrapolate(now: LinearCombination, known: usize) -> LinearCombination {
    let [now, back1, back2, back3] = history(now);
    match known {
        0 | 1 => now,
        2 => (now * 3.0 - back1) / 2.0,
        3 => (now * 23.0 - back1 * 16.0 + back2 * 5.0) / 12.0,
        _ => (now * 55.0 - back1 * 59.0 + back2 * 37.0 - back3 * 9.0) / 24.0,
    }
}
