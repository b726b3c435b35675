//! Parts of a model that take turns on a GPU that cannot hold them all (diffusers' `enable_model_cpu_offload`). A part comes to the GPU when
//! it is used, and the part that was used the longest ago goes to main memory when memory does not suffice. The numbers stay the same.

use std::collections::HashSet;
use std::rc::{Rc, Weak};
use std::time::Instant;

use tch::Device;
use tracing::{debug, info, warn};

use super::Networks;
use super::clip_text::ClipTextModel;
use super::vae::Autoencoder;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::{Forward, TorchError};
use crate::engine::torch::nn::WeightMemory;

/// A part that moves as a whole. Networks have the number that [`Networks::number`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::torch) enum MovablePart {
    /// All text encoders of networks.
    TextEncoders(u64),
    /// The UNet of networks.
    Unet(u64),
    /// The autoencoder, which is the same for all networks.
    Autoencoder,
}

/// Whether parts move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::torch) enum OffloadPlan {
    /// All stay on the device.
    Never,
    /// All stay there until memory has run out once.
    WhenMemoryRunsOut,
    /// They move; if so from the start, they begin in main memory.
    Now,
}

/// The parts of an engine's models, and where they are.
#[derive(Debug)]
pub(in crate::engine::torch) struct Offload {
    plan: OffloadPlan,
    context: DeviceContext,
    /// The least recently used first.
    parts: Vec<Entry>,
    /// Whether a UNet has moved since somebody asked.
    unets_moved: bool,
}

#[derive(Debug)]
struct Entry {
    part: MovablePart,
    /// They go with their networks. Networks that a LoRA made share most of theirs with the model.
    weights: Vec<Weak<WeightMemory>>,
    /// Whether the log has said how long it takes to come.
    told: bool,
}

impl Offload {
    /// Of no part yet.
    pub(in crate::engine::torch) fn new(plan: OffloadPlan, context: DeviceContext) -> Self {
        Self { plan, context, parts: Vec::new(), unets_moved: false }
    }

    /// Takes `networks` in.
    pub(in crate::engine::torch) fn watch(&mut self, networks: &Networks) {
        // Weights are reached by who may change them: clones are, and share their memory.
        let mut text_encoders = networks.text_encoders.clone();
        let weights = text_encoders.iter_mut().flat_map(ClipTextModel::weights);
        let texts = weights.map(|weight| Rc::downgrade(weight.memory())).collect();
        let weights = networks.unet.clone().weights().map(|weight| Rc::downgrade(weight.memory())).collect();
        self.add(MovablePart::TextEncoders(networks.number), texts);
        self.add(MovablePart::Unet(networks.number), weights);
    }

    /// Takes an autoencoder in, in place of the one before.
    pub(in crate::engine::torch) fn watch_autoencoder(&mut self, autoencoder: &Autoencoder) {
        let weights = autoencoder.clone().weights().into_iter().map(|weight| Rc::downgrade(weight.memory())).collect();
        self.parts.retain(|entry| entry.part != MovablePart::Autoencoder);
        self.add(MovablePart::Autoencoder, weights);
    }

    fn add(&mut self, part: MovablePart, weights: Vec<Weak<WeightMemory>>) {
        if self.plan == OffloadPlan::Never {
            return;
        }
        self.parts.retain(|entry| entry.memories().next().is_some());
        self.parts.push(Entry { part, weights, told: false });
    }

    /// Whether memory ran out for the first time: from now on parts may move.
    pub(in crate::engine::torch) fn activate(&mut self) -> bool {
        if self.plan != OffloadPlan::WhenMemoryRunsOut {
            return false;
        }
        warn!(
            "out of memory; parts of the model move to main memory and back from now on, which takes longer: offload = \"off\" ends a job instead"
        );
        self.plan = OffloadPlan::Now;
        true
    }

    /// Whether a UNet has moved since the last call: what was recorded of it reads memory that is no longer its own.
    pub(in crate::engine::torch) fn take_unets_moved(&mut self) -> bool {
        std::mem::take(&mut self.unets_moved)
    }

