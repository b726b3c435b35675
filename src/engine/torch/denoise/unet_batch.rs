//! What the UNet is told in one evaluation, row by row.

use std::rc::{Rc, Weak};

use tch::{Kind, TchError, Tensor};

use super::lane::Lane;
use crate::batch;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::unet::{TextProjections, Unet};

/// What a lane, or its other text, asks of an evaluation.
#[derive(Debug)]
struct UnetRow<'a> {
    /// `[1, latent, height, width]`, f32.
    latents: Tensor,
    /// `[1, time]`.
    time: Tensor,
    text: &'a Rc<TextProjections>,
}

/// The rows of an evaluation, of one size of latents.
#[derive(Debug)]
pub(in crate::engine::torch) struct UnetBatch<'a>(Vec<UnetRow<'a>>);

impl<'a> UnetBatch<'a> {
    /// Those of `lanes`, in their order.
    pub(in crate::engine::torch) fn of(lanes: impl Iterator<Item = &'a Lane>) -> Forward<Self> {
        let mut rows = Vec::new();
        for lane in lanes {
            let (latents, time) = (lane.input()?, lane.time()?);
            let row = |text| UnetRow { latents: latents.shallow_clone(), time: time.shallow_clone(), text };
            rows.extend(lane.texts().map(row));
        }
        Ok(Self(rows))
    }

    /// How many there are.
    pub(in crate::engine::torch) fn count(&self) -> usize {
        self.0.len()
    }

    /// Latents of `rows` rows, `[rows, latent, height, width]` in f32: beyond ours, the last of ours again.
    fn latents(&self, rows: usize) -> Forward {
        self.stacked(rows, |row| &row.latents)
    }

    fn stacked(&self, rows: usize, part: impl for<'r> Fn(&'r UnetRow) -> &'r Tensor) -> Forward {
        let parts = self.0.iter().chain(self.0.last().into_iter().cycle()).take(rows.max(self.count()));
        Tensor::f_cat(&parts.map(part).collect::<Vec<_>>(), 0)
    }

    /// What `unet` says of them as they are, `[rows, latent, height, width]` in `kind`.
    pub(in crate::engine::torch) fn evaluate(&self, unet: &Unet, kind: Kind) -> Forward {
        self.evaluate_as(unet, kind, self.count())
    }

    /// The same as [`batch::bucket`] has it: what each row gets is what it gets in any evaluation of that bucket.
    pub(in crate::engine::torch) fn evaluate_padded(&self, unet: &Unet, kind: Kind) -> Forward {
        self.evaluate_as(unet, kind, batch::bucket(self.count()))?.f_narrow(0, 0, self.count() as i64)
    }

    fn evaluate_as(&self, unet: &Unet, kind: Kind, rows: usize) -> Forward {
        let layers = self.0.first().map_or(0, |row| row.text.len());
        let layer = |i: usize| self.stacked(rows, |row| &row.text[i]);
        let texts = (0..layers).map(layer).collect::<Forward<_>>()?;
        let (latents, times) = (self.latents(rows)?.f_to_kind(kind)?, self.stacked(rows, |row| &row.time)?);
        UnetInputs { latents, times, texts }.evaluate(unet)
    }
}

/// The same in tensors that stay where they are: what was recorded on them is done again on what they hold by then.
#[derive(Debug)]
pub(in crate::engine::torch) struct StaticInputs {
    rows: usize,
    told: UnetInputs,
    /// Which text each row holds. A text never changes, and an address that is remembered is nobody else's.
    written: Vec<Weak<TextProjections>>,
}

/// What the UNet takes.
#[derive(Debug)]
pub(in crate::engine::torch) struct UnetInputs {
    latents: Tensor,
    times: Tensor,
    /// One a layer, `[rows, tokens, 2 · channels]`.
    texts: Vec<Tensor>,
}

impl StaticInputs {
    /// An empty one for `rows` rows like those of `like`.
    pub(in crate::engine::torch) fn new(rows: usize, like: &UnetBatch, target: Target) -> Forward<Self> {
        let Some(first) = like.0.first() else { return Err(TchError::Shape("an evaluation without a row".into())) };
        let empty = |of: &Tensor, kind| {
            let shape = [&[rows as i64], &of.size()[1..]].concat();
            Tensor::f_zeros(shape, (kind, target.device))
        };
        let told = UnetInputs {
            latents: empty(&first.latents, target.kind)?,
            times: empty(&first.time, first.time.kind())?,
            texts: first.text.iter().map(|text| empty(text, text.kind())).collect::<Forward<_>>()?,
        };
        Ok(Self { rows, told, written: (0..rows).map(|_| Weak::new()).collect() })
    }

    /// Writes `rows` down, of which there may be fewer than fit. Texts that stand there already are not written again.
    pub(in crate::engine::torch) fn write(&mut self, rows: &UnetBatch) -> Forward<()> {
        self.told.latents.f_copy_(&rows.latents(self.rows)?)?;
        self.told.times.f_copy_(&rows.stacked(self.rows, |row| &row.time)?)?;
        for (i, (row, written)) in (0..).zip(rows.0.iter().zip(&mut self.written)) {
            if written.as_ptr() == Rc::as_ptr(row.text) {
                continue;
            }
            *written = Weak::new(); // until all of it stands there
            for (layer, text) in self.told.texts.iter().zip(row.text.iter()) {
                layer.f_narrow(0, i, 1)?.f_copy_(text)?;
            }
            *written = Rc::downgrade(row.text);
        }
        Ok(())
    }

    /// The same memory.
    pub(in crate::engine::torch) fn view(&self) -> UnetInputs {
        let UnetInputs { latents, times, texts } = &self.told;
        let texts = texts.iter().map(Tensor::shallow_clone).collect();
        UnetInputs { latents: latents.shallow_clone(), times: times.shallow_clone(), texts }
    }
}

impl UnetInputs {
    /// What `unet` says of it now.
    pub(in crate::engine::torch) fn evaluate(&self, unet: &Unet) -> Forward {
        unet.forward(&self.latents, &self.times, &self.texts)
    }
}
