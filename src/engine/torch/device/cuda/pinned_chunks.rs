//! A weight on its way to a GPU, piece by piece, so that little pinned memory serves all.

use std::collections::VecDeque;

use crate::engine::torch::error::Forward;

/// Bytes of a piece of a weight.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// Chunks on their way at the same time: more would only be more pinned memory.
const MAX_CHUNKS_IN_FLIGHT: usize = 4;

/// What tells of each piece on its way whether it has arrived, the oldest first.
#[derive(Debug)]
pub(super) struct PinnedChunks<T>(VecDeque<T>);

impl<T> Default for PinnedChunks<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> PinnedChunks<T> {
    /// Has `send` send `bytes` piece by piece, each with its offset, and each when there is room: it is given what tells of a piece that was
    /// sent before, which must have arrived by then, if there are so many.
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        mut send: impl FnMut(usize, &[u8], Option<T>) -> Forward<T>,
    ) -> Forward<()> {
        for (number, piece) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let before = if self.0.len() < MAX_CHUNKS_IN_FLIGHT { None } else { self.0.pop_front() };
            self.0.push_back(send(number * CHUNK_BYTES, piece, before)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use tch::TchError;

    use super::*;

    #[test]
    fn all_bytes_are_sent_in_order_and_only_so_many_are_on_their_way() {
        let (mut chunks, mut sent, mut under_way) = (PinnedChunks::default(), 0, HashSet::new());
        let mut names = 0..;
        let weights = [1, CHUNK_BYTES, 0, CHUNK_BYTES + 1, 7 * CHUNK_BYTES, 2 * CHUNK_BYTES - 1, 5];
        for (round, length) in weights.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..length).map(|at| (at / 7 + round) as u8).collect();
            let mut there = vec![0; length];
            chunks
                .send(&bytes, |offset, piece, before| {
                    assert!(before.is_none_or(|before| under_way.remove(&before)));
                    assert!(piece.len() <= CHUNK_BYTES);
                    there[offset..offset + piece.len()].copy_from_slice(piece);
                    sent += 1;
                    let name: u32 = names.next().unwrap();
                    under_way.insert(name);
                    assert!(under_way.len() <= MAX_CHUNKS_IN_FLIGHT);
                    Ok(name)
                })
                .unwrap();
            assert!(there == bytes, "{length}");
        }
        assert_eq!(sent, 1 + 1 + 2 + 7 + 2 + 1);
    }

    #[test]
    fn a_piece_that_cannot_be_sent_is_the_last() {
        let mut chunks = PinnedChunks::default();
        let mut left = 2;
        let sent = chunks.send(&vec![0; 5 * CHUNK_BYTES], |_, _, _: Option<()>| {
            left -= 1;
            if left == 0 { Err(TchError::Torch("lost".into())) } else { Ok(()) }
        });
        assert_eq!((sent.is_err(), left), (true, 0));
    }
}
