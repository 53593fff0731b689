//! Batches in a seeded order, from any position, in one reused buffer.

use rayon::prelude::*;

use super::{Augment, Dataset};
use crate::rng::{Purpose, Stream};
use crate::tensor::Tensor;

/// Below this many values a batch is filled by one thread: waking others would take longer.
const PARALLEL_VALUES: usize = 128 * 1024;

/// Some examples, ready for the network.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The inputs: `[batch, ..]`, followed by the shape of one example.
    pub inputs: Tensor,
    /// The label of each example.
    pub labels: Vec<usize>,
    /// The values to be predicted: `[batch, targets]`; without elements where it is a class.
    pub targets: Tensor,
    /// The index of each example in the data set.
    pub indices: Vec<usize>,
}

/// Walks through a data set batch by batch, epoch by epoch.
///
/// ```text
/// order of epoch e = permutation(seed, e)
/// batch b of it    = order[b * size .. (b + 1) * size]      (the last one may be shorter)
/// example i of it  = augment(read(i), stream(seed, e, i))
/// ```
///
/// Nothing depends on what was read before, so that [`seek`](Self::seek) to any position is as good
/// as having walked there.
///
/// ```no_run
/// # use ferrotape::data::{load_idx_dir, Batches};
/// let split = load_idx_dir("data/mnist", 10, 0)?;
/// let mut batches = Batches::new(&split.train, 64).shuffled(0);
/// for epoch in 0..10 {
///     batches.seek(epoch, 0);
///     while let Some(batch) = batches.next() {
///         println!("{:?} {:?}", batch.inputs.shape(), batch.labels);
///     }
/// }
/// # Ok::<(), ferrotape::Error>(())
/// ```
pub struct Batches<'d> {
    data: &'d dyn Dataset,
    size: usize,
    /// The seed of the order, if there is one.
    seed: Option<u64>,
    /// The change and its seed.
    augment: Option<(&'d dyn Augment, u64)>,
    drop_last: bool,
    epoch: u64,
    next: usize,
    /// The order of `epoch`: indices into `data`.
    order: Vec<usize>,
    batch: Batch,
}

impl<'d> Batches<'d> {
    /// Batches of `size` examples in the order of the data set, the last one with what is left.
    ///
    /// # Panics
    /// If `size` is 0.
    #[track_caller]
    pub fn new(data: &'d dyn Dataset, size: usize) -> Self {
        Batches::over(data, (0..data.len()).collect(), size)
    }

    /// Batches of the examples at `indices` only, in that order.
    ///
    /// # Panics
    /// If `size` is 0.
    #[track_caller]
    pub fn over(data: &'d dyn Dataset, indices: Vec<usize>, size: usize) -> Self {
        assert!(size > 0, "Batches: a batch needs at least one example");
        Batches {
            data,
            size,
            seed: None,
            augment: None,
            drop_last: false,
            epoch: 0,
            next: 0,
            order: indices,
            batch: Batch {
                inputs: Tensor::zeros([0]),
                labels: Vec::new(),
                targets: Tensor::zeros([0, 0]),
                indices: Vec::new(),
            },
        }
    }

    /// Another order each epoch, all of them given by `seed`.
    pub fn shuffled(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.shuffle();
        self
    }

    /// Changes each example as it is read, in another way each epoch, all given by `seed`.
    pub fn augmented(mut self, augment: &'d dyn Augment, seed: u64) -> Self {
        self.augment = Some((augment, seed));
        self
    }

    /// Leaves out the last batch of an epoch if it is not full.
    pub fn drop_last(mut self) -> Self {
        self.drop_last = true;
        self
    }

    /// The number of batches in an epoch.
    pub fn per_epoch(&self) -> usize {
        if self.drop_last {
            self.order.len() / self.size
        } else {
            self.order.len().div_ceil(self.size)
        }
    }

    /// Goes to batch `batch` of epoch `epoch`, both counted from 0. A `batch` at or beyond the end
    /// of the epoch leaves nothing to read.
    pub fn seek(&mut self, epoch: u64, batch: usize) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.shuffle();
        }
        self.next = batch;
    }

    /// The position of the batch that [`next`](Self::next) will return: epoch and batch.
    pub fn position(&self) -> (u64, usize) {
        (self.epoch, self.next)
    }

    /// The next batch of this epoch, or `None` at its end. The batch is overwritten by the next
    /// one.
    #[allow(clippy::should_implement_trait)] // an `Iterator` cannot lend its items
    pub fn next(&mut self) -> Option<&Batch> {
        if self.next >= self.per_epoch() {
            return None;
        }
        let start = self.next * self.size;
        let end = (start + self.size).min(self.order.len());
        self.next += 1;
        self.fill(start, end);
        Some(&self.batch)
    }

    fn shuffle(&mut self) {
        if let Some(seed) = self.seed {
            // From the sorted order, not from the previous epoch's: that one may never have been.
            self.order.sort_unstable();
            Stream::new(seed, Purpose::Shuffle, self.epoch, 0).shuffle(&mut self.order);
        }
    }

    fn fill(&mut self, start: usize, end: usize) {
        let Batch { inputs, labels, targets, indices } = &mut self.batch;
        indices.clear();
        indices.extend_from_slice(&self.order[start..end]);
        labels.clear();
        labels.extend(indices.iter().map(|&i| self.data.label(i)));

        let shape = self.data.input_shape();
        let example = shape.iter().product::<usize>();
        fit(inputs, indices.len(), shape);
        let count = self.data.targets();
        if count > 0 {
            fit(targets, indices.len(), &[count]);
            let rows = targets.data_mut().chunks_exact_mut(count);
            rows.zip(indices.iter()).for_each(|(y, &i)| self.data.read_targets(i, y));
        }

        let read = |(x, &i): (&mut [f32], &usize)| {
            self.data.read(i, x);
            if let Some((augment, seed)) = self.augment {
                let mut rng = Stream::new(seed, Purpose::Augment, self.epoch, i as u64);
                augment.apply(x, shape, &mut rng);
            }
        };
        let values = inputs.data_mut();
        if values.len() < PARALLEL_VALUES {
            values.chunks_exact_mut(example).zip(indices.iter()).for_each(read);
        } else {
            values.par_chunks_exact_mut(example).zip(indices.par_iter()).for_each(read);
        }
    }
}

/// Makes room for `n` examples of a shape, unless there is.
fn fit(tensor: &mut Tensor, n: usize, shape: &[usize]) {
    if tensor.shape().first() != Some(&n) {
        let mut values = std::mem::replace(tensor, Tensor::zeros([0])).into_vec();
        values.resize(n * shape.iter().product::<usize>(), 0.0);
        *tensor = Tensor::from_vec(values, [&[n], shape].concat().as_slice());
    }
}
