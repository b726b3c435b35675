//! What an engine does while nobody waits. CUDA's libraries choose kernels and lay out memory when they first meet a shape, and a graph is
//! recorded after some evaluations: seconds that the first job of each number of rows would pay. So jobs that nobody asked for are
//! evaluated, an evaluation at a time, for every bucket of rows of the sizes that the settings name, and let go of when a job comes. The time
//! of an evaluation is measured on the way: more rows than pay are never evaluated together.

use std::collections::VecDeque;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::{Lanes, USUAL_AREA, poisoned};
use crate::batch;
use crate::engine::torch::cuda::attention;
use crate::engine::torch::graphs;
use crate::engine::{Engine, Event, Poisoned, Ticket};
use crate::job::{JobError, Size, Spec};
use crate::sampler::Sampler;

/// Names the job that nobody asked for.
pub(super) const TICKET: Ticket = Ticket(u64::MAX);

/// Evaluations of each shape that are timed, when all that is done once has been done.
const TIMED: u32 = 4;

/// Most rows that are tried where the settings leave it to what pays.
const MOST_TRIED: usize = 32;

/// What twice the rows must gain, in rows a second, to be worth that everybody waits longer for a step.
const GAIN: f64 = 1.05;

/// Rows at 512×512, and what is as many latent pixels, that are taken to pay whatever is measured.
const LEAST_ROWS: usize = 8;

/// An evaluation that jobs will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    size: Size,
    rows: usize,
    /// Whether its picture is decoded.
    decode: bool,
}

/// What is still to be made ready for.
#[derive(Debug, Default)]
pub(super) struct WarmUp {
    shapes: VecDeque<Shape>,
    current: Option<Current>,
    /// Whether the number of rows is ours to choose, by the first size.
    auto: Option<Size>,
    /// Rows and seconds of the evaluations of that size.
    timed: Vec<(usize, f64)>,
    /// Whether the last did not seem to pay, and is measured again.
    doubted: bool,
    /// Shapes that are done, those that cannot be evaluated, and the seconds that all took.
    done: usize,
    refused: usize,
    seconds: f64,
}

/// The shape that is being evaluated.
#[derive(Debug, Clone, Copy)]
struct Current {
    shape: Shape,
    evaluated: u32,
    /// Seconds of the quickest of those that were timed.
    seconds: f64,
}

impl WarmUp {
    /// For pictures of `sizes`, the first of which tells how many rows pay where `rows` are not given. `area` is that of a size's latents.
    pub(super) fn new(sizes: &[Size], rows: Option<usize>, area: impl Fn(Size) -> usize) -> Self {
        let most = |size| rows.unwrap_or(MOST_TRIED).saturating_mul(USUAL_AREA) / area(size).max(1);
        let buckets = |size| (2..=most(size).max(2)).filter(|rows| batch::bucket(*rows) == *rows);
        let shape = |size, rows| Shape { size, rows, decode: rows == 2 };
        let guided =
            sizes.iter().flat_map(|size| buckets(*size).filter(|rows| rows % 2 == 0).map(|rows| shape(*size, rows)));
        let others = sizes.iter().flat_map(|size| [1, 3].map(|rows| shape(*size, rows)));
        let shapes = guided.chain(others).take(graphs::MOST).collect();
        Self { shapes, auto: sizes.first().copied().filter(|_| rows.is_none()), ..Self::default() }
    }

    /// Rows of what is being evaluated, if that is nobody's job.
    pub(super) fn rows(&self) -> Option<usize> {
        self.current.map(|current| current.shape.rows)
    }

    fn next(&mut self) -> Option<Current> {
        let new = |shape| Current { shape, evaluated: 0, seconds: f64::INFINITY };
        self.current.take().or_else(|| self.shapes.pop_front().map(new))
    }

    /// Drops what has this size and so many rows or more.
    fn cut(&mut self, size: Size, rows: usize) {
        self.shapes.retain(|shape| shape.size != size || shape.rows < rows);
    }
}

impl Lanes {
    /// Makes one evaluation that is nobody's; the shapes that are left then, `None` if there was none.
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

    /// A job has come: what is nobody's is let go of, for later.
    pub(super) fn interrupt_warm_up(&mut self) {
        if let Some(Current { shape, .. }) = self.warm_up.current.take() {
            debug!(rows = shape.rows, left = self.warm_up.shapes.len() + 1, "warm-up is interrupted by a job");
            self.warm_up.shapes.push_front(shape);
            self.forget(TICKET);
        }
    }

