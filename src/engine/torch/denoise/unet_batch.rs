//! What the UNet is given in one evaluation, row by row.

use std::rc::{Rc, Weak};

use tch::{TchError, Tensor};

use super::lane::Lane;
use crate::batch;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::conditioning::Conditioning;
use crate::engine::torch::networks::unet::Unet;

/// What a lane, or its other conditioning, asks of an evaluation.
#[derive(Debug)]
struct UnetRow<'a> {
    /// `[1, latent, height, width]`, f32.
    latents: Tensor,
    /// `[1, time]`.
    time: Tensor,
    conditioning: &'a Rc<Conditioning>,
}

/// The rows of an evaluation, of one size of latents and one UNet.
#[derive(Debug)]
pub(in crate::engine::torch) struct UnetBatch<'a>(Vec<UnetRow<'a>>);

impl<'a> UnetBatch<'a> {
    /// Those of `lanes`, in their order.
    pub(in crate::engine::torch) fn of(lanes: impl Iterator<Item = &'a Lane>) -> Forward<Self> {
        let mut rows = Vec::new();
        for lane in lanes {
            let (latents, time) = (lane.input()?, lane.time()?);
            let row =
                |conditioning| UnetRow { latents: latents.shallow_clone(), time: time.shallow_clone(), conditioning };
            rows.extend(lane.conditionings().map(row));
        }
        Ok(Self(rows))
    }

    /// How many there are.
    pub(in crate::engine::torch) fn count(&self) -> usize {
        self.0.len()
    }

    /// As many as `rows`: beyond ours, the last of ours again.
    fn padded(&self, rows: usize) -> impl Iterator<Item = &UnetRow<'a>> {
        self.0.iter().chain(self.0.last().into_iter().cycle()).take(rows.max(self.count()))
    }

    /// Latents of `rows` rows, `[rows, latent, height, width]` in f32.
    fn latents(&self, rows: usize) -> Forward {
        Tensor::f_cat(&self.padded(rows).map(|row| &row.latents).collect::<Vec<_>>(), 0)
    }

    /// Times of `rows` rows, `[rows, time]`.
    fn times(&self, rows: usize) -> Forward {
        Tensor::f_cat(&self.padded(rows).map(|row| &row.time).collect::<Vec<_>>(), 0)
    }

    /// What `unet` says of them as they are, `[rows, latent, height, width]` in its kind.
    pub(in crate::engine::torch) fn evaluate(&self, unet: &Unet) -> Forward {
        self.evaluate_as(unet, self.count())
    }

    /// The same as [`batch::bucket`] has it: what each row gets is what it gets in any evaluation of that bucket.
    pub(in crate::engine::torch) fn evaluate_padded(&self, unet: &Unet) -> Forward {
        self.evaluate_as(unet, batch::bucket(self.count()))?.f_narrow(0, 0, self.count() as i64)
    }

    fn evaluate_as(&self, unet: &Unet, rows: usize) -> Forward {
        let conditioning: Vec<&Conditioning> = self.padded(rows).map(|row| row.conditioning.as_ref()).collect();
        let conditioning = Conditioning::stacked(&conditioning)?;
        let (latents, times) = (self.latents(rows)?.f_to_kind(unet.kind())?, self.times(rows)?);
        UnetInputs { latents, times, conditioning }.evaluate(unet)
    }
}

/// The same in tensors that stay where they are: a graph that was captured on them computes with what they hold when it is replayed.
#[derive(Debug)]
pub(in crate::engine::torch) struct StaticInputs {
    rows: usize,
    inputs: UnetInputs,
    /// Whose conditioning each row holds. It never changes, and an address that is remembered is not reused.
    written: Vec<Weak<Conditioning>>,
}

/// What the UNet takes.
#[derive(Debug)]
pub(in crate::engine::torch) struct UnetInputs {
    latents: Tensor,
    times: Tensor,
    conditioning: Conditioning,
}

impl StaticInputs {
    /// Empty ones for `rows` rows of `unet` like those of `like`.
    pub(in crate::engine::torch) fn new(rows: usize, like: &UnetBatch, unet: &Unet) -> Forward<Self> {
        let Some(first) = like.0.first() else { return Err(TchError::Shape("an evaluation without a row".into())) };
        let empty = |of: &Tensor, kind| {
            let shape = [&[rows as i64], &of.size()[1..]].concat();
            Tensor::f_zeros(shape, (kind, of.device()))
        };
        let inputs = UnetInputs {
            latents: empty(&first.latents, unet.kind())?,
            times: empty(&first.time, first.time.kind())?,
            conditioning: first.conditioning.map(|tensor| empty(tensor, tensor.kind()))?,
        };
        Ok(Self { rows, inputs, written: (0..rows).map(|_| Weak::new()).collect() })
    }

    /// Writes `rows` down, of which there may be fewer than fit. Conditioning that a row holds already is not written again.
    pub(in crate::engine::torch) fn write(&mut self, rows: &UnetBatch) -> Forward<()> {
        self.inputs.latents.f_copy_(&rows.latents(self.rows)?)?;
        self.inputs.times.f_copy_(&rows.times(self.rows)?)?;
        for (i, (row, written)) in (0..).zip(rows.0.iter().zip(&mut self.written)) {
            if written.as_ptr() == Rc::as_ptr(row.conditioning) {
                continue;
            }
            *written = Weak::new(); // until all of it is there
            for (all, own) in self.inputs.conditioning.tensors().zip(row.conditioning.tensors()) {
                all.f_narrow(0, i, 1)?.f_copy_(own)?;
            }
            *written = Rc::downgrade(row.conditioning);
        }
        Ok(())
    }

    /// The same memory.
    pub(in crate::engine::torch) fn view(&self) -> UnetInputs {
        let UnetInputs { latents, times, conditioning } = &self.inputs;
        UnetInputs { latents: latents.shallow_clone(), times: times.shallow_clone(), conditioning: conditioning.view() }
    }
}

impl UnetInputs {
    /// What `unet` says of it now.
    pub(in crate::engine::torch) fn evaluate(&self, unet: &Unet) -> Forward {
        unet.forward(&self.latents, &self.times, &self.conditioning)
    }
}
