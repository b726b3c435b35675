//! What an engine does while no job waits. CUDA's libraries choose kernels and lay out memory when they first meet a shape, and a graph is
//! recorded after some evaluations: seconds that the first job of each number of rows would pay. So jobs that no client asked for are
//! evaluated, an evaluation at a time, for every bucket of rows of the sizes that the settings name, and let go of when a job comes. The time
//! of an evaluation is measured on the way: more rows than pay are never evaluated together.

use std::time::Instant;

use tracing::{debug, info, warn};

use super::warm_up_plan::{Current, LEAST_ROWS, Shape, TICKET, TIMED, WarmUp, pays, spec};
use super::{TorchEngine, poisoned};
use crate::batch::{self, Key};
use crate::engine::torch::denoise::graphs;
use crate::engine::torch::device::cuda::attention;
use crate::engine::{Engine, Event, Poisoned, Ticket};
use crate::job::{Img2Img, JobError, Size, Spec};

impl TorchEngine {
    /// Makes one evaluation for no client; the shapes that are left then, `None` if there was none.
    pub(super) fn warm(&mut self) -> Result<Option<usize>, Poisoned> {
        if self.warm_up.done == 0 && self.warm_up.seconds == 0.0 && !self.warm_up.shapes.is_empty() {
            info!(shapes = self.warm_up.shapes.len(), "warming up until a job comes");
        }
        let Some(current) = self.warm_up.next() else { return Ok(None) };
        let began = Instant::now();
        let evaluated = self.evaluate_once(current);
        self.warm_up.seconds += began.elapsed().as_secs_f64();
        evaluated?;
        let left = self.warm_up.shapes.len() + usize::from(self.warm_up.current.is_some());
        if left == 0 {
            let WarmUp { done, refused, seconds, .. } = self.warm_up;
            info!(shapes = done, refused, ms = (1e3 * seconds) as u64, most_rows = self.most_rows(), "warmed up");
        }
        Ok(Some(left))
    }

    /// A job has come: what is for no client is dropped, for later.
    pub(super) fn interrupt_warm_up(&mut self) {
        if let Some(Current { shape, .. }) = self.warm_up.current.take() {
            debug!(rows = shape.rows, left = self.warm_up.shapes.len() + 1, "warm-up is interrupted by a job");
            self.warm_up.shapes.push_front(shape);
            self.forget(TICKET);
        }
    }

    fn evaluate_once(&mut self, mut current: Current) -> Result<(), Poisoned> {
        let shape = current.shape;
        let once = shape.before() + if self.graphs.is_some() { graphs::WARM_UP_EVALUATIONS + 1 } else { 1 };
        let begins = current.evaluated == 0;
        let start = (self.model.unet.concat_channels() > 0).then(|| Img2Img::blank(shape.size));
        let is_told = self.model.unet.is_told_guidance();
        if begins && let Err(cause) = self.take_in(TICKET, &Spec { start, ..spec(shape, once + TIMED, is_told) }) {
            self.refuse(shape, &cause.message);
            return Ok(());
        }
        if begins && attention::of_this_thread().is_some() {
            self.forget_graph(shape); // of jobs that came before: what is captured or replayed is not measured
        }
        self.context.synchronize().map_err(poisoned)?;
        let began = Instant::now();
        self.warm_up.current = Some(current);
        let measuring =
            attention::of_this_thread().map(|attention| attention.measure(current.evaluated == shape.before()));
        let events = self.advance();
        drop(measuring);
        if let Some(cause) = events?.into_iter().find_map(failure) {
            self.refuse(shape, &cause.message);
            return Ok(());
        }
        self.context.synchronize().map_err(poisoned)?;
        if current.evaluated >= once {
            // The quickest: what else the device or this machine does is no property of the shape.
            current.seconds = current.seconds.min(began.elapsed().as_secs_f64());
        }
        current.evaluated += 1;
        self.warm_up.current = Some(current);
        if current.evaluated == once + TIMED { self.end(current) } else { Ok(()) }
    }

    /// The shape is done: its time is taken, and its picture made or its lanes let go of.
    fn end(&mut self, Current { shape, seconds, .. }: Current) -> Result<(), Poisoned> {
        debug!(
            width = shape.size.width,
            height = shape.size.height,
            rows = shape.rows,
            ms = 1e3 * seconds,
            "an evaluation is warm"
        );
        while shape.decode && self.is_at_work() {
            if let Some(cause) = self.advance()?.into_iter().find_map(failure) {
                self.refuse(shape, &cause.message);
                return Ok(());
            }
        }
        self.warm_up.current = None;
        self.warm_up.done += 1;
        self.forget(TICKET);
        if self.warm_up.auto == Some(shape.size) && shape.rows.is_multiple_of(2) && !shape.refined {
            self.weigh(shape, seconds);
        }
        Ok(())
    }

    /// Takes over what the time of an evaluation says of how many rows pay.
    fn weigh(&mut self, shape: Shape, seconds: f64) {
        self.warm_up.timed.push((shape.rows, seconds));
        let area = self.latent_area(shape.size);
        if shape.rows * area <= LEAST_ROWS * self.usual_area || pays(&self.warm_up.timed) {
            self.warm_up.doubted = false;
            self.most_pixels = self.most_pixels.max(shape.rows * area);
        } else if !std::mem::replace(&mut self.warm_up.doubted, true) {
            // It says for the life of the engine how much is evaluated at once: not by one look.
            self.warm_up.timed.pop();
            self.warm_up.done -= 1;
            self.warm_up.shapes.push_front(shape);
        } else {
            let below = self.warm_up.timed.iter().rev().nth(1).map_or(2, |(rows, _)| *rows);
            self.most_pixels = below * area;
            self.warm_up.auto = None;
            self.warm_up.cut(shape.size, shape.rows, false);
            self.forget_graph(shape);
        }
    }

    /// The shape cannot be evaluated: nor can more rows of its size, and jobs will not be asked to.
    fn refuse(&mut self, shape: Shape, why: &str) {
        let Size { width, height } = shape.size;
        warn!(width, height, rows = shape.rows, cause = why, "warm-up ends for this size");
        self.warm_up.current = None;
        self.warm_up.refused += 1;
        self.forget(TICKET);
        self.forget_graph(shape); // its inputs may be what memory lacks
        // What one image cannot be, no image can.
        self.warm_up.cut(shape.size, if shape.rows == 2 { 0 } else { shape.rows }, shape.refined);
        // Buckets come in ascending order, those without guidance after all others, which says nothing of these.
        let below = (2..shape.rows).rev().find(|rows| batch::bucket(*rows) == *rows);
        if let Some(below) = below.filter(|_| shape.rows.is_multiple_of(2)) {
            self.most_pixels = self.most_pixels.min(below * self.latent_area(shape.size));
        }
    }

    fn forget_graph(&mut self, shape: Shape) {
        let networks = self.refiner.as_ref().filter(|_| shape.refined).map_or(0, |refiner| refiner.networks.number);
        if let (Ok(size), Some(graphs)) = (self.latent_size(shape.size), &mut self.graphs) {
            graphs.forget(Key { networks, ..size }, shape.rows);
        }
    }

    pub(super) fn latent_area(&self, size: Size) -> usize {
        let factor = self.model.vae.factor();
        (size.width / factor) as usize * (size.height / factor) as usize
    }
}

fn failure((_, event): (Ticket, Event)) -> Option<JobError> {
    if let Event::Failed(cause) = event { Some(cause) } else { None }
}
