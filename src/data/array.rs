//! A data set in memory: arrays of bytes (images) or of `f32` (anything else).
//!
//! Images stay bytes until an example is read: a quarter of the memory and of the bandwidth, and
//! the conversion vectorises.

use std::sync::Arc;

use super::{Dataset, Fingerprint, Normalize};
use crate::error::{Error, Result};

/// The values of all examples, one example after the other, each in row-major order.
#[derive(Debug, Clone)]
pub enum Values {
    /// Pixels: the byte `b` has the value `b / 255`.
    Bytes(Arc<[u8]>),
    /// Numbers.
    Floats(Arc<[f32]>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Bytes(bytes) => bytes.len(),
            Values::Floats(floats) => floats.len(),
        }
    }
}

impl From<Vec<u8>> for Values {
    fn from(bytes: Vec<u8>) -> Self {
        Values::Bytes(bytes.into())
    }
}

impl From<Vec<f32>> for Values {
    fn from(floats: Vec<f32>) -> Self {
        Values::Floats(floats.into())
    }
}

/// Labelled examples of one shape, kept in memory. Cloning shares the values.
#[derive(Clone)]
pub struct ArrayDataset {
    name: String,
    /// The shape of one example.
    shape: Vec<usize>,
    values: Values,
    labels: Arc<[usize]>,
    class_names: Arc<[String]>,
    /// The values to be predicted of all examples, one example after the other.
    targets: Arc<[f32]>,
    normalize: Normalize,
    /// Of everything but the normalisation.
    fingerprint: u64,
}

impl ArrayDataset {
    /// A data set of `labels.len()` examples of the given shape (`[channels, height, width]` for
    /// images), whose classes are called by their numbers.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no values, if their number is not the product of the lengths,
    /// or if a label is not below `classes`.
    pub fn new(
        name: impl Into<String>,
        shape: &[usize],
        values: impl Into<Values>,
        labels: Vec<usize>,
        classes: usize,
    ) -> Result<Self> {
        let (name, shape, values) = (name.into(), shape.to_vec(), values.into());
        let fingerprint = Fingerprint::new()
            .numbers(shape.iter().map(|&length| length as u64))
            .numbers(labels.iter().map(|&label| label as u64));
        let fingerprint = match &values {
            Values::Bytes(bytes) => fingerprint.bytes(bytes),
            Values::Floats(floats) => {
                fingerprint.numbers(floats.iter().map(|x| u64::from(x.to_bits())))
            }
        };
        let (got, n) = (values.len(), labels.len());
        let expected = shape.iter().try_fold(n, |product, &length| product.checked_mul(length));
        if got == 0 || expected != Some(got) {
            let reason = format!("{got} values for {n} examples of shape {shape:?}");
            return Err(Error::config(name, reason));
        }
        if let Some((index, label)) = labels.iter().enumerate().find(|&(_, &l)| l >= classes) {
            let reason = format!("label {label} of example {index} is not below {classes} classes");
            return Err(Error::config(name, reason));
        }
        Ok(ArrayDataset {
            name,
            normalize: Normalize::none(shape.first().copied().unwrap_or(1)),
            shape,
            values,
            labels: labels.into(),
            class_names: (0..classes).map(|class| class.to_string()).collect(),
            targets: Arc::new([]),
            fingerprint: fingerprint.finish(),
        })
    }

    /// Examples whose labels nobody knows: all have the only class there is.
    ///
    /// # Errors
    /// [`Error::Config`] if the values are not a whole number of examples, at least one.
    pub fn unlabelled(
        name: impl Into<String>,
        shape: &[usize],
        values: impl Into<Values>,
    ) -> Result<Self> {
        let values = values.into();
        let size = shape.iter().product::<usize>().max(1);
        let labels = vec![0; values.len() / size];
        ArrayDataset::new(name, shape, values, labels, 1)
    }

