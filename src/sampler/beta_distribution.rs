//! Quantiles of the beta distribution whose parameters are both 0.6.

/// Both parameters, as the reference has them.
const SHAPE: f64 = 0.6;

/// Terms of the series: below one half, each is less than half of the one before.
const TERMS: u32 = 60;

/// Newton's method doubles the right digits with each.
const ITERATIONS: usize = 12;

/// The value that the share `probability` (0 to 1) of the distribution lies below.
pub(super) fn quantile(probability: f64) -> f64 {
    // The distribution is its own mirror image.
    if probability > 0.5 { 1.0 - lower_quantile(1.0 - probability) } else { lower_quantile(probability) }
}

/// The same up to one half.
fn lower_quantile(probability: f64) -> f64 {
    let wanted = probability * 2.0 * integral(0.5);
    if wanted <= 0.0 {
        return 0.0;
    }
    // In x to the power of SHAPE the integral is next to a straight line.
    let mut power = (wanted * SHAPE).min(0.5_f64.powf(SHAPE));
    for _ in 0..ITERATIONS {
        let x = power.powf(1.0 / SHAPE);
        let slope = (1.0 - x).powf(SHAPE - 1.0) / SHAPE;
        power -= (integral(x) - wanted) / slope;
    }
    power.powf(1.0 / SHAPE)
}

/// The distribution's density without its constant factor, integrated from 0 to `x`, at most one half: the incomplete beta function as a power
/// series (DLMF 8.17.7).
fn integral(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 0.0;
    for k in 0..TERMS {
        let k = f64::from(k);
        sum += term / (SHAPE + k);
        term *= x * (k + 1.0 - SHAPE) / (k + 1.0);
    }
    sum * x.powf(SHAPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.beta.ppf(probability, 0.6, 0.6)` of scipy 1.16.3.
    #[test]
    fn quantiles_are_scipys() {
        for (probability, expected) in [
            (0.0, 0.0),
            (1e-06, 1.855_882_462_405_304_3e-10),
            (0.002_004_008_016_032_064, 5.911_664_875_314_773e-05),
            (0.01, 0.000_861_238_821_542_905_9),
            (0.1, 0.039_584_405_588_780_85),
            (0.25, 0.175_680_378_652_694_98),
            (0.4, 0.362_700_990_753_214_3),
            (0.5, 0.500_000_000_000_000_1),
            (0.6, 0.637_299_009_246_785_6),
            (0.75, 0.824_319_621_347_305),
            (0.9, 0.960_415_594_411_219_2),
            (0.997_995_991_983_968, 0.999_940_883_351_246_9),
            (1.0, 1.0),
        ] {
            let found = quantile(probability);
            assert!((found - expected).abs() < 2e-15 + 1e-13 * expected, "{probability}: {found} not {expected}");
        }
    }
}
