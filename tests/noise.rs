//! The noise of a seed is torch's, value for value. Goldens: `scripts/parity/noise.py`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use latentd::noise::TorchRng;
use serde::Deserialize;

/// What torch's vectorised logarithm, sine and cosine may differ from libm's by, at a radius of up to 5.8.
const CLOSE: f64 = 1e-6;
/// Of a long draw the golden file holds every so-manieth value.
const STRIDE: usize = 251;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    seed: String,
    draws: Vec<Draw>,
}

/// Either `all` values of a short draw, or excerpts and sums of a long one.
#[derive(Deserialize)]
struct Draw {
    n: usize,
    all: Option<Vec<f64>>,
    #[serde(default)]
    strided: Vec<f64>,
    #[serde(default)]
    last: Vec<f64>,
    #[serde(default)]
    sum: f64,
    #[serde(default)]
    squares: f64,
}

impl Draw {
    /// The greatest difference between the golden and `ours`; sums count by value.
    fn worst(&self, ours: &[f32]) -> f64 {
        assert_eq!(ours.len(), self.n);
        let ours: Vec<f64> = ours.iter().copied().map(f64::from).collect();
        if let Some(all) = &self.all {
            return distance(all, &ours);
        }
        let strided: Vec<f64> = ours.iter().copied().step_by(STRIDE).collect();
        let sum: f64 = ours.iter().sum();
        let squares: f64 = ours.iter().map(|x| x * x).sum();
        distance(&self.strided, &strided)
            .max(distance(&self.last, &ours[self.n - self.last.len()..]))
            .max((sum - self.sum).abs() / self.n as f64)
            .max((squares - self.squares).abs() / self.n as f64)
    }
}

fn distance(golden: &[f64], ours: &[f64]) -> f64 {
    assert_eq!(golden.len(), ours.len());
    golden.iter().zip(ours).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// `NOISE_GOLDEN` names another file of the script's, such as the full set.
#[test]
fn draws_are_torchs() {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the test may point it at a larger record")]
    let path = std::env::var("NOISE_GOLDEN").unwrap_or_else(|_| "tests/golden/noise.json".into());
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut draws, mut worst) = (0, 0.0_f64);
    for case in &golden.cases {
        let mut rng = TorchRng::new(case.seed.parse().unwrap());
        for draw in &case.draws {
            let off = draw.worst(&rng.randn(draw.n));
            assert!(off < CLOSE, "seed {}, draw {draws} of {}: off by {off:e}", case.seed, draw.n);
            draws += 1;
            worst = worst.max(off);
        }
    }
    assert!(draws >= 30, "the golden file is nearly empty: {draws} draws");
    println!("{draws} draws, worst difference {worst:e}");
}

#[test]
fn only_the_low_half_of_a_seed_counts() {
    for seed in [0, 7, u64::from(u32::MAX)] {
        let low = TorchRng::new(seed).randn(64);
        assert_eq!(low, TorchRng::new(seed | 1 << 32).randn(64));
        assert_eq!(low, TorchRng::new(seed | 1 << 63).randn(64));
        assert_ne!(low, TorchRng::new(seed ^ 1).randn(64));
    }
}
