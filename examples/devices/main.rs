//! Does each device of this machine draw what its processor draws in f32? `cargo run --release --example devices -- [MODEL] [--gpus]`, where MODEL is a
//! folder or file with `clip-tokenizer` beside it, else the miniature in a folder `models` above the program. Draws with every sampler, from
//! noise and from an image, alone and with others, on every GPU in f32, f16 and bf16, then on the processor in bf16, unless it is for GPUs alone. On a GPU without the CUDA
//! helper, then with pictures on a second stream, then with weights that came by way of pinned memory, then with kernels of our own, then
//! replayed from CUDA graphs. Prints a table, warnings on stderr; fails if a picture is further off than its numbers explain, if streams and
//! pinned memory change a single bit, if graphs draw anything else than evaluations, if kernels or graphs were asked for and not used, or if
//! there is an NVIDIA driver and no GPU.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

#[cfg(feature = "torch")]
mod drawing;

#[cfg(not(feature = "torch"))]
fn main() {
    eprintln!("devices: this build has no engine");
}

#[cfg(feature = "torch")]
fn main() -> std::process::ExitCode {
    // What an engine does without, it says there and goes on.
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
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
    use std::path::PathBuf;
    use std::time::Instant;

    use anyhow::{Context, Result, bail};
    use latentd::config::{Config, CudaConfig, Device, Dtype, Environment, Flags};
    use latentd::engine::torch::device::cuda::{Helper, Used};
    use latentd::engine::torch::{DeviceError, Model, Target, TorchEngine, device};

    use super::drawing::{EQUAL, Jobs, Pictures, drawn, jobs, psnr};

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

        /// What was asked for and did not come, by what was used.
        fn missed(self, used: Option<Used>) -> Option<&'static str> {
            let Used { recorded, replayed, kernel_calls, .. } = used.unwrap_or_default();
            match self {
                Self::None => None,
                _ if used.is_none() => Some("the CUDA helper was not used"),
                Self::Kernels | Self::Graphs if kernel_calls == 0 => Some("no kernel of our own was called"),
                Self::Graphs if recorded == 0 || replayed == 0 => Some("nothing was replayed from a CUDA graph"),
                _ => None,
            }
        }
    }

    /// A way to draw the jobs.
    struct Way {
        target: Target,
        together: bool,
        help: Help,
    }

    /// What all ways have in common.
    struct Check {
        model: PathBuf,
        tokenizer: PathBuf,
        settings: CudaConfig,
        jobs: Jobs,
        gpus_alone: bool,
    }

    pub(super) fn all() -> Result<bool> {
        let check = Check::new()?;
        // Before anything is computed: libtorch no longer finds a GPU once its processor half has made certain operators.
        let gpus = gpus()?;
        if gpus.is_empty() {
            println!("no NVIDIA driver: the processor alone\n");
        } else {
            // Without it, all ways would be the first.
            println!("the CUDA helper is {}\n", Helper::open(&check.settings)?.path().display());
        }
        let exact = drawn(&mut TorchEngine::new(check.load(Target::REFERENCE)?), &check.jobs, false)?;
        println!("{:<34} {:>9} {:>9} {:>9} {:>9}  worst", "device", "worst dB", "mean dB", "helper dB", "s a job");
        let mut sound = true;
        let processor = (!check.gpus_alone).then(|| Target::choose(Device::Cpu, Dtype::Bf16)).transpose()?;
        for target in gpus.into_iter().chain(processor) {
            if !target.is_cpu() {
                // From the helper on f32 is f32 in all of the process, and no TF32: here from the first picture on.
                drop(TorchEngine::new(check.load(target)?).with_cuda(&check.settings));
            }
            for together in [false, true] {
                let mut before = None;
                for help in if target.is_cpu() { &Help::ALL[..1] } else { &Help::ALL } {
                    let way = Way { target, together, help: *help };
                    let (pictures, is_sound) = check.way(&way, &exact, before.as_ref())?;
                    sound &= is_sound;
                    before = Some(pictures);
                }
            }
        }
        Ok(sound)
    }

    /// Each GPU in each of its numbers; none where there is no driver.
    fn gpus() -> Result<Vec<Target>> {
        let gpus = match device::each(Device::AllCuda) {
            Ok(gpus) => gpus,
            Err(DeviceError::NoDriver(_)) => return Ok(Vec::new()),
            Err(cause) => return Err(cause.into()),
        };
        if gpus.is_empty() {
            bail!("there is an NVIDIA driver, and CUDA finds no GPU");
        }
        let mut targets = Vec::new();
        for gpu in gpus {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                targets.push(Target::choose(gpu, dtype)?);
            }
        }
        Ok(targets)
    }

    impl Check {
        fn new() -> Result<Self> {
            let (options, models): (Vec<_>, Vec<_>) = std::env::args_os().skip(1).partition(|word| word == "--gpus");
            let model = models.first().map_or_else(miniature, |path| Ok(path.into()))?;
            let tokenizer = model.parent().context("MODEL is in no folder")?.join("clip-tokenizer");
            let settings = Config::load(&Flags::default(), &Environment::of_process())?.cuda;
            Ok(Self { model, tokenizer, settings, jobs: jobs(), gpus_alone: !options.is_empty() })
        }

        fn load(&self, target: Target) -> Result<Model> {
            Model::load(&self.model, &self.tokenizer, target).context("the model does not load")
        }

        fn engine(&self, way: &Way) -> Result<TorchEngine> {
            let kernels = matches!(way.help, Help::Kernels | Help::Graphs);
            let settings = CudaConfig { graphs: way.help == Help::Graphs, kernels, ..self.settings.clone() };
            Ok(match way.help {
                Help::None => TorchEngine::new(self.load(way.target)?),
                Help::Pictures => TorchEngine::new(self.load(way.target)?).with_cuda(&settings),
                Help::Weights | Help::Kernels | Help::Graphs => {
                    TorchEngine::load((&self.model, None), &self.tokenizer, way.target, &settings)?
                }
            })
        }

        /// Draws the jobs in one way, and says how like they are to the `exact` ones and to those drawn `before`, with less help; and
        /// whether they are like enough.
        fn way(&self, way: &Way, exact: &Pictures, before: Option<&Pictures>) -> Result<(Pictures, bool)> {
            let mut engine = self.engine(way)?;
            let began = Instant::now();
            let pictures = drawn(&mut engine, &self.jobs, way.together)?;
            let seconds = began.elapsed().as_secs_f64() / self.jobs.len() as f64;
            let likeness: Vec<f64> = exact.iter().map(|(ticket, picture)| psnr(picture, &pictures[ticket])).collect();
            let worst = likeness.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
            let (at, worst) = worst.context("no job")?;
            let mean = likeness.iter().sum::<f64>() / likeness.len() as f64;
            let same = before.map(|before| before.iter().map(|(ticket, picture)| psnr(picture, &pictures[ticket])));
            let same = same.map(|same| same.fold(f64::INFINITY, f64::min));
            let shown = same.map_or_else(|| "-".to_owned(), |same| format!("{same:.1}"));
            let mode = format!("{}{}", if way.together { " (shared)" } else { "" }, way.help.name());
            let (device, job) = (format!("{}{mode}", way.target), &self.jobs[at].0);
            let like = worst >= least(way.target) && same.is_none_or(|same| same >= way.help.least(way.target));
            let missed = way.help.missed(engine.usage().map(|usage| usage.used()));
            let fault = missed.or((!like).then_some("not like enough"));
            let fault = fault.map(|fault| format!("; FAILED: {fault}")).unwrap_or_default();
            println!("{device:<34} {worst:>9.1} {mean:>9.1} {shown:>9} {seconds:>9.3}  {job}{fault}");
            Ok((pictures, fault.is_empty()))
        }
    }

    /// In the checkout that the program was built in, or in the folder that it was brought in.
    fn miniature() -> Result<PathBuf> {
        let program = std::env::current_exe()?;
        let found = program.ancestors().map(|folder| folder.join("models/miniature")).find(|path| path.is_dir());
        found.with_context(|| format!("there is no models/miniature above {}; name a model", program.display()))
    }
}
