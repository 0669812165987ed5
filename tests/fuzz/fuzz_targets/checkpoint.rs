#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dlog_fuzz::checkpoint(data));
