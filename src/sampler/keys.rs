//! What a `scheduler_config.json` says to each sampler: the keys that its class has in the reference, and the values that are followed.

use serde_json::{Map, Value};

use super::{
    file_value::{UnsupportedKey, one_of},
    prediction::Prediction,
    registry::Sampler,
    sampler_schedule::{Options, Spacing},
    sigma_spacing::{SigmaCurve, SigmaSpacing},
    steps::DISTILLED_STEPS,
};
use Sampler::{
    Ddim, Ddpm, Deis, Dpm3MSde, DpmM, DpmMSde, DpmS, DpmSde, EulerA, EulerD, Heun, Ipndm, KLms, Kdpm2A, Kdpm2D, Lcm,
    Pndm, Tcd, UniPc,
};

/// A key of some samplers.
struct Key {
    name: &'static str,
    samplers: &'static [Sampler],
    /// Takes a value in; `None` if that is not followed.
    read: fn(&Value, &mut Options) -> Option<()>,
}

/// Those of one class in the reference that differ in `algorithm_type` and `solver_order`, which their names say.
macro_rules! multistep {
    ($($other:expr),*) => { &[DpmM, DpmMSde, Dpm3MSde, $($other),*] };
}

const WITH_SPACING: &[Sampler] =
    multistep![Ddim, Ddpm, Deis, DpmSde, EulerA, EulerD, Heun, Ipndm, KLms, Kdpm2A, Kdpm2D, Pndm, UniPc];
const WITH_CURVES: &[Sampler] = multistep![Deis, DpmS, DpmSde, EulerD, Heun, Ipndm, KLms, Kdpm2A, Kdpm2D, UniPc];
const FLOWS: &[Sampler] = multistep![Deis, DpmS, UniPc];

