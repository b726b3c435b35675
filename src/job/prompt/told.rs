//! What a prompt says in vain: marks that its syntax reads as text.

use super::brackets::{edits, ends_in_number};
use super::emphasis::{Emphasized, emphasized, is_same, whole_words};
use super::syntax::PromptSyntax;
use crate::job::spec::Spec;

/// Sentences for the warnings of a job's result, one a prompt at most.
pub fn warnings<I>(spec: &Spec<I>) -> Vec<String> {
    let prompts = [("prompt", Some(&spec.prompt)), ("negative_prompt", spec.negative_prompt.as_ref())];
    let told = |(field, prompt): (&str, Option<&String>)| told(field, prompt?, spec.prompt_syntax);
    prompts.into_iter().filter_map(told).collect()
}

fn told(field: &str, prompt: &str, syntax: PromptSyntax) -> Option<String> {
    let (marks, more) = match syntax {
        PromptSyntax::Plain => (marks_of_weighted(prompt), "; \"weighted\" takes them for what they are"),
        PromptSyntax::Weighted => (marks_of_others(prompt, field == "prompt"), ""),
    };
    let listed = match marks.as_slice() {
        [] => return None,
        [marks @ .., last] if !marks.is_empty() => format!("{} and {last}", marks.join(", ")),
        marks => marks.concat(),
    };
    Some(format!("{field} has {listed}, which prompt_syntax \"{}\" reads as text{more}", syntax.name()))
}

/// What a plain prompt has that a weighted one would not read as text.
fn marks_of_weighted(prompt: &str) -> Vec<&'static str> {
    let parts = emphasized(prompt);
    // Only brackets have weights, and a weight may be wrong.
    let has = |is: &dyn Fn(&Emphasized) -> bool| parts.as_ref().is_ok_and(|parts| parts.iter().any(is));
    let weighs = |part: &Emphasized| matches!(part, Emphasized::Text { weight, .. } if !is_same(*weight, 1.0));
    let escapes = [r"\(", r"\)", r"\[", r"\]"].iter().any(|escape| prompt.contains(escape));
    let found = [
        (parts.is_err() || has(&weighs), "weights in brackets"),
        (has(&|part| *part == Emphasized::Break), "BREAK"),
        (escapes, "backslashes before brackets"),
        (is_tagged(prompt), "a tag such as <lora:…>"),
    ];
    found.into_iter().filter_map(|(found, mark)| found.then_some(mark)).collect()
}

/// What the WebUI takes for more than text, and we do not. A negative prompt has fewer of these there.
fn marks_of_others(prompt: &str, is_positive: bool) -> Vec<&'static str> {
    let [at_a_step, each_step] = edits(prompt);
    let is_word =
        |part: &Emphasized| matches!(part, Emphasized::Text { text, weight } if text == "BREAK" && *weight < 0.0);
    let found = [
        (is_positive && whole_words(prompt, "AND").next().is_some(), "AND"),
        (is_positive && ends_in_number(prompt), "a number after a colon at its end"),
        (at_a_step, "a change at a step ([a:b:0.5])"),
        (each_step, "a change from step to step ([a|b])"),
        (emphasized(prompt).is_ok_and(|parts| parts.iter().any(is_word)), "BREAK within brackets"),
        (is_tagged(prompt), "a tag such as <lora:…>"),
        (prompt.contains('#'), "a comment (#)"),
    ];
    found.into_iter().filter_map(|(found, mark)| found.then_some(mark)).collect()
}

/// Whether there is `<word:…>`.
fn is_tagged(prompt: &str) -> bool {
    prompt.match_indices('<').any(|(at, _)| {
        let inside = prompt[at + 1..].split_once('>').map_or("", |(inside, _)| inside);
        let word = inside.split_once(':').map_or("", |(word, _)| word);
        !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_are_read_as_text_are_told_by_name() {
        for (prompt, syntax, marks) in [
            ("a red apple, :) 16:9", PromptSyntax::Plain, ""),
            ("a (red:1.2) apple", PromptSyntax::Plain, "weights in brackets"),
            ("a [red apple", PromptSyntax::Plain, "weights in brackets"),
            ("a (red:1.2.3) apple", PromptSyntax::Plain, "weights in brackets"),
            (
                r"(a) BREAK \(b\) <lora:ink:0.8>",
                PromptSyntax::Plain,
                "weights in brackets, BREAK, backslashes before brackets and a tag such as <lora:…>",
            ),
            ("BREAK", PromptSyntax::Plain, "BREAK"),
            (r"a\apple", PromptSyntax::Plain, ""),
            (r"a (red:1.2) [apple], BREAK \(b\) <3 > x", PromptSyntax::Weighted, ""),
            ("a cat AND a dog", PromptSyntax::Weighted, "AND"),
            ("a HAND, ANDROID", PromptSyntax::Weighted, ""),
            ("ratio 16:9", PromptSyntax::Weighted, "a number after a colon at its end"),
            ("cat:1.3, dog", PromptSyntax::Weighted, ""),
            (
                "[a:b:0.5] [a|b]",
                PromptSyntax::Weighted,
                "a change at a step ([a:b:0.5]) and a change from step to step ([a|b])",
            ),
            ("(a BREAK b)", PromptSyntax::Weighted, "BREAK within brackets"),
            ("<lora:ink:1> #1", PromptSyntax::Weighted, "a tag such as <lora:…> and a comment (#)"),
        ] {
            let more = if syntax == PromptSyntax::Plain { "; \"weighted\" takes them for what they are" } else { "" };
            let sentence = format!("prompt has {marks}, which prompt_syntax \"{}\" reads as text{more}", syntax.name());
            assert_eq!(told("prompt", prompt, syntax), (!marks.is_empty()).then_some(sentence), "{prompt}");
        }
    }

    #[test]
    fn a_negative_prompt_has_no_parts() {
        assert_eq!(told("negative_prompt", "a AND b, 16:9", PromptSyntax::Weighted), None);
        let told = told("negative_prompt", "[a|b]", PromptSyntax::Weighted).unwrap_or_default();
        assert!(told.starts_with("negative_prompt has a change from step to step"), "{told}");
    }

    #[test]
    fn each_prompt_of_a_job_is_told_of() {
        let mut spec = crate::engine::fake::spec(1, 1);
        assert_eq!(warnings(&spec), [""; 0]);
        (spec.prompt, spec.negative_prompt) = ("(a)".into(), Some("[b]".into()));
        assert_eq!(warnings(&spec).len(), 2);
        spec.prompt_syntax = PromptSyntax::Weighted;
        assert_eq!(warnings(&spec), [""; 0]);
    }
}
