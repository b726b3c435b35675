//! Pictures to the size of a job, by Lanczos with three lobes, as Pillow's `Image.LANCZOS` computes it.

use std::error::Error;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use super::fault::ImageFault;
use crate::job::{Picture, Size};

/// `picture` at `size`; one that has it already keeps its pixels.
///
/// Rows are brought to their width and rounded to 8 bits, then columns: the order shows where the first pass clips. So did
/// every Pillow before 13.0, which exchanges the passes for some sizes to save time.
pub(super) fn resize(picture: RgbImage, size: Size) -> Result<Picture, ImageFault> {
    let (from_width, from_height) = picture.dimensions();
    let Size { width, height } = size;
    let wide = pass(picture.into_raw(), (from_width, from_height), (width, from_height))?;
    let pixels = pass(wide, (width, from_height), (width, height))?;
    Ok(Picture { width, height, pixels })
}

fn pass(pixels: Vec<u8>, from: (u32, u32), to: (u32, u32)) -> Result<Vec<u8>, ImageFault> {
    if from == to {
        return Ok(pixels);
    }
    let broken = |cause: &dyn Error| ImageFault::Broken(cause.to_string());
    let source = ImageRef::new(from.0, from.1, &pixels, PixelType::U8x3).map_err(|cause| broken(&cause))?;
    let mut resized = Image::new(to.0, to.1, PixelType::U8x3);
    let lanczos = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(false);
    Resizer::new().resize(&source, &mut resized, &lanczos).map_err(|cause| broken(&cause))?;
    Ok(resized.into_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What `scripts/make-image-goldens` drew.
    fn pattern(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let check = if (x / 5 + y / 7) % 2 == 1 { 255 } else { 0 };
            image::Rgb([(x * 255 / width) as u8, (x * y % 256) as u8, check])
        })
    }

    /// How far two pictures are apart at most, and how many values differ at all.
    fn apart(a: &[u8], b: &[u8]) -> (u8, usize) {
        let differences = || a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
        (differences().max().unwrap(), differences().filter(|difference| *difference > 0).count())
    }

    #[test]
    fn is_pillow_s_lanczos() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images/resize");
        let mut seen = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let sizes: Vec<u32> = path
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .split(['x', '-'])
                .map(|side| side.parse().unwrap())
                .collect();
            let expected = image::open(&path).unwrap().into_rgb8();
            let resized = resize(pattern(sizes[0], sizes[1]), Size { width: sizes[2], height: sizes[3] }).unwrap();
            assert_eq!((resized.width, resized.height), expected.dimensions());
            let (most, count) = apart(&resized.pixels, expected.as_raw());
            assert!(most <= 1, "{}: {count} values differ, by {most} at most", path.display());
            seen += 1;
        }
        assert_eq!(seen, 5);
    }

    #[test]
    fn what_fits_is_left_alone() {
        let picture = pattern(128, 256);
        let pixels = picture.as_raw().clone();
        assert_eq!(resize(picture, Size { width: 128, height: 256 }).unwrap().pixels, pixels);
    }
}
