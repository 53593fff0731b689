//! A task small enough to be trained hundreds of times in a test: noisy 8 x 8 images of three
//! classes, and a small convolutional network with everything in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrotape::checkpoint::Checkpoints;
use ferrotape::data::{Dataset, RandomShift};
use ferrotape::monitor::EarlyStopping;
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::optim::{CosineAnnealing, LinearWarmUp, PerStep, ReduceOnPlateau, Sgd};
use ferrotape::rng::{Purpose, Stream};
use ferrotape::trainer::{Resume, Trainer};
use ferrotape::{Params, Tensor};

const SIDE: usize = 8;
pub const CLASSES: usize = 3;

/// Called with the number of examples read before.
type Hook = dyn Fn(u64) + Send + Sync;

/// Images of `[1, 8, 8]`: a pattern for each class, under noise.
#[derive(Clone)]
pub struct Toy {
    images: Vec<f32>,
    labels: Vec<usize>,
    reads: Arc<AtomicU64>,
    hook: Option<Arc<Hook>>,
}

impl Toy {
    /// `n` examples; with noise above 2 or so there is little but noise to learn.
    pub fn new(n: usize, noise: f32, seed: u64) -> Self {
        let mut patterns = vec![0.0; CLASSES * SIDE * SIDE];
        Stream::new(0, Purpose::User(1), 0, 0).fill_normal(&mut patterns, 0.0, 1.0);
        let mut stream = Stream::new(seed, Purpose::User(2), 0, 0);
        let labels: Vec<usize> = (0..n).map(|_| stream.below(CLASSES)).collect();
        let pixels = labels.iter().flat_map(|&label| &patterns[label * 64..][..64]);
        let images = pixels.map(|pixel| pixel + noise * stream.normal()).collect();
        Toy { images, labels, reads: Arc::default(), hook: None }
    }

    /// Calls `hook` whenever an example is read.
    pub fn on_read(mut self, hook: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Puts this value into example `i`.
    pub fn spoil(mut self, i: usize, value: f32) -> Self {
        self.images[i * 64..][..64].fill(value);
        self
    }

    /// How many examples have been read, by all clones.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// All examples as one batch.
    pub fn batch(&self) -> (Tensor, Vec<usize>) {
        let images = Tensor::from_vec(self.images.clone(), [self.labels.len(), 1, SIDE, SIDE]);
        (images, self.labels.clone())
    }
}

impl Dataset for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input_shape(&self) -> &[usize] {
        &[1, SIDE, SIDE]
    }

    fn classes(&self) -> usize {
        CLASSES
    }

    fn label(&self, i: usize) -> usize {
        self.labels[i]
    }

    fn read(&self, i: usize, x: &mut [f32]) {
        let before = self.reads.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = &self.hook {
            hook(before);
        }
        x.copy_from_slice(&self.images[i * 64..][..64]);
    }

    fn fingerprint(&self) -> u64 {
        let words = self.images.iter().map(|pixel| u64::from(pixel.to_bits()));
        words.fold(0, |sum, word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Convolution, batch normalisation, pooling, dropout: whatever has a state or draws numbers.
pub fn cnn(seed: u64) -> (Sequential, Params) {
    let mut params = Params::new(seed);
    let layers = [
        Layer::conv2d(1, 4, 3),
        Layer::BatchNorm2d { channels: 4 },
        Layer::Relu,
        Layer::max_pool2d(2, 2),
        Layer::Flatten,
        Layer::Dropout { p: 0.3 },
        Layer::linear(36, CLASSES),
    ];
    let model = Sequential::new(&mut params, layers);
    (model, params)
}

/// Fully connected, without anything random.
pub fn mlp(seed: u64) -> (Sequential, Params) {
    let mut params = Params::new(seed);
    let layers = [Layer::Flatten, Layer::linear(64, 32), Layer::Relu, Layer::linear(32, CLASSES)];
    let model = Sequential::new(&mut params, layers);
    (model, params)
}

/// 60 examples in steps of 2 batches of 8: 3 full steps and one of 12 examples.
pub fn train() -> Toy {
    Toy::new(60, 1.0, 1)
}

pub const STEPS_PER_EPOCH: u64 = 4;

/// Two evaluation batches.
pub fn valid() -> Toy {
    Toy::new(300, 3.0, 2)
}

/// A run of [`cnn`] with everything that has a state or draws numbers; each clause of it is one
/// that a resume could get wrong. It stops early.
pub fn trainer(checkpoints: Checkpoints, plateau: bool) -> Trainer<Sequential> {
    let (model, params) = cnn(7);
    trainer_of(model, params, checkpoints, plateau)
}

/// The same with another model.
pub fn trainer_of<M: Module>(
    model: M,
    params: Params,
    checkpoints: Checkpoints,
    plateau: bool,
) -> Trainer<M> {
    let sgd = Sgd::new(0.1).momentum(0.9).weight_decay(1e-3).nesterov(true);
    let trainer = Trainer::new(model, params, sgd)
        .epochs(8)
        .batch_size(8)
        .accumulate(2)
        .clip_grad_norm(2.0)
        .augment(RandomShift { max: 1 })
        .monitor(EarlyStopping::patience(2))
        .checkpoints(checkpoints)
        .resume(Resume::Auto);
    if plateau {
        trainer.schedule(LinearWarmUp::new(3, ReduceOnPlateau::new(0.3, 1)))
    } else {
        trainer.schedule(PerStep(CosineAnnealing::new(3, 0.001).restarts(2)))
    }
}

/// All bits of the weights and buffers.
pub fn bits(params: &Params) -> Vec<u32> {
    params.flat().iter().chain(params.flat_buffers()).map(|weight| weight.to_bits()).collect()
}
