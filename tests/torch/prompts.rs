//! Weighted prompts, long ones, and layers that are left out, on tiny models.

use latentd::engine::{Engine, Ticket};
use latentd::job::{PromptSyntax, Spec};
use latentd::sampler::Sampler;

use crate::torch::drawing::{engine, finish, furthest, only, run, spec};

const MODELS: [&str; 2] = ["tiny", "tiny-xl"];

fn weighted(prompt: &str) -> Spec {
    Spec { prompt: prompt.into(), prompt_syntax: PromptSyntax::Weighted, ..spec(Sampler::Ddim, 3, 1) }
}

fn drawn(model: &str, spec: &Spec) -> latentd::engine::Picture {
    only(run(&mut engine(model), spec))
}

/// More than two chunks of tokens.
fn long() -> String {
    "a red apple and ".repeat(45)
}

#[test]
fn a_weighted_prompt_without_marks_is_a_plain_one() {
    for model in MODELS {
        let plain = drawn(model, &Spec { prompt_syntax: PromptSyntax::Plain, ..weighted("a red apple") });
        for same in ["a red apple", "(a red apple:1)", "a (red:1.0) apple", "a red apple BREAK"] {
            assert_eq!(drawn(model, &weighted(same)), plain, "{model}: {same}");
        }
        for other in ["a (red:1.5) apple", "a red [apple]", "a red BREAK apple"] {
            assert_ne!(drawn(model, &weighted(other)), plain, "{model}: {other}");
        }
    }
}

#[test]
fn a_long_prompt_is_read_to_its_end_without_a_warning() {
    for model in MODELS {
        for negative_prompt in [None, Some(String::new()), Some("(dark) ".repeat(30))] {
            let job = |end: &str| Spec { negative_prompt: negative_prompt.clone(), ..weighted(&(long() + end)) };
            assert_ne!(drawn(model, &job("a pear")), drawn(model, &job("a worm")));
            assert_eq!(engine(model).admit(Ticket(0), &job("a pear")).unwrap(), [""; 0]);
        }
        let mut refusing = engine(model);
        let refused = refusing.admit(Ticket(0), &weighted(&"a BREAK ".repeat(17))).unwrap_err();
        assert_eq!(refused.message, "prompt has 17 chunks of tokens, of which at most 16 are taken");
        assert!(refused.field.as_deref() == Some("prompt") && !refusing.busy());
    }
}

#[test]
fn prompts_of_other_lengths_draw_beside_each_other_what_they_draw_alone() {
    for model in MODELS {
        let mut away = weighted("a pear");
        away.negative_prompt = Some(long());
        let jobs = [weighted(&long()), weighted("a red apple"), away, weighted(&format!("{} a worm", long()))];
        let mut together = engine(model);
        for (number, job) in (0..).zip(&jobs) {
            together.admit(Ticket(number), job).unwrap();
        }
        let mut outcomes = finish(&mut together);
        for (number, job) in (0..).zip(&jobs) {
            let picture = only(outcomes.remove(&Ticket(number)).unwrap());
            assert!(furthest(&picture, &drawn(model, job)) <= 1, "{model}: {number}");
        }
    }
}

#[test]
fn layers_are_left_out_of_the_prompt_and_where_it_is_weighted_of_the_negative_prompt() {
    for model in MODELS {
        let none = weighted("a red apple");
        let skip = |syntax, scale| Spec { clip_skip: 1, prompt_syntax: syntax, guidance_scale: scale, ..none.clone() };
        let unguided = Spec { guidance_scale: 1.0, ..none.clone() };
        assert_ne!(drawn(model, &skip(PromptSyntax::Plain, 1.0)), drawn(model, &unguided), "{model}");
        let alone = [PromptSyntax::Plain, PromptSyntax::Weighted].map(|syntax| drawn(model, &skip(syntax, 1.0)));
        assert_eq!(alone[0], alone[1], "{model}");
        let negative = |spec: Spec| Spec { negative_prompt: Some("a worm".into()), ..spec };
        let guided =
            [PromptSyntax::Plain, PromptSyntax::Weighted].map(|syntax| drawn(model, &negative(skip(syntax, 7.5))));
        assert_ne!(guided[0], guided[1], "{model}");
        let refused = engine(model).admit(Ticket(0), &Spec { clip_skip: 11, ..none }).unwrap_err();
        let told = "clip_skip = 11: of this model's text encoders at most 1 layer is left out";
        assert_eq!((refused.message.as_str(), refused.field.as_deref()), (told, Some("clip_skip")));
    }
}
