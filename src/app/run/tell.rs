//! Tells what became of a job: files and plain words for a person, one JSON object for a program.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tracing::error;

use super::files;
use super::outcome::{Outcome, exit};
use crate::app::{Exit, complain, say};
use crate::job::{Code, JobError, Timings};

/// Writes a file an image into `folder`, and says where each is and how long all of it took.
pub(super) fn person(outcome: Outcome, prompt: &str, folder: &Path) -> Exit {
    let drawn = match outcome.result {
        Ok(drawn) => drawn,
        Err(failure) => {
            complain(&failure.error);
            failure.hints.iter().for_each(|hint| complain(&format_args!("hint: {hint}")));
            return exit(&failure);
        }
    };
    for warning in &drawn.warnings {
        complain(&format!("warning: {warning}"));
    }
    let stem = files::slug(prompt);
    let files = drawn.images.iter().map(|image| files::create(folder, &format!("{stem}-{}", image.seed), &image.file));
    let told = files.collect::<io::Result<Vec<PathBuf>>>().and_then(|paths| {
        paths.iter().try_for_each(|path| say(&path.strip_prefix(".").unwrap_or(path).display()))?;
        say(&Stages(outcome.timings))
    });
    match told {
        Ok(()) => Exit::Done,
        Err(cause) => {
            complain(&format!("cannot write the images to {}: {cause}", folder.display()));
            Exit::Failed
        }
    }
}

/// Prints the result object; writes a file an image if there is a `folder` for them.
pub(super) fn program(mut outcome: Outcome, folder: Option<&Path>) -> Exit {
    if let Some(folder) = folder {
        outcome = keep(outcome, folder);
    }
    let end = match &outcome.result {
        Ok(_) => Exit::Done,
        Err(failure) if exit(failure) == Exit::Failed => {
            error!(id = outcome.id, code = %failure.error.code, "{}", failure.error);
            Exit::Failed
        }
        // Not the job's end: it was interrupted, or was none of this build.
        Err(failure) => {
            complain(&failure.error);
            return exit(failure);
        }
    };
    match say(&json!(outcome.report())) {
        Ok(()) => end,
        Err(cause) => {
            complain(&format!("cannot print the result: {cause}"));
            Exit::Failed
        }
    }
}

/// Writes the images; a job whose images cannot be written has failed.
fn keep(outcome: Outcome, folder: &Path) -> Outcome {
    let Ok(drawn) = &outcome.result else { return outcome };
    let mut images = drawn.images.iter().enumerate();
    match images.try_for_each(|(index, image)| files::replace(folder, &outcome.id, index, &image.file)) {
        Ok(()) => outcome,
        Err(cause) => {
            let message = format!("cannot write the images to {}: {cause}", folder.display());
            Outcome { result: Err(JobError { code: Code::WriteFailed, message, field: None }.into()), ..outcome }
        }
    }
}

/// How long each stage took, for a person.
struct Stages(Timings);

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timings { fetch, encode, load, text, denoise, decode, png, total, evaluations } = self.0;
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        if !fetch.is_zero() {
            write!(f, "images {}, ", seconds(fetch))?;
        }
        write!(
            f,
            "load {}, text {}, {}denoise {} ({evaluations} evaluations), decode {}, png {}, total {}",
            seconds(load),
            seconds(text),
            if encode.is_zero() { String::new() } else { format!("encode {}, ", seconds(encode)) },
            seconds(denoise),
            seconds(decode),
            seconds(png),
            seconds(total)
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::app::run::{Drawn, Png};
    use crate::engine::EngineTimings;
    use crate::job::{Generation, OutputShape};

    fn outcome(id: &str) -> Outcome {
        let images = [1_u8, 2].map(|n| Png { index: u32::from(n) - 1, seed: n.into(), file: vec![n] }).into();
        let engine = EngineTimings::default();
        let shape = OutputShape::List;
        let (generation, wait, png) = (Generation::default(), Duration::ZERO, Duration::ZERO);
        let drawn = Drawn { images, shape, generation, warnings: Vec::new(), wait, engine, png };
        Outcome { id: id.into(), result: Ok(drawn), timings: Timings::default() }
    }

    #[test]
    fn a_program_gets_files_named_after_the_job() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("out");
        for id in ["j1", "j1"] {
            assert!(keep(outcome(id), &inside).result.is_ok());
        }
        assert_eq!(fs::read(inside.join("j1_0.png")).unwrap(), [1]);
        assert_eq!(fs::read(inside.join("j1_1.png")).unwrap(), [2]);
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 2);
    }

    #[test]
    fn images_that_cannot_be_kept_fail_the_job() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = keep(outcome("j1"), file.path()).result.unwrap_err();
        assert_eq!((exit(&failure), failure.error.code), (Exit::Failed, Code::WriteFailed));
        assert!(failure.error.message.contains(file.path().to_str().unwrap()));
    }

    #[test]
    fn stages_are_told_in_seconds() {
        let timings = Timings {
            load: Duration::from_millis(1234),
            denoise: Duration::from_secs(61),
            evaluations: 50,
            total: Duration::from_secs(62),
            ..Timings::default()
        };
        assert_eq!(
            Stages(timings).to_string(),
            "load 1.23 s, text 0.00 s, denoise 61.00 s (50 evaluations), decode 0.00 s, png 0.00 s, total 62.00 s"
        );
        let fetched = Stages(Timings { fetch: Duration::from_millis(250), ..timings }).to_string();
        assert!(fetched.starts_with("images 0.25 s, load 1.23 s, "), "{fetched}");
    }
}
