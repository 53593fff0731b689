//! NumPy's `.npz` archives: a ZIP file with one `.npy` array per entry.
//!
//! ```text
//! file  = entries .. | directory (where each entry is) | end record (where the directory is)
//! entry = local header | packed bytes
//! bytes = "\x93NUMPY" major minor | header length | header, a Python dictionary | elements
//! ```
//!
//! Sizes in the directory are claims, like those of any header: [`Source`] bounds them.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::files::{MAX_EXPANSION, Source};
use super::{ArrayDataset, Values};
use crate::error::{DataFault, Error, Result};

/// Reads two arrays of an archive: `inputs`, `[n, ..]`, and whole-number `labels`, `[n]` or `[n, 1]`.
///
/// Inputs of type `uint8` are pixels, `float32` and `float64` numbers. Images without a channel
/// dimension, `[n, height, width]`, get one; with one, it comes before the height.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read. [`Error::Data`] if it is not a ZIP archive or has no such
/// array (the message lists those it has); if an array is damaged, too large, in Fortran order or
/// of another type; if the numbers of inputs and labels differ, a label is not below `classes`, or
/// an input is not finite.
pub fn read_npz(
    path: impl AsRef<Path>,
    inputs: &str,
    labels: &str,
    classes: usize,
) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let archive = Archive::open(path)?;
    let (x, y) = (archive.array(inputs)?, archive.array(labels)?);
    let marks = y.whole_numbers().map_err(|reason| archive.fault(labels, reason))?;
    if x.shape.first() != Some(&marks.len()) {
        let images = x.shape.first().copied().unwrap_or(0);
        return Err(Error::data(path, DataFault::CountMismatch { images, labels: marks.len() }));
    }
    let shape = match x.shape[1..] {
        [height, width] => vec![1, height, width],
        ref shape => shape.to_vec(),
    };
    let values = x.values().map_err(|reason| archive.fault(inputs, reason))?;
    if let Some((index, &label)) = marks.iter().enumerate().find(|&(_, &label)| label >= classes) {
        return Err(Error::data(path, DataFault::LabelOutOfRange { index, label, classes }));
    }
    ArrayDataset::new(path.display().to_string(), &shape, values, marks, classes)
}

/// Where one entry is in the archive.
struct Entry {
    name: String,
    method: u16,
    checksum: u32,
    packed: u32,
    size: u32,
    offset: u32,
}

struct Archive<'p> {
    path: &'p Path,
    entries: Vec<Entry>,
}

