//! Reads diffusers' `scheduler_config.json` and refuses what the tables cannot honour.

use serde_json::{Value, json};

use super::{
    betas,
    schedule::{NoiseSchedule, Options, Spacing},
    steps::{DISTILLED_STEPS, MAX_STEPS},
};

/// Fewest and most training timesteps: any number of steps must find distinct timesteps, and memory is finite.
const TRAIN_STEPS: std::ops::RangeInclusive<u64> = 2 * MAX_STEPS as u64..=100_000;

/// Keys that change nothing here, whatever their value.
///
/// The first are read only where a choice is made that [`CHOICES`] refuses. Clipping of the clean latents is switched
/// off by the Stable Diffusion pipelines, and so is the Runge-Kutta start of PNDM. With the last σ at 0, the last step
/// of DPM-Solver is of order 1 in any case.
const IDLE: &[&str] = &[
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "flow_shift",
    "noise_sampler_seed",
    "sample_max_value",
    "sigma_max",
    "sigma_min",
    "time_shift_type",
    "clip_sample",
    "skip_prk_steps",
    "euler_at_final",
    "lower_order_final",
    "disable_corrector",
    "predict_x0",
];

/// Keys with the values that are honoured; the scheduler classes' defaults are among them.
const CHOICES: &[(&str, &[&str])] = &[
    ("algorithm_type", &["dpmsolver++", "deis"]),
    ("final_sigmas_type", &["zero"]),
    ("interpolation_type", &["linear"]),
    ("prediction_type", &["epsilon"]),
    ("solver_type", &["midpoint", "logrho", "bh1", "bh2"]),
    ("timestep_type", &["discrete"]),
    ("variance_type", &["fixed_small"]),
];

/// Keys with the one number that is honoured: the order of DPM-Solver, and what LCM and TCD take for granted.
const HONOURED_NUMBERS: &[(&str, f64)] =
    &[("solver_order", 2.0), ("original_inference_steps", DISTILLED_STEPS as f64), ("timestep_scaling", 10.0)];

/// Why a scheduler configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The text is not JSON, not even Python's.
    #[error("the scheduler configuration is not JSON: {0}")]
    Syntax(String),
    /// The JSON is not an object.
    #[error("the scheduler configuration is not a JSON object")]
    NotAnObject,
    /// A key that has no default common to all schedulers is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A key asks for something that is not supported, or has a value of the wrong kind.
    #[error("{key} = {value} is not supported")]
    Unsupported {
        /// The key.
        key: String,
        /// Its value as JSON, cut if it is long.
        value: String,
    },
    /// There is not one trained beta a timestep.
    #[error("trained_betas has {found} values, num_train_timesteps is {expected}")]
    Count {
        /// Betas that are there.
        found: usize,
        /// Timesteps the model was trained on.
        expected: usize,
    },
    /// The betas add no noise somewhere, or too much.
    #[error("the betas make no noise schedule: each must lie between 0 and 1, and some signal must be left at the end")]
    Betas,
}

impl ScheduleError {
    fn unsupported(key: &str, value: &Value) -> Self {
        let mut text = value.to_string();
        if let Some((cut, _)) = text.char_indices().nth(60) {
            text.truncate(cut);
            text.push('…');
        }
        Self::Unsupported { key: key.to_owned(), value: text }
    }
}

impl NoiseSchedule {
    /// Reads the text of a `scheduler_config.json`. Unlike a strict JSON parser it takes the bare `Infinity` and `NaN`
    /// that Python writes, for null: DPM-Solver's configurations have `"lambda_min_clipped": -Infinity`.
    ///
    /// # Errors
    /// [`ScheduleError`] for what is not JSON, and as for [`Self::from_config`].
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        Self::from_config(&read(text)?)
    }

    /// Reads a parsed `scheduler_config.json`, whichever scheduler class wrote it, as `from_config` of another class
    /// would: what is set holds for all samplers, what is not is each sampler's own default. Keys that start with `_`
    /// and values of null are passed over, unknown keys only if they are false.
    ///
    /// # Errors
    /// [`ScheduleError`] for a key or a value that is not supported, by name, and for betas that make no schedule.
    pub fn from_config(config: &Value) -> Result<Self, ScheduleError> {
        let mut draft = Draft::default();
        for (key, value) in config.as_object().ok_or(ScheduleError::NotAnObject)? {
            if !key.starts_with('_') && !value.is_null() {
                draft.read(key, value).ok_or_else(|| ScheduleError::unsupported(key, value))?;
            }
        }
        Self::new(&draft.betas()?, draft.options).ok_or(ScheduleError::Betas)
    }
}

/// Python's JSON.
pub(super) fn read(text: &str) -> Result<Value, ScheduleError> {
    serde_json::from_str(&without_infinities(text)).map_err(|error| ScheduleError::Syntax(error.to_string()))
}

