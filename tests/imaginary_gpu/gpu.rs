//! The imaginary GPU, built once, and programs that run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{fs, io};

use crate::log::Log;

/// Seconds after which a program is taken to hang.
const PATIENCE: &str = "60";
/// A function of the helper's that it has only if it was built with kernels.
const KERNEL: &[u8] = b"latentd_cuda_group_norm";

/// What a program did.
pub(crate) struct Run {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// What the GPU was asked for.
    pub(crate) log: Log,
}

impl Run {
    /// How many pictures were drawn.
    pub(crate) fn drawn(&self) -> usize {
        self.stdout
            .lines()
            .filter(|line| Path::new(line).extension().is_some_and(|extension| extension == "png"))
            .count()
    }

    /// Lines of its own log that contain `words`.
    pub(crate) fn told(&self, words: &str) -> usize {
        self.stderr.lines().filter(|line| line.contains(words)).count()
    }

    /// It drew so many pictures, and asked the GPU for nothing that a real one would refuse.
    pub(crate) fn assert_drew(&self, pictures: usize) {
        assert!(self.succeeded, "{}", self.stderr);
        assert_eq!(self.drawn(), pictures, "{}{}", self.stdout, self.stderr);
        self.log.assert_sound();
    }
}

/// Runs `latentd run` on the imaginary GPU. What a GPU's speed decides is settled, so that the same is done each time.
pub(crate) fn draw(variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let settled = [("LATENTD_CUDA__ROWS", "2"), ("LATENTD_CUDA__WARM_UP", "off")];
    run(&[&settled[..], variables].concat(), &[&["run", "a red apple", "--log-level", "debug"][..], arguments].concat())
}

/// Runs `latentd` on the imaginary GPU.
pub(crate) fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    program(env!("CARGO_BIN_EXE_latentd"), variables, arguments)
}

/// Runs `program`, with `variables` and no others, on the imaginary GPU.
pub(crate) fn program(program: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("gpu.log");
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(program).args(arguments).current_dir(folder.path());
    command.env_clear().env("LD_PRELOAD", preload()).env("LATENTD_CUDA__HELPER", helper());
    command.env("IMAGINARY_GPU_LOG", &log).env("IMAGINARY_GPU_VERBOSE", "1").envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(status.code() != Some(124), "it did not end within {PATIENCE} s: {arguments:?} {}", last_lines(&stderr));
    let log = Log::read(&fs::read_to_string(&log).or_else(absent).unwrap());
    Run { succeeded: status.success(), stdout, stderr, log }
}

/// Whoever called nothing left no log.
fn absent(cause: io::Error) -> io::Result<String> {
    if cause.kind() == io::ErrorKind::NotFound { Ok(String::new()) } else { Err(cause) }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// The libraries that a program must load before its own.
fn preload() -> &'static str {
    static PRELOAD: OnceLock<String> = OnceLock::new();
    PRELOAD.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imaginary_gpu/build");
        let output =
            Command::new(script).arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("imaginary-gpu")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let environment = String::from_utf8(output.stdout).unwrap();
        environment.trim().strip_prefix("LD_PRELOAD=").unwrap().to_owned()
    })
}

/// The helper with kernels, where scripts/setup-cuda-helper puts it: beside the program, or beside libtorch.
fn helper() -> &'static Path {
    static HELPER: OnceLock<PathBuf> = OnceLock::new();
    HELPER.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_latentd")).parent().unwrap();
        let libtorch = Path::new(env!("CARGO_MANIFEST_DIR")).join(option_env!("LIBTORCH").unwrap_or(".libtorch/torch"));
        let holds_kernels =
            |file: &PathBuf| fs::read(file).is_ok_and(|bytes| bytes.windows(KERNEL.len()).any(|part| part == KERNEL));
        [beside, &libtorch.join("lib")]
            .map(|folder| folder.join("liblatentd_cuda13.so"))
            .into_iter()
            .find(holds_kernels)
            .unwrap_or_else(|| {
                panic!("there is no CUDA helper with kernels: `scripts/setup-cuda-helper --kernels` builds it")
            })
    })
}