impl<'p> Archive<'p> {
    /// Reads the directory.
    fn open(path: &'p Path) -> Result<Self> {
        let bad = |reason: &str| other(path, format!("not a usable ZIP archive: {reason}"));
        let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let size = file.metadata().map_err(|e| Error::io("inspect", path, e))?.len();
        // The end record is 22 bytes and a comment of up to 64 KiB.
        let start = size.saturating_sub(22 + 0xffff);
        let tail =
            read_at(&mut file, start, size - start).map_err(|e| Error::io("read", path, e))?;
        let end = tail.windows(22).rposition(|bytes| bytes.starts_with(b"PK\x05\x06"));
        let end = &tail[end.ok_or_else(|| bad("no end record"))?..];
        let (length, place) = (u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
        if place + length > size {
            return Err(bad("the directory lies outside of the file"));
        }
        let directory =
            read_at(&mut file, place, length).map_err(|e| Error::io("read", path, e))?;

        let mut entries = Vec::new();
        let mut rest = directory.as_slice();
        while !rest.is_empty() {
            let name_length = rest.get(..46).map_or(usize::MAX, |_| u16_at(rest, 28).into());
            let name = rest.get(46..).and_then(|bytes| bytes.get(..name_length));
            let Some(name) = name.filter(|_| rest.starts_with(b"PK\x01\x02")) else {
                return Err(bad("the directory is damaged"));
            };
            entries.push(Entry {
                name: String::from_utf8_lossy(name).into_owned(),
                method: u16_at(rest, 10),
                checksum: u32_at(rest, 16),
                packed: u32_at(rest, 20),
                size: u32_at(rest, 24),
                offset: u32_at(rest, 42),
            });
            let more = usize::from(u16_at(rest, 30)) + usize::from(u16_at(rest, 32));
            rest = rest.get(46 + name_length + more..).unwrap_or_default();
        }
        Ok(Archive { path, entries })
    }

    /// Reads the array `name`, that is the entry `name.npy`.
    fn array(&self, name: &str) -> Result<Npy> {
        let names = self.entries.iter().map(|entry| entry.name.trim_end_matches(".npy"));
        let place = names.clone().position(|candidate| candidate == name).ok_or_else(|| {
            let known: Vec<&str> = names.collect();
            other(self.path, format!("no array `{name}`: it holds {}", known.join(", ")))
        })?;
        let entry = &self.entries[place];
        if entry.size == u32::MAX || entry.packed == u32::MAX {
            return Err(self.fault(name, "is larger than 4 GiB".into()));
        }
        let mut file = File::open(self.path).map_err(|e| Error::io("open", self.path, e))?;
        let header = read_at(&mut file, entry.offset.into(), 30)
            .map_err(|e| Error::io("read", self.path, e))?;
        if header.len() < 30 || !header.starts_with(b"PK\x03\x04") {
            return Err(self.fault(name, "has no local header".into()));
        }
        let skip = i64::from(u16_at(&header, 26)) + i64::from(u16_at(&header, 28));
        file.seek_relative(skip).map_err(|e| Error::io("read", self.path, e))?;
        let packed = BufReader::new(file).take(entry.packed.into());
        let bytes: Box<dyn Read> = match entry.method {
            0 => Box::new(packed),
            8 => Box::new(DeflateDecoder::new(packed)),
            method => return Err(self.fault(name, format!("has ZIP method {method}, not 0 or 8"))),
        };
        let most = match entry.method {
            0 => u64::from(entry.packed),
            _ => u64::from(entry.packed) * MAX_EXPANSION,
        };
        let mut source = Source::new(self.path, bytes, most);
        let bytes = source.take(entry.size.into())?;
        source.end()?;
        let mut checksum = Crc::new();
        checksum.update(&bytes);
        if checksum.sum() != entry.checksum {
            return Err(self.fault(name, "is damaged: its checksum is wrong".into()));
        }
        Npy::parse(bytes).map_err(|reason| self.fault(name, reason))
    }

    fn fault(&self, array: &str, reason: String) -> Error {
        other(self.path, format!("array `{array}` {reason}"))
    }
}

/// An array in NumPy's own format.
struct Npy {
    /// The type of an element: byte order, kind and size, such as `<f4`.
    descr: String,
    shape: Vec<usize>,
    /// The elements in row-major order.
    data: Vec<u8>,
}

impl Npy {
    fn parse(mut bytes: Vec<u8>) -> Result<Self, String> {
        let start = match bytes.get(..12) {
            Some(b) if b.starts_with(b"\x93NUMPY\x01") => 10 + usize::from(u16_at(b, 8)),
            Some(b) if b.starts_with(b"\x93NUMPY") => 12usize.saturating_add(u32_at(b, 8) as usize),
            _ => return Err("is not in the npy format".into()),
        };
        let header = bytes.get(10..start).map(String::from_utf8_lossy);
        let header = header.ok_or("has a damaged npy header")?;
        // {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
        let value = |key| header.split_once(key).map_or("", |(_, rest)| rest.trim_start());
        let descr = value("'descr':").strip_prefix('\'').and_then(|rest| rest.split_once('\''));
        let shape = value("'shape':").strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (Some((descr, _)), Some((shape, _))) = (descr, shape) else {
            return Err(format!("has an npy header that is not understood: {}", header.trim()));
        };
        if !value("'fortran_order':").starts_with("False") {
            return Err("is in Fortran order: save numpy.ascontiguousarray(..) of it".into());
        }
        let lengths = shape.split(',').map(str::trim).filter(|length| !length.is_empty());
        let lengths: Result<Vec<usize>, _> = lengths.map(str::parse).collect();
        let shape = lengths.map_err(|_| format!("has the impossible shape ({shape})"))?;
        let width = descr.get(2..).and_then(|width| width.parse().ok()).unwrap_or(0);
        let size = shape.iter().try_fold(width, |size: usize, &n| size.checked_mul(n));
        let descr = descr.to_string();
        bytes.drain(..start);
        if width == 0 || size != Some(bytes.len()) {
            let got = bytes.len();
            return Err(format!("has {got} bytes, not those of shape {shape:?} and type {descr}"));
        }
        Ok(Npy { descr, shape, data: bytes })
    }

