//! Where a long prompt is divided.

/// How many tokens a comma may lie back from the end of a chunk for the chunk to end there.
const BACKTRACK: usize = 20;

/// A place of a chunk, and what its state is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    pub(super) content: Content,
    pub(super) weight: f32,
}

/// What is in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A token of the vocabulary.
    Token(u32),
    /// A vector in its place.
    Vector(VectorId),
}

/// Names a vector of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorId {
    /// The embedding's number.
    pub embedding: u64,
    /// Which of its vectors.
    pub row: usize,
}

/// Chunks while tokens come in.
#[derive(Debug)]
pub(super) struct Chunker {
    /// Places of a chunk.
    room: usize,
    comma: Option<u32>,
    done: Vec<Vec<Unit>>,
    open: Vec<Unit>,
    /// Where the open chunk has its last comma.
    last_comma: Option<usize>,
}

impl Chunker {
    pub(super) fn new(room: usize, comma: Option<u32>) -> Self {
        Self { room, comma, done: Vec::new(), open: Vec::new(), last_comma: None }
    }

    /// Takes in a token, or the vectors of a name, which stay in one chunk; there must be at least one, and they must fit into a chunk. Where the
    /// chunk is full, it ends: after its last comma if that is near, unless another comes now.
    pub(super) fn push(&mut self, units: &[Unit]) {
        let is_full = self.open.len() == self.room;
        let comma = self.comma.map(Content::Token);
        if units.len() == 1 && Some(units[0].content) == comma {
            self.last_comma = Some(self.open.len());
        } else if let Some(comma) = self.last_comma.filter(|comma| is_full && self.room - comma <= BACKTRACK) {
            let moved = self.open.split_off(comma + 1);
            self.end();
            self.open = moved;
        }
        if self.open.len() + units.len() > self.room {
            self.end();
        }
        self.open.extend(units);
    }

    /// Ends the open chunk, which may have no token.
    pub(super) fn end(&mut self) {
        self.done.push(std::mem::take(&mut self.open));
        self.last_comma = None;
    }

    /// All chunks, at least one.
    pub(super) fn finish(mut self) -> Vec<Vec<Unit>> {
        if !self.open.is_empty() || self.done.is_empty() {
            self.end();
        }
        self.done
    }
}
