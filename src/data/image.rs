//! Images in memory: one byte per pixel, turned into normalised `f32` when an example is read.
//!
//! Bytes take a quarter of the memory and of the bandwidth, and the conversion vectorises.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::idx::read_idx;
use super::{Dataset, Fingerprint};
use crate::error::{DataFault, Error, Result};

/// How pixels become network inputs, per channel: `x = (pixel / 255 - mean) / std`.
///
/// Inputs around 0 with a spread around 1 keep the first layer's activations in the range its
/// initialisation was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalize {
    /// The mean of each channel, on the scale where white is 1.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel, on the same scale.
    pub std: Vec<f32>,
}

impl Normalize {
    /// The constants that everybody uses for MNIST: mean 0.1307, standard deviation 0.3081.
    pub fn mnist() -> Self {
        Normalize { mean: vec![0.1307], std: vec![0.3081] }
    }

    /// Pixels from 0 to 1, for any number of channels.
    pub fn unit(channels: usize) -> Self {
        Normalize { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// Mean and standard deviation of the pixels of some images: those of the *training* part, as
    /// the others must stay unseen. A channel without any variation gets `std` 1.
    ///
    /// The sums are sums of integers, hence exact and the same in any order.
    ///
    /// # Panics
    /// If `indices` is empty or an index is not below `images.len()`.
    pub fn of(images: &ImageDataset, indices: &[usize]) -> Self {
        assert!(!indices.is_empty(), "Normalize::of: no images");
        let [channels, height, width] = images.shape;
        let count = (indices.len() * height * width) as f64;
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        for c in 0..channels {
            let (mut sum, mut squares) = (0u64, 0u64);
            for &i in indices {
                let plane = images.pixels(i).chunks_exact(height * width).nth(c);
                for &pixel in plane.expect("an image has all its channels") {
                    sum += u64::from(pixel);
                    squares += u64::from(pixel).pow(2);
                }
            }
            let m = sum as f64 / count;
            let deviation = (squares as f64 / count - m * m).max(0.0).sqrt();
            mean.push((m / 255.0) as f32);
            std.push(if deviation > 0.0 { (deviation / 255.0) as f32 } else { 1.0 });
        }
        Normalize { mean, std }
    }
}

/// Labelled images of one size, kept in memory as bytes. Cloning shares the pixels.
#[derive(Clone)]
pub struct ImageDataset {
    name: String,
    /// Channels, height, width.
    shape: [usize; 3],
    /// `[n, channels, height, width]`
    pixels: Arc<[u8]>,
    labels: Arc<[usize]>,
    classes: usize,
    normalize: Normalize,
    fingerprint: u64,
}

impl ImageDataset {
    /// A data set of `labels.len()` images of shape `[channels, height, width]`, whose pixels are
    /// given one image after the other. They are read as values from 0 to 1 until
    /// [`normalized`](Self::normalized) says otherwise.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no images, if the number of pixels is not the product of the
    /// lengths, or if a label is not below `classes`.
    pub fn new(
        name: impl Into<String>,
        shape: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<usize>,
        classes: usize,
    ) -> Result<Self> {
        let name = name.into();
        let size = shape.iter().try_fold(labels.len(), |n, &length| n.checked_mul(length));
        if pixels.is_empty() || size != Some(pixels.len()) {
            let (got, n) = (pixels.len(), labels.len());
            return Err(Error::config(name, format!("{got} pixels for {n} images of {shape:?}")));
        }
        if let Some((index, label)) = labels.iter().enumerate().find(|&(_, &l)| l >= classes) {
            let reason = format!("label {label} of image {index} is not below {classes} classes");
            return Err(Error::config(name, reason));
        }
        let normalize = Normalize::unit(shape[0]);
        let fingerprint = Fingerprint::new()
            .numbers(shape.map(|length| length as u64))
            .numbers(labels.iter().map(|&label| label as u64))
            .bytes(&pixels)
            .finish();
        let (pixels, labels) = (pixels.into(), labels.into());
        Ok(ImageDataset { name, shape, pixels, labels, classes, normalize, fingerprint })
    }

    /// Reads a pair of IDX files: grey images (`[n, height, width]`) and labels (`[n]`).
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Data`], naming the file: see [`read_idx`]; also if the numbers of
    /// images and labels differ, or a label is not below `classes`.
    pub fn from_idx(images: &Path, labels: &Path, classes: usize) -> Result<Self> {
        let pixels = read_idx(images, 3)?;
        let marks = read_idx(labels, 1)?;
        let &[n, height, width] = pixels.dims.as_slice() else { unreachable!("rank 3") };
        if n != marks.data.len() {
            let fault = DataFault::CountMismatch { images: n, labels: marks.data.len() };
            return Err(Error::data(labels, fault));
        }
        let marks: Vec<usize> = marks.data.into_iter().map(usize::from).collect();
        if let Some((index, &label)) = marks.iter().enumerate().find(|&(_, &l)| l >= classes) {
            return Err(Error::data(labels, DataFault::LabelOutOfRange { index, label, classes }));
        }
        let name = images.display().to_string();
        ImageDataset::new(name, [1, height, width], pixels.data, marks, classes)
    }

    /// The same images, normalised in this way when read.
    ///
    /// # Panics
    /// Unless `normalize` has one mean and one positive standard deviation per channel.
    #[track_caller]
    pub fn normalized(mut self, normalize: Normalize) -> Self {
        let Normalize { mean, std } = &normalize;
        let channels = self.shape[0];
        let fits = mean.len() == channels && std.len() == channels;
        assert!(
            fits && std.iter().all(|&s| s > 0.0),
            "normalized: {normalize:?} does not fit {channels} channels"
        );
        self.normalize = normalize;
        self
    }

    /// How pixels become inputs.
    pub fn normalize(&self) -> &Normalize {
        &self.normalize
    }

    /// The pixels of image `i` as they are in the file: `[channels, height, width]`.
    ///
    /// # Panics
    /// If `i` is not below `len()`.
    pub fn pixels(&self, i: usize) -> &[u8] {
        let size = self.shape.iter().product::<usize>();
        &self.pixels[i * size..][..size]
    }
}

impl Dataset for ImageDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input_shape(&self) -> &[usize] {
        &self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn label(&self, i: usize) -> usize {
        self.labels[i]
    }

    fn read(&self, i: usize, x: &mut [f32]) {
        let [channels, height, width] = self.shape;
        let plane = height * width;
        assert_eq!(x.len(), channels * plane, "read: one example of {:?}", self.shape);
        let planes = x.chunks_exact_mut(plane).zip(self.pixels(i).chunks_exact(plane));
        let Normalize { mean, std } = &self.normalize;
        for ((x, pixels), (mean, std)) in planes.zip(mean.iter().zip(std)) {
            let (scale, shift) = (1.0 / (255.0 * std), -mean / std);
            for (x, &pixel) in x.iter_mut().zip(pixels) {
                *x = f32::from(pixel) * scale + shift;
            }
        }
    }

    fn fingerprint(&self) -> u64 {
        let Normalize { mean, std } = &self.normalize;
        let constants = mean.iter().chain(std).map(|x| u64::from(x.to_bits()));
        Fingerprint::new().number(self.fingerprint).numbers(constants).finish()
    }
}
