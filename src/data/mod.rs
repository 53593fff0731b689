//! Data sets from local files: reading, splitting, shuffling into batches, augmenting.
//!
//! ```text
//! files -> ArrayDataset -> Split { train, valid, test } -> Batches -> Graph
//!          u8 in memory    lists of indices               normalised f32, one reused buffer
//! ```
//!
//! | from | by |
//! |---|---|
//! | IDX files, as MNIST is distributed | [`load_idx_dir`], [`read_idx_pair`], [`read_idx`] |
//! | CIFAR-10, binary version | [`load_cifar10_dir`], [`read_cifar10_file`] |
//! | a table in CSV | [`read_csv`]; with values to predict [`read_csv_values`] |
//! | NumPy's `.npz` (feature `gzip`) | `read_npz`; with values to predict `read_npz_values` |
//! | a folder of PNG images per class (feature `png`) | `read_png_dir` |
//! | arrays in memory | [`ArrayDataset::new`] |
//!
//! A [`Dataset`] is anything that can fill a slice with example `i` and say its label, or the
//! values that are to be predicted of it. Everything random (the split, the order of an epoch, an
//! augmentation) is a function of the seed and of a position, see [`crate::rng`]; nothing here
//! needs replaying when a run is resumed.

mod array;
mod augment;
mod batch;
mod cifar;
mod csv;
mod files;
mod idx;
mod normalize;
#[cfg(feature = "gzip")]
mod npz;
#[cfg(feature = "png")]
mod png;
mod split;

use std::sync::Arc;

pub use array::{ArrayDataset, Values};
pub use augment::{Augment, Compose, HorizontalFlip, RandomShift};
pub use batch::{Batch, Batches};
pub use cifar::{load_cifar10_dir, read_cifar10_dir, read_cifar10_file};
pub use csv::{read_csv, read_csv_inputs, read_csv_values};
pub use idx::{Idx, load_idx_dir, read_idx, read_idx_dir, read_idx_images, read_idx_pair};
pub use normalize::Normalize;
#[cfg(feature = "gzip")]
pub use npz::{read_npz, read_npz_inputs, read_npz_values};
#[cfg(feature = "png")]
pub use png::{read_png, read_png_dir};
pub use split::Split;

/// Labelled examples that can be read in any order, from any thread.
///
/// What is to be learnt of an example is its class or, where [`targets`](Self::targets) says so,
/// are values: then there are no classes, and all labels are 0.
///
/// All examples have one shape. A reader hands out `f32` values ready for the network, so that a
/// data set decides itself how it stores and normalises them.
#[allow(clippy::len_without_is_empty)] // an empty data set cannot be built
pub trait Dataset: Send + Sync {
    /// A name for people, such as the directory it was read from.
    fn name(&self) -> &str;

    /// The number of examples; never 0.
    fn len(&self) -> usize;

    /// The shape of one example, without the batch dimension: `[channels, height, width]`.
    fn input_shape(&self) -> &[usize];

    /// The number of classes: every label is below it. 0 where values are to be predicted.
    fn classes(&self) -> usize;

    /// What class `class` is called; its number, unless the data knows better.
    fn class_name(&self, class: usize) -> String {
        class.to_string()
    }

    /// What all classes are called, in their order.
    fn class_names(&self) -> Vec<String> {
        (0..self.classes()).map(|class| self.class_name(class)).collect()
    }

    /// How stored values were normalised, if they were: whoever uses a model has to do the same to
    /// its inputs, so checkpoints keep it.
    fn normalization(&self) -> Option<&Normalize> {
        None
    }

    /// The label of example `i`.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len).
    fn label(&self, i: usize) -> usize;

    /// How many values are to be predicted of each example; 0 where it is a class.
    fn targets(&self) -> usize {
        0
    }

