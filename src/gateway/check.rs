//! A bad request never waits for a GPU: jobs of our own workers are checked before they are queued.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::job::{Contract, Flat, Offer, OfferedModel, validate};

use super::reply::ApiError;

/// Who works on an endpoint's jobs.
#[derive(Debug, Clone, PartialEq)]
pub enum Handler {
    /// Workers of ours, whose input is known.
    Latentd {
        /// The models that they draw with, if that is known here.
        models: Option<Vec<OfferedModel>>,
        /// What jobs of models may be asked that are not known here.
        contract: Contract,
    },
    /// Somebody's own, who check what they get.
    External,
}

impl Handler {
    /// The models that are known here, first that of jobs which name none; else one without a name.
    pub(super) fn models(&self) -> Vec<OfferedModel> {
        match self {
            Self::Latentd { models: Some(models), .. } if !models.is_empty() => models.clone(),
            Self::Latentd { contract, .. } => vec![OfferedModel::new("", *contract)],
            Self::External => vec![OfferedModel::new("", Contract::Sd1)],
        }
    }

    /// Checks an input by the rules that its worker will check it by. Whether a LoRA file is there, the worker alone knows.
    pub(super) fn check(&self, input: &RawValue) -> Result<(), ApiError> {
        let Self::Latentd { models, contract } = self else { return Ok(()) };
        let Flat { value: input, more } =
            Flat::read(input).map_err(|error| ApiError::BadRequest(format!("`input` cannot be read: {error}")))?;
        let named = |key: &str| input.get(key).and_then(Value::as_str).into_iter();
        let models = models.clone().unwrap_or_else(|| {
            // Of a model that is not known here, its worker checks what it has of its own.
            vec![OfferedModel::new(named("model").next().unwrap_or_default(), *contract)]
        });
        let offer = Offer { models, loras: named("lora").map(str::to_owned).collect() };
        // With so many keys that not all were kept, some are wrong.
        validate(&input, &offer, 0).map(drop).map_err(|complaints| ApiError::Invalid(complaints.and(more)))
    }
}
