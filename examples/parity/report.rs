//! The table that parity is read from: a row a group of checks, and whether any figure exceeds its bound.

use std::process::ExitCode;

/// The worst figure of a group of checks, and where it was met.
#[derive(Debug, Default)]
pub(crate) struct Worst {
    cases: usize,
    figure: f64,
    place: String,
}

impl Worst {
    /// Takes in the figure of one check; NaN is worse than any number. `place` names the check.
    pub(crate) fn see(&mut self, figure: f64, place: impl FnOnce() -> String) {
        self.cases += 1;
        if self.cases == 1 || figure > self.figure || (figure.is_nan() && !self.figure.is_nan()) {
            self.figure = figure;
            self.place = place();
        }
    }
}

/// Rows so far, printed as they come.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: usize,
    failed: usize,
}

impl Report {
    /// Prints the head of the table.
    pub(crate) fn new() -> Self {
        println!(
            "{:<10} {:<24} {:>6}  {:>9}  {:>9}  {:<4}  worst at",
            "section", "checks", "cases", "worst", "bound", ""
        );
        Self::default()
    }

    /// Adds a row: a section ("unet"), what was checked ("mini-a"), the figures, and what they must not exceed. A group
    /// without a single case fails.
    pub(crate) fn row(&mut self, section: &str, checks: &str, worst: &Worst, bound: f64) {
        let ok = worst.cases > 0 && worst.figure <= bound;
        self.rows += 1;
        self.failed += usize::from(!ok);
        let verdict = if ok { "ok" } else { "FAIL" };
        let Worst { cases, figure, place } = worst;
        println!("{section:<10} {checks:<24} {cases:>6}  {figure:>9.2e}  {bound:>9.0e}  {verdict:<4}  {place}");
    }

    /// Adds a row for a section that could not be checked at all, which fails.
    pub(crate) fn broken(&mut self, section: &str, error: &anyhow::Error) {
        self.rows += 1;
        self.failed += 1;
        println!("{section:<10} FAIL  {error:#}");
    }

    /// Prints the sum. Success only if there were rows and none failed.
    pub(crate) fn finish(self) -> ExitCode {
        println!("{} of {} groups within bounds", self.rows - self.failed, self.rows);
        if self.rows > 0 && self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