    fn values(self) -> Result<Values, String> {
        let floats: Vec<f32> = match self.descr.as_str() {
            "|u1" => return Ok(self.data.into()),
            "<f4" => self.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            "<f8" => {
                self.data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
            }
            other => return Err(format!("has type {other}: expected uint8, float32 or float64")),
        };
        match floats.iter().position(|x| !x.is_finite()) {
            Some(place) => Err(format!("has a value that is not finite, at position {place}")),
            None => Ok(floats.into()),
        }
    }

    fn whole_numbers(&self) -> Result<Vec<usize>, String> {
        if !matches!(self.shape[..], [_] | [_, 1]) {
            return Err(format!("has shape {:?}: expected one label per example", self.shape));
        }
        let (kind, width) = self.descr.split_at(2);
        let signed = match kind {
            "|u" | "<u" => false,
            "|i" | "<i" => true,
            _ => return Err(format!("has type {}: expected whole numbers", self.descr)),
        };
        let width = width.parse().ok().filter(|width| (1..=8).contains(width));
        let width: usize = width.ok_or_else(|| format!("has type {}", self.descr))?;
        let number = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let negative = signed && bytes[bytes.len() - 1] >= 128;
            let number = usize::try_from(u64::from_le_bytes(word)).ok().filter(|_| !negative);
            number.ok_or_else(|| "has a negative label".to_string())
        };
        self.data.chunks_exact(width).map(number).collect()
    }
}

fn read_at(file: &mut File, start: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at + 2)) << 16 | u32::from(u16_at(bytes, at))
}

