//! Sampler tables against recorded runs of the reference (`scripts/parity/samplers.py --golden`), and what must hold for
//! any schedule, any number of steps and any beginning.

#![allow(clippy::unwrap_used)]

#[path = "../examples/parity/trajectory.rs"]
mod trajectory;

use std::{collections::HashMap, path::Path};

use latentd::sampler::{
    Level, LinearCombination, MAX_STEPS, NoiseSchedule, Plan, PlanError, Prediction, STATE_SLOTS, Sampler,
    SigmaSpacing, Source, plan,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn golden() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/samplers"))
}

#[test]
fn schedules_are_the_references_to_the_last_bit() {
    let configs = trajectory::configs(golden()).unwrap();
    assert_eq!(configs.len(), 36);
    for config in configs {
        assert!(config.is_same(&config.schedule().unwrap()), "{}", config.name);
    }
}

#[test]
fn tables_go_where_the_reference_goes() {
    let configs = trajectory::configs(golden()).unwrap().into_iter();
    let bounded = |config: trajectory::Config| (config.name.clone(), (config.schedule().unwrap(), config.bound));
    let schedules: HashMap<_, _> = configs.map(bounded).collect();
    for &sampler in Sampler::ALL {
        let cases = trajectory::cases(golden(), sampler).unwrap();
        assert!(cases.len() >= 41, "{sampler}: {}", cases.len());
        for case in cases {
            let (schedule, bound) = &schedules[&case.config];
            let difference = case.difference(sampler, schedule).unwrap();
            let place = format!("{sampler} {} steps {} begin {}", case.config, case.steps, case.begin);
            assert!(difference < bound.unwrap_or(1e-5), "{place}: {difference:e}");
        }
    }
}

fn sd15() -> NoiseSchedule {
    let configs = trajectory::configs(golden()).unwrap();
    configs.iter().find(|config| config.name == "sd15").unwrap().schedule().unwrap()
}

#[test]
fn a_schedule_that_is_spread_trailing_is_the_reference_s_with_that_spacing() {
    let configs = trajectory::configs(golden()).unwrap();
    let of = |name: &str| configs.iter().find(|config| config.name == name).unwrap().schedule().unwrap();
    for name in ["sd15", "leading", "trailing"] {
        for &sampler in Sampler::ALL {
            let spread = plan(sampler, &of(name).spaced(SigmaSpacing::SgmUniform), 7, 0);
            assert_eq!(spread, plan(sampler, &of("trailing"), 7, 0), "{name} {sampler}");
        }
        assert_eq!(of(name).spaced(SigmaSpacing::Default), of(name));
    }
    assert_ne!(plan(Sampler::Ddim, &of("sd15"), 7, 0), plan(Sampler::Ddim, &of("trailing"), 7, 0));
}

#[test]
fn sigmas_that_a_job_asks_for_are_those_of_a_scheduler_file_which_says_so() {
    let configs = trajectory::configs(golden()).unwrap();
    let of = |name: &str| configs.iter().find(|config| config.name == name).unwrap().schedule().unwrap();
    for &sampler in Sampler::ALL.iter().filter(|sampler| sampler.spacings().contains(&SigmaSpacing::Karras)) {
        for (spacing, name) in [(SigmaSpacing::Karras, "karras"), (SigmaSpacing::Exponential, "exponential")] {
            let asked = plan(sampler, &sd15().spaced(spacing), 7, 0).unwrap();
            assert_eq!(asked, plan(sampler, &of(name), 7, 0).unwrap(), "{sampler} {name}");
        }
        // A job's word is above the file's.
        let asked = plan(sampler, &of("karras").spaced(SigmaSpacing::Beta), 7, 0);
        assert_eq!(asked, plan(sampler, &sd15().spaced(SigmaSpacing::Beta), 7, 0), "{sampler}");
    }
}

#[test]
fn the_reference_s_pipeline_for_a_part_of_an_image_has_no_runge_kutta_start() {
    let configs = trajectory::configs(golden()).unwrap();
    let with_start = configs.iter().find(|config| config.name == "runge-kutta").unwrap().schedule().unwrap();
    let with_start = with_start.for_stable_diffusion();
    let rows = |schedule: &NoiseSchedule| plan(Sampler::Pndm, schedule, 7, 0).map(|plan| plan.rows.len());
    assert_eq!((rows(&with_start), rows(&with_start.for_inpainting())), (Ok(16), Ok(8)));
    let too_few = plan(Sampler::Pndm, &with_start, 3, 0);
    assert_eq!(too_few, Err(PlanError::Start { steps: 3, least: 4 }));
}

#[test]
fn a_model_is_told_the_level_of_its_timestep() {
    for (config, prediction) in [("velocity", Prediction::Velocity), ("sample", Prediction::Sample)] {
        let configs = trajectory::configs(golden()).unwrap();
        let schedule = configs.iter().find(|named| named.name == config).unwrap().schedule().unwrap();
        let plan = plan(Sampler::Ddim, &schedule, 10, 0).unwrap();
        assert_eq!(plan.prediction, prediction);
        for row in plan.rows {
            let alpha = f64::from(schedule.alphas_cumprod()[row.timestep as usize]);
            assert!((row.told.signal - alpha.sqrt()).abs() < 1e-6, "{config}: {row:?}");
            assert!((row.told.noise - (1.0 - alpha).sqrt()).abs() < 1e-6, "{config}: {row:?}");
        }
    }
}

