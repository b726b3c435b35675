//! From pixels to what goes over the wire: PNG, JPEG for a quick look, and base64 for JSON.

mod base64;
mod jpeg;
mod png;

pub use base64::{base64, base64_after};
pub use jpeg::jpeg;
pub use png::{EncodeError, png};
