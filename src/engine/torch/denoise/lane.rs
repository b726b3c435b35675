//! A lane: one image on its way from noise to latents, through one stage or several.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::init_image::{InitImage, Inpaint, InpaintBlend, add_noise};
use super::stage::{Guidance, Stage, StageEntry};
use crate::engine::Ticket;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::conditioning::Conditioning;
use crate::noise::TorchRng;
use crate::sampler::{Level, Prediction, Row};

/// Which image of which job a lane makes, and from which seed.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct LaneId {
    pub(in crate::engine::torch) ticket: Ticket,
    /// Position in the job, from 0.
    pub(in crate::engine::torch) index: u32,
    pub(in crate::engine::torch) seed: u64,
}

/// One image being made. State is f32 whatever the model computes in, as in the reference.
#[derive(Debug)]
pub(in crate::engine::torch) struct Lane {
    pub(in crate::engine::torch) id: LaneId,
    /// Evaluation that it took part in last; 0 before the first.
    pub(in crate::engine::torch) served: u64,
    /// At least one, of latents of one shape.
    stages: Rc<[Stage]>,
    /// Which of them is under way, and its next row.
    stage: usize,
    row: usize,
    /// `[slots, latent, height, width]`; slot 0 is the image.
    state: Tensor,
    noise: TorchRng,
    init_image: Option<Rc<InitImage>>,
    blend: Option<InpaintBlend>,
    /// What the first stage's UNet is told, where it takes channels beside the latents, which each lane has its own of.
    told_first: Option<Guidance>,
}

impl Lane {
    /// A lane at the beginning of `stages`: `init_image`, or pure noise from its seed. Latents have `channels` channels.
    pub(in crate::engine::torch) fn new(
        id: LaneId,
        stages: Rc<[Stage]>,
        channels: i64,
        init_image: Option<Rc<InitImage>>,
        context: &DeviceContext,
    ) -> Forward<Self> {
        let mut noise = TorchRng::new(id.seed);
        let Stage { key, run, guidance, networks, .. } = &stages[0];
        let shape = [1, channels, i64::from(key.height), i64::from(key.width)];
        let (begin, kept) = match &init_image {
            None => (context.draw(&mut noise, &shape)?.f_mul_scalar(run.plan.initial_scale)?, None),
            Some(init_image) => init_image.begin(&shape, &mut noise, &run.plan, context)?,
        };
        let (blend, told_first) = match kept {
            None => (None, None),
            Some(Inpaint::Blend(blend)) => (Some(blend), None),
            Some(Inpaint::Concat(concat)) => {
                (None, Some(guidance.with_concat(&concat.f_to_kind(networks.unet.kind())?)))
            }
        };
        let state = with_memory(&begin, run.plan.slots)?;
        let mut lane = Self { id, served: 0, stages, stage: 0, row: 0, state, noise, init_image, blend, told_first };
        lane.skip_done_stages(context)?;
        Ok(lane)
    }

    /// What draws it now.
    pub(in crate::engine::torch) fn stage(&self) -> &Stage {
        &self.stages[self.stage]
    }

    /// Rows that it needs in the UNet's batch.
    pub(in crate::engine::torch) fn rows(&self) -> usize {
        self.stage().guidance.rows()
    }

    fn current(&self) -> &Row {
        &self.stage().run.plan.rows[self.row]
    }

    /// Whether no row is left.
    pub(in crate::engine::torch) fn is_finished(&self) -> bool {
        self.row == self.stage().run.plan.rows.len()
    }

    /// The image's latents, `[1, latent, height, width]`.
    pub(in crate::engine::torch) fn latents(&self) -> Forward {
        self.state.f_narrow(0, 0, 1)
    }

    /// What it began from.
    pub(in crate::engine::torch) fn init_image(&self) -> Option<&InitImage> {
        self.init_image.as_deref()
    }

    /// What the UNet sees of it at this row, `[1, latent, height, width]`.
    pub(in crate::engine::torch) fn input(&self) -> Forward {
        self.latents()?.f_mul_scalar(self.current().input_scale)
    }

