//! A folder of PNG images per class.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use ::png::{ColorType, Decoder, DecodingError, Limits, Transformations};

use super::ArrayDataset;
use super::files::LIMIT;
use crate::error::{DataFault, Error, Result};
use crate::files;

/// The largest image that is decoded, in bytes: 64 MiB.
const LARGEST: u64 = 64 << 20;

/// Reads `dir/<class>/<image>.png`: the names of the directories, sorted, are the classes; the
/// images of a class are sorted by name.
///
/// All images must have the same size and be all grey or all in colour; they become `[1, height,
/// width]` or `[3, height, width]`. Palettes are expanded, 16 bits per channel rounded down to 8,
/// transparency is ignored. Names that begin with a point are skipped.
///
/// # Errors
/// [`Error::Io`] if something cannot be read. [`Error::Data`], naming the file or directory, if it
/// is not a PNG file, is damaged, is larger than 64 MiB or differs from the first image in size or
/// colour; if a class has no images or there are no classes; if all images together exceed 4 GiB.
pub fn read_png_dir(dir: impl AsRef<Path>) -> Result<ArrayDataset> {
    let dir = dir.as_ref();
    let (mut shape, mut pixels, mut labels, mut names) = (None, Vec::new(), Vec::new(), Vec::new());
    for class in entries(dir)? {
        for path in entries(&class)? {
            let image = Image::read(&path)?;
            let first = *shape.get_or_insert(image.shape);
            if image.shape != first {
                let message = format!("has shape {:?}, but the first has {first:?}", image.shape);
                return Err(other(&path, message));
            }
            let bytes = (pixels.len() + image.pixels.len()) as u64;
            if bytes > LIMIT {
                return Err(Error::data(dir, DataFault::TooLarge { bytes, limit: LIMIT }));
            }
            pixels.extend(image.pixels);
            labels.push(names.len());
        }
        names.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    let shape = shape.ok_or_else(|| other(dir, "holds no images".into()))?;
    let data = ArrayDataset::new(dir.display().to_string(), &shape, pixels, labels, names.len())?;
    Ok(data.with_class_names(names))
}

/// Reads one image.
///
/// # Errors
/// As [`read_png_dir`].
pub fn read_png(path: impl AsRef<Path>) -> Result<ArrayDataset> {
    let path = path.as_ref();
    let Image { shape, pixels } = Image::read(path)?;
    ArrayDataset::unlabelled(path.display().to_string(), &shape, pixels)
}

/// What is in a directory, sorted; at least one entry.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = |e| Error::io("list", dir, e);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(list)? {
        let entry = entry.map_err(list)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    if paths.is_empty() {
        return Err(other(dir, "is empty: expected a directory of .png files per class".into()));
    }
    paths.sort();
    Ok(paths)
}

struct Image {
    /// Channels, height, width.
    shape: [usize; 3],
    /// Channel by channel, row by row.
    pixels: Vec<u8>,
}

impl Image {
    fn read(path: &Path) -> Result<Self> {
        let file = files::open(path).map_err(|e| Error::io("open", path, e))?;
        let limits = Limits { bytes: LARGEST as usize };
        let mut decoder = Decoder::new_with_limits(BufReader::new(file), limits);
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let mut reader = decoder.read_info().map_err(|e| damaged(path, e))?;
        let bytes = reader.output_buffer_size().map_or(u64::MAX, |size| size as u64);
        if bytes > LARGEST {
            return Err(Error::data(path, DataFault::TooLarge { bytes, limit: LARGEST }));
        }
        let mut interleaved = vec![0; bytes as usize];
        let frame = reader.next_frame(&mut interleaved).map_err(|e| damaged(path, e))?;
        let channels = match frame.color_type {
            ColorType::Grayscale | ColorType::GrayscaleAlpha => 1,
            ColorType::Rgb | ColorType::Rgba | ColorType::Indexed => 3,
        };
        let samples = frame.color_type.samples();
        let shape = [channels, frame.height as usize, frame.width as usize];
        let plane = |c| interleaved.chunks_exact(samples).map(move |pixel| pixel[c]);
        Ok(Image { shape, pixels: (0..channels).flat_map(plane).collect() })
    }
}

