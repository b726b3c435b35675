//! An engine without a model: one flat-coloured picture a seed, or the init image where no step is made. It lets everything around the engine be tested.

use std::collections::VecDeque;

use super::{Engine, EngineLoad, EngineTimings, Event, Memory, Picture, Poisoned, Progress, Ticket};
use crate::job::{JobError, Spec};

/// Evaluates one job at a time in turn, one evaluation an image and step, and costs nothing.
#[derive(Debug, Default)]
pub struct Fake {
    jobs: VecDeque<Job>,
    evaluations: u32,
    rows: usize,
    poison_after: Option<u32>,
    panic_after: Option<u32>,
    cold: usize,
}

#[derive(Debug)]
struct Job {
    ticket: Ticket,
    spec: Spec,
    done: u32,
}

impl Fake {
    /// A fake that stops at its `evaluations`th evaluation, as an engine does that lost its device.
    pub fn poisoned_after(evaluations: u32) -> Self {
        Self { poison_after: Some(evaluations), ..Self::default() }
    }

    /// A fake that has so many shapes to make ready for.
    pub fn cold(shapes: usize) -> Self {
        Self { cold: shapes, ..Self::default() }
    }

    /// A fake that panics at its `evaluations`th evaluation, as one with a bug does.
    pub fn panicking_after(evaluations: u32) -> Self {
        Self { panic_after: Some(evaluations), ..Self::default() }
    }
}

impl Engine for Fake {
    fn admit(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError> {
        self.jobs.push_back(Job { ticket, spec: spec.clone(), done: 0 });
        Ok(Vec::new())
    }

    fn advance(&mut self) -> Result<Vec<(Ticket, Event)>, Poisoned> {
        self.evaluations += 1;
        if self.poison_after.is_some_and(|limit| self.evaluations >= limit) {
            return Err(Poisoned { reason: "the fake was told to stop".into() });
        }
        assert!(self.panic_after.is_none_or(|limit| self.evaluations < limit), "the fake was told to panic");
        self.rows = 0;
        let Some(mut job) = self.jobs.pop_front() else { return Ok(Vec::new()) };
        self.rows = job.spec.num_outputs as usize;
        let total = (job.spec.steps - job.spec.first_step()) * job.spec.num_outputs;
        job.done = total.min(job.done + job.spec.num_outputs);
        let mut events = vec![(job.ticket, Event::Progress(Progress { done: job.done, total }))];
        if job.spec.preview {
            events.push((job.ticket, Event::Preview(flat(&job.spec, job.spec.seed))));
        }
        if job.done < total {
            self.jobs.push_back(job);
            return Ok(events);
        }
        for index in 0..job.spec.num_outputs {
            let seed = job.spec.seed_of(index);
            events.push((job.ticket, Event::Image { index, seed, picture: flat(&job.spec, seed) }));
        }
        events.push((job.ticket, Event::Finished(EngineTimings { evaluations: total, ..EngineTimings::default() })));
        Ok(events)
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.jobs.retain(|job| job.ticket != ticket);
    }

    fn warm_up(&mut self) -> Result<Option<usize>, Poisoned> {
        Ok(self.cold.checked_sub(1).inspect(|left| self.cold = *left))
    }

    fn busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    fn most_rows(&self) -> usize {
        16
    }

    fn load(&self) -> EngineLoad {
        let lanes = self.jobs.iter().map(|job| job.spec.num_outputs as usize).sum();
        EngineLoad { lanes, rows: self.rows }
    }

    fn memory(&self) -> Option<Memory> {
        None
    }
}

/// A picture of one colour, which the seed decides; without a step, what the job began from.
fn flat(spec: &Spec, seed: u64) -> Picture {
    if let Some(start) = spec.start.as_ref().filter(|_| spec.first_step() == spec.steps) {
        return Picture::clone(&start.image.picture);
    }
    let [r, g, b, ..] = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    let count = (spec.size.width * spec.size.height) as usize;
    Picture { width: spec.size.width, height: spec.size.height, pixels: [r, g, b].repeat(count) }
}

/// A small job for tests: `num_outputs` images of 128×128 in `steps` steps.
pub fn spec(num_outputs: u32, steps: u32) -> Spec {
    Spec {
        model: "m".into(),
        prompt: "a test".into(),
        negative_prompt: None,
        size: crate::job::Size { width: 128, height: 128 },
        num_outputs,
        steps,
        guidance_scale: 7.5,
        prompt_syntax: crate::job::PromptSyntax::Plain,
        clip_skip: 0,
        sampler: crate::sampler::Sampler::KLms,
        seed: 1,
        start: None,
        lora: None,
        preview: false,
        denoising_end: None,
        refine: None,
        sigmas: crate::sampler::SigmaSpacing::Default,
        eta: 0.0,
    }
}
