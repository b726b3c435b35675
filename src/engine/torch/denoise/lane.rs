//! A lane: one image on its way from noise to latents.

use std::rc::Rc;

use tch::{Kind, Tensor};

use super::init_image::{InitImage, InpaintBlend};
use crate::batch::Key;
use crate::engine::Ticket;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::unet::TextProjections;
use crate::noise::TorchRng;
use crate::sampler::{NoiseSchedule, Plan, Row};

/// A sampler's plan with what the UNet is told at each of its rows; shared by the lanes of a job.
#[derive(Debug)]
pub(in crate::engine::torch) struct SamplerRun {
    /// The arithmetic.
    pub(in crate::engine::torch) plan: Plan,
    /// `[rows, time]`.
    times: Tensor,
    /// What a row makes of a lane's slots, the UNet's output and noise, `[rows, slots, slots + 2]` in f32.
    factors: Tensor,
}

impl SamplerRun {
    /// `times` are those of `plan`'s rows.
    pub(in crate::engine::torch) fn new(plan: Plan, times: Tensor, context: &DeviceContext) -> Forward<Self> {
        let slots = plan.slots;
        let next = plan.rows.iter().flat_map(|row| &row.update.next[..slots]);
        let factors: Vec<f32> = next
            .flat_map(|next| next.slots[..slots].iter().copied().chain([next.output, next.noise]))
            .map(|factor| factor as f32)
            .collect();
        // All at once: a copy at each row would have the device wait for us, and us for it.
        let factors = context.upload(&factors, &[plan.rows.len() as i64, slots as i64, slots as i64 + 2])?;
        Ok(Self { plan, times, factors })
    }
}

/// What a lane wants of the picture; shared by the lanes of a job.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Guidance {
    /// What draws it.
    pub(in crate::engine::torch) networks: Rc<Networks>,
    /// What to draw.
    pub(in crate::engine::torch) prompt: Rc<TextProjections>,
    /// What to keep away from and how strongly; none where guidance is off, which saves half of the work.
    pub(in crate::engine::torch) away: Option<(Rc<TextProjections>, f64)>,
}

/// One image being made. State is f32 whatever the model computes in, as in the reference.
#[derive(Debug)]
pub(in crate::engine::torch) struct Lane {
    pub(in crate::engine::torch) ticket: Ticket,
    pub(in crate::engine::torch) index: u32,
    pub(in crate::engine::torch) seed: u64,
    pub(in crate::engine::torch) key: Key,
    /// Evaluation that it took part in last; 0 before the first.
    pub(in crate::engine::torch) served: u64,
    pub(in crate::engine::torch) guidance: Guidance,
    run: Rc<SamplerRun>,
    row: usize,
    /// `[slots, latent, height, width]`; slot 0 is the image.
    state: Tensor,
    noise: TorchRng,
    init_image: Option<Rc<InitImage>>,
    inpaint: Option<InpaintBlend>,
}

impl Lane {
    /// A lane at the beginning of `run`: `init_image`, or pure noise from `seed`; `channels` × `key` latents.
    pub(in crate::engine::torch) fn new(
        (ticket, index, seed): (Ticket, u32, u64),
        (key, channels): (Key, i64),
        guidance: Guidance,
        run: Rc<SamplerRun>,
        init_image: Option<Rc<InitImage>>,
        context: &DeviceContext,
    ) -> Forward<Self> {
        let mut noise = TorchRng::new(seed);
        let shape = [1, channels, i64::from(key.height), i64::from(key.width)];
        let (begin, inpaint) = match &init_image {
            None => (context.draw(&mut noise, &shape)?.f_mul_scalar(run.plan.initial_scale)?, None),
            Some(init_image) => init_image.begin(&mut noise, &run.plan, context)?,
        };
        let memory = [run.plan.slots as i64 - 1, shape[1], shape[2], shape[3]];
        let memory = Tensor::f_zeros(memory, (Kind::Float, context.device()))?;
        let state = Tensor::f_cat(&[begin, memory], 0)?;
        Ok(Self { ticket, index, seed, key, served: 0, guidance, run, row: 0, state, noise, init_image, inpaint })
    }

    /// Rows that it needs in the UNet's batch.
    pub(in crate::engine::torch) fn rows(&self) -> usize {
        if self.guidance.away.is_some() { 2 } else { 1 }
    }

    fn current(&self) -> &Row {
        &self.run.plan.rows[self.row]
    }

    /// Whether no row is left.
    pub(in crate::engine::torch) fn is_finished(&self) -> bool {
        self.row == self.run.plan.rows.len()
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
        self.run.times.f_narrow(0, self.row as i64, 1)
    }

    /// Its texts, a row of the UNet's batch each: what to keep away from first.
    pub(in crate::engine::torch) fn texts(&self) -> impl Iterator<Item = &Rc<TextProjections>> {
        self.guidance.away.iter().map(|(text, _)| text).chain([&self.guidance.prompt])
    }

    /// What the UNet's `output`, `[rows, latent, height, width]` in f32 in the order of [`Self::texts`], comes to with guidance:
    /// `[1, latent, height, width]`.
    pub(in crate::engine::torch) fn guided(&self, output: &Tensor) -> Forward {
        let Some((_, scale)) = self.guidance.away else { return Ok(output.shallow_clone()) };
        let (away, toward) = (output.f_narrow(0, 0, 1)?, output.f_narrow(0, 1, 1)?);
        toward.f_sub(&away)?.f_mul_scalar_(scale)?.f_add_(&away)
    }

    /// The latents without noise, `[1, latent, height, width]`, if the guided `output` is the noise in what the UNet saw.
    pub(in crate::engine::torch) fn predicted_x0(&self, output: &Tensor, schedule: &NoiseSchedule) -> Forward {
        let level = schedule.level_at(self.current().timestep);
        self.input()?.f_sub(&output.f_mul_scalar(level.noise)?)?.f_div_scalar(level.signal)
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
        let factors = self.run.factors.f_select(0, self.row as i64)?.f_narrow(1, 0, terms.size()[0])?;
        self.state = factors.f_matmul(&terms.f_flatten(1, 3)?)?.f_reshape(self.state.size())?;
        if let Some(inpaint) = &self.inpaint {
            let mut x = self.latents()?;
            x.f_copy_(&inpaint.blend(&x, self.current().keep)?)?;
        }
        self.row += 1;
        Ok(())
    }
}
