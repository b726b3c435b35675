//! The target of `fuzz/src/lib.rs` that is called so.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| latentd_fuzz::submitted(data));
