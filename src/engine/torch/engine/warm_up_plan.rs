//! What is evaluated while no job waits: the shapes, in which order, and how many rows pay.

use std::collections::VecDeque;

use crate::batch;
use crate::engine::Ticket;
use crate::engine::torch::denoise::graphs;
use crate::job::{PromptSyntax, Refine, RefineMode, Size, Spec};
use crate::sampler::{Sampler, SigmaSpacing};

/// Names the job that no client asked for.
pub(super) const TICKET: Ticket = Ticket(u64::MAX);

/// Evaluations of each shape that are timed, when all that is done once has been done.
pub(super) const TIMED: u32 = 4;

/// Most rows that are tried where the settings leave it to what pays.
const MOST_TRIED: usize = 32;

/// What twice the rows must gain, in rows a second, to be worth that everybody waits longer for a step.
const GAIN: f64 = 1.05;

/// Rows at 512×512, and what is as many latent pixels, that are taken to pay whatever is measured.
pub(super) const LEAST_ROWS: usize = 8;

/// An evaluation that jobs will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) size: Size,
    pub(super) rows: usize,
    /// Whether its picture is decoded.
    pub(super) decode: bool,
    /// Whether it is the refiner's: then one of the base model comes before it.
    pub(super) refined: bool,
}

impl Shape {
    /// Evaluations before the first of its own.
    pub(super) fn before(self) -> u32 {
        u32::from(self.refined)
    }
}

/// What is still to be made ready for.
#[derive(Debug, Default)]
pub(super) struct WarmUp {
    pub(super) shapes: VecDeque<Shape>,
    pub(super) current: Option<Current>,
    /// Whether the number of rows is ours to choose, by the first size.
    pub(super) auto: Option<Size>,
    /// Rows and seconds of the evaluations of that size.
    pub(super) timed: Vec<(usize, f64)>,
    /// Whether the last did not seem to pay, and is measured again.
    pub(super) doubted: bool,
    /// Shapes that are done, those that cannot be evaluated, and the seconds that all took.
    pub(super) done: usize,
    pub(super) refused: usize,
    pub(super) seconds: f64,
}

/// The shape that is being evaluated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    pub(super) shape: Shape,
    pub(super) evaluated: u32,
    /// Seconds of the quickest of those that were timed.
    pub(super) seconds: f64,
}

impl WarmUp {
    /// For pictures of `sizes`, the first of which tells how many rows pay where `rows` are not given. `usual_area` is that of the
    /// latents that `rows` are meant for, `area` that of a size's. A refiner's evaluations come last, if it is `refined`.
    pub(super) fn new(
        sizes: &[Size],
        rows: Option<usize>,
        (usual_area, refined): (usize, bool),
        area: impl Fn(Size) -> usize,
    ) -> Self {
        let most = |size| rows.unwrap_or(MOST_TRIED).saturating_mul(usual_area) / area(size).max(1);
        let buckets = |size| (2..=most(size).max(2)).filter(|rows| batch::bucket(*rows) == *rows);
        let shape = |size, rows| Shape { size, rows, decode: rows == 2, refined: false };
        let guided =
            || sizes.iter().flat_map(|size| buckets(*size).filter(|rows| rows % 2 == 0).map(|rows| shape(*size, rows)));
        let others = sizes.iter().flat_map(|size| [1, 3].map(|rows| shape(*size, rows)));
        // A refiner always guides.
        let by_refiner = guided().filter(|_| refined).map(|shape| Shape { decode: false, refined, ..shape });
        let shapes = guided().chain(others).chain(by_refiner).take(graphs::MAX_GRAPHS).collect();
        Self { shapes, auto: sizes.first().copied().filter(|_| rows.is_none()), ..Self::default() }
    }

    /// Rows of what is being evaluated, if that is no client's job.
    pub(super) fn rows(&self) -> Option<usize> {
        self.current.map(|current| current.shape.rows)
    }

