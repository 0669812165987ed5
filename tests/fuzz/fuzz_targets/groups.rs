#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dlog_fuzz::coordinators::groups(data));
