//! Reads the files that `generate.py` writes, and compares numbers with what they say.
//! `README.md` describes the format.

use std::collections::BTreeMap;
use std::path::Path;

use ferrotape::Tensor;

const MAGIC: &[u8] = b"FTGOLD";
const VERSION: u16 = 1;

/// The named tensors of one file.
#[derive(Debug)]
pub(crate) struct Golden {
    file: String,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    /// Reads `tests/golden/<family>.bin`; panics if it is not what it should be.
    pub(crate) fn open(family: &str) -> Golden {
        let file = format!("tests/golden/{family}.bin");
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        let tensors = parse(&bytes)
            .unwrap_or_else(|reason| panic!("{file}: {reason}; run tests/golden/generate.py"));
        Golden { file, tensors }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(crate) fn tensor(&self, name: &str) -> &Tensor {
        self.get(name).unwrap_or_else(|| panic!("{}: there is no tensor {name:?}", self.file))
    }

    /// A tensor of class labels.
    pub(crate) fn labels(&self, name: &str) -> Vec<usize> {
        self.tensor(name).data().iter().map(|&label| label as usize).collect()
    }
}

/// All tensors of a file, or what is wrong with it.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let mut rest = Reader(bytes);
    if rest.take(MAGIC.len())? != MAGIC {
        return Err("does not begin with FTGOLD: not a golden file".into());
    }
    let version = u16::from_le_bytes(rest.array()?);
    if version != VERSION {
        return Err(format!("has version {version}, this reader knows {VERSION}"));
    }
    let mut tensors = BTreeMap::new();
    for _ in 0..rest.u32()? {
        let length = rest.u8()?;
        let name = String::from_utf8_lossy(rest.take(length.into())?).into_owned();
        let rank = rest.u8()?;
        let dims =
            (0..rank).map(|_| Ok(rest.u32()? as usize)).collect::<Result<Vec<_>, String>>()?;
        let (kind, exponent) = (rest.u8()?, rest.u8()? as i8);
        let numel = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        let numel = numel.ok_or_else(|| format!("{name:?} has the impossible shape {dims:?}"))?;
        let data: Vec<f32> = match kind {
            0 => rest
                .take(numel.checked_mul(4).ok_or("ends early")?)?
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            1 => {
                let unit = f32::powi(2.0, exponent.into());
                rest.take(numel)?.iter().map(|&b| f32::from(b as i8) * unit).collect()
            }
            _ => return Err(format!("{name:?} has elements of the unknown kind {kind}")),
        };
        tensors.insert(name, Tensor::from_vec(data, dims.as_slice()));
    }
    if rest.0.is_empty() { Ok(tensors) } else { Err("has bytes after its last tensor".into()) }
}

/// What is left of a file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(n).ok_or("ends early")?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("take gives what was asked for"))
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }
}

/// How far a number may lie from the golden one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tolerance {
    /// A fraction of the golden number itself: for operations that round once or twice.
    Relative(f32),
    /// A fraction of the golden number or of its tensor's root mean square, whichever is larger:
    /// for sums, whose terms are of that size even where they cancel.
    OfRms(f32),
}

/// Panics at the first element that lies too far from the golden one. What is not a finite number
/// must be so in the same way.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: Tolerance) {
    assert_eq!(got.len(), want.len(), "{what}: wrong number of elements");
    let finite = || want.iter().filter(|x| x.is_finite());
    let squares: f64 = finite().map(|&x| f64::from(x).powi(2)).sum();
    let rms = (squares / finite().count().max(1) as f64).sqrt() as f32;
    let (fraction, scale) = match tolerance {
        // Below a millionth, an error is measured against that millionth.
        Tolerance::Relative(fraction) => (fraction, 1e-6),
        Tolerance::OfRms(fraction) => (fraction, rms.max(1e-6)),
    };
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let allowed = fraction * want.abs().max(scale);
        let close = match want.is_finite() {
            true => (got - want).abs() <= allowed,
            false => got == want || (got.is_nan() && want.is_nan()),
        };
        assert!(
            close,
            "{what}: element {i} is {got:e}, PyTorch says {want:e}; they differ by {:.2e}, \
             allowed are {allowed:.2e}",
            (got - want).abs()
        );
    }
}

#[test]
fn a_file_reads_back_and_a_damaged_one_is_refused() {
    let mut bytes = b"FTGOLD\x01\x00\x02\x00\x00\x00".to_vec();
    bytes.extend(b"\x01a\x02\x01\x00\x00\x00\x03\x00\x00\x00\x01\xff\x02\xfd\x00");
    bytes.extend(b"\x01b\x00\x00\x00\x00\x00\x80\x3e");
    let tensors = parse(&bytes).unwrap();
    assert_eq!(tensors["a"], Tensor::from_vec(vec![1.0, -1.5, 0.0], [1, 3]));
    assert_eq!(tensors["b"], Tensor::scalar(0.25));

    for length in 0..bytes.len() {
        assert!(parse(&bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
    }
    let refused = |at: usize, value: u8, reason: &str| {
        let mut damaged = bytes.clone();
        damaged[at] = value;
        let found = parse(&damaged).unwrap_err();
        assert!(found.contains(reason), "byte {at}: {found:?}");
    };
    refused(0, b'f', "not a golden file");
    refused(6, 2, "version 2");
    refused(8, 1, "bytes after");
    refused(23, 9, "unknown kind 9");
    refused(18, 0xff, "ends early");
}

#[test]
fn a_number_that_is_off_is_noticed() {
    let off = |got: &[f32], want: &[f32], tolerance| {
        std::panic::catch_unwind(|| assert_close("test", got, want, tolerance)).is_err()
    };
    let (relative, of_rms) = (Tolerance::Relative(1e-5), Tolerance::OfRms(1e-5));
    assert!(!off(&[1.0, 1.00001e-3], &[1.0, 1e-3], relative));
    assert!(off(&[1.0, 1.0001e-3], &[1.0, 1e-3], relative));
    assert!(!off(&[1.0, 1.0001e-3], &[1.0, 1e-3], of_rms));
    assert!(off(&[1.0001, 1e-3], &[1.0, 1e-3], of_rms));
    for (x, y) in [(f32::NAN, 1.0), (f32::INFINITY, 1.0), (f32::INFINITY, f32::NEG_INFINITY)] {
        for tolerance in [relative, of_rms] {
            assert!(off(&[x, 1.0], &[y, 1.0], tolerance));
            assert!(off(&[y, 1.0], &[x, 1.0], tolerance));
            assert!(!off(&[x, y], &[x, y], tolerance));
        }
    }
    assert!(off(&[1.0], &[1.0, 1.0], relative));
}
