//! What the process tells its operator.

pub mod logs;