/// What has been read so far.
#[derive(Default)]
struct Draft {
    train_steps: Option<usize>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    scaled: Option<bool>,
    trained_betas: Option<Vec<f32>>,
    options: Options,
}

impl Draft {
    /// Takes one key in; `None` if its value is not supported.
    fn read(&mut self, key: &str, value: &Value) -> Option<()> {
        match key {
            "num_train_timesteps" => self.train_steps = Some(train_steps(value)?),
            "beta_start" => self.beta_start = Some(value.as_f64()?),
            "beta_end" => self.beta_end = Some(value.as_f64()?),
            "beta_schedule" => self.scaled = Some(one_of(value, &[("linear", false), ("scaled_linear", true)])?),
            "trained_betas" => self.trained_betas = Some(numbers(value)?),
            "steps_offset" => self.options.steps_offset = value.as_u64().filter(|&offset| offset < 2)? as usize,
            "set_alpha_to_one" => self.options.set_alpha_to_one = Some(value.as_bool()?),
            "timestep_spacing" => {
                let spacings =
                    [("linspace", Spacing::Linspace), ("leading", Spacing::Leading), ("trailing", Spacing::Trailing)];
                self.options.spacing = Some(one_of(value, &spacings)?);
            }
            _ if IDLE.contains(&key) => {}
            _ => return honoured(key, value).then_some(()),
        }
        Some(())
    }

    /// The betas, one a training timestep. Schedulers differ in the defaults of their keys, so those must be there.
    fn betas(&self) -> Result<Vec<f32>, ScheduleError> {
        let count = self.train_steps.unwrap_or(1000);
        if let Some(betas) = &self.trained_betas {
            let found = betas.len();
            let counted = (found == count).then(|| betas.clone());
            return counted.ok_or(ScheduleError::Count { found, expected: count });
        }
        let start = self.beta_start.ok_or(ScheduleError::Missing("beta_start"))?;
        let end = self.beta_end.ok_or(ScheduleError::Missing("beta_end"))?;
        if self.scaled.ok_or(ScheduleError::Missing("beta_schedule"))? {
            Ok(betas::scaled_linear(start, end, count))
        } else {
            Ok(betas::linear(start, end, count))
        }
    }
}

/// Whether a key that is not read has a value at which nothing is to be done.
fn honoured(key: &str, value: &Value) -> bool {
    if let Some((_, choices)) = CHOICES.iter().find(|(name, _)| *name == key) {
        return value.as_str().is_some_and(|value| choices.contains(&value));
    }
    if let Some((_, number)) = HONOURED_NUMBERS.iter().find(|(name, _)| *name == key) {
        return *value == json!(number) || *value == json!(*number as u64);
    }
    *value == Value::Bool(false)
}

fn train_steps(value: &Value) -> Option<usize> {
    value.as_u64().filter(|count| TRAIN_STEPS.contains(count)).map(|count| count as usize)
}

fn numbers(value: &Value) -> Option<Vec<f32>> {
    let values = value.as_array().filter(|values| TRAIN_STEPS.contains(&(values.len() as u64)))?;
    values.iter().map(|value| value.as_f64().map(|number| number as f32)).collect()
}

fn one_of<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Option<T> {
    let value = value.as_str()?;
    choices.iter().find(|(name, _)| *name == value).map(|&(_, choice)| choice)
}

/// JSON text with Python's bare `NaN`, `Infinity` and `-Infinity` made null, outside of strings.
fn without_infinities(text: &str) -> String {
    // Cut at quotes, every other piece is in a string; a quote after a backslash does not end one.
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        out.push_str(&bare_to_null(&rest[..start]));
        let mut escaped = false;
        let end = rest[start + 1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else { break };
        let next = start + end + 2;
        out.push_str(&rest[start..next]);
        rest = &rest[next..];
    }
    out + &bare_to_null(rest)
}

