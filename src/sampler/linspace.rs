//! Numbers at even distances.

/// `numpy.linspace(first, last, count)`.
pub(super) fn linspace(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = (last - first) / (count.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + first).collect();
    if let [_, .., end] = values.as_mut_slice() {
        *end = last;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linspace_reaches_its_end_exactly() {
        assert_eq!(linspace(0.0, 999.0, 1), [0.0]);
        assert_eq!(linspace(0.0, 999.0, 2), [0.0, 999.0]);
        assert_eq!(linspace(0.0, 10.0, 4), [0.0, 10.0 / 3.0, 20.0 / 3.0, 10.0]);
    }
}
