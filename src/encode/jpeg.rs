//! JPEG, for a look at a picture that is not done.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageError};

use crate::job::Picture;

/// Of 100: a few kilobytes for a preview, whose blur hides what it loses.
const QUALITY: u8 = 75;

/// A JPEG file (ISO/IEC 10918-1) of `picture`.
///
/// # Errors
/// [`ImageError`] for a picture without pixels, or of more than 65,535 a side.
pub fn jpeg(picture: &Picture) -> Result<Vec<u8>, ImageError> {
    let mut file = Vec::new();
    let encoder = &mut JpegEncoder::new_with_quality(&mut file, QUALITY);
    encoder.encode(&picture.pixels, picture.width, picture.height, ExtendedColorType::Rgb8)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shows_the_picture_nearly_as_it_is() {
        let (width, height) = (48, 32);
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8 * 5, y as u8 * 7, 90])).collect();
        let picture = Picture { width, height, pixels };
        let file = jpeg(&picture).unwrap();
        let seen = image::load_from_memory(&file).unwrap().into_rgb8();
        assert_eq!((seen.dimensions(), file.len() < 3000), ((width, height), true));
        let furthest = seen.iter().zip(&picture.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(furthest < Some(24), "{furthest:?}");
    }
}
