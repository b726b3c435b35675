//! Does each device of this machine draw what its processor draws in f32? `cargo run --release --example devices -- [MODEL]`, where MODEL is a
//! folder or file, else the miniature. Draws with every sampler, from noise and from an image, alone and with others, on every GPU in
//! f32, f16 and bf16, and on the processor in bf16. Prints a table; fails if a picture is further off than its numbers explain.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

#[cfg(not(feature = "torch"))]
fn main() {
    eprintln!("devices: this build has no engine");
}

#[cfg(feature = "torch")]
fn main() -> std::process::ExitCode {
    match check::all() {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(cause) => {
            eprintln!("devices: {cause:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "torch")]
mod check {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Instant;

    use anyhow::{Context, Result};
    use latentd::config::{Device, Dtype};
    use latentd::engine::torch::{Lanes, Model, Target, device};
    use latentd::engine::{Engine, Event, Picture, Ticket};
    use latentd::job::{Brought, Size, Spec, Start};
    use latentd::sampler::Sampler;

    /// Jobs by what a table calls them.
    type Jobs = Vec<(String, Spec)>;
    type Pictures = BTreeMap<Ticket, Picture>;

    /// Decibels that the worst picture keeps, by what is computed in: f32 differs in the order of sums alone; the sampler adds up what
    /// 11 and 8 bits of mantissa lose.
    fn least(dtype: Dtype) -> f64 {
        match dtype {
            Dtype::F32 | Dtype::Auto => 50.0,
            Dtype::F16 => 28.0,
            Dtype::Bf16 => 20.0,
        }
    }

    pub(super) fn all() -> Result<bool> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let model = std::env::args_os().nth(1).map_or_else(|| root.join("miniature"), PathBuf::from);
        let load =
            |target| Model::load(&model, &root.join("clip-tokenizer"), target).context("the model does not load");
        let jobs = jobs();
        let exact = drawn(Lanes::new(load(Target::REFERENCE)?), &jobs, false)?;
        let mut targets = vec![(Device::Cpu, Dtype::Bf16)];
        for gpu in device::each(Device::AllCuda).unwrap_or_default() {
            targets.extend([Dtype::F32, Dtype::F16, Dtype::Bf16].map(|dtype| (gpu, dtype)));
        }
        println!("{:<22} {:>9} {:>9} {:>9}  worst", "device", "worst dB", "mean dB", "s a job");
        let mut sound = true;
        for (device, dtype) in targets {
            let target = Target::choose(device, dtype)?;
            for together in [false, true] {
                let began = Instant::now();
                let pictures = drawn(Lanes::new(load(target)?), &jobs, together)?;
                let seconds = began.elapsed().as_secs_f64() / jobs.len() as f64;
                let likeness: Vec<f64> =
                    exact.iter().map(|(ticket, picture)| psnr(picture, &pictures[ticket])).collect();
                let (at, worst) =
                    likeness.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).context("no job")?;
                let mean = likeness.iter().sum::<f64>() / likeness.len() as f64;
                let (job, mode) = (&jobs[at].0, if together { " (shared)" } else { "" });
                println!("{:<22} {worst:>9.1} {mean:>9.1} {seconds:>9.3}  {job}", format!("{target}{mode}"));
                sound &= worst >= least(dtype);
            }
        }
        Ok(sound)
    }

    /// Every sampler, from noise and from a picture.
    fn jobs() -> Jobs {
        let size = Size { width: 256, height: 192 };
        let pixels =
            (0..size.height).flat_map(|y| (0..size.width).flat_map(move |x| [x as u8, y as u8, (x ^ y) as u8]));
        let picture = Arc::new(Picture { width: size.width, height: size.height, pixels: pixels.collect() });
        let image = Brought { picture, sha256: String::new() };
        let job = |sampler: &Sampler, start: Option<Start>| Spec {
            model: "m".into(),
            prompt: "a red apple".into(),
            negative_prompt: None,
            size,
            num_outputs: 1,
            steps: 20,
            guidance_scale: 5.0,
            sampler: *sampler,
            seed: 7,
            start,
            lora: None,
            preview: false,
        };
        let start = || Some(Start { image: image.clone(), strength: 0.6, mask: None });
        let both = |sampler: &Sampler| {
            let name = sampler.name();
            [(name.to_owned(), job(sampler, None)), (format!("{name} from an image"), job(sampler, start()))]
        };
        Sampler::ALL.iter().flat_map(both).collect()
    }

    /// The picture of each job, drawn one after the other or all side by side.
    fn drawn(mut engine: Lanes, jobs: &Jobs, together: bool) -> Result<Pictures> {
        let mut pictures = Pictures::new();
        for (number, (name, spec)) in (0..).zip(jobs) {
            engine.admit(Ticket(number), spec).with_context(|| name.clone())?;
            if !together {
                finish(&mut engine, &mut pictures)?;
            }
        }
        finish(&mut engine, &mut pictures)?;
        Ok(pictures)
    }

    fn finish(engine: &mut Lanes, pictures: &mut Pictures) -> Result<()> {
        while engine.busy() {
            for (ticket, event) in engine.advance()? {
                match event {
                    Event::Image { picture, .. } => drop(pictures.insert(ticket, picture)),
                    Event::Failed(cause) => return Err(cause.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Peak signal-to-noise ratio in decibels; 99 for equal pictures.
    fn psnr(a: &Picture, b: &Picture) -> f64 {
        let squares = a.pixels.iter().zip(&b.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
        let mean = squares.sum::<f64>() / a.pixels.len() as f64;
        if mean > 0.0 { (10.0 * (255.0_f64.powi(2) / mean).log10()).min(99.0) } else { 99.0 }
    }
}
