//! Reads diffusers' `scheduler_config.json`: betas for the model, and all other keys for whichever sampler has them.

use serde_json::{Map, Value};

use super::{
    betas,
    file_value::{UnsupportedKey, one_of},
    python_json,
    registry::Sampler,
    schedule::NoiseSchedule,
    steps::MAX_STEPS,
};

/// Fewest and most training timesteps: any number of steps must find distinct timesteps, and memory is finite.
const TRAIN_STEPS: std::ops::RangeInclusive<u64> = 2 * MAX_STEPS as u64..=100_000;

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
        let UnsupportedKey { key, value } = UnsupportedKey::of(key, value);
        Self::Unsupported { key, value }
    }
}

impl NoiseSchedule {
    /// Reads the text of a `scheduler_config.json`. Unlike a strict JSON parser it takes the bare `Infinity` and `NaN`
    /// that Python writes, for null: DPM-Solver's configurations have `"lambda_min_clipped": -Infinity`.
    ///
    /// # Errors
    /// [`ScheduleError`] for what is not JSON, and as for [`Self::from_config`].
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        let config = python_json::parse(text).map_err(|error| ScheduleError::Syntax(error.to_string()))?;
        Self::from_config(&config)
    }

    /// Reads a parsed `scheduler_config.json`, whichever scheduler class wrote it, as `from_config` of another class
    /// would: what is set holds for every sampler whose class has such a key, what is not is each sampler's own default. Keys that start with
    /// `_` and values of null are passed over. What a sampler cannot follow is its own matter
    /// ([`PlanError`](super::PlanError)), as long as another can.
    ///
    /// # Errors
    /// [`ScheduleError`] for a key of the betas that is not supported, by name, or of all samplers, and for betas that make no schedule.
    pub fn from_config(config: &Value) -> Result<Self, ScheduleError> {
        let mut draft = Draft::default();
        for (key, value) in config.as_object().ok_or(ScheduleError::NotAnObject)? {
            if !key.starts_with('_') && !value.is_null() {
                draft.read(key, value).ok_or_else(|| ScheduleError::unsupported(key, value))?;
            }
        }
        let schedule = Self::new(&draft.betas()?, draft.others).ok_or(ScheduleError::Betas)?;
        let faults = Sampler::ALL.iter().map_while(|sampler| schedule.of(*sampler).err());
        match faults.enumerate().last() {
            // A model that no sampler draws with is refused when it is read, not by each of its jobs.
            Some((at, UnsupportedKey { key, value })) if at + 1 == Sampler::ALL.len() => {
                Err(ScheduleError::Unsupported { key, value })
            }
            _ => Ok(schedule),
        }
    }
}

/// What has been read so far.
#[derive(Default)]
struct Draft {
    train_steps: Option<usize>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    scaled: Option<bool>,
    trained_betas: Option<Vec<f32>>,
    others: Map<String, Value>,
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
            _ => {
                self.others.insert(key.to_owned(), value.clone());
            }
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

fn train_steps(value: &Value) -> Option<usize> {
    value.as_u64().filter(|count| TRAIN_STEPS.contains(count)).map(|count| count as usize)
}

fn numbers(value: &Value) -> Option<Vec<f32>> {
    let values = value.as_array().filter(|values| TRAIN_STEPS.contains(&(values.len() as u64)))?;
    values.iter().map(|value| value.as_f64().map(|number| number as f32)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn with(key: &str, value: Value) -> Result<NoiseSchedule, ScheduleError> {
        let mut config = json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"});
        config[key] = value;
        NoiseSchedule::from_config(&config)
    }

    #[test]
    fn what_the_betas_are_made_of_is_refused_by_name_and_value() {
        for (key, value) in [
            ("beta_schedule", json!("squaredcos_cap_v2")),
            ("num_train_timesteps", json!(999)),
            ("num_train_timesteps", json!(1000.0)),
            ("beta_start", json!("0.1")),
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
    fn keys_that_no_sampler_has_change_nothing_and_are_told() {
        let schedule = with("something_new", json!({"any": "thing"})).unwrap();
        assert_eq!(schedule.unknown_keys().collect::<Vec<_>>(), ["something_new"]);
        for (key, value) in [("trained_betas", Value::Null), ("_private", json!(1)), ("something", Value::Null)] {
            assert_eq!(with(key, value), with("_class_name", json!("PNDMScheduler")), "{key}");
        }
        assert_eq!(with("clip_sample", json!(true)).unwrap().unknown_keys().count(), 0);
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
