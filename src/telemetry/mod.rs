//! What the process tells its operator.

mod json;
pub mod logs;
