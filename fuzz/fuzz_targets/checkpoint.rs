//! Any bytes are a valid checkpoint or an error.
#![no_main]

use ferrotape::checkpoint::CheckpointFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = CheckpointFile::from_bytes(data.to_vec()).and_then(CheckpointFile::read_state);
});
