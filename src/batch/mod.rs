//! Which lanes share the next evaluation. Pure: no clock, no tensors.
//!
//! Lanes can share a call of the UNet when their latents have one size, their prompts are as long, and no LoRA
//! tells them apart. The lane that waited
//! longest decides which key is next, so keys take turns and none starves; others of that key fill the call up. The
//! number of rows is rounded down to a bucket (1, 2, 3, 4, 6, 8, 12, 16, …): few shapes recur, and what is left
//! over goes first next time.

/// What lanes must have in common to share an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Rows of the latent.
    pub height: u32,
    /// Columns of the latent.
    pub width: u32,
    /// Tokens of a prompt: keys and values of every cross-attention. A prompt of several chunks has more.
    pub tokens: u32,
    /// Number of the networks that evaluate it: the model itself, or what a LoRA makes of it.
    pub networks: u64,
}

/// A lane as the policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// What it can share an evaluation with.
    pub key: Key,
    /// Rows of the UNet's batch that it needs: 2 with guidance, else 1.
    pub rows: usize,
    /// The evaluation that it took part in last, 0 if none: the smaller, the longer it waits.
    pub served: u64,
}

/// Positions in `lanes` (which are in order of admission) of those that make the next evaluation: at most as many rows
/// as `max_rows` says for their key, unless one lane alone needs more. Empty only if `lanes` is.
pub fn choose(lanes: &[Waiting], max_rows: impl Fn(Key) -> usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    order.sort_by_key(|&i| lanes[i].served); // stable: the oldest first among equals
    let Some(&first) = order.first() else { return Vec::new() };
    order.retain(|&i| lanes[i].key == lanes[first].key);

    let asked: usize = order.iter().map(|&i| lanes[i].rows).sum();
    let room = largest_bucket(asked.min(max_rows(lanes[first].key))).max(lanes[first].rows);
    let mut rows = 0;
    order.retain(|&i| {
        let fits = rows + lanes[i].rows <= room;
        rows += if fits { lanes[i].rows } else { 0 };
        fits
    });
    order
}

/// The largest power of two, or one and a half of one, that is at most `rows`; 1 for 0. Powers alone would leave up to half of the
/// rows for an evaluation of their own.
fn largest_bucket(rows: usize) -> usize {
    let power = 1 << rows.max(1).ilog2();
    let more = power + power / 2;
    if rows >= more { more } else { power }
}

/// The smallest bucket that `rows` fit into: what an evaluation is padded to where shapes should recur. Rows that [`choose`] chose
/// stay within what it was allowed.
pub fn bucket(rows: usize) -> usize {
    let below = largest_bucket(rows);
    // Of buckets that lie side by side the larger is 4/3 or 3/2 of the smaller.
    if below >= rows { below } else { largest_bucket(2 * below - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Key = Key { height: 16, width: 16, tokens: 77, networks: 0 };
    const LARGE: Key = Key { height: 64, width: 64, tokens: 77, networks: 0 };

    fn lane(key: Key, rows: usize, served: u64) -> Waiting {
        Waiting { key, rows, served }
    }

    #[test]
    fn one_lane_runs_alone_even_above_the_limit() {
        assert_eq!(choose(&[lane(SMALL, 2, 0)], |_| 1), [0]);
        assert!(choose(&[], |_| 8).is_empty());
    }

    #[test]
    fn rows_are_a_bucket_and_the_rest_goes_first_next_time() {
        let mut lanes = [lane(SMALL, 2, 0); 5];
        assert_eq!(choose(&lanes, |_| 16), [0, 1, 2, 3]);
        for served in &mut lanes[..4] {
            served.served = 1;
        }
        assert_eq!(choose(&lanes, |_| 16), [4, 0, 1, 2]);
        let buckets: Vec<usize> = (0..=17).map(largest_bucket).collect();
        assert_eq!(buckets, [1, 1, 2, 3, 4, 4, 6, 6, 8, 8, 8, 8, 12, 12, 12, 12, 16, 16]);
    }

    #[test]
    fn rows_that_are_no_bucket_are_padded_to_the_next() {
        let buckets: Vec<usize> = (0..=17).map(bucket).collect();
        assert_eq!(buckets, [1, 1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24]);
    }

    #[test]
    fn sizes_take_turns() {
        let mut lanes = vec![lane(SMALL, 2, 0), lane(LARGE, 2, 0), lane(SMALL, 2, 0)];
        let mut turns = Vec::new();
        for tick in 1..=4 {
            let chosen = choose(&lanes, |_| 16);
            turns.push(lanes[chosen[0]].key);
            for i in chosen {
                lanes[i].served = tick;
            }
        }
        assert_eq!(turns, [SMALL, LARGE, SMALL, LARGE]);
    }

    proptest! {
        #[test]
        fn nobody_starves_and_no_limit_is_passed(
            shapes in prop::collection::vec((0..3u64, 1..=2usize), 1..24),
            max_rows in 2..40usize,
        ) {
            let mut lanes: Vec<Waiting> =
                shapes.iter().map(|&(size, rows)| lane(Key { height: 8, width: 8, tokens: 77, networks: size }, rows, 0)).collect();
            for tick in 1..=2 * lanes.len() as u64 {
                let chosen = choose(&lanes, |_| max_rows);
                prop_assert!(!chosen.is_empty());
                prop_assert!(bucket(chosen.iter().map(|&i| lanes[i].rows).sum()) <= max_rows);
                prop_assert!(chosen.iter().all(|&i| lanes[i].key == lanes[chosen[0]].key));
                for i in chosen {
                lanes[i].served = tick;
            }
            }
            prop_assert!(lanes.iter().all(|lane| lane.served > 0), "a lane was never served");
        }
    }
}
