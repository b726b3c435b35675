//! Whole pictures drawn with LoRAs, a file a key layout.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use latentd::engine::torch::TorchEngine;
use latentd::job::{Lora, Spec};
use serde::Deserialize;

use super::calls;
use super::pictures;
use super::report::{Report, Worst};

/// One job, as `scripts/parity/loras.py` asked the reference.
#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    picture: pictures::Case,
    lora: String,
    lora_scale: f64,
}

/// Compares every case of `dir/loras.jsonl`, a row of figures a file.
pub(crate) fn check(dir: &Path, report: &mut Report) -> Result<()> {
    for (model, cases) in pictures::by_model(&dir.join("loras.jsonl"), |case: &Case| case.picture.model.clone())? {
        let mut engine =
            TorchEngine::new(calls::load(&pictures::path_of(dir, &model))?).with_loras(Some(dir.join("loras")));
        let mut groups: BTreeMap<String, [Worst; 2]> = BTreeMap::new();
        for Case { picture, lora, lora_scale } in cases {
            let change = Some(Lora { name: lora.clone(), scale: lora_scale });
            let spec = Spec { lora: change, ..pictures::spec(dir, &picture)? };
            let drawn = pictures::draw(&mut engine, &spec).with_context(|| lora.clone())?;
            let [share, most] = pictures::compare(&drawn, &pictures::reference(dir, &picture)?)?;
            let place = || {
                let Spec { steps, guidance_scale, sampler, .. } = &spec;
                format!("{} {sampler} steps {steps} guidance {guidance_scale} scale {lora_scale}", picture.file)
            };
            let group = groups.entry(lora).or_default();
            group[0].see(share, place);
            group[1].see(most, place);
        }
        for (lora, [share, most]) in groups {
            let checks = format!("{model} {lora}");
            report.row("lora >1", &checks, &share, pictures::SHARE_BOUND);
            report.row("lora most", &checks, &most, pictures::MOST_BOUND);
        }
    }
    Ok(())
}
