//! Processes that are killed, and disks and memory that fail: nothing that was answered is lost. `chaos::`, `disk_faults::` and
//! `gateway_crash::` choose.

mod chaos;
mod disk_faults;
mod gateway_crash;
mod gateway_process;
