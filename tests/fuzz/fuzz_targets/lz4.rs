#![no_main]

use dlog::records::Codec;
libfuzzer_sys::fuzz_target!(|data: &[u8]| dlog_fuzz::codec(Codec::Lz4, data));
