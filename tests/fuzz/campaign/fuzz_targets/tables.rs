#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| coord_fuzz::tables::play(bytes));
