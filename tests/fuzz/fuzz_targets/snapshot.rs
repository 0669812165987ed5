#![no_main]

use dlog_fuzz::Damaged;
libfuzzer_sys::fuzz_target!(|data: &[u8]| dlog_fuzz::log_file(Damaged::Snapshot, data));