    /// The same examples with values to be predicted instead of classes: as many of `targets` for
    /// each as there are, one example after the other.
    ///
    /// ```
    /// use ferrotape::data::{ArrayDataset, Dataset};
    /// let line = ArrayDataset::unlabelled("line", &[1], vec![0.0, 1.0, 2.0])?
    ///     .with_targets(vec![1.0, 3.0, 5.0])?;
    /// assert_eq!((line.targets(), line.classes()), (1, 0));
    /// # Ok::<(), ferrotape::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if there are not equally many for each example, at least one, or if one is
    /// not finite.
    pub fn with_targets(self, targets: Vec<f32>) -> Result<Self> {
        let (got, n) = (targets.len(), self.len());
        if got == 0 || !got.is_multiple_of(n) {
            return Err(Error::config(self.name, format!("{got} targets for {n} examples")));
        }
        if let Some(i) = targets.iter().position(|target| !target.is_finite()) {
            let reason =
                format!("target {} of example {} is not finite", targets[i], i / (got / n));
            return Err(Error::config(self.name, reason));
        }
        let words = targets.iter().map(|target| u64::from(target.to_bits()));
        let fingerprint = Fingerprint::new().number(self.fingerprint).numbers(words).finish();
        Ok(ArrayDataset {
            labels: vec![0; n].into(),
            class_names: Arc::new([]),
            targets: targets.into(),
            fingerprint,
            ..self
        })
    }

    /// The same examples with the classes of another data set, such as the one a model was trained
    /// on: equal names become equal labels.
    ///
    /// # Errors
    /// [`Error::Config`] if an example is of a class that is not among `names`.
    pub fn with_classes(self, names: &[String]) -> Result<Self> {
        let place = |label: &usize| {
            let class = &self.class_names[*label];
            names.iter().position(|name| name == class).ok_or_else(|| {
                let reason = format!("class `{class}` is none of {}", names.join(", "));
                Error::config(self.name.clone(), reason)
            })
        };
        let labels = self.labels.iter().map(place).collect::<Result<Vec<_>>>()?;
        let ArrayDataset { name, shape, values, normalize, .. } = self;
        let data = ArrayDataset::new(name, &shape, values, labels, names.len())?;
        Ok(ArrayDataset { normalize, ..data.with_class_names(names.to_vec()) })
    }

    /// The same examples, normalised in this way when read.
    ///
    /// # Panics
    /// Unless `normalize` has a finite mean and a positive, finite standard deviation per channel.
    #[track_caller]
    pub fn normalized(mut self, normalize: Normalize) -> Self {
        let fits = normalize.fits(self.normalize.mean.len());
        assert!(fits, "normalized: {normalize:?} does not fit examples of shape {:?}", self.shape);
        self.normalize = normalize;
        self
    }

    /// The same examples, with names for the classes.
    ///
    /// # Panics
    /// Unless there is one name per class.
    #[track_caller]
    pub fn with_class_names(mut self, names: Vec<String>) -> Self {
        let (got, classes) = (names.len(), self.classes());
        assert_eq!(got, classes, "with_class_names: {got} names for {classes} classes");
        self.class_names = names.into();
        self
    }
}

impl Dataset for ArrayDataset {
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
        self.class_names.len()
    }

    fn class_name(&self, class: usize) -> String {
        self.class_names[class].clone()
    }

    fn normalization(&self) -> Option<&Normalize> {
        Some(&self.normalize)
    }

    fn label(&self, i: usize) -> usize {
        self.labels[i]
    }

    fn targets(&self) -> usize {
        self.targets.len() / self.labels.len()
    }

    fn read_targets(&self, i: usize, y: &mut [f32]) {
        let count = self.targets();
        y.copy_from_slice(&self.targets[i * count..][..count]);
    }

    fn read(&self, i: usize, x: &mut [f32]) {
        let size = self.shape.iter().product::<usize>();
        assert_eq!(x.len(), size, "read: one example has shape {:?}", self.shape);
        let start = i * size;
        let plane = size / self.normalize.mean.len();
        for (c, (x, (scale, shift))) in
            x.chunks_exact_mut(plane).zip(self.normalize.factors()).enumerate()
        {
            let at = start + c * plane..start + (c + 1) * plane;
            match &self.values {
                Values::Bytes(bytes) => {
                    let scale = scale * (1.0 / 255.0);
                    for (x, &byte) in x.iter_mut().zip(&bytes[at]) {
                        *x = f32::from(byte) * scale + shift;
                    }
                }
                Values::Floats(floats) => {
                    for (x, &value) in x.iter_mut().zip(&floats[at]) {
                        *x = value * scale + shift;
                    }
                }
            }
        }
    }

    fn fingerprint(&self) -> u64 {
        Fingerprint::new().number(self.fingerprint).number(self.normalize.fingerprint()).finish()
    }
}