    /// What the UNet is told of the time, `[1, time]`.
    pub(in crate::engine::torch) fn time(&self) -> Forward {
        self.stage().run.time(self.row)
    }

    /// What its rows of the UNet's batch are conditioned on.
    pub(in crate::engine::torch) fn conditionings(&self) -> impl Iterator<Item = &Rc<Conditioning>> {
        let own = self.told_first.as_ref().filter(|_| self.stage == 0);
        own.unwrap_or(&self.stage().guidance).conditionings()
    }

    /// The latents without noise, `[1, latent, height, width]`, if the guided `output` is right.
    pub(in crate::engine::torch) fn predicted_x0(&self, output: &Tensor) -> Forward {
        let Level { signal, noise } = self.current().told;
        match self.stage().run.plan.prediction {
            Prediction::Epsilon => self.input()?.f_sub(&output.f_mul_scalar(noise)?)?.f_div_scalar(signal),
            Prediction::Sample => Ok(output.shallow_clone()),
            Prediction::Velocity => self.input()?.f_mul_scalar(signal)?.f_sub(&output.f_mul_scalar(noise)?),
        }
    }

    /// Moves on by one row, by the guided `output`, `[1, latent, height, width]` in f32.
    pub(in crate::engine::torch) fn step(&mut self, output: Tensor, context: &DeviceContext) -> Forward<()> {
        let draws = self.current().update.draws_noise();
        let mut terms = vec![self.state.shallow_clone(), output];
        if draws {
            terms.push(context.draw(&mut self.noise, &terms[1].size())?);
        }
        let terms = Tensor::f_cat(&terms, 0)?;
        // All slots at once: [slots, terms] times [terms, values].
        let factors = self.stage().run.factors(self.row, terms.size()[0])?;
        self.state = factors.f_matmul(&terms.f_flatten(1, 3)?)?.f_reshape(self.state.size())?;
        if let Some(blend) = &self.blend {
            let mut x = self.latents()?;
            x.f_copy_(&blend.blend(&x, self.current().keep)?)?;
        }
        self.row += 1;
        self.skip_done_stages(context)
    }

    /// Goes on to the next stage that has a row, if this one has none left. What the sampler remembers of earlier rows begins empty.
    fn skip_done_stages(&mut self, context: &DeviceContext) -> Forward<()> {
        if !self.is_finished() {
            return Ok(());
        }
        let after = &self.stages[self.stage + 1..];
        let Some(next) = after.iter().position(|stage| !stage.run.plan.rows.is_empty()) else { return Ok(()) };
        let (left, unused_draw) = (self.stage().run.plan.end(), self.stage().run.plan.unused_draw);
        (self.stage, self.row) = (self.stage + 1 + next, 0);
        let (entry, begin) = (self.stage().entry, self.stage().run.plan.begin);
        let latents = self.latents()?;
        if unused_draw {
            let _ = context.draw(&mut self.noise, &latents.size())?;
        }
        let latents = match entry {
            StageEntry::Continue => latents.f_mul_scalar(left.rescaled(begin))?,
            StageEntry::AddNoise => {
                let noise = context.draw(&mut self.noise, &latents.size())?;
                add_noise(&latents, &noise, begin)?
            }
        };
        self.state = with_memory(&latents, self.stage().run.plan.slots)?;
        Ok(())
    }
}

