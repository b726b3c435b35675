//! The jobs of a stream, of all kinds.

use serde_json::{Value, json};

use crate::app::cli::BenchArgs;
use crate::job::{Contract, OfferedModel};

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
    OfferedModel::new(&model.name, contract)
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
    use crate::job::{Offer, Size, validate};

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
