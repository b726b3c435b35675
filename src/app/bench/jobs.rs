//! What is drawn: one job many times, and a stream of all kinds.

use serde_json::{Value, json};

use crate::app::cli::BenchArgs;
use crate::job::{Contract, OfferedModel, Size};

/// Kinds of jobs by steps, sampler and guidance: no two next to each other are alike, and none lasts as long as the one before.
const KINDS: [(u32, &str, f64); 6] = [
    (20, "DDIM", 7.5),
    (30, "EULER-D", 7.5),
    (10, "DPM-M", 5.0),
    (25, "EULER-A", 7.5),
    (50, "PNDM", 7.5),
    (15, "K-LMS", 1.0),
];

/// What is asked of `model` while it is measured. Steps and images are those of a base model, whatever the contract of a distilled one allows.
pub(super) fn measured(model: &OfferedModel) -> OfferedModel {
    let contract = match model.defaults.contract {
        Contract::SdxlTurbo => Contract::Sdxl,
        contract => contract,
    };
    OfferedModel { refined: model.refined, ..OfferedModel::new(&model.name, contract) }
}

/// The input of one drawing of `outputs` images by a model of `contract`; what `fields` say is so. `number` makes a prompt that no other has, as an engine
/// reads none twice.
pub(super) fn one(
    fields: &[(String, Value)],
    contract: Contract,
    (size, steps): (Size, u32),
    (outputs, number): (u32, u32),
) -> Value {
    let table = contract.table();
    let mut input = json!({
        "prompt": format!("a red apple, {number}"), "width": size.width, "height": size.height, table.steps: steps, "scheduler": "DDIM",
        "guidance_scale": 7.5, table.count: outputs, "seed": 7,
    });
    for (field, value) in fields {
        input[field] = value.clone();
    }
    input
}

/// As many as are asked for, as inputs.
pub(super) fn mixed(args: &BenchArgs) -> Vec<Value> {
    (0..args.jobs).map(|number| of(args, number)).collect()
}

fn of(args: &BenchArgs, number: u32) -> Value {
    let (steps, scheduler, guidance) = KINDS[number as usize % KINDS.len()];
    let size = args.sizes[0];
    json!({
        "prompt": "a red apple", "width": size.width, "height": size.height, "num_inference_steps": steps, "scheduler": scheduler,
        "guidance_scale": guidance, "seed": number,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::app::cli::{Cli, Command};
    use crate::job::{Offer, validate};

    #[test]
    fn one_job_is_as_the_flags_have_it() {
        let size = Size { width: 512, height: 256 };
        for contract in [Contract::Sd1, Contract::Sdxl] {
            let offer = Offer { models: vec![OfferedModel::new("m", contract)], ..Offer::default() };
            let drawn = |fields: &[(&str, Value)]| {
                let fields: Vec<_> = fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect();
                let spec = validate(&one(&fields, contract, (size, 3), (2, 1)), &offer, 0).unwrap();
                (spec.size, spec.steps, spec.num_outputs, spec.guidance_scale, spec.sampler.name())
            };
            let prompt = |number| one(&[], contract, (size, 3), (2, number))["prompt"].clone();
            assert_ne!(prompt(1), prompt(2));
            assert_eq!(drawn(&[]), (size, 3, 2, 7.5, "DDIM"), "{contract}");
            let fields = [("guidance_scale", json!(0)), ("scheduler", json!("EULER-A"))];
            assert_eq!(drawn(&fields), (size, 3, 2, 0.0, "EULER-A"), "{contract}");
        }
    }

    #[test]
    fn each_kind_of_job_is_one_that_a_worker_takes() {
        let cli = Cli::try_parse_from(["latentd", "bench"]).unwrap();
        let Some(Command::Bench(mut args)) = cli.command else { panic!("another command") };
        args.sizes.push(Size { width: 512, height: 512 });
        let jobs = mixed(&args);
        assert!(jobs.len() >= KINDS.len());
        for contract in Contract::ALL {
            let models = vec![measured(&OfferedModel::new("m", *contract))];
            let offer = Offer { models, ..Offer::default() };
            for job in &jobs {
                assert!(validate(job, &offer, 0).is_ok(), "{contract}: {job}");
            }
        }
    }
}