fn other(path: &Path, message: String) -> Error {
    Error::data(path, DataFault::Other { message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use std::io::Write;

    /// An archive of arrays, as NumPy writes them: stored, or deflated by `savez_compressed`.
    fn archive(arrays: &[(&str, &str, &[u8])], deflate: bool) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, header, data) in arrays {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(*data);
            let mut checksum = Crc::new();
            checksum.update(&bytes);
            let mut packed = bytes.clone();
            if deflate {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(&bytes).unwrap();
                packed = encoder.finish().unwrap();
            }
            let name = format!("{name}.npy");
            let offset = file.len() as u32;
            let mut common = vec![20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0];
            common.extend(checksum.sum().to_le_bytes());
            common.extend((packed.len() as u32).to_le_bytes());
            common.extend((bytes.len() as u32).to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &packed].concat());
            directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10]].concat());
            directory.extend([&offset.to_le_bytes(), name.as_bytes()].concat());
        }
        let end = [directory.len() as u32, file.len() as u32].map(u32::to_le_bytes).concat();
        [&file[..], &directory, b"PK\x05\x06", &[0; 8], &end, &[0, 0]].concat()
    }

    fn read(bytes: &[u8], classes: usize) -> Result<ArrayDataset> {
        let thread = std::thread::current().id();
        let name = format!("ferrotape-npz-{}-{thread:?}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        let data = read_npz(&path, "x", "y", classes);
        std::fs::remove_file(&path).unwrap();
        data
    }

    fn error(bytes: &[u8]) -> String {
        read(bytes, 3).err().unwrap().to_string()
    }

    fn header(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}   \n")
    }

    #[test]
    fn stored_and_deflated_arrays_of_any_whole_type_are_read() {
        let bytes: Vec<u8> = (0..12).collect();
        let floats: Vec<u8> = (0..12).flat_map(|i| (i as f32 / 255.0).to_le_bytes()).collect();
        let doubles: Vec<u8> = (0..12).flat_map(|i| (i as f64 / 255.0).to_le_bytes()).collect();
        for deflate in [false, true] {
            for (descr, x) in [("|u1", &bytes), ("<f4", &floats), ("<f8", &doubles)] {
                for (kind, width) in [("|u1", 1), ("<i2", 2), ("<u4", 4), ("<i8", 8)] {
                    let y: Vec<u8> =
                        [2u64, 0].iter().flat_map(|l| l.to_le_bytes()[..width].to_vec()).collect();
                    let (hx, hy) = (header(descr, "(2, 2, 3)"), header(kind, "(2,)"));
                    let data =
                        read(&archive(&[("y", &hy, &y), ("x", &hx, x)], deflate), 3).unwrap();
                    assert_eq!((data.len(), data.input_shape()), (2, &[1, 2, 3][..]));
                    assert_eq!((data.label(0), data.label(1)), (2, 0));
                    let mut values = [0.0; 6];
                    data.read(1, &mut values);
                    assert_eq!(
                        values.map(|v| (v * 255.0).round()),
                        [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
                    );
                }
            }
        }
    }

    #[test]
    fn unusable_archives_say_why() {
        let (hx, hy) = (header("|u1", "(2, 3)"), header("|u1", "(2, 1)"));
        let with = |x: &str, y: &str| archive(&[("x", x, &[1; 6]), ("y", y, &[0, 1])], true);
        let good = with(&hx, &hy);
        assert_eq!(read(&good, 2).unwrap().input_shape(), [3]);
        assert!(read(&good, 1).err().unwrap().to_string().contains("label 1 of example 1"));

        let fortran = hx.replace("False", "True");
        let negative =
            archive(&[("x", &hx, &[1; 6]), ("y", &header("|i1", "(2,)"), &[0, 255])], false);
        let nan = f32::NAN.to_le_bytes().repeat(2);
        let nan = archive(&[("x", &header("<f4", "(2, 1)"), &nan), ("y", &hy, &[0, 1])], false);
        let cases = [
            (
                archive(&[("a", &hx, &[1; 6]), ("b", &hy, &[0, 1])], true),
                "no array `x`: it holds a, b",
            ),
            (with(&fortran, &hy), "array `x` is in Fortran order"),
            (with(&header("<f2", "(3,)"), &hy), "2 labels"),
            (with(&header("<f2", "(1, 3)"), &hy), "1 images but 2 labels"),
            (with(&header("|b1", "(2, 3)"), &hy), "array `x` has type |b1"),
            (
                with(&header("|u1", "(2, 4)"), &hy),
                "array `x` has 6 bytes, not those of shape [2, 4]",
            ),
            (with(&hx, &header("<f2", "(1,)")), "array `y` has type <f2: expected whole numbers"),
            (with(&hx, &header("|u1", "(1, 2)")), "array `y` has shape [1, 2]"),
            (with("{'shape': (2, 3)}", &hy), "not understood: {'shape': (2, 3)}"),
            (negative, "array `y` has a negative label"),
            (nan, "array `x` has a value that is not finite, at position 0"),
        ];
        for (bytes, message) in cases {
            assert!(error(&bytes).contains(message), "{} / {message}", error(&bytes));
        }
    }

    #[test]
    fn damage_is_refused_whatever_it_hits() {
        let (hx, hy) = (header("|u1", "(2, 3)"), header("|u1", "(2,)"));
        for deflate in [false, true] {
            let good = archive(&[("x", &hx, &[1; 6]), ("y", &hy, &[0, 1])], deflate);
            for end in 0..good.len() {
                error(&good[..end]);
            }
            for at in 0..good.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut bad = good.clone();
                    bad[at] ^= flip;
                    // Some bytes mean nothing to us; then the content must be the original one.
                    if let Ok(data) = read(&bad, 3) {
                        assert_eq!(data.fingerprint(), read(&good, 3).unwrap().fingerprint());
                    }
                }
            }
        }
    }
}
