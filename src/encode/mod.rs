//! From pixels to what goes over the wire: PNG, and base64 for JSON.

mod base64;
mod png;

pub use base64::base64;
pub use png::{EncodeError, png};
