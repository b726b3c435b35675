//! Pictures that are being decoded from the latents of a finished lane, and brought to main memory. On the CPU each is
//! done when it is begun. A GPU decodes on a stream of its own while the evaluations of other lanes go on, and a picture is fetched when
//! it is there, in the order in which they were begun.

use std::collections::VecDeque;

use tch::Kind;

use super::blocking::BlockingDecoder;
use super::picture;
use crate::engine::Ticket;
use crate::engine::torch::denoise::lane::Lane;
use crate::engine::torch::device::async_work::{AsyncDecoder, PendingDecode};
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::{Forward, TorchError};
use crate::engine::torch::families::Model;

/// Pictures that a device is given at the same time. It makes one after the other, and has the next to begin with while we evaluate;
/// more would only fill its queue.
const MAX_IN_FLIGHT: usize = 4;

/// The lanes of an engine that have no row left.
#[derive(Debug)]
pub(in crate::engine::torch) struct DecodeQueue {
    decoder: Box<dyn AsyncDecoder>,
    /// Still to be begun.
    finished: VecDeque<Lane>,
    /// In the order in which they were begun.
    begun: VecDeque<QueuedDecode>,
}

/// A picture under way.
#[derive(Debug)]
pub(in crate::engine::torch) struct QueuedDecode {
    // Before the lane, whose latents it reads until it is done.
    pub(in crate::engine::torch) pending: Box<dyn PendingDecode>,
    pub(in crate::engine::torch) lane: Lane,
    /// What the autoencoder computed it in.
    pub(in crate::engine::torch) kind: Kind,
    /// Whether it is no longer wanted. Its memory is the device's until it is done.
    pub(in crate::engine::torch) forgotten: bool,
}

impl DecodeQueue {
    /// None yet, by what libtorch's C interface offers for `target`.
    pub(in crate::engine::torch) fn plain(target: Target) -> Self {
        Self::by(Box::new(BlockingDecoder(target.device)))
    }

    /// None yet.
    pub(in crate::engine::torch) fn by(decoder: Box<dyn AsyncDecoder>) -> Self {
        Self { decoder, finished: VecDeque::new(), begun: VecDeque::new() }
    }

    /// Takes `lanes` in.
    pub(in crate::engine::torch) fn line_up(&mut self, lanes: impl IntoIterator<Item = Lane>) {
        self.finished.extend(lanes);
    }

    /// The lane that is to be begun now.
    pub(in crate::engine::torch) fn next(&mut self) -> Option<Lane> {
        if self.begun.len() < MAX_IN_FLIGHT { self.finished.pop_front() } else { None }
    }

    /// Begins the picture of `lane`, for [`Self::keep`].
    pub(in crate::engine::torch) fn begin(
        &self,
        model: &Model,
        lane: &Lane,
    ) -> Result<Box<dyn PendingDecode>, TorchError> {
        Ok(self.decoder.begin(&|| picture::decode(model, &lane.latents()?))?)
    }

    /// Keeps `lane` until its picture, which is computed in `kind`, is done.
    pub(in crate::engine::torch) fn keep(&mut self, lane: Lane, kind: Kind, pending: Box<dyn PendingDecode>) {
        self.begun.push_back(QueuedDecode { pending, lane, kind, forgotten: false });
    }

    /// Waits until the device has done all that is under way.
    pub(in crate::engine::torch) fn synchronize(&self) -> Forward<()> {
        self.begun.iter().try_for_each(|decode| decode.pending.finish().map(drop))
    }

    /// The oldest under way, if it is done.
    pub(in crate::engine::torch) fn done(&mut self) -> Forward<Option<QueuedDecode>> {
        match self.begun.front() {
            Some(decode) if decode.pending.is_done()? => Ok(self.begun.pop_front()),
            _ => Ok(None),
        }
    }

    /// The oldest under way, for who has nothing else to do than wait for it.
    pub(in crate::engine::torch) fn oldest(&mut self) -> Option<QueuedDecode> {
        self.begun.pop_front()
    }

    /// Forgets a job.
    pub(in crate::engine::torch) fn forget(&mut self, ticket: Ticket) {
        self.finished.retain(|lane| lane.id.ticket != ticket);
        self.begun
            .iter_mut()
            .filter(|decode| decode.lane.id.ticket == ticket)
            .for_each(|decode| decode.forgotten = true);
    }

    /// Whether there is none.
    pub(in crate::engine::torch) fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.begun.is_empty()
    }

    /// Pictures that somebody waits for.
    pub(in crate::engine::torch) fn wanted(&self) -> usize {
        self.finished.len() + self.begun.iter().filter(|decode| !decode.forgotten).count()
    }
}