const SCHEDULER_KEYS: &[Key] = &[
    Key {
        name: "prediction_type",
        samplers: multistep![Ddim, Ddpm, Deis, DpmS, EulerD, Heun, Ipndm, KLms, Lcm, Tcd, UniPc],
        read: |value, options| {
            let types = [
                ("epsilon", Prediction::Epsilon),
                ("sample", Prediction::Sample),
                ("v_prediction", Prediction::Velocity),
            ];
            set(&mut options.prediction, one_of(value, &types))
        },
    },
    Key {
        name: "prediction_type",
        samplers: &[DpmSde, EulerA, Kdpm2A, Kdpm2D, Pndm],
        read: |value, options| {
            let types = [("epsilon", Prediction::Epsilon), ("v_prediction", Prediction::Velocity)];
            set(&mut options.prediction, one_of(value, &types))
        },
    },
    Key {
        name: "rescale_betas_zero_snr",
        samplers: multistep![Ddim, Ddpm, EulerA, EulerD, Ipndm, Lcm, Tcd, UniPc],
        read: |value, options| set(&mut options.rescale_betas_zero_snr, value.as_bool()),
    },
    Key {
        name: "timestep_spacing",
        samplers: WITH_SPACING,
        read: |value, options| {
            let spacings =
                [("linspace", Spacing::Linspace), ("leading", Spacing::Leading), ("trailing", Spacing::Trailing)];
            options.spacing = Some(one_of(value, &spacings)?);
            Some(())
        },
    },
    Key {
        name: "steps_offset",
        samplers: WITH_SPACING,
        read: |value, options| {
            set(&mut options.steps_offset, value.as_u64().filter(|&offset| offset < 2).map(|offset| offset as usize))
        },
    },
    Key {
        name: "set_alpha_to_one",
        samplers: &[Ddim, Pndm],
        read: |value, options| {
            options.set_alpha_to_one = Some(value.as_bool()?);
            Some(())
        },
    },
    Key {
        name: "skip_prk_steps",
        samplers: &[Pndm],
        read: |value, options| set(&mut options.skip_prk_steps, value.as_bool()),
    },
    Key {
        name: "use_karras_sigmas",
        samplers: WITH_CURVES,
        read: |value, options| curve(value, options, SigmaCurve::Karras),
    },
    Key {
        name: "use_exponential_sigmas",
        samplers: WITH_CURVES,
        read: |value, options| curve(value, options, SigmaCurve::Exponential),
    },
    Key {
        name: "use_beta_sigmas",
        samplers: WITH_CURVES,
        read: |value, options| curve(value, options, SigmaCurve::Beta),
    },
    // Ends of a curve. Without one they have no effect.
    Key { name: "sigma_min", samplers: &[EulerD, Ipndm, UniPc], read: |_, options| options.is_on_trained_curve() },
    Key { name: "sigma_max", samplers: &[EulerD, Ipndm, UniPc], read: |_, options| options.is_on_trained_curve() },
    Key {
        name: "final_sigmas_type",
        samplers: multistep![DpmS, EulerD, Ipndm, UniPc],
        read: |value, options| set(&mut options.ends_at_lowest, one_of(value, &[("zero", false), ("sigma_min", true)])),
    },
    Key {
        name: "lower_order_final",
        samplers: multistep![Deis, DpmS, UniPc],
        read: |value, options| {
            options.lower_order_final = Some(value.as_bool()?);
            Some(())
        },
    },
    Key {
        name: "euler_at_final",
        samplers: multistep![],
        read: |value, options| set(&mut options.euler_at_final, value.as_bool()),
    },
    Key {
        name: "solver_order",
        samplers: &[Deis, DpmM, DpmMSde, UniPc],
        read: |value, options| {
            let order = value.as_u64().filter(|order| (1..=3).contains(order));
            set(&mut options.solver_order, order.map(|order| order as usize))
        },
    },
    Key { name: "solver_order", samplers: &[DpmS], read: |value, _| is(value == 2) },
    Key {
        name: "solver_type",
        samplers: multistep![DpmS],
        read: |value, _| is(is_any(value, &["midpoint", "logrho", "bh1", "bh2"])),
    },
    Key {
        name: "solver_type",
        samplers: &[UniPc],
        read: |value, options| {
            let types = [("bh1", true), ("bh2", false), ("midpoint", false), ("heun", false), ("logrho", false)];
            set(&mut options.linear_b, one_of(value, &types))
        },
    },
    Key {
        name: "solver_type",
        samplers: &[Deis],
        read: |value, _| is(is_any(value, &["logrho", "midpoint", "heun", "bh1", "bh2"])),
    },
    Key {
        name: "algorithm_type",
        samplers: multistep![],
        read: |value, _| is(is_any(value, &["dpmsolver++", "sde-dpmsolver++", "deis"])),
    },
    Key { name: "algorithm_type", samplers: &[DpmS], read: |value, _| is(is_any(value, &["dpmsolver++", "deis"])) },
    Key {
        name: "algorithm_type",
        samplers: &[Deis],
        read: |value, _| is(is_any(value, &["deis", "dpmsolver", "dpmsolver++"])),
    },
    Key { name: "interpolation_type", samplers: &[EulerD, Ipndm], read: |value, _| is(value == "linear") },
    Key { name: "timestep_type", samplers: &[EulerD, Ipndm], read: |value, _| is(value == "discrete") },
    Key { name: "variance_type", samplers: &[Ddpm], read: |value, _| is(value == "fixed_small") },
    Key {
        name: "variance_type",
        samplers: multistep![DpmS],
        read: |value, _| is(!is_any(value, &["learned", "learned_range"])),
    },
    Key { name: "lambda_min_clipped", samplers: multistep![DpmS], read: |_, _| None },
    Key {
        name: "thresholding",
        samplers: multistep![Ddim, Ddpm, Deis, DpmS, Lcm, Tcd, UniPc],
        read: |value, _| is(value == false),
    },
    Key { name: "use_lu_lambdas", samplers: multistep![], read: |value, _| is(value == false) },
    Key { name: "use_flow_sigmas", samplers: FLOWS, read: |value, _| is(value == false) },
    Key { name: "use_dynamic_shifting", samplers: FLOWS, read: |value, _| is(value == false) },
    Key { name: "shift_terminal", samplers: &[UniPc], read: |_, _| None },
    Key { name: "predict_x0", samplers: &[UniPc], read: |value, _| is(value == true) },
    Key {
        name: "disable_corrector",
        samplers: &[UniPc],
        read: |value, _| is(value.as_array().is_some_and(Vec::is_empty)),
    },
    Key { name: "solver_p", samplers: &[UniPc], read: |_, _| None },
    Key {
        name: "original_inference_steps",
        samplers: &[Lcm, Tcd],
        read: |value, _| is(value.as_f64().is_some_and(|steps| (steps - DISTILLED_STEPS as f64).abs() < f64::EPSILON)),
    },
    Key {
        name: "timestep_scaling",
        samplers: &[Lcm, Tcd],
        read: |value, _| is(value.as_f64().is_some_and(|scaling| (scaling - 10.0).abs() < f64::EPSILON)),
    },
];