    fn evaluate_once(&mut self, mut current: Current) -> Result<(), Poisoned> {
        let shape = current.shape;
        let once = if self.graphs.is_some() { graphs::WARM + 1 } else { 1 };
        let begins = current.evaluated == 0;
        if begins && let Err(cause) = self.take_in(TICKET, &spec(shape, once + TIMED)) {
            self.refuse(shape, &cause.message);
            return Ok(());
        }
        if begins && attention::of_this_thread().is_some() {
            self.forget_graph(shape); // of jobs that came before: what is recorded or replayed is not measured
        }
        self.place.settle().map_err(|cause| poisoned(&cause))?;
        let began = Instant::now();
        self.warm_up.current = Some(current);
        let measuring = attention::of_this_thread().map(|attention| attention.measure(begins));
        let events = self.advance();
        drop(measuring);
        if let Some(cause) = events?.into_iter().find_map(failure) {
            self.refuse(shape, &cause.message);
            return Ok(());
        }
        self.place.settle().map_err(|cause| poisoned(&cause))?;
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
        if self.warm_up.auto == Some(shape.size) && shape.rows.is_multiple_of(2) {
            self.weigh(shape, seconds);
        }
        Ok(())
    }

    /// Takes over what the time of an evaluation says of how many rows pay.
    fn weigh(&mut self, shape: Shape, seconds: f64) {
        self.warm_up.timed.push((shape.rows, seconds));
        let area = self.latent_area(shape.size);
        if shape.rows * area <= LEAST_ROWS * USUAL_AREA || pays(&self.warm_up.timed) {
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
            self.warm_up.cut(shape.size, shape.rows);
            self.forget_graph(shape);
        }
    }

    /// The shape cannot be evaluated: nor can more rows of its size, and jobs will not be asked to.
    fn refuse(&mut self, shape: Shape, why: &str) {
        let Size { width, height } = shape.size;
        warn!(width, height, rows = shape.rows, why, "warm-up ends for this size");
        self.warm_up.current = None;
        self.warm_up.refused += 1;
        self.forget(TICKET);
        self.forget_graph(shape); // its sheet may be what memory lacks
        // What one image cannot be, no image can.
        self.warm_up.cut(shape.size, if shape.rows == 2 { 0 } else { shape.rows });
        // Buckets come in ascending order, those without guidance after all others, which says nothing of these.
        let below = (2..shape.rows).rev().find(|rows| batch::bucket(*rows) == *rows);
        if let Some(below) = below.filter(|_| shape.rows.is_multiple_of(2)) {
            self.most_pixels = self.most_pixels.min(below * self.latent_area(shape.size));
        }
    }

    fn forget_graph(&mut self, shape: Shape) {
        if let (Ok(key), Some(graphs)) = (self.latent_size(shape.size), &mut self.graphs) {
            graphs.forget(key, shape.rows);
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

/// Whether the last of these numbers of rows makes enough more rows a second than half of them, or fewer, did.
fn pays(timed: &[(usize, f64)]) -> bool {
    let Some(&(rows, seconds)) = timed.last() else { return true };
    let half = timed.iter().rev().find(|(fewer, _)| fewer * 2 <= rows);
    half.is_none_or(|(fewer, theirs)| rows as f64 / seconds >= GAIN * *fewer as f64 / theirs)
}

/// A job of one image for every two rows, or without guidance, where their number is odd, for every row.
fn spec(shape: Shape, steps: u32) -> Spec {
    let guided = shape.rows.is_multiple_of(2);
    Spec {
        model: String::new(),
        prompt: String::new(),
        negative_prompt: None,
        size: shape.size,
        num_outputs: if guided { shape.rows / 2 } else { shape.rows } as u32,
        // One more than is evaluated, unless the picture is wanted.
        steps: steps + u32::from(!shape.decode),
        guidance_scale: if guided { 7.5 } else { 1.0 },
        sampler: Sampler::Ddim,
        seed: 0,
        start: None,
        lora: None,
        preview: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Size = Size { width: 512, height: 512 };

    fn rows(warm_up: &WarmUp) -> Vec<usize> {
        warm_up.shapes.iter().map(|shape| shape.rows).collect()
    }

    #[test]
    fn buckets_come_in_the_order_in_which_jobs_want_them() {
        let area = |size: Size| (size.width * size.height / 64) as usize;
        let auto = WarmUp::new(&[USUAL], None, area);
        assert_eq!(rows(&auto), [2, 4, 6, 8, 12, 16, 24, 32, 1, 3]);
        assert_eq!(rows(&WarmUp::new(&[USUAL], Some(8), area)), [2, 4, 6, 8, 1, 3]);
        let large = Size { width: 1024, height: 1024 };
        assert_eq!(rows(&WarmUp::new(&[large, USUAL], Some(4), area)), [2, 2, 4, 1, 3, 1, 3]);
        assert!(WarmUp::new(&[], None, area).shapes.is_empty());
        let many = [USUAL, Size { width: 512, height: 768 }, Size { width: 768, height: 512 }];
        assert_eq!(WarmUp::new(&many, None, area).shapes.len(), graphs::MOST, "more would push one another out");
    }

    #[test]
    fn twice_the_rows_must_gain() {
        assert!(pays(&[(2, 1.0)]));
        assert!(pays(&[(2, 1.0), (4, 1.9)]));
        assert!(!pays(&[(2, 1.0), (4, 1.95)]));
        // Each is held against half of its rows, not against its neighbour.
        assert!(pays(&[(2, 1.0), (4, 1.8), (6, 2.6)]));
        assert!(!pays(&[(2, 1.0), (4, 1.8), (6, 2.6), (8, 3.5)]));
    }
}
