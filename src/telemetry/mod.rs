//! What the process tells its operator.

mod cut;
mod json;
pub mod logs;
