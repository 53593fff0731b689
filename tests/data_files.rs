//! Wrong, damaged and hostile files: a typed error that names the file, and bounded memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrotape::data::{
    Dataset, Normalize, load_cifar10_dir, load_idx_dir, read_csv, read_idx, read_idx_pair,
};
use ferrotape::error::{DataFault, Error};
use proptest::prelude::*;

/// Remembers the largest single allocation: what a lying header would ask for.
struct LargestAllocation;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator.
unsafe impl GlobalAlloc for LargestAllocation {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: LargestAllocation = LargestAllocation;

/// A directory of its own for each test, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ferrotape-{}-{test}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

#[cfg(feature = "gzip")]
fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Reads a file that must be refused; checks that the message names it.
fn fault(path: &Path, rank: u8) -> DataFault {
    let error = read_idx(path, rank).unwrap_err();
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    match error {
        Error::Data { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[test]
fn damaged_plain_files_say_what_is_wrong() {
    let dir = Dir::new("plain");
    let good = idx(&[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let path = dir.write("good", &good);
    let read = read_idx(&path, 3).unwrap();
    assert_eq!((read.dims, read.data), (vec![2, 2, 3], good[16..].to_vec()));

    for end in 0..good.len() {
        let expected = if end < 4 {
            4
        } else if end < 16 {
            16
        } else {
            good.len() as u64
        };
        let found = end as u64;
        let path = dir.write("cut", &good[..end]);
        assert_eq!(fault(&path, 3), DataFault::Truncated { expected, found });
    }
    let path = dir.write("long", &[&good[..], &[0]].concat());
    assert_eq!(fault(&path, 3), DataFault::TrailingBytes { declared: 28 });
    let path = dir.write("empty", &idx(&[0, 28, 28], &[]));
    assert!(
        matches!(fault(&path, 3), DataFault::Other { message } if message.contains("[0, 28, 28]"))
    );

    for magic in [[0, 0, 8, 1], [0, 0, 0x0d, 3], [1, 0, 8, 3], *b"\x89PNG"] {
        let path = dir.write("magic", &[&magic, &good[4..]].concat());
        assert!(matches!(fault(&path, 3), DataFault::BadMagic { found, .. } if found == magic));
    }
    let path = dir.write("huge", &idx(&[u32::MAX; 4], &[]));
    assert!(matches!(fault(&path, 4), DataFault::TooLarge { bytes: u64::MAX, .. }));

    let missing = read_idx(dir.0.join("missing"), 3).unwrap_err();
    assert!(matches!(missing, Error::Io { action: "open", .. }), "{missing}");
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_is_recognised_by_content_and_damage_is_found() {
    let dir = Dir::new("gzip");
    let plain = idx(&[50], &(0..50).collect::<Vec<u8>>());
    let packed = gzip(&plain);
    for name in ["labels", "labels.gz", "labels.png"] {
        let path = dir.write(name, &packed);
        assert_eq!(read_idx(&path, 1).unwrap().data, plain[8..]);
    }
    // Two members in one file are one stream (that is what `cat a.gz b.gz` makes).
    let path = dir.write("two.gz", &[gzip(&plain[..20]), gzip(&plain[20..])].concat());
    assert_eq!(read_idx(&path, 1).unwrap().data, plain[8..]);

    for end in 2..packed.len() {
        let path = dir.write("cut.gz", &packed[..end]);
        let fault = fault(&path, 1);
        assert!(matches!(fault, DataFault::BadCompression { .. }), "cut at {end}: {fault}");
    }
    for at in packed.len() - 8..packed.len() {
        let mut wrong = packed.clone();
        wrong[at] ^= 1; // the checksum and the length at the end
        let path = dir.write("wrong.gz", &wrong);
        assert!(matches!(fault(&path, 1), DataFault::BadCompression { .. }), "byte {at}");
    }
    let path = dir.write("short.gz", &gzip(&plain[..30]));
    assert_eq!(fault(&path, 1), DataFault::Truncated { expected: 58, found: 30 });
    let path = dir.write("long.gz", &gzip(&[&plain[..], &[0]].concat()));
    assert_eq!(fault(&path, 1), DataFault::TrailingBytes { declared: 58 });
}

#[test]
fn memory_is_bounded_by_the_file_not_by_its_header() {
    let dir = Dir::new("hostile");
    // Promises 3 GB, holds 100 bytes.
    let liar = idx(&[3_000_000, 1000], &[7; 100]);
    let plain = dir.write("plain", &liar);
    LARGEST.store(0, Ordering::Relaxed);
    assert!(matches!(fault(&plain, 2), DataFault::Truncated { .. }));
    assert!(LARGEST.load(Ordering::Relaxed) < 1 << 20);

    #[cfg(feature = "gzip")]
    {
        let packed = dir.write("packed", &gzip(&liar));
        // Promises 100 bytes, expands to 64 MB.
        let bomb = gzip(&idx(&[100], &vec![0; 64 << 20]));
        let bomb = dir.write("bomb", &bomb);
        LARGEST.store(0, Ordering::Relaxed);
        assert!(matches!(fault(&packed, 2), DataFault::Truncated { .. }));
        assert_eq!(fault(&bomb, 1), DataFault::TrailingBytes { declared: 108 });
        assert!(LARGEST.load(Ordering::Relaxed) < 1 << 20);
    }
}

#[test]
fn pairs_that_do_not_belong_together_are_refused() {
    let dir = Dir::new("pairs");
    let images = dir.write("images-idx3-ubyte", &idx(&[3, 1, 2], &[1, 2, 3, 4, 5, 6]));
    let load = |labels: &[u8]| {
        let labels = dir.write("labels-idx1-ubyte", &idx(&[labels.len() as u32], labels));
        read_idx_pair(&images, &labels, 10).err().map(|error| error.to_string())
    };
    assert_eq!(load(&[0, 9, 3]), None);
    let error = load(&[0, 9]).unwrap();
    assert!(error.contains("labels-idx1-ubyte: 3 images but 2 labels"), "{error}");
    let error = load(&[0, 10, 200]).unwrap();
    assert!(error.contains("label 10 of example 1 is not below the 10 classes"), "{error}");
}

#[test]
fn a_directory_is_searched_under_the_usual_names() {
    let dir = Dir::new("names");
    let error = |path: &Path| load_idx_dir(path, 2, 0).err().unwrap().to_string();
    let message = error(&dir.0);
    assert!(message.contains("train-images-idx3-ubyte or images-idx3-ubyte"), "{message}");
    let message = error(&dir.0.join("nowhere"));
    assert!(message.contains("nowhere: not a directory"), "{message}");

    let images = idx(&[20, 2, 2], &[9; 80]);
    let labels = idx(&[20], &[0, 1].repeat(10));
    dir.write("train-images-idx3-ubyte", &images);
    assert!(error(&dir.0).contains("train-labels-idx1-ubyte"));
    dir.write("train-labels.idx1-ubyte", &labels);
    assert!(error(&dir.0).contains("t10k-images-idx3-ubyte"));
    dir.write("t10k-images-idx3-ubyte", &images);
    dir.write("t10k-labels-idx1-ubyte", &labels);
    let split = load_idx_dir(&dir.0, 2, 0).unwrap();
    assert_eq!([&split.train, &split.valid, &split.test].map(|part| part.len()), [18, 2, 20]);
}

#[test]
fn a_table_becomes_examples_with_named_classes() {
    let dir = Dir::new("csv");
    let text = "\u{feff}length, kind ,\"width, cm\"\r\n1.5,lily,2\r\n\r\n -3e2 ,\"a \"\"wild\"\" one\",0\n0.25,lily,7";
    let data = read_csv(dir.write("iris.csv", text.as_bytes()), "kind", None).unwrap();
    assert_eq!((data.len(), data.input_shape(), data.classes()), (3, &[2][..], 2));
    assert_eq!([0, 1].map(|class| data.class_name(class)), ["a \"wild\" one", "lily"]);
    let rows = [0, 1, 2].map(|i| {
        let mut x = [0.0; 2];
        data.read(i, &mut x);
        (data.label(i), x)
    });
    assert_eq!(rows, [(1, [1.5, 2.0]), (0, [-300.0, 0.0]), (1, [0.25, 7.0])]);
    let normalize = Normalize::of(&data);
    assert_eq!(normalize.mean, [-298.25 / 3.0, 3.0]);
    assert_eq!(normalize.std[1], (26.0f32 / 3.0).sqrt());

    // Whole numbers are sorted as numbers; another file may be read with the same classes.
    let numbers = read_csv(dir.write("n.csv", b"y,x\n10,0\n9,0\n-1,0\n"), "y", None).unwrap();
    let names: Vec<String> = (0..3).map(|class| numbers.class_name(class)).collect();
    assert_eq!(names, ["-1", "9", "10"]);
    let test = read_csv(dir.write("t.csv", b"y,x\n10,1\n"), "y", Some(&names)).unwrap();
    assert_eq!((test.label(0), test.classes()), (2, 3));
}

#[test]
fn damaged_tables_say_where() {
    let dir = Dir::new("csv-errors");
    let cases: [(&[u8], &str); 12] = [
        (b"", "the file is empty"),
        (b"a,b\n1,2", "no column `y`: the first line names a, b"),
        (b"y\n1", "no columns besides `y`"),
        (b"x,y\n\n", "no examples"),
        (b"x,y\n1,a\n\n2", "line 4: 1 fields where 2 are named"),
        (b"x,y\n1,a,3", "line 2: 3 fields"),
        (b"x,y\n\"1\n2\",a", "line 2, column `x`: `1\n2` is not a finite number"),
        (b"x,y\n1,\"a\nb\"\nnan,a", "line 4, column `x`: `nan` is not"),
        (b"x,y\n,a", "line 2, column `x`: `` is not"),
        (b"x,y\n1,\"a", "line 2: a quote is never closed"),
        (b"x,y\n1,\"a\"b", "line 2: `b` follows a closing quote"),
        (b"x,y\n1,\xff", "not UTF-8 text (at byte 6)"),
    ];
    for (text, message) in cases {
        let path = dir.write("bad.csv", text);
        let error = read_csv(&path, "y", None).err().unwrap().to_string();
        assert!(error.contains("bad.csv: ") && error.contains(message), "{error}");
    }
    let path = dir.write("bad.csv", b"x,y\n1,c");
    let classes = ["a".to_string(), "b".to_string()];
    let error = read_csv(&path, "y", Some(&classes)).err().unwrap().to_string();
    assert!(error.ends_with("line 2, column `y`: `c` is none of a, b"), "{error}");
}

#[test]
fn cifar_records_are_label_then_planes() {
    let dir = Dir::new("cifar");
    let error = || load_cifar10_dir(&dir.0, 0).err().unwrap().to_string();
    let record = |label: u8, red: u8| {
        [vec![label], vec![red; 1024], vec![100; 1024], vec![200; 1024]].concat()
    };
    for batch in 1..=5 {
        assert!(error().contains(&format!("data_batch_{batch}.bin")), "{}", error());
        let records = [record(batch, 10 * batch), record(0, 0)].concat();
        dir.write(&format!("data_batch_{batch}.bin"), &records);
    }
    assert!(error().contains("test_batch.bin"));
    dir.write("test_batch.bin", &record(9, 255)[..3000]);
    assert!(error().contains("test_batch.bin: truncated: 3000 bytes"), "{}", error());
    dir.write("test_batch.bin", &record(10, 0));
    assert!(error().contains("label 10 of example 0"), "{}", error());
    dir.write("test_batch.bin", &record(9, 255));

    let split = load_cifar10_dir(&dir.0, 0).unwrap();
    assert_eq!([&split.train, &split.valid, &split.test].map(|part| part.len()), [9, 1, 1]);
    assert_eq!((split.test.label(0), split.test.class_name(9)), (9, "truck".into()));
    let mut x = vec![0.0; 3072];
    split.test.read(0, &mut x);
    for (c, value) in [1.0, 100.0 / 255.0, 200.0 / 255.0].into_iter().enumerate() {
        let Normalize { mean, std } = Normalize::cifar10();
        assert!((x[c * 1024 + 5] - (value - mean[c]) / std[c]).abs() < 1e-6);
    }
}

#[test]
fn the_fuzz_corpus_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/idx");
    let mut valid = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        for rank in 1..=4 {
            valid += usize::from(read_idx(&path, rank).is_ok());
        }
    }
    assert!(valid >= 2, "{valid} valid files");
    assert!(
        read_idx(corpus.join("images"), 3).is_ok() && read_idx(corpus.join("huge"), 3).is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a few changed bytes make of a file: no panic, and nothing half-read.
    #[test]
    fn any_bytes_are_read_completely_or_refused(
        changes in prop::collection::vec((0usize..40, any::<u8>()), 0..4),
        cut in 0usize..40,
        packed in any::<bool>(),
    ) {
        let mut bytes = idx(&[2, 3, 3], &[5; 18]);
        #[cfg(feature = "gzip")]
        if packed {
            bytes = gzip(&bytes);
        }
        let _ = packed;
        for (at, byte) in changes {
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
        }
        bytes.truncate(bytes.len() - cut.saturating_sub(20).min(bytes.len()));
        let dir = Dir::new("any");
        let path = dir.write("file", &bytes);
        if let Ok(read) = read_idx(&path, 3) {
            prop_assert_eq!(read.dims.iter().product::<usize>(), read.data.len());
        }
    }
}
