//! An image that is mapped tile by tile, for want of memory for the whole. Tiles overlap by a quarter and are blended there (diffusers'
//! `AutoencoderKL.tiled_decode` and `tiled_encode`). The result is about the same: each tile is normalised by itself.

use tch::{Kind, Tensor};

use crate::engine::torch::error::Forward;

/// One part in so many of a tile is blended with the tile before.
const OVERLAP: i64 = 4;

/// Sides of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TileSides {
    /// Before it is mapped.
    pub(super) from: i64,
    /// After.
    pub(super) to: i64,
}

impl TileSides {
    /// Whether `x`, `[batch, channels, height, width]`, is larger than a tile.
    pub(super) fn are_less_than(self, x: &Tensor) -> bool {
        x.size().iter().skip(2).any(|side| *side > self.from)
    }

    /// What `map` makes of `x`, `[batch, channels, height, width]`, tile by tile.
    pub(super) fn map(self, x: &Tensor, map: impl Fn(&Tensor) -> Forward) -> Forward {
        let (_, _, height, width) = x.size4()?;
        let (mut above, mut rows): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for top in self.begins(height) {
            let mut row: Vec<Tensor> = Vec::new();
            for left in self.begins(width) {
                let part = x.f_narrow(2, top, self.from.min(height - top))?;
                let tile = map(&part.f_narrow(3, left, self.from.min(width - left))?)?;
                if let Some(above) = above.get(row.len()) {
                    self.blend(above, &tile, 2)?;
                }
                if let Some(before) = row.last() {
                    self.blend(before, &tile, 3)?;
                }
                row.push(tile);
            }
            let kept = row.iter().map(|tile| self.keep(tile)).collect::<Forward<Vec<_>>>()?;
            rows.push(Tensor::f_cat(&kept, 3)?);
            above = row;
        }
        Tensor::f_cat(&rows, 2)
    }

    /// Where tiles begin along a side of so many.
    fn begins(self, side: i64) -> impl Iterator<Item = i64> {
        let step = self.from - self.from / OVERLAP;
        (0..side).step_by(step as usize)
    }

    /// Has the begin of `tile` along `dimension` go over from the end of the tile before.
    fn blend(self, before: &Tensor, tile: &Tensor, dimension: i64) -> Forward<()> {
        let (ends, has) = (before.size()[dimension as usize], tile.size()[dimension as usize]);
        let extent = (self.to / OVERLAP).min(ends).min(has);
        let mut shape = [1; 4];
        shape[dimension as usize] = extent;
        let share = Tensor::f_arange(extent, (Kind::Float, tile.device()))?.f_div_scalar(extent)?.f_view(shape)?;
        let (old, mut new) = (before.f_narrow(dimension, ends - extent, extent)?, tile.f_narrow(dimension, 0, extent)?);
        let blended = old.f_add(&new.f_sub(&old)?.f_mul(&share)?)?;
        new.f_copy_(&blended)
    }

    /// What is left of a tile beside the one that comes after.
    fn keep(self, tile: &Tensor) -> Forward {
        let (_, _, height, width) = tile.size4()?;
        let kept = self.to - self.to / OVERLAP;
        tile.f_narrow(2, 0, kept.min(height))?.f_narrow(3, 0, kept.min(width))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tch::Device;

    use super::*;

    fn numbers(height: i64, width: i64) -> Tensor {
        Tensor::arange(height * width, (Kind::Float, Device::Cpu)).reshape([1, 1, height, width])
    }

    fn doubled(x: &Tensor) -> Forward {
        let (_, _, height, width) = x.size4()?;
        x.f_upsample_nearest2d([2 * height, 2 * width], None, None)
    }

    #[test]
    fn what_each_place_maps_by_itself_is_the_same_in_tiles() {
        let sides = TileSides { from: 8, to: 16 };
        for (height, width) in [(8, 9), (20, 14), (7, 30), (9, 3), (13, 6)] {
            let x = numbers(height, width);
            assert!(sides.are_less_than(&x));
            let difference = sides.map(&x, doubled).unwrap() - doubled(&x).unwrap();
            assert!(f64::try_from(difference.abs().max()).unwrap() < 1e-4, "{height}×{width}");
        }
        assert!(!sides.are_less_than(&numbers(8, 8)));
    }

    #[test]
    fn tiles_go_over_into_each_other() {
        // Each tile comes as its own number: 0, then 1.
        let told = std::cell::Cell::new(-1.0);
        let number = |x: &Tensor| {
            told.set(told.get() + 1.0);
            x.f_full_like(told.get())
        };
        let map = TileSides { from: 8, to: 8 }.map(&numbers(1, 12), number).unwrap();
        let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(Vec::<f32>::try_from(map.flatten(0, 3)).unwrap(), expected);
    }
}
