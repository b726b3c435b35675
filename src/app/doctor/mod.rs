//! `latentd doctor`: looks at what a worker needs, one thing after the other, and says what to do about what it finds.

mod machine;

use serde::Serialize;
use serde_json::json;

use machine::checks;

use super::{Exit, say};
use crate::config::Config;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warn,
    /// Nothing will be drawn until this is mended.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at.
    pub(super) name: &'static str,
    /// How it is.
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn not_ok(name: &'static str, verdict: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict, found: found.into(), advice: Some(advice.into()) }
    }
}

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
    let mark = match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let advice = advice.as_ref().map(|advice| format!("\n{:14}→ {advice}", "")).unwrap_or_default();
    format!("{mark:<5}{name:<9}{found}{advice}")
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