/// A spacing that a sampler does not offer would have no effect on it.
#[test]
fn a_spacing_that_is_offered_moves_the_steps_and_one_that_is_not_does_not() {
    for &sampler in Sampler::ALL {
        let timesteps = |spacing| {
            let plan = plan(sampler, &sd15().spaced(spacing), 7, 0).unwrap();
            plan.rows.iter().map(|row| row.timestep).collect::<Vec<_>>()
        };
        for &spacing in &SigmaSpacing::ALL[1..] {
            let moved = timesteps(spacing) != timesteps(SigmaSpacing::Default);
            assert_eq!(moved, sampler.spacings().contains(&spacing), "{sampler} {spacing:?}");
        }
    }
}

#[test]
fn steps_and_begin_out_of_range_are_refused() {
    for (steps, begin, error) in [
        (0, 0, PlanError::Steps { steps: 0, most: MAX_STEPS }),
        (MAX_STEPS + 1, 0, PlanError::Steps { steps: MAX_STEPS + 1, most: MAX_STEPS }),
        (20, 21, PlanError::Begin { begin: 21, steps: 20 }),
    ] {
        assert_eq!(plan(Sampler::Ddim, &sd15(), steps, begin), Err(error));
    }
    for sampler in [Sampler::Lcm, Sampler::Tcd] {
        assert_eq!(plan(sampler, &sd15(), 51, 0), Err(PlanError::Steps { steps: 51, most: 50 }));
    }
}

#[test]
fn a_run_entered_at_its_end_has_no_row_and_no_noise() {
    for &sampler in Sampler::ALL {
        let plan = plan(sampler, &sd15(), 7, 7).unwrap();
        assert_eq!((plan.rows.len(), plan.begin), (0, Level::CLEAN), "{sampler}");
    }
}

#[test]
fn only_a_single_step_begins_where_nothing_is_left_to_do() {
    for &sampler in Sampler::ALL {
        let starts_high = [
            Sampler::DpmM,
            Sampler::DpmMSde,
            Sampler::Dpm3MSde,
            Sampler::DpmS,
            Sampler::UniPc,
            Sampler::Deis,
            Sampler::Lcm,
            Sampler::Tcd,
        ];
        let clean_at_one = !starts_high.contains(&sampler);
        assert_eq!(plan(sampler, &sd15(), 1, 0).unwrap().begins_clean(), clean_at_one, "{sampler}");
        assert!(!plan(sampler, &sd15(), 2, 0).unwrap().begins_clean(), "{sampler}");
    }
}

/// Scheduler configurations of every kind that is supported.
fn configs() -> impl Strategy<Value = Value> {
    let spacings = [None, Some("linspace"), Some("leading"), Some("trailing")];
    let kinds = [
        json!({}),
        json!({"prediction_type": "v_prediction"}),
        json!({"prediction_type": "v_prediction", "rescale_betas_zero_snr": true}),
        json!({"use_karras_sigmas": true}),
        json!({"use_exponential_sigmas": true}),
        json!({"use_beta_sigmas": true}),
    ];
    (
        prop::sample::select(kinds.to_vec()),
        prop::sample::select(vec!["linear", "scaled_linear"]),
        1e-5..1e-3,
        2e-3..0.02,
        1000..2000,
        prop::sample::select(spacings.to_vec()),
        0..=1,
        prop::option::of(any::<bool>()),
    )
        .prop_map(
            |(kind, beta_schedule, beta_start, beta_end, train_steps, spacing, steps_offset, set_alpha_to_one)| {
                let mut config = json!({
                    "beta_schedule": beta_schedule, "beta_start": beta_start, "beta_end": beta_end,
                    "num_train_timesteps": train_steps, "timestep_spacing": spacing, "steps_offset": steps_offset,
                    "set_alpha_to_one": set_alpha_to_one, "skip_prk_steps": true,
                });
                kind.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
                config
            },
        )
}

/// A sampler, a number of steps and a step to begin at.
fn spans() -> impl Strategy<Value = (Sampler, usize, usize)> {
    prop::sample::select(Sampler::ALL).prop_flat_map(|sampler| {
        let steps = prop_oneof![1..=8_usize, 1..=sampler.max_steps()];
        steps.prop_flat_map(move |steps| (Just(sampler), Just(steps), 0..steps))
    })
}

fn rows_of(sampler: Sampler, steps: usize, begin: usize) -> usize {
    match sampler {
        Sampler::Heun | Sampler::Kdpm2A | Sampler::Kdpm2D | Sampler::DpmSde => 2 * (steps - begin) - 1,
        Sampler::Pndm if steps > 1 => steps + 1 - begin,
        _ => steps - begin,
    }
}