/// `latents` in the first of `slots`, zeros in the others.
fn with_memory(latents: &Tensor, slots: usize) -> Forward {
    let (_, channels, height, width) = latents.size4()?;
    let memory = [slots as i64 - 1, channels, height, width];
    let memory = Tensor::f_zeros(memory, (Kind::Float, latents.device()))?;
    Tensor::f_cat(&[latents, &memory], 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use tch::Device;

    use super::super::stage::{Guidance, SamplerRun};
    use super::*;
    use crate::batch::Key;
    use crate::engine::torch::device::Target;
    use crate::engine::torch::families::Model;
    use crate::sampler::{Sampler, plan};

    const SHAPE: [i64; 4] = [1, 4, 2, 3];

    fn model() -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch/miniatures/tiny");
        Model::load(&folder, &folder.join("tokenizer"), Target::REFERENCE).unwrap()
    }

    /// By networks of this `number`.
    fn stage(model: &Model, number: u64, sampler: Sampler, steps: usize, begin: usize) -> Stage {
        let context = DeviceContext::plain(Device::Cpu);
        let plan = plan(sampler, &model.schedule, steps, begin).unwrap();
        let times = Tensor::zeros([plan.rows.len() as i64, 8], (Kind::Float, Device::Cpu));
        Stage {
            key: Key { height: 2, width: 3, tokens: 77, networks: number },
            networks: Rc::new(model.networks()),
            guidance: Guidance { positive: Rc::new(Conditioning::of_text(Vec::new())), negative: None },
            run: SamplerRun::new(plan, times, &context).unwrap(),
            entry: StageEntry::Continue,
        }
    }

    fn lane(stages: Vec<Stage>) -> Lane {
        let id = LaneId { ticket: Ticket(1), index: 0, seed: 7 };
        Lane::new(id, stages.into(), SHAPE[1], None, &DeviceContext::plain(Device::Cpu)).unwrap()
    }

    fn step(lane: &mut Lane) {
        let output = Tensor::full(SHAPE, 0.25, (Kind::Float, Device::Cpu));
        lane.step(output, &DeviceContext::plain(Device::Cpu)).unwrap();
    }

    #[test]
    fn the_next_stage_goes_on_with_the_image_by_its_own_networks_and_rows() {
        let model = model();
        let first = || stage(&model, 1, Sampler::KLms, 3, 0);
        let second = || stage(&model, 2, Sampler::Ddim, 4, 2);
        let (mut alone, mut both) = (lane(vec![first()]), lane(vec![first(), second()]));
        while !alone.is_finished() {
            assert_eq!(both.stage().key.networks, 1);
            step(&mut alone);
            step(&mut both);
        }
        // One keeps the whole signal, the other the variance.
        let brought = alone.latents().unwrap() * second().run.plan.begin.signal;
        assert_eq!(both.latents().unwrap(), brought);
        assert_eq!((both.stage().key.networks, both.is_finished()), (2, false));
        assert_eq!(both.state.size()[0], second().run.plan.slots as i64);
        for _ in &second().run.plan.rows {
            assert!(!both.is_finished());
            step(&mut both);
        }
        assert!(both.is_finished());
        assert_ne!(both.latents().unwrap(), alone.latents().unwrap());
    }

    #[test]
    fn noise_is_added_where_the_next_stage_wants_it_and_comes_from_the_lanes_own_stream() {
        let model = model();
        let first = || stage(&model, 1, Sampler::EulerD, 2, 0);
        let second = || Stage { entry: StageEntry::AddNoise, ..stage(&model, 2, Sampler::EulerD, 4, 2) };
        let (mut alone, mut both) = (lane(vec![first()]), lane(vec![first(), second()]));
        for _ in 0..2 {
            step(&mut alone);
            step(&mut both);
        }
        let context = DeviceContext::plain(Device::Cpu);
        let mut stream = TorchRng::new(7);
        let _ = context.draw(&mut stream, &SHAPE).unwrap();
        let noise = context.draw(&mut stream, &SHAPE).unwrap();
        let level = second().run.plan.begin;
        assert!(level.noise > 0.1);
        let expected = add_noise(&alone.latents().unwrap(), &noise, level).unwrap();
        assert_eq!(both.latents().unwrap(), expected);
    }

    #[test]
    fn a_stage_without_a_row_is_passed_over() {
        let model = model();
        let (empty, second) = (stage(&model, 1, Sampler::Ddim, 4, 4), stage(&model, 2, Sampler::KLms, 3, 0));
        let lane = lane(vec![empty, second]);
        assert_eq!((lane.stage().key.networks, lane.is_finished()), (2, false));
        assert_eq!(lane.latents().unwrap().size(), SHAPE);
    }
}