fn bare_to_null(text: &str) -> String {
    text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn with(key: &str, value: Value) -> Result<NoiseSchedule, ScheduleError> {
        let mut config = json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"});
        config[key] = value;
        NoiseSchedule::from_config(&config)
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name_and_value() {
        for (key, value) in [
            ("prediction_type", json!("v_prediction")),
            ("prediction_type", json!("sample")),
            ("rescale_betas_zero_snr", json!(true)),
            ("use_karras_sigmas", json!(true)),
            ("use_exponential_sigmas", json!(true)),
            ("use_beta_sigmas", json!(true)),
            ("use_lu_lambdas", json!(true)),
            ("use_flow_sigmas", json!(true)),
            ("use_dynamic_shifting", json!(true)),
            ("thresholding", json!(true)),
            ("beta_schedule", json!("squaredcos_cap_v2")),
            ("timestep_spacing", json!("log")),
            ("timestep_type", json!("continuous")),
            ("interpolation_type", json!("log_linear")),
            ("final_sigmas_type", json!("sigma_min")),
            ("variance_type", json!("learned_range")),
            ("algorithm_type", json!("sde-dpmsolver++")),
            ("solver_type", json!("heun")),
            ("solver_order", json!(3)),
            ("lambda_min_clipped", json!(-5.1)),
            ("steps_offset", json!(2)),
            ("set_alpha_to_one", json!(0)),
            ("num_train_timesteps", json!(999)),
            ("num_train_timesteps", json!(1000.0)),
            ("beta_start", json!("0.1")),
            ("original_inference_steps", json!(100)),
            ("original_inference_steps", json!("50")),
            ("timestep_scaling", json!(1.0)),
        ] {
            let expected = ScheduleError::Unsupported { key: key.into(), value: value.to_string() };
            assert_eq!(with(key, value), Err(expected));
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        let error = with("trained_betas", json!(vec![0.5; 999])).unwrap_err();
        assert!(error.to_string().chars().count() < 110, "{error}");
    }

    #[test]
    fn what_changes_nothing_is_passed_over() {
        let plain = with("_class_name", json!("PNDMScheduler"));
        assert!(plain.is_ok());
        for (key, value) in [
            ("num_train_timesteps", json!(1000)),
            ("trained_betas", Value::Null),
            ("clip_sample", json!(true)),
            ("skip_prk_steps", json!(false)),
            ("solver_order", json!(2)),
            ("original_inference_steps", json!(50)),
            ("timestep_scaling", json!(10.0)),
            ("prediction_type", json!("epsilon")),
            ("use_karras_sigmas", json!(false)),
            ("something_new", json!(false)),
            ("something_else", Value::Null),
            ("_private", json!({"any": "thing"})),
        ] {
            assert_eq!(with(key, value), plain, "{key}");
        }
    }

    #[test]
    fn betas_that_make_no_schedule_are_refused() {
        assert_eq!(with("beta_start", json!(0.0)), Err(ScheduleError::Betas));
        assert_eq!(with("beta_start", json!(-0.1)), Err(ScheduleError::Betas));
        assert_eq!(with("beta_end", json!(1.0)), Err(ScheduleError::Betas));
        assert_eq!(with("beta_end", json!(1e300)), Err(ScheduleError::Betas));
        assert_eq!(with("beta_end", json!(0.9)), Err(ScheduleError::Betas), "no signal left");
        assert_eq!(with("trained_betas", json!(vec![1e-9; 1000])), Err(ScheduleError::Betas), "no noise added");
        assert_eq!(with("beta_end", Value::Null), Err(ScheduleError::Missing("beta_end")));
        assert_eq!(NoiseSchedule::from_config(&json!([])), Err(ScheduleError::NotAnObject));
    }

    #[test]
    fn trained_betas_replace_the_others() {
        let mut config = json!({"trained_betas": vec![0.001; 1200]});
        let error = ScheduleError::Count { found: 1200, expected: 1000 };
        assert_eq!(NoiseSchedule::from_config(&config), Err(error));
        config["num_train_timesteps"] = json!(1200);
        let schedule = NoiseSchedule::from_config(&config).unwrap();
        assert_eq!(schedule.alphas_cumprod().len(), 1200);
        assert_eq!(schedule.alphas_cumprod()[0].to_bits(), (1.0 - 0.001_f32).to_bits());
    }

    #[test]
    fn pythons_infinities_are_null_outside_of_strings() {
        let text = r#"{"a": -Infinity, "NaN \" Infinity": [NaN, Infinity], "c\\": "-Infinity"}"#;
        let expected = r#"{"a": null, "NaN \" Infinity": [null, null], "c\\": "-Infinity"}"#;
        assert_eq!(without_infinities(text), expected);
        assert!(matches!(NoiseSchedule::from_json("{\"a"), Err(ScheduleError::Syntax(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            prop_assert!(NoiseSchedule::from_json(&text).is_err());
        }

        #[test]
        fn any_betas_make_a_schedule_or_none(
            start in prop_oneof![any::<f64>(), -1e-6..1e-2],
            end in prop_oneof![any::<f64>(), -1e-6..1e-1],
            scaled in any::<bool>(),
        ) {
            let beta_schedule = if scaled { "scaled_linear" } else { "linear" };
            let config = json!({"beta_start": start, "beta_end": end, "beta_schedule": beta_schedule});
            if let Ok(schedule) = NoiseSchedule::from_config(&config) {
                let alphas = schedule.alphas_cumprod();
                prop_assert!(alphas[0] < 1.0 && alphas[999] > 0.0 && alphas.is_sorted_by(|high, low| high > low));
            }
        }
    }
}