/// Keys that change nothing here, whatever their value: clipping of the clean latents is switched off by the Stable Diffusion pipelines, and the
/// others are read only where a choice is made that no sampler follows.
const IDLE: &[&str] = &[
    "clip_sample",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "flow_shift",
    "noise_sampler_seed",
    "sample_max_value",
    "time_shift_type",
];

/// Whether some sampler has this key.
pub(super) fn is_known(name: &str) -> bool {
    IDLE.contains(&name) || SCHEDULER_KEYS.iter().any(|key| key.name == name)
}

/// What `keys` say to `sampler`, where a job may ask for another `spacing`; one that the sampler does not offer has no effect.
///
/// # Errors
/// [`UnsupportedKey`] of the first key of its own, in the order of [`SCHEDULER_KEYS`], whose value is not followed.
pub(super) fn read(
    sampler: Sampler,
    keys: &Map<String, Value>,
    spacing: SigmaSpacing,
) -> Result<Options, UnsupportedKey> {
    let mut options = Options::default();
    let offered = Some(spacing).filter(|spacing| sampler.spacings().contains(spacing));
    let (replaced, asked) = replacement(offered.unwrap_or_default());
    asked(&mut options);
    for key in SCHEDULER_KEYS.iter().filter(|key| key.samplers.contains(&sampler) && !replaced.contains(&key.name)) {
        if let Some(value) = keys.get(key.name) {
            (key.read)(value, &mut options).ok_or_else(|| UnsupportedKey::of(key.name, value))?;
        }
    }
    if sampler == Dpm3MSde {
        options.solver_order = 3;
    }
    Ok(options)
}

