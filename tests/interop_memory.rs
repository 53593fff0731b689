//! No header makes a reader use much more memory than its file. The only test of its binary,
//! because it watches every allocation of the process.
#![cfg(feature = "gzip")]

use ferrotape::checkpoint::NamedTensor;
use ferrotape::{Result, interop};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

type Reader = fn(Vec<u8>) -> Result<Vec<NamedTensor<'static>>>;

/// Reads a file and checks the most bytes that were in use at a time, the file included.
fn assert_cheap(read: Reader, bytes: Vec<u8>, times: usize, what: &str) -> bool {
    let len = bytes.len();
    let before = MEMORY.current_usage() - len;
    MEMORY.reset_peak_usage();
    let accepted = read(bytes).is_ok();
    let peak = MEMORY.peak_usage() - before;
    assert!(peak <= times * len + (1 << 20), "{what}: {peak} bytes for a file of {len}");
    accepted
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn reading_costs_a_small_multiple_of_the_file() {
    let read: Reader = |bytes| interop::safetensors::from_bytes(bytes);
    let one = |dtype: &str, shape: &str, end: usize| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    // The file itself and its values as f32.
    assert!(assert_cheap(read, safetensors(&one("F32", "[4194304]", 1 << 24), 1 << 24), 2, "f32"));
    assert!(assert_cheap(read, safetensors(&one("U8", "[4194304]", 1 << 22), 1 << 22), 5, "u8"));
    for end in [1_usize << 30, 1 << 40, usize::MAX] {
        let header = one("U8", &format!("[{end}]"), end);
        assert!(!assert_cheap(read, safetensors(&header, 100), 2, "a large claim"));
    }
    // Headers full of what costs most in memory for its bytes.
    let shape = format!("[{}1]", "1,".repeat(2_000_000));
    assert!(!assert_cheap(read, safetensors(&one("U8", &shape, 1), 1), 3, "a long shape"));
    let entry = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let entries: Vec<String> = (0..60_000).map(|i| format!("\"{i}\":{entry}")).collect();
    let header = format!("{{{}}}", entries.join(","));
    assert!(assert_cheap(read, safetensors(&header, 0), 8, "many tensors"));
    let nested = format!(r#"{{"__metadata__":{}"#, "[".repeat(4_000_000));
    assert!(!assert_cheap(read, safetensors(&nested, 0), 4, "nested brackets"));

    let read: Reader = |bytes| interop::npz::from_bytes(bytes);
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop_memory");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("w.npz");
    let tensor = NamedTensor::new("w", [1 << 22], vec![1.5; 1 << 22]);
    interop::npz::write(&path, &[tensor]).unwrap();
    let good = std::fs::read(&path).unwrap();
    // The file, one array as it is in the file, and its values.
    assert!(assert_cheap(read, good.clone(), 3, "npz"));
    // The directory claims 200 MB.
    let at = good.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    for method in [0, 8] {
        let mut bad = good.clone();
        bad[at + 10] = method;
        for size in [at + 20, at + 24] {
            bad[size..size + 4].copy_from_slice(&200_000_000_u32.to_le_bytes());
        }
        assert!(!assert_cheap(read, bad, 3, "a large claim in the directory"));
    }
}
