//! Whole pictures drawn with LoRAs, a file a key layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use latentd::engine::torch::Lanes;
use latentd::job::{Lora, Spec};
use serde::Deserialize;

use crate::calls;
use crate::pictures;
use crate::report::{Report, Worst};

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
    let list = dir.join("loras.jsonl");
    let list = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let mut cases: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for line in list.lines() {
        let case: Case = serde_json::from_str(line).with_context(|| line.to_owned())?;
        cases.entry(case.picture.model.clone()).or_default().push(case);
    }
    ensure!(!cases.is_empty(), "no case");
    for (model, cases) in cases {
        let mut engine =
            Lanes::new(calls::load(&dir.join("miniatures").join(&model))?).with_loras(Some(dir.join("loras")));
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
