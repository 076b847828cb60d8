//! Any bytes as the traces of a volume: refused, or the one way to write what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sterna_storage_node::trace::Traces;

fuzz_target!(|data: &[u8]| {
    check(data);
    // What they begin with is hard to guess.
    check(&[&b"STtr\x01"[..], data].concat());
});

fn check(bytes: &[u8]) {
    if let Ok(traces) = Traces::parse(bytes) {
        assert_eq!(traces.encode(), bytes);
    }
}