    /// Writes the values to be predicted of example `i` to `y`, which holds exactly so many. To be
    /// provided wherever [`targets`](Self::targets) is not 0.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len) or `y` has another size.
    fn read_targets(&self, _i: usize, y: &mut [f32]) {
        assert!(y.is_empty(), "{}: has targets, so it must provide read_targets", self.name());
    }

    /// Writes example `i` to `x`, which holds exactly one example.
    ///
    /// # Panics
    /// If `i` is not below [`len`](Self::len) or `x` has another size.
    fn read(&self, i: usize, x: &mut [f32]);

    /// A digest of the content as [`read`](Self::read) and its companions return it. Checkpoints
    /// keep it, to notice when a run is resumed on other data. It guards against mistakes, not
    /// against attackers.
    fn fingerprint(&self) -> u64;
}

/// How many outputs a model for these data must have, and for what.
pub(crate) fn outputs(data: &dyn Dataset) -> (usize, &'static str) {
    match data.targets() {
        0 => (data.classes(), "classes"),
        values => (values, "values to predict"),
    }
}

/// Some examples of another data set, in a given order.
#[derive(Clone)]
pub struct Subset {
    base: Arc<dyn Dataset>,
    indices: Arc<[usize]>,
}

impl Subset {
    /// The examples of `base` at `indices`, in that order.
    ///
    /// # Panics
    /// If there are none, or one is not below `base.len()`.
    #[track_caller]
    pub fn new(base: Arc<dyn Dataset>, indices: Vec<usize>) -> Self {
        assert!(!indices.is_empty(), "Subset: no indices");
        if let Some(i) = indices.iter().find(|&&i| i >= base.len()) {
            panic!("Subset: index {i}, but {} has {} examples", base.name(), base.len());
        }
        Subset { base, indices: indices.into() }
    }

    /// All examples of `base`.
    pub fn all(base: Arc<dyn Dataset>) -> Self {
        let indices = (0..base.len()).collect();
        Subset { base, indices }
    }

    /// Where the examples are in the data set that this is a part of.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        self.base.name()
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn input_shape(&self) -> &[usize] {
        self.base.input_shape()
    }

    fn classes(&self) -> usize {
        self.base.classes()
    }

    fn class_name(&self, class: usize) -> String {
        self.base.class_name(class)
    }

    fn normalization(&self) -> Option<&Normalize> {
        self.base.normalization()
    }

    fn label(&self, i: usize) -> usize {
        self.base.label(self.indices[i])
    }

    fn targets(&self) -> usize {
        self.base.targets()
    }

    fn read_targets(&self, i: usize, y: &mut [f32]) {
        self.base.read_targets(self.indices[i], y);
    }

    fn read(&self, i: usize, x: &mut [f32]) {
        self.base.read(self.indices[i], x);
    }

    fn fingerprint(&self) -> u64 {
        let indices = self.indices.iter().map(|&i| i as u64);
        Fingerprint::new().number(self.base.fingerprint()).numbers(indices).finish()
    }
}

/// Folds content into 64 bits, eight bytes at a time.
///
/// Each word is xored in, then mixed by an odd multiplication and a shift: both can be undone, so
/// that two contents which differ in one word always end differently.
struct Fingerprint(u64);

impl Fingerprint {
    fn new() -> Self {
        Fingerprint(0x6665_7272_6f74_6170) // "ferrotap"
    }

    fn number(self, word: u64) -> Self {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15); // 2^64 / golden ratio
        Fingerprint(mixed ^ mixed >> 32)
    }

    /// Folds in a sequence; its length too, so that where it ends makes a difference.
    fn numbers(self, words: impl IntoIterator<Item = u64>) -> Self {
        let (state, count) =
            words.into_iter().fold((self, 0), |(state, n), word| (state.number(word), n + 1));
        state.number(count)
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words = words.iter().chain([&last]).map(|word| u64::from_le_bytes(*word));
        self.numbers(words).number(bytes.len() as u64)
    }

    fn finish(self) -> u64 {
        self.number(0).0
    }
}
