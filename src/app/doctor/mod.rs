//! `latentd doctor`: looks at what a worker needs, one thing after the other, and says what to do about what it finds.

mod machine;

use serde_json::json;

use machine::checks;

use super::checks::{Check, Verdict};
use super::{Exit, say};
use crate::config::Config;

/// Looks at everything and prints it; [`Exit::Failed`] if this machine cannot draw as it is configured.
pub(super) fn examine(config: &Config, as_json: bool) -> Exit {
    let checks = checks(config);
    let fit = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let text = if as_json {
        json!({ "checks": checks, "fit": fit }).to_string()
    } else {
        checks.iter().map(line).chain([conclusion(fit).to_owned()]).collect::<Vec<_>>().join("\n")
    };
    if say(&text).is_err() || !fit { Exit::Failed } else { Exit::Done }
}

fn line(check: &Check) -> String {
    let Check { name, verdict, found, advice } = check;
    let status = match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let advice = advice.as_ref().map(|advice| format!("\n{:14}→ {advice}", "")).unwrap_or_default();
    format!("{status:<5}{name:<9}{found}{advice}")
}

fn conclusion(fit: bool) -> &'static str {
    if fit { "This machine can draw." } else { "This machine cannot draw as it is configured." }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_below_what_it_is_about() {
        let check = Check::not_ok("model", Verdict::Fail, "there is none", "put one there");
        assert_eq!(line(&check), "FAIL model    there is none\n              → put one there");
        assert_eq!(line(&Check::ok("device", "cpu in f32")), "ok   device   cpu in f32");
    }
}