fn damaged(path: &Path, error: DecodingError) -> Error {
    match error {
        DecodingError::IoError(e) if e.raw_os_error().is_some() => Error::io("read", path, e),
        error => other(path, format!("not a usable PNG file: {error}")),
    }
}

fn other(path: &Path, message: String) -> Error {
    Error::data(path, DataFault::Other { message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use ::png::{BitDepth, Encoder};

    struct Dir(PathBuf);

    impl Dir {
        fn new(test: &str) -> Self {
            Dir(std::env::temp_dir().join(format!("ferrotape-png-{}-{test}", std::process::id())))
        }

        /// Writes a 2x1 image.
        fn image(&self, name: &str, color: ColorType, depth: BitDepth, data: &[u8]) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut encoder = Encoder::new(fs::File::create(path).unwrap(), 2, 1);
            encoder.set_color(color);
            encoder.set_depth(depth);
            if color == ColorType::Indexed {
                encoder.set_palette(&[1, 2, 3, 40, 50, 60][..]);
            }
            encoder.write_header().unwrap().write_image_data(data).unwrap();
        }

        fn error(&self) -> String {
            read_png_dir(&self.0).err().unwrap().to_string()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn folders_are_classes_and_every_kind_of_png_becomes_planes() {
        let dir = Dir::new("colour");
        dir.image("dog/b.png", ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 40, 50, 60]);
        dir.image("dog/a.png", ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 0, 40, 50, 60, 255]);
        dir.image("cat/1.png", ColorType::Indexed, BitDepth::One, &[0b0100_0000]);
        let wide = [1, 9, 2, 9, 3, 9, 40, 9, 50, 9, 60, 9];
        dir.image("cat/2.png", ColorType::Rgb, BitDepth::Sixteen, &wide);
        fs::write(dir.0.join("cat/.hidden"), "").unwrap();
        let data = read_png_dir(&dir.0).unwrap();
        assert_eq!((data.len(), data.input_shape()), (4, &[3, 1, 2][..]));
        assert_eq!(
            [0, 1, 2, 3].map(|i| data.class_name(data.label(i))),
            ["cat", "cat", "dog", "dog"]
        );
        for i in 0..4 {
            let mut x = [0.0; 6];
            data.read(i, &mut x);
            assert_eq!(x.map(|v| (v * 255.0).round()), [1.0, 40.0, 2.0, 50.0, 3.0, 60.0]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = Dir::new("errors");
        assert!(dir.error().starts_with("cannot list"));
        fs::create_dir_all(dir.0.join("a")).unwrap();
        assert!(dir.error().contains("a: is empty"), "{}", dir.error());
        dir.image("a/1.png", ColorType::Grayscale, BitDepth::Eight, &[7, 8]);
        assert_eq!(read_png_dir(&dir.0).unwrap().input_shape(), [1, 1, 2]);
        dir.image("a/2.png", ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 40, 50, 60]);
        let message = "2.png: has shape [3, 1, 2], but the first has [1, 1, 2]";
        assert!(dir.error().ends_with(message), "{}", dir.error());

        let good = fs::read(dir.0.join("a/1.png")).unwrap();
        for end in 0..good.len() - 12 {
            fs::write(dir.0.join("a/1.png"), &good[..end]).unwrap();
            assert!(dir.error().contains("1.png: not a usable PNG"), "{end}: {}", dir.error());
        }
        // The beginning of an image of 3.6 GB.
        let file = fs::File::create(dir.0.join("a/1.png")).unwrap();
        let mut encoder = Encoder::new(file, 30_000, 30_000);
        encoder.set_color(ColorType::Rgba);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(::png::chunk::IDAT, &[0; 10]).unwrap();
        drop(writer);
        assert!(dir.error().contains("1.png: header asks for 3600000000 bytes"), "{}", dir.error());
    }
}
