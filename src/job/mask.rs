//! Which pixels a mask means.

use super::spec::{LoadedImage, Mask, Shade};

impl Mask<LoadedImage> {
    /// Whether each pixel is repainted, rows from the top. A pixel is white from half of full brightness on; brightness
    /// is ITU-R 601 luma in 16-bit fixed point, as Pillow has it, which is what the reference judges by.
    pub fn repainted(&self) -> Vec<bool> {
        let white = |rgb: &[u8]| {
            let [r, g, b] = [0, 1, 2].map(|channel| u32::from(rgb[channel]));
            (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16 >= 128
        };
        let wanted = self.repaint == Shade::White;
        self.image.picture.pixels.chunks_exact(3).map(|rgb| white(rgb) == wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::Picture;

    fn mask(repaint: Shade, pixels: &[[u8; 3]]) -> Mask {
        let picture = Picture { width: pixels.len() as u32, height: 1, pixels: pixels.concat() };
        Mask { image: LoadedImage { picture: Arc::new(picture), sha256: String::new() }, repaint, paste: false }
    }

    #[test]
    fn black_is_below_the_middle_and_what_is_not_black_is_white() {
        let pixels = [[0; 3], [127; 3], [128; 3], [255; 3], [0, 255, 0], [255, 0, 0], [0, 0, 255]];
        let black = [true, true, false, false, false, true, true];
        assert_eq!(mask(Shade::Black, &pixels).repainted(), black);
        assert_eq!(mask(Shade::White, &pixels).repainted(), black.map(|black| !black));
    }
}
