//! What a model's scheduler file says to the samplers, on a tiny model of SD v1.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use latentd::engine::torch::{PreviewPace, Target};
use latentd::engine::{Engine, Ticket};
use latentd::job::Spec;
use latentd::sampler::Sampler;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::torch::drawing::{engine_of, furthest, only, run, spec};

/// The tiny model with `said` in its scheduler file.
fn model(said: &Value) -> TempDir {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch/miniatures/tiny");
    let folder = tempfile::tempdir().unwrap();
    for part in ["model_index.json", "text_encoder", "tokenizer", "unet", "vae"] {
        symlink(tiny.join(part), folder.path().join(part)).unwrap();
    }
    let file = "scheduler/scheduler_config.json";
    let mut config: Value = serde_json::from_slice(&fs::read(tiny.join(file)).unwrap()).unwrap();
    said.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    fs::create_dir(folder.path().join("scheduler")).unwrap();
    fs::write(folder.path().join(file), config.to_string()).unwrap();
    folder
}

#[test]
fn what_one_sampler_cannot_follow_fails_its_jobs_by_name_and_others_draw() {
    let plain = only(run(&mut engine_of(model(&json!({})).path(), Target::REFERENCE), &spec(Sampler::Ddim, 3, 7)));
    let folder = model(&json!({"use_lu_lambdas": true, "solver_order": 4, "a_note": {"of": "nobody"}}));
    let mut engine = engine_of(folder.path(), Target::REFERENCE);
    let refused = engine.admit(Ticket(0), &spec(Sampler::DpmM, 3, 7)).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("scheduler"));
    assert_eq!(refused.message, "DPM-M cannot draw with this model, whose scheduler file says solver_order = 4");
    assert_eq!(only(run(&mut engine, &spec(Sampler::Ddim, 3, 7))), plain);
}

#[test]
fn a_runge_kutta_start_takes_steps() {
    let folder = model(&json!({"skip_prk_steps": false}));
    let mut engine = engine_of(folder.path(), Target::REFERENCE);
    let refused = engine.admit(Ticket(0), &spec(Sampler::Pndm, 3, 7)).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("num_inference_steps"));
    let said = "steps = 3: must be 4 or more, since the model's scheduler file has skip_prk_steps = false";
    assert_eq!(refused.message, said);
    assert!(engine.admit(Ticket(0), &spec(Sampler::Pndm, 4, 7)).is_ok());
}

#[test]
fn previews_know_what_the_model_predicts() {
    for prediction in ["epsilon", "v_prediction", "sample"] {
        let folder = model(&json!({"prediction_type": prediction}));
        let pace = PreviewPace { pause: Duration::ZERO, rest: 0 };
        let mut engine = engine_of(folder.path(), Target::REFERENCE).with_previews(pace);
        // Its last evaluation foresees the picture.
        let looked = run(&mut engine, &Spec { preview: true, ..spec(Sampler::EulerD, 4, 7) });
        let last = looked.previews[3].clone();
        let far = furthest(&last, &only(looked));
        assert!(far <= 1, "{prediction}: {far}");
    }
}