fn is_finite(level: Level) -> bool {
    level.signal.is_finite() && level.noise.is_finite()
}

/// The image and the noise in x at the end, if every output of the model is the noise that the run began with.
fn with_the_noise_known(plan: &Plan) -> (f64, f64) {
    let mut state = [(f64::NAN, f64::NAN); STATE_SLOTS];
    state[0] = (plan.begin.signal, plan.begin.noise);
    for row in &plan.rows {
        state = row.update.next.map(|next: LinearCombination| {
            next.terms().fold((0.0, 0.0), |(image, noise), (source, factor)| match source {
                Source::Slot(slot) => (image + factor * state[slot].0, noise + factor * state[slot].1),
                // The velocity of the same noise.
                Source::Output if plan.prediction == Prediction::Velocity => {
                    (image - factor * row.told.noise, noise + factor * row.told.signal)
                }
                Source::Output => (image, noise + factor),
                Source::Noise => (f64::NAN, f64::NAN),
            })
        });
    }
    state[0]
}

proptest! {
    #[test]
    fn every_plan_is_whole(config in configs(), (sampler, steps, begin) in spans()) {
        let schedule = NoiseSchedule::from_config(&config).unwrap();
        let plan = plan(sampler, &schedule, steps, begin).unwrap();
        prop_assert_eq!(plan.rows.len(), rows_of(sampler, steps, begin));
        prop_assert!(plan.initial_scale.is_finite() && plan.initial_scale > 0.0 && is_finite(plan.begin));
        let last = plan.rows.last().unwrap();
        prop_assert_eq!(last.keep, Level::CLEAN);
        prop_assert!(!last.update.draws_noise());

        let top = (schedule.alphas_cumprod().len() - 1) as f64;
        let mut known = vec![0];
        for row in &plan.rows {
            prop_assert!((0.0..=top).contains(&row.timestep), "timestep {}", row.timestep);
            prop_assert_eq!(f64::from(row.timestep as f32).to_bits(), row.timestep.to_bits());
            prop_assert!(row.input_scale > 0.0 && row.input_scale <= 1.0 && is_finite(row.keep));
            for (source, factor) in row.update.next.iter().flat_map(LinearCombination::terms) {
                prop_assert!(factor.is_finite());
                if let Source::Slot(slot) = source {
                    prop_assert!(known.contains(&slot), "slot {} is read before it is written", slot);
                }
            }
            let written = |slot: &usize| row.update.next[*slot] != LinearCombination::ZERO;
            known = (0..row.update.next.len()).filter(written).collect();
            prop_assert!(known.contains(&0), "x is lost");
            prop_assert!(known.iter().all(|&slot| slot < plan.slots));
        }
        prop_assert_eq!(known, vec![0], "something is remembered for nobody");
    }

    /// A model that knows the noise leads every sampler without noise of its own straight back to the image. Not so,
    /// in the reference either, PNDM and K-LMS begun later, and DDIM and PNDM with timesteps that are not a stride apart;
    /// and those two may be told to stop at the level of timestep 0,
    /// where TCD and DEIS always do.
    #[test]
    fn with_the_noise_known_the_image_comes_back(
        mut config in configs(), (sampler, steps, begin) in spans(),
    ) {
        // Of the x that it is given it keeps a little, which has noise.
        if sampler == Sampler::Lcm {
            return Ok(());
        }
        // It means over velocities of several levels.
        if sampler == Sampler::Pndm {
            config["prediction_type"] = json!("epsilon");
        }
        // Its last step leads nowhere then.
        if sampler == Sampler::Deis {
            for curve in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
                config[curve] = json!(false);
            }
        }
        if matches!(sampler, Sampler::Ddim | Sampler::Pndm) {
            config["timestep_spacing"] = json!("leading");
        }
        let begin = if matches!(sampler, Sampler::Pndm | Sampler::KLms) { 0 } else { begin };
        let schedule = NoiseSchedule::from_config(&config).unwrap();
        let plan = plan(sampler, &schedule, steps, begin).unwrap();
        if plan.rows.iter().any(|row| row.update.draws_noise()) {
            return Ok(());
        }
        let lowest = f64::from(schedule.alphas_cumprod()[0]);
        let (image, noise) = match sampler {
            Sampler::Ddim if config["set_alpha_to_one"] == json!(false) => (lowest.sqrt(), (1.0 - lowest).sqrt()),
            Sampler::Tcd | Sampler::Deis => (lowest.sqrt(), (1.0 - lowest).sqrt()),
            Sampler::Pndm if config["set_alpha_to_one"] != json!(true) => (lowest.sqrt(), (1.0 - lowest).sqrt()),
            _ => (1.0, 0.0),
        };
        let found = with_the_noise_known(&plan);
        // A velocity is of the level that the model is told, by a timestep that an f32 holds.
        let most = if plan.prediction == Prediction::Velocity { 1e-3 } else { 1e-6 };
        prop_assert!((found.0 - image).abs() < most, "image {} not {image}", found.0);
        prop_assert!((found.1 - noise).abs() < most, "noise {} not {noise}", found.1);
    }
}