    /// Does `work` with `part` on the device, and with others in main memory where memory does not suffice for both.
    ///
    /// # Errors
    /// Those of `work`, or of the device.
    pub(in crate::engine::torch) fn with<T>(
        &mut self,
        part: MovablePart,
        work: impl Fn() -> Result<T, TorchError>,
    ) -> Result<T, TorchError> {
        self.require(part)?;
        loop {
            match work() {
                Err(cause) if cause.is_out_of_memory() && self.make_room(Some(part)) => {}
                done => return done,
            }
        }
    }

    /// Brings `part` to the device.
    ///
    /// # Errors
    /// The device's, or it has no memory for it even without the others.
    pub(in crate::engine::torch) fn require(&mut self, part: MovablePart) -> Result<(), TorchError> {
        let Some(at) = self.parts.iter().position(|entry| entry.part == part) else { return Ok(()) };
        if self.plan != OffloadPlan::Now {
            return Ok(()); // all are there
        }
        self.parts[at..].rotate_left(1);
        let (device, last) = (self.context.device(), self.parts.len() - 1);
        if self.parts[last].is_on(device) {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            match self.parts[last].arrive(device).map_err(TorchError::from) {
                Ok(()) => break,
                Err(cause) if cause.is_out_of_memory() && self.make_room(Some(part)) => {}
                Err(cause) => return Err(cause),
            }
        }
        self.context.wait_for_all();
        self.parts[last].tell(began);
        Ok(())
    }

    /// Brings `part` to the device if there is room for it; whether it is there.
    pub(in crate::engine::torch) fn bring_if_room(&self, part: MovablePart) -> bool {
        let found = self.parts.iter().find(|entry| entry.part == part);
        found.is_none_or(|entry| entry.arrive(self.context.device()).is_ok())
    }

    /// Moves the part that was used the longest ago to main memory, but for what `keep` is made of; whether there was any.
    pub(in crate::engine::torch) fn make_room(&mut self, keep: Option<MovablePart>) -> bool {
        if self.plan != OffloadPlan::Now {
            return false;
        }
        let kept = self.parts.iter().filter(|entry| Some(entry.part) == keep).flat_map(Entry::addresses).collect();
        let device = self.context.device();
        let Some(entry) = self.parts.iter().find(|entry| entry.can_leave(device, &kept)) else { return false };
        // What the device still does may read it.
        self.context.wait_for_all();
        if let Err(cause) = entry.leave(&kept) {
            warn!(%cause, part = ?entry.part, "main memory has no room for a part of the model");
            return false;
        }
        // What comes next is laid out anew, and not into the gaps of what has left.
        self.context.trim();
        debug!(part = ?entry.part, bytes = entry.bytes(), "moved to main memory");
        self.unets_moved |= matches!(entry.part, MovablePart::Unet(_));
        true
    }
}

impl Entry {
    fn memories(&self) -> impl Iterator<Item = Rc<WeightMemory>> {
        self.weights.iter().filter_map(Weak::upgrade)
    }

    fn addresses(&self) -> impl Iterator<Item = *const WeightMemory> {
        self.weights.iter().map(Weak::as_ptr)
    }

    fn bytes(&self) -> usize {
        self.memories().map(|weight| weight.bytes()).sum()
    }

    fn is_on(&self, device: Device) -> bool {
        self.memories().all(|weight| weight.device() == device)
    }

    /// Whether there is something on the device beside what is `kept`.
    fn can_leave(&self, device: Device, kept: &HashSet<*const WeightMemory>) -> bool {
        self.memories().any(|weight| weight.device() == device && !kept.contains(&Rc::as_ptr(&weight)))
    }

    fn leave(&self, kept: &HashSet<*const WeightMemory>) -> Forward<()> {
        let mut leaving = self.memories().filter(|weight| !kept.contains(&Rc::as_ptr(weight)));
        leaving.try_for_each(|weight| weight.offload())
    }

    fn arrive(&self, device: Device) -> Forward<()> {
        self.memories().try_for_each(|weight| weight.onload(device))
    }

    /// Tells how long it took to come, aloud the first time.
    fn tell(&mut self, began: Instant) {
        let (part, bytes, ms) = (self.part, self.bytes(), began.elapsed().as_millis() as u64);
        if std::mem::replace(&mut self.told, true) {
            debug!(?part, bytes, ms, "moved to the GPU");
        } else {
            info!(?part, bytes, ms, "moved to the GPU; jobs wait as long each time that it is needed and not there");
        }
    }
}
