//! What width and height may be.

use std::fmt;

use serde_json::{Value, json};

use super::text::either;
use crate::job::spec::Size;

/// What each side of a picture may be, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// One of these, in ascending order.
    List(&'static [u32]),
    /// A multiple of `step` from `from` to `to`, which both are multiples of it.
    Multiples {
        /// What divides it.
        step: u32,
        /// The least.
        from: u32,
        /// The most.
        to: u32,
    },
}

impl Sides {
    /// All of them, in ascending order.
    pub fn all(self) -> Vec<u32> {
        match self {
            Self::List(sides) => sides.to_vec(),
            Self::Multiples { step, from, to } => (from..=to).step_by(step as usize).collect(),
        }
    }

    /// Whether a side may have so many pixels.
    pub fn contains(self, pixels: u32) -> bool {
        match self {
            Self::List(sides) => sides.contains(&pixels),
            Self::Multiples { step, from, to } => (from..=to).contains(&pixels) && pixels.is_multiple_of(step),
        }
    }

    /// The least.
    pub fn smallest(self) -> u32 {
        match self {
            Self::List(sides) => sides.first().copied().unwrap_or_default(),
            Self::Multiples { from, .. } => from,
        }
    }

    /// The most.
    pub fn largest(self) -> u32 {
        match self {
            Self::List(sides) => sides.last().copied().unwrap_or_default(),
            Self::Multiples { to, .. } => to,
        }
    }

    /// The size of what is drawn from an image of this size, at its own size: each side is rounded down to one that may be. An image with
    /// a side beyond them is scaled first, so that its longer side is the largest, or else its shorter the smallest, and the other has a
    /// side's bounds; the second part of the result says whether it was.
    pub fn of_image(self, image: Size) -> (Size, bool) {
        let (least, most) = (self.smallest(), self.largest());
        let (shorter, longer) = (image.width.min(image.height).max(1), image.width.max(image.height));
        let (to, from) = match () {
            () if longer > most => (most, longer),
            () if shorter < least => (least, shorter),
            () => (1, 1),
        };
        let side = |pixels: u32| {
            let scaled = u64::from(pixels) * u64::from(to) / u64::from(from);
            self.rounded_down(u32::try_from(scaled).unwrap_or(u32::MAX))
        };
        (Size { width: side(image.width), height: side(image.height) }, to != from)
    }

    /// The largest that is no larger; the smallest, if all are.
    fn rounded_down(self, pixels: u32) -> u32 {
        match self {
            Self::List(sides) => {
                sides.iter().rev().copied().find(|side| *side <= pixels).unwrap_or_else(|| self.smallest())
            }
            Self::Multiples { step, from, to } => (pixels - pixels % step).clamp(from, to),
        }
    }

    /// A side as a JSON schema.
    pub(super) fn schema(self) -> Value {
        match self {
            Self::List(sides) => json!({ "type": "integer", "enum": sides }),
            Self::Multiples { step, from, to } => {
                json!({ "type": "integer", "minimum": from, "maximum": to, "multipleOf": step })
            }
        }
    }
}

/// In words.
impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(sides) => f.write_str(&either(sides.iter().map(u32::to_string))),
            Self::Multiples { step, from, to } => write!(f, "a multiple of {step} from {from} to {to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: Sides = Sides::List(&[128, 256, 384]);
    const MULTIPLES: Sides = Sides::Multiples { step: 8, from: 64, to: 2048 };

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn a_side_is_in_the_list_or_a_multiple_within_the_bounds() {
        for (sides, right, wrong) in
            [(LIST, [128, 256, 384], [0, 64, 129, 512]), (MULTIPLES, [64, 72, 2048], [0, 56, 68, 2056])]
        {
            assert!(right.iter().all(|side| sides.contains(*side)), "{sides:?}");
            assert!(!wrong.iter().any(|side| sides.contains(*side)), "{sides:?}");
            let all = sides.all();
            assert_eq!((all[0], all[all.len() - 1]), (sides.smallest(), sides.largest()));
            assert!(all.is_sorted() && all.iter().all(|side| sides.contains(*side)));
        }
        assert_eq!((LIST.all().len(), MULTIPLES.all().len()), (3, 249));
        assert_eq!(LIST.to_string(), "128, 256 or 384");
        assert_eq!(MULTIPLES.to_string(), "a multiple of 8 from 64 to 2048");
    }

    #[test]
    fn an_image_keeps_its_size_but_for_what_may_not_be() {
        for (image, drawn, scaled) in [
            (size(1024, 768), size(1024, 768), false),
            (size(1031, 775), size(1024, 768), false),
            (size(64, 2048), size(64, 2048), false),
            (size(2049, 2049), size(2048, 2048), true),
            (size(4096, 3072), size(2048, 1536), true),
            (size(3000, 4000), size(1536, 2048), true),
            (size(63, 100), size(64, 96), true),
            (size(10, 10), size(64, 64), true),
            // No scale brings both sides into the bounds: the shorter one has the least.
            (size(10_000, 100), size(2048, 64), true),
            (size(1, 32_768), size(64, 2048), true),
            (size(1, 500), size(64, 2048), true),
        ] {
            assert_eq!(MULTIPLES.of_image(image), (drawn, scaled), "{image:?}");
        }
        assert_eq!(LIST.of_image(size(300, 200)), (size(256, 128), false));
        assert_eq!(LIST.of_image(size(768, 400)), (size(384, 128), true));
    }

    proptest! {
        #[test]
        fn any_image_is_drawn_in_sides_that_may_be(width in 1_u32..=65_535, height in 1_u32..=65_535) {
            for sides in [LIST, MULTIPLES] {
                let (drawn, _) = sides.of_image(size(width, height));
                prop_assert!(sides.contains(drawn.width) && sides.contains(drawn.height), "{:?}", drawn);
            }
        }
    }
}
