//! Any bytes are a valid npy file or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ferrotape::interop::npy::from_bytes(data.to_vec());
});
