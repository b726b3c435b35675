//! What a job is for.

/// One finished image, 8 bits a channel, rows from the top, RGB: `pixels.len() == 3 * width * height`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// RGB bytes.
    pub pixels: Vec<u8>,
}
