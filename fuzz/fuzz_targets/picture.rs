#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| latentd_fuzz::picture(data));
