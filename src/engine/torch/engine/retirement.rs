//! What becomes of lanes that have no row left: their pictures are begun, fetched when they are there, and told of.

use std::rc::Rc;

use tch::Kind;
use tracing::warn;

use super::{Events, TorchEngine};
use crate::batch::Key;
use crate::engine::Event;
use crate::engine::torch::decode::picture::{self, DecodeError};
use crate::engine::torch::decode::queue::QueuedDecode;
use crate::engine::torch::denoise::lane::Lane;
use crate::engine::torch::error::{LoadError, TorchError};
use crate::engine::torch::networks::offload::MovablePart;

impl TorchEngine {
    /// Has the lanes that have no row left decoded, as many at a time as there is room for; tells of the pictures that are there.
    pub(super) fn retire(&mut self) -> Result<Events, TorchError> {
        self.decodes.line_up(self.active.extract_if(.., |lane| lane.is_finished()));
        let mut events = self.collect()?;
        while let Some(lane) = self.decodes.next() {
            events.extend(self.begin_decode(lane)?);
            events.extend(self.collect()?);
        }
        Ok(events)
    }

    /// Waits for the picture that was begun first: there is nothing to evaluate meanwhile.
    pub(super) fn wait(&mut self) -> Result<Events, TorchError> {
        self.decodes.oldest().map_or_else(|| Ok(Events::new()), |decode| self.deliver(decode))
    }

    fn begin_decode(&mut self, lane: Lane) -> Result<Events, TorchError> {
        let begun = loop {
            let Self { decodes, model, offload, .. } = self;
            let begun = offload.with(MovablePart::Autoencoder, || decodes.begin(model, &lane));
            let lacks_memory = begun.as_ref().is_err_and(TorchError::is_out_of_memory);
            if !(lacks_memory && (self.release() || self.offload.activate() || self.tiles(&lane))) {
                break begun;
            }
        };
        match begun {
            Ok(pending) => self.decodes.keep(lane, self.model.vae.kind(), pending),
            Err(cause) if cause.is_out_of_memory() => return Ok(self.fail(&lane, DecodeError::Torch(cause))),
            Err(cause) => return Err(cause),
        }
        Ok(Events::new())
    }

    /// Has pictures of the size of `lane` be decoded in smaller tiles from now on; whether they can be.
    fn tiles(&self, lane: &Lane) -> bool {
        let Key { height, width, .. } = lane.stage().key;
        let smaller = self.model.vae.halve_tiles(i64::from(height), i64::from(width));
        if let Some(tile) = self.model.vae.tile().filter(|_| smaller) {
            let tile = tile * i64::from(self.model.vae.factor());
            warn!(
                tile,
                "out of memory; larger pictures are decoded in tiles from now on, and their colours differ a little"
            );
        }
        smaller
    }

    fn collect(&mut self) -> Result<Events, TorchError> {
        let mut events = Events::new();
        while let Some(decode) = self.decodes.done()? {
            events.extend(self.deliver(decode)?);
        }
        Ok(events)
    }

    fn deliver(&mut self, decode: QueuedDecode) -> Result<Events, TorchError> {
        let (bytes, time) = decode.pending.finish()?;
        let QueuedDecode { lane, forgotten, kind, .. } = decode;
        let Some(job) = self.jobs.get_mut(&lane.id.ticket).filter(|_| !forgotten) else { return Ok(Events::new()) };
        job.timings.decode += time;
        let picture = match picture::of(&self.model, &lane, &bytes) {
            Ok(picture) => picture,
            Err(DecodeError::Torch(cause)) => return Err(cause),
            Err(DecodeError::NotFinite(_)) if kind == Kind::Half && self.upcasts(&lane)? => {
                return self.begin_decode(lane);
            }
            Err(fault) => return Ok(self.fail(&lane, fault)),
        };
        let Some(job) = self.jobs.get_mut(&lane.id.ticket) else { return Ok(Events::new()) };
        job.images_left -= 1;
        let mut events = vec![(lane.id.ticket, Event::Image { index: lane.id.index, seed: lane.id.seed, picture })];
        if job.images_left == 0 {
            let mut timings = job.timings;
            let evaluating = job.first_evaluation.map(|first| first.elapsed()).unwrap_or_default();
            timings.denoise = evaluating.saturating_sub(timings.decode);
            self.jobs.remove(&lane.id.ticket);
            events.push((lane.id.ticket, Event::Finished(timings)));
        }
        Ok(events)
    }

    /// Whether the autoencoder, in which the picture of `lane` overflowed in f16, computes in f32 now: not where the latents are no numbers
    /// themselves, and not where it cannot be loaded in f32, which the log says then.
    fn upcasts(&mut self, lane: &Lane) -> Result<bool, TorchError> {
        if !bool::try_from(lane.latents()?.f_isfinite()?.f_all()?)? {
            return Ok(false);
        }
        if self.model.vae.kind() != Kind::Half {
            return Ok(true); // since another picture
        }
        self.decodes.synchronize()?;
        let mut upcast = self.model.upcast_autoencoder(&self.context);
        while upcast.as_ref().is_err_and(LoadError::is_out_of_memory)
            && (self.release() || self.offload.activate() || self.offload.make_room(None))
        {
            upcast = self.model.upcast_autoencoder(&self.context);
        }
        self.offload.watch_autoencoder(&self.model.vae);
        if let Some(refiner) = &mut self.refiner {
            refiner.model.vae = Rc::clone(&self.model.vae);
        }
        if let Err(cause) = &upcast {
            warn!(%cause, "the autoencoder overflows in f16, and cannot be loaded in f32");
        }
        Ok(upcast.is_ok())
    }

    /// The job of `lane` ends without all of its images.
    fn fail(&mut self, lane: &Lane, fault: DecodeError) -> Events {
        self.forget(lane.id.ticket);
        vec![(lane.id.ticket, Event::Failed(fault.into()))]
    }
}