    pub(super) fn next(&mut self) -> Option<Current> {
        let new = |shape| Current { shape, evaluated: 0, seconds: f64::INFINITY };
        self.current.take().or_else(|| self.shapes.pop_front().map(new))
    }

    /// Drops what has this size and so many rows or more; of the base model, unless it is the refiner alone that cannot have them.
    pub(super) fn cut(&mut self, size: Size, rows: usize, refined: bool) {
        self.shapes.retain(|shape| shape.size != size || shape.rows < rows || refined && !shape.refined);
    }
}

/// Whether the last of these numbers of rows makes enough more rows a second than half of them, or fewer, did.
pub(super) fn pays(timed: &[(usize, f64)]) -> bool {
    let Some(&(rows, seconds)) = timed.last() else { return true };
    let half = timed.iter().rev().find(|(fewer, _)| fewer * 2 <= rows);
    half.is_none_or(|(fewer, theirs)| rows as f64 / seconds >= GAIN * *fewer as f64 / theirs)
}

/// A job of one image for every two rows, or without guidance, where their number is odd, for every row; for every row, too, of a UNet that
/// `is_told` the guidance scale.
pub(super) fn spec(shape: Shape, steps: u32, is_told: bool) -> Spec {
    let guided = shape.rows.is_multiple_of(2) && (shape.refined || !is_told);
    Spec {
        model: String::new(),
        prompt: String::new(),
        negative_prompt: None,
        size: shape.size,
        num_outputs: if guided { shape.rows / 2 } else { shape.rows } as u32,
        // One more than is evaluated, unless the picture is wanted.
        steps: if shape.refined { 1 } else { steps + u32::from(!shape.decode) },
        guidance_scale: if guided { 7.5 } else { 1.0 },
        prompt_syntax: PromptSyntax::Plain,
        clip_skip: 0,
        sampler: Sampler::Ddim,
        seed: 0,
        start: None,
        lora: None,
        preview: false,
        denoising_end: None,
        refine: shape.refined.then_some(Refine { steps, mode: RefineMode::Strength, strength: 1.0 }),
        sigmas: SigmaSpacing::Default,
        eta: 0.0,
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
        let new = |sizes: &[Size], rows| WarmUp::new(sizes, rows, (64 * 64, false), area);
        let auto = new(&[USUAL], None);
        assert_eq!(rows(&auto), [2, 4, 6, 8, 12, 16, 24, 32, 1, 3]);
        assert_eq!(rows(&new(&[USUAL], Some(8))), [2, 4, 6, 8, 1, 3]);
        let large = Size { width: 1024, height: 1024 };
        assert_eq!(rows(&new(&[large, USUAL], Some(4))), [2, 2, 4, 1, 3, 1, 3]);
        assert!(new(&[], None).shapes.is_empty());
        let many = [USUAL, Size { width: 512, height: 768 }, Size { width: 768, height: 512 }];
        assert_eq!(new(&many, None).shapes.len(), graphs::MAX_GRAPHS, "more would push one another out");
    }

    #[test]
    fn a_refiner_comes_after_what_the_base_model_needs() {
        let refined = WarmUp::new(&[USUAL], Some(8), (64 * 64, true), |_| 64 * 64);
        assert_eq!(rows(&refined), [2, 4, 6, 8, 1, 3, 2, 4, 6, 8]);
        let (base, refiner): (Vec<&Shape>, Vec<&Shape>) = refined.shapes.iter().partition(|shape| !shape.refined);
        assert_eq!((base.len(), refiner.iter().any(|shape| shape.decode)), (6, false));
        let spec = spec(*refiner[1], 7, false);
        assert_eq!((spec.num_outputs, spec.steps, spec.refine.map(|refine| refine.steps)), (2, 1, Some(7)));
        let mut cut = refined;
        cut.cut(USUAL, 4, true);
        assert_eq!(rows(&cut), [2, 4, 6, 8, 1, 3, 2]);
        cut.cut(USUAL, 4, false);
        assert_eq!(rows(&cut), [2, 1, 3, 2]);
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
