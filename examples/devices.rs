//! Does each device of this machine draw what its processor draws in f32? `cargo run --release --example devices -- [MODEL]`, where MODEL is a
//! folder or file, else the miniature. Draws with every sampler, from noise and from an image, alone and with others, on every GPU in
//! f32, f16 and bf16, and on the processor in bf16. On a GPU without the CUDA helper, then with pictures on a second stream, then with
//! weights that came by way of pinned memory, then with kernels of our own, then replayed from CUDA graphs. Prints a table; fails if a picture
//! is further off than its numbers explain, if streams and pinned memory change a single bit, or if graphs draw anything else than evaluations.

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
    use latentd::config::{Config, Cuda, Device, Dtype, Environment, Flags};
    use latentd::engine::torch::cuda::Helper;
    use latentd::engine::torch::{Lanes, Model, Target, device};
    use latentd::engine::{Engine, Event, Picture, Ticket};
    use latentd::job::{Brought, Size, Spec, Start};
    use latentd::sampler::Sampler;

    /// Jobs by what a table calls them.
    type Jobs = Vec<(String, Spec)>;
    type Pictures = BTreeMap<Ticket, Picture>;

    /// Decibels that the worst picture keeps, by what is computed in: f32 differs in the order of sums alone; the sampler adds up what
    /// 11 and 8 bits of mantissa lose.
    fn least(target: Target) -> f64 {
        match target.to_string().rsplit(' ').next() {
            Some("bf16") => 20.0,
            Some("f16") => 28.0,
            _ => 50.0,
        }
    }

    /// What the helper is asked for, each together with what stands before it.
    #[derive(Clone, Copy, PartialEq)]
    enum Help {
        None,
        Pictures,
        Weights,
        Kernels,
        Graphs,
    }

    impl Help {
        /// On a GPU.
        const ALL: [Self; 5] = [Self::None, Self::Pictures, Self::Weights, Self::Kernels, Self::Graphs];

        fn name(self) -> &'static str {
            match self {
                Self::None => "",
                Self::Pictures => ", 2nd stream",
                Self::Weights => ", pinned",
                Self::Kernels => ", kernels",
                Self::Graphs => ", graphs",
            }
        }

        /// Decibels that it keeps of what the same device draws without it: equal pictures. Kernels of our own round elsewhere; under
        /// graphs others may be used where rows are padded to a bucket.
        fn least(self, target: Target) -> f64 {
            match self {
                Self::Kernels => least(target),
                Self::Graphs => 40.0,
                _ => EQUAL,
            }
        }
    }

    /// Decibels of equal pictures.
    const EQUAL: f64 = 99.0;

    /// A way to draw the jobs.
    struct Way {
        target: Target,
        together: bool,
        help: Help,
    }

    pub(super) fn all() -> Result<bool> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let model = std::env::args_os().nth(1).map_or_else(|| root.join("miniature"), PathBuf::from);
        let tokenizer = root.join("clip-tokenizer");
        let load = |target| Model::load(&model, &tokenizer, target).context("the model does not load");
        let settings = Config::load(&Flags::default(), &Environment::default())?.cuda;
        let engine = |way: &Way| -> Result<Lanes> {
            let kernels = matches!(way.help, Help::Kernels | Help::Graphs);
            let settings = Cuda { graphs: way.help == Help::Graphs, kernels, ..settings.clone() };
            Ok(match way.help {
                Help::None => Lanes::new(load(way.target)?),
                Help::Pictures => Lanes::new(load(way.target)?).with_cuda(&settings),
                Help::Weights | Help::Kernels | Help::Graphs => Lanes::load(&model, &tokenizer, way.target, &settings)?,
            })
        };
        let jobs = jobs();
        let exact = drawn(Lanes::new(load(Target::REFERENCE)?), &jobs, false)?;
        let mut targets = vec![Target::choose(Device::Cpu, Dtype::Bf16)?];
        for gpu in device::each(Device::AllCuda).unwrap_or_default() {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                targets.push(Target::choose(gpu, dtype)?);
            }
        }
        if targets.len() > 1 {
            // Without it, all ways would be the first.
            println!("the CUDA helper is {}\n", Helper::open(&settings)?.path().display());
        }
        println!("{:<34} {:>9} {:>9} {:>9} {:>9}  worst", "device", "worst dB", "mean dB", "helper dB", "s a job");
        let mut sound = true;
        for target in targets {
            // From the helper on f32 is f32 in all of the process, and no TF32: here from the first picture on.
            drop(Lanes::new(load(target)?).with_cuda(&settings));
            for together in [false, true] {
                let mut before = None;
                for help in if target.is_cpu() { &Help::ALL[..1] } else { &Help::ALL } {
                    let way = Way { target, together, help: *help };
                    let engine = engine(&way)?;
                    let began = Instant::now();
                    let pictures = drawn(engine, &jobs, together)?;
                    let seconds = began.elapsed().as_secs_f64() / jobs.len() as f64;
                    sound &= told(&way, &jobs, &exact, before.as_ref(), &pictures, seconds)?;
                    before = Some(pictures);
                }
            }
        }
        Ok(sound)
    }

    /// Prints how like `pictures` are to the `exact` ones and to those `before`, with less help; whether they are like enough.
    fn told(
        way: &Way,
        jobs: &Jobs,
        exact: &Pictures,
        before: Option<&Pictures>,
        pictures: &Pictures,
        seconds: f64,
    ) -> Result<bool> {
        let likeness: Vec<f64> = exact.iter().map(|(ticket, picture)| psnr(picture, &pictures[ticket])).collect();
        let (at, worst) = likeness.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).context("no job")?;
        let mean = likeness.iter().sum::<f64>() / likeness.len() as f64;
        let same = before.map(|before| before.iter().map(|(ticket, picture)| psnr(picture, &pictures[ticket])));
        let same = same.map(|same| same.fold(f64::INFINITY, f64::min));
        let mode = format!("{}{}", if way.together { " (shared)" } else { "" }, way.help.name());
        let shown = same.map_or_else(|| "-".to_owned(), |same| format!("{same:.1}"));
        let (device, job) = (format!("{}{mode}", way.target), &jobs[at].0);
        println!("{device:<34} {worst:>9.1} {mean:>9.1} {shown:>9} {seconds:>9.3}  {job}");
        Ok(worst >= least(way.target) && same.is_none_or(|same| same >= way.help.least(way.target)))
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
