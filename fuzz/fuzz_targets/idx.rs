//! Any file is a valid IDX file or an error. The reader takes paths, so the bytes go to a file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("ferrotape-fuzz-idx-{}", std::process::id()));
    std::fs::write(&path, data).expect("the temporary directory can be written to");
    let _ = ferrotape::data::read_idx(&path, 3);
    let _ = ferrotape::data::read_idx(&path, 1);
});
