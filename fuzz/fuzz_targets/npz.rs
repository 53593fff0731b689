//! Any bytes are valid npz or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ferrotape::interop::npz::from_bytes(data.to_vec());
});
