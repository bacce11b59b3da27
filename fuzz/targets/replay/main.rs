//! What stands in a trace file: requests, or one line that says why not; in bounded memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion::replay::parse;

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Ok(trace) => assert!(!trace.is_empty(), "a trace without requests"),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
        }
    }
});
