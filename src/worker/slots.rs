//! How many jobs are in hand at the same time where no setting says it.

/// Bytes of an image that was found to take less: what the allocator kept from earlier is not seen.
const MIN_IMAGE_BYTES: u64 = 128 << 20;

/// What one engine has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineCapacity {
    /// Rows of an evaluation beyond which nothing is gained; an image with guidance has two.
    pub rows: usize,
    /// Images at a time that its memory holds, where that is known.
    pub images: Option<usize>,
}

impl EngineCapacity {
    /// The room of an engine of `rows` whose device had so many bytes free before its first image of the usual size, and after it.
    pub fn measured(rows: usize, before: u64, after: u64) -> Self {
        let image = before.saturating_sub(after).max(MIN_IMAGE_BYTES);
        // The first has its memory already.
        let images = 1 + usize::try_from(after / image).unwrap_or(usize::MAX - 1);
        Self { rows, images: Some(images) }
    }

    fn jobs(self) -> usize {
        (self.rows / 2).min(self.images.unwrap_or(usize::MAX)).max(1)
    }
}

/// As many jobs as fill an evaluation of each engine, as far as memory allows, and one that is brought in or delivered meanwhile. More
/// would wait here while another worker could have them.
pub fn slots(rooms: &[EngineCapacity]) -> usize {
    rooms.iter().map(|room| room.jobs()).sum::<usize>().max(1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn rows_decide_where_memory_is_no_matter() {
        for (rows, expected) in [(16, 9), (2, 2), (1, 2), (0, 2)] {
            assert_eq!(slots(&[EngineCapacity { rows, images: None }]), expected, "{rows}");
        }
        assert_eq!(slots(&[]), 2);
    }

    #[test]
    fn memory_decides_where_it_is_scarce() {
        // Before, after, and how many slots that makes.
        for (before, after, expected) in [
            (20 * GIB, 18 * GIB, 9),
            (10 * GIB, 7 * GIB, 4),
            (4 * GIB, GIB, 2),
            (4 * GIB, 0, 2),
            (GIB, GIB, 9),
            (GIB / 4, GIB / 4, 4),
            // Another process let go of memory meanwhile.
            (GIB, 2 * GIB, 9),
        ] {
            assert_eq!(slots(&[EngineCapacity::measured(16, before, after)]), expected, "{before} {after}");
        }
    }

    #[test]
    fn engines_add_up() {
        let room = EngineCapacity { rows: 16, images: Some(3) };
        assert_eq!(slots(&[room, room, EngineCapacity { rows: 16, images: None }]), 15);
    }
}
