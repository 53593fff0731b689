//! Any bytes are valid safetensors or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ferrotape::interop::safetensors::from_bytes(data.to_vec());
});
