//! As `checkpoint`, but with the checksums made right first, so that the fuzzer gets past them.
#![no_main]

use ferrotape::checkpoint::CheckpointFile;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/repair.rs"]
mod repair;

fuzz_target!(|data: &[u8]| {
    let mut data = data.to_vec();
    repair::repair(&mut data);
    let _ = CheckpointFile::from_bytes(data).and_then(CheckpointFile::read_state);
});
