//! Evaluations that are recorded once and then replayed, on devices that can: one graph for each size of latents, number of rows and
//! networks. On a GPU a replay costs the CPU one call, where an evaluation is several hundred.
//!
//! Everything that differs from one evaluation to the next goes through static inputs, whose tensors stay where they are: latents, times
//! and conditioning. All evaluations here have a bucket's number of rows ([`batch::bucket`]), captured or not, so that a row gets the same
//! bits before and after.

mod fake;

use std::rc::{Rc, Weak};
use std::time::Instant;

use tch::TchError;
use tracing::{debug, warn};

use crate::engine::torch::device::async_work::{CapturedGraph, Evaluation, GraphCapture};
pub use fake::{CaptureCounters, FakeCapture};

use super::unet_batch::{StaticInputs, UnetBatch};
use crate::batch::{self, Key};
use crate::engine::torch::error::{Forward, TorchError};
use crate::engine::torch::networks::Networks;

/// Evaluations of a shape before it is recorded: libraries choose their kernels and lay out their memory in the first ones, and a shape
/// that comes up only now and then is not worth capturing.
pub const WARM_UP_EVALUATIONS: u32 = 4;
/// Graphs at the same time. Each holds the conditioning of its rows, 4 MB each of SD 1.5 in f16, and there are eight buckets up to 16 rows.
pub(in crate::engine::torch) const MAX_GRAPHS: usize = 16;

/// The graphs of an engine.
#[derive(Debug)]
pub(in crate::engine::torch) struct Graphs {
    capture: Box<dyn GraphCapture>,
    /// The last used first.
    known: Vec<Graph>,
    /// [`MAX_GRAPHS`] until memory ran out.
    most: usize,
    warned: bool,
}

/// Evaluations of one shape by one pair of networks.
#[derive(Debug)]
struct Graph {
    key: Key,
    /// Whose weights a captured graph reads. They must live when it is replayed, and whoever replays it holds them.
    networks: Weak<Networks>,
    rows: usize,
    // Before the inputs, which a captured graph reads.
    state: State,
    inputs: StaticInputs,
}

#[derive(Debug)]
enum State {
    /// So often evaluated.
    Warming(u32),
    Captured(Box<dyn CapturedGraph>),
    /// It cannot be.
    Refused,
}

impl Graphs {
    /// None yet.
    pub(in crate::engine::torch) fn new(capture: Box<dyn GraphCapture>) -> Self {
        Self { capture, known: Vec::new(), most: MAX_GRAPHS, warned: false }
    }

    /// What `networks` say of `rows`, all of which have the key `key`: `[rows, latent, height, width]`, which the next call may overwrite.
    pub(in crate::engine::torch) fn evaluate(
        &mut self,
        key: Key,
        networks: &Rc<Networks>,
        rows: &UnetBatch,
    ) -> Forward {
        self.known.retain(|graph| graph.networks.strong_count() > 0);
        if self.most == 0 {
            return rows.evaluate_padded(&networks.unet);
        }
        let mut graph = self.take(key, networks, rows)?;
        let output = self.evaluate_by(&mut graph, rows);
        self.known.insert(0, graph);
        self.known.truncate(self.most);
        output?.f_narrow(0, 0, rows.count() as i64)
    }

    /// Lets go of all of them for lack of memory, and keeps fewer from now on; whether there was any.
    pub(in crate::engine::torch) fn release(&mut self) -> bool {
        if self.known.is_empty() {
            return false;
        }
        self.most /= 2;
        warn!(graphs = self.known.len(), most = self.most, "out of memory; letting go of the CUDA graphs");
        self.known.clear();
        true
    }

    /// Lets go of all of them: what they read is somewhere else now.
    pub(in crate::engine::torch) fn clear(&mut self) {
        self.known.clear();
    }

    /// Lets go of what is kept for this key and bucket of rows, captured or not.
    pub(in crate::engine::torch) fn forget(&mut self, key: Key, rows: usize) {
        self.known.retain(|graph| (graph.key, graph.rows) != (key, rows));
    }

    fn take(&mut self, key: Key, networks: &Rc<Networks>, rows: &UnetBatch) -> Forward<Graph> {
        let bucket = batch::bucket(rows.count());
        if let Some(at) = self.known.iter().position(|graph| (graph.key, graph.rows) == (key, bucket)) {
            return Ok(self.known.remove(at));
        }
        let inputs = StaticInputs::new(bucket, rows, &networks.unet)?;
        Ok(Graph { key, rows: bucket, networks: Rc::downgrade(networks), state: State::Warming(0), inputs })
    }

    fn evaluate_by(&mut self, graph: &mut Graph, rows: &UnetBatch) -> Forward {
        graph.inputs.write(rows)?;
        match &mut graph.state {
            State::Warming(evaluated) if *evaluated < WARM_UP_EVALUATIONS => *evaluated += 1,
            State::Warming(_) => graph.state = self.record(graph)?,
            _ => {}
        }
        match &graph.state {
            State::Captured(graph) => graph.replay(),
            _ => graph.work()(),
        }
    }

    fn record(&mut self, graph: &Graph) -> Forward<State> {
        let Graph { key: Key { height, width, networks, .. }, rows, .. } = *graph;
        let began = Instant::now();
        match self.capture.capture(graph.work()) {
            Ok(graph) => {
                let ms = began.elapsed().as_millis() as u64;
                debug!(height, width, networks, rows, ms, "an evaluation is recorded, and replayed from now on");
                Ok(State::Captured(graph))
            }
            Err(cause) => {
                let told = TorchError::of(&cause);
                if told.is_out_of_memory() {
                    return Err(cause); // whoever makes room tries again
                }
                if !std::mem::replace(&mut self.warned, true) {
                    let cause = told.first_line();
                    warn!(cause, height, width, rows, "an evaluation cannot be recorded: it goes on as it is, slower");
                }
                Ok(State::Refused)
            }
        }
    }
}

impl Graph {
    /// An evaluation of what the static inputs hold by then.
    fn work(&self) -> Evaluation {
        let (networks, inputs) = (Weak::clone(&self.networks), self.inputs.view());
        Box::new(move || {
            let networks = networks.upgrade();
            let networks =
                networks.ok_or_else(|| TchError::Torch("the networks of a captured graph are gone".into()))?;
            inputs.evaluate(&networks.unet)
        })
    }
}