/// The keys that a job's `spacing` is in place of, and what it says instead.
fn replacement(spacing: SigmaSpacing) -> (&'static [&'static str], fn(&mut Options)) {
    const CURVES_AND_SPACING: &[&str] =
        &["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "timestep_spacing"];
    const CURVES: &[&str] = CURVES_AND_SPACING.split_at(3).0;
    match spacing {
        SigmaSpacing::Default => (&[], |_| ()),
        SigmaSpacing::Karras => (CURVES, |options| options.curve = SigmaCurve::Karras),
        SigmaSpacing::Exponential => (CURVES, |options| options.curve = SigmaCurve::Exponential),
        SigmaSpacing::Beta => (CURVES, |options| options.curve = SigmaCurve::Beta),
        SigmaSpacing::SgmUniform => (CURVES_AND_SPACING, |options| options.spacing = Some(Spacing::Trailing)),
    }
}

impl Options {
    fn is_on_trained_curve(&self) -> Option<()> {
        is(self.curve == SigmaCurve::Trained)
    }
}

fn set<T>(option: &mut T, value: Option<T>) -> Option<()> {
    *option = value?;
    Some(())
}

/// Takes a curve, if it is asked for; there cannot be two.
fn curve(value: &Value, options: &mut Options, curve: SigmaCurve) -> Option<()> {
    if !value.as_bool()? {
        return Some(());
    }
    options.is_on_trained_curve()?;
    options.curve = curve;
    Some(())
}

fn is(followed: bool) -> Option<()> {
    followed.then_some(())
}

fn is_any(value: &Value, names: &[&str]) -> bool {
    value.as_str().is_some_and(|value| names.contains(&value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_touches_the_samplers_that_have_it_alone() {
        const MULTISTEP: &[Sampler] = &[DpmM, DpmMSde, Dpm3MSde];
        for (key, value, samplers) in [
            ("prediction_type", json!("sample"), &[DpmSde, EulerA, Kdpm2A, Kdpm2D, Pndm][..]),
            ("prediction_type", json!("flow_prediction"), Sampler::ALL),
            ("interpolation_type", json!("log_linear"), &[EulerD, Ipndm]),
            ("timestep_type", json!("continuous"), &[EulerD, Ipndm]),
            ("use_lu_lambdas", json!(true), MULTISTEP),
            ("use_flow_sigmas", json!(true), &[Deis, DpmM, DpmMSde, Dpm3MSde, DpmS, UniPc]),
            ("use_dynamic_shifting", json!(true), &[Deis, DpmM, DpmMSde, Dpm3MSde, DpmS, UniPc]),
            ("thresholding", json!(true), &[Ddim, Ddpm, Deis, DpmM, DpmMSde, Dpm3MSde, DpmS, Lcm, Tcd, UniPc]),
            ("variance_type", json!("fixed_small_log"), &[Ddpm]),
            ("variance_type", json!("learned_range"), &[Ddpm, DpmM, DpmMSde, Dpm3MSde, DpmS]),
            ("algorithm_type", json!("sde-dpmsolver"), &[Deis, DpmM, DpmMSde, Dpm3MSde, DpmS]),
            ("algorithm_type", json!("sde-dpmsolver++"), &[Deis, DpmS]),
            ("algorithm_type", json!("dpmsolver++"), &[]),
            ("solver_type", json!("heun"), &[DpmM, DpmMSde, Dpm3MSde, DpmS]),
            ("solver_type", json!("rk4"), &[Deis, DpmM, DpmMSde, Dpm3MSde, DpmS, UniPc]),
            ("solver_order", json!(3), &[DpmS]),
            ("solver_order", json!(4), &[Deis, DpmM, DpmMSde, DpmS, UniPc]),
            ("lambda_min_clipped", json!(-5.1), &[DpmM, DpmMSde, Dpm3MSde, DpmS]),
            ("steps_offset", json!(2), WITH_SPACING),
            ("timestep_spacing", json!("log"), WITH_SPACING),
            ("use_karras_sigmas", json!("yes"), WITH_CURVES),
            ("set_alpha_to_one", json!(0), &[Ddim, Pndm]),
            ("skip_prk_steps", json!("no"), &[Pndm]),
            ("final_sigmas_type", json!("half"), &[DpmM, DpmMSde, Dpm3MSde, DpmS, EulerD, Ipndm, UniPc]),
            ("euler_at_final", json!(1), MULTISTEP),
            ("lower_order_final", json!(1), &[Deis, DpmM, DpmMSde, Dpm3MSde, DpmS, UniPc]),
            (
                "rescale_betas_zero_snr",
                json!(1),
                &[Ddim, Ddpm, DpmM, DpmMSde, Dpm3MSde, EulerA, EulerD, Ipndm, Lcm, Tcd, UniPc],
            ),
            ("predict_x0", json!(false), &[UniPc]),
            ("disable_corrector", json!([0]), &[UniPc]),
            ("disable_corrector", json!([]), &[]),
            ("solver_p", json!({}), &[UniPc]),
            ("shift_terminal", json!(0.1), &[UniPc]),
            ("original_inference_steps", json!(100), &[Lcm, Tcd]),
            ("original_inference_steps", json!("50"), &[Lcm, Tcd]),
            ("original_inference_steps", json!(50), &[]),
            ("timestep_scaling", json!(1.0), &[Lcm, Tcd]),
            ("timestep_scaling", json!(10), &[]),
            ("clip_sample", json!(true), &[]),
            ("not_known", json!(1), &[]),
        ] {
            let keys = Map::from_iter([(key.to_owned(), value.clone())]);
            for &sampler in Sampler::ALL {
                let expected = samplers.contains(&sampler).then(|| UnsupportedKey::of(key, &value));
                assert_eq!(read(sampler, &keys, SigmaSpacing::Default).err(), expected, "{sampler}");
            }
        }
    }

    #[test]
    fn there_is_one_curve_of_sigmas_and_a_jobs_own_is_in_place_of_the_files() {
        let mut config = json!({"use_karras_sigmas": true, "use_beta_sigmas": true});
        let options = |config: &Value, sampler, spacing| read(sampler, config.as_object().unwrap(), spacing);
        let both = UnsupportedKey::of("use_beta_sigmas", &json!(true));
        assert_eq!(options(&config, EulerD, SigmaSpacing::Default), Err(both));
        assert_eq!(options(&config, Ddim, SigmaSpacing::Default), Ok(Options::default()));
        let exponential = Options { curve: SigmaCurve::Exponential, ..Options::default() };
        assert_eq!(options(&config, EulerD, SigmaSpacing::Exponential), Ok(exponential));
        let trailing = Options { spacing: Some(Spacing::Trailing), ..Options::default() };
        assert_eq!(options(&config, EulerD, SigmaSpacing::SgmUniform), Ok(trailing));
        config["use_beta_sigmas"] = json!(false);
        config["sigma_min"] = json!(0.1);
        let end = UnsupportedKey::of("sigma_min", &json!(0.1));
        assert_eq!(options(&config, EulerD, SigmaSpacing::Default), Err(end.clone()));
        assert_eq!(options(&config, EulerD, SigmaSpacing::Beta), Err(end));
        assert_eq!(options(&config, EulerD, SigmaSpacing::SgmUniform), Ok(trailing));
    }
}
