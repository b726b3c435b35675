//! Pictures that are being developed: decoded from the latents of a finished lane, and brought to main memory. On the processor each is
//! done when it is begun. A GPU develops on a stream of its own while the evaluations of other lanes go on, and a picture is fetched when
//! it is there, in the order in which they were begun.

mod at_once;
mod fake;

use std::collections::VecDeque;

use tch::Kind;

pub use super::async_work::{Darkroom, Development};
pub use fake::{Fake, Told};

use self::at_once::AtOnce;
use super::device::Target;
use super::error::Forward;
use super::lane::Lane;
use super::model::Model;
use super::picture;
use crate::engine::Ticket;

/// Pictures that a device is given at the same time. It makes one after the other, and has the next to begin with while we evaluate;
/// more would only fill its queue.
const MOST: usize = 4;

/// The lanes of an engine that have no row left.
#[derive(Debug)]
pub(super) struct Developing {
    darkroom: Box<dyn Darkroom>,
    /// Still to be begun.
    finished: VecDeque<Lane>,
    /// In the order in which they were begun.
    begun: VecDeque<Film>,
}

/// A picture under way.
#[derive(Debug)]
pub(super) struct Film {
    // Before the lane, whose latents it reads until it is done.
    pub(super) development: Box<dyn Development>,
    pub(super) lane: Lane,
    /// What the autoencoder computed it in.
    pub(super) kind: Kind,
    /// Whether nobody wants it any more. Its memory is the device's until it is done.
    pub(super) forgotten: bool,
}

impl Developing {
    /// None yet, by what libtorch's C interface offers for `target`.
    pub(super) fn plain(target: Target) -> Self {
        Self::by(Box::new(AtOnce(target.device)))
    }

    /// None yet.
    pub(super) fn by(darkroom: Box<dyn Darkroom>) -> Self {
        Self { darkroom, finished: VecDeque::new(), begun: VecDeque::new() }
    }

    /// Takes `lanes` in.
    pub(super) fn line_up(&mut self, lanes: impl IntoIterator<Item = Lane>) {
        self.finished.extend(lanes);
    }

    /// The lane that is to be begun now.
    pub(super) fn next(&mut self) -> Option<Lane> {
        if self.begun.len() < MOST { self.finished.pop_front() } else { None }
    }

    /// Begins the picture of `lane`, for [`Self::keep`].
    pub(super) fn begin(&self, model: &Model, lane: &Lane) -> Forward<Box<dyn Development>> {
        self.darkroom.begin(&|| picture::develop(model, &lane.latents()?))
    }

    /// Keeps `lane` until its picture, which is computed in `kind`, is done.
    pub(super) fn keep(&mut self, lane: Lane, kind: Kind, development: Box<dyn Development>) {
        self.begun.push_back(Film { development, lane, kind, forgotten: false });
    }

    /// Waits until the device has done all that is under way.
    pub(super) fn settle(&self) -> Forward<()> {
        self.begun.iter().try_for_each(|film| film.development.finish().map(drop))
    }

    /// The oldest under way, if it is done.
    pub(super) fn done(&mut self) -> Forward<Option<Film>> {
        match self.begun.front() {
            Some(film) if film.development.is_done()? => Ok(self.begun.pop_front()),
            _ => Ok(None),
        }
    }

    /// The oldest under way, for who has nothing else to do than wait for it.
    pub(super) fn oldest(&mut self) -> Option<Film> {
        self.begun.pop_front()
    }

    /// Forgets a job.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.finished.retain(|lane| lane.ticket != ticket);
        self.begun.iter_mut().filter(|film| film.lane.ticket == ticket).for_each(|film| film.forgotten = true);
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.begun.is_empty()
    }

    /// Pictures that somebody waits for.
    pub(super) fn wanted(&self) -> usize {
        self.finished.len() + self.begun.iter().filter(|film| !film.forgotten).count()
    }
}
