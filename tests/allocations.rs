//! After warm-up a training step allocates no tensors: what is left is the boxed operations and
//! a few lists of shapes, the same small number of bytes for any batch size.
//!
//! A test binary of its own with a single test, because its allocator counts everything.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrotape::ops::Conv2dOptions;
use ferrotape::optim::Sgd;
use ferrotape::{Graph, Init, ParamId, Params, Tape, Tensor};

/// Counts bytes asked for, in all and in the largest request.
struct Counting;

static TOTAL: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method is the system's own, called with the very same arguments; what is added
// beforehand touches nothing but two counters and cannot panic or allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TOTAL.fetch_add(layout.size(), Ordering::Relaxed);
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is also that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this layout, since `alloc` passes it on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The article's network, with dropout.
struct Net {
    params: Params,
    conv: [ParamId; 2],
    fc: [[ParamId; 2]; 3],
}

impl Net {
    fn new() -> Self {
        let mut params = Params::new(0);
        let mut layer = |name: &str, weight: &[usize]| {
            [
                params.add(format!("{name}.weight"), weight, Init::KaimingUniform),
                params.add(format!("{name}.bias"), [weight[0]], Init::Zeros),
            ]
        };
        let conv = layer("conv", &[6, 1, 5, 5]);
        let fc =
            [layer("fc1", &[120, 6 * 12 * 12]), layer("fc2", &[84, 120]), layer("fc3", &[10, 84])];
        Net { params, conv, fc }
    }

    fn train(&mut self, tape: &mut Tape, sgd: &mut Sgd, images: &Tensor, labels: &[usize]) -> f32 {
        let mut g = Graph::new(tape, &self.params);
        let x = g.input(images);
        let [weight, bias] = self.conv.map(|id| g.param(id));
        let h = g.conv2d(x, weight, Some(bias), Conv2dOptions::default());
        let h = g.relu(h);
        let h = g.max_pool2d(h, 2, 2);
        let mut h = g.flatten(h);
        for (i, layer) in self.fc.iter().enumerate() {
            if i > 0 {
                h = g.relu(h);
                h = g.dropout(h, 0.1);
            }
            let [weight, bias] = layer.map(|id| g.param(id));
            h = g.linear(h, weight, Some(bias));
        }
        let loss = g.cross_entropy(h, labels);
        let value = g.item(loss);
        let gradients = g.backward(loss);
        sgd.step(&mut self.params, &gradients);
        value
    }
}

#[test]
fn a_warm_training_step_allocates_no_tensors() {
    let measure = |batch: usize| {
        let images = Tensor::full(0.5, [batch, 1, 28, 28]);
        let labels: Vec<usize> = (0..batch).map(|i| i % 10).collect();
        let (mut net, mut tape, mut sgd) = (Net::new(), Tape::new(), Sgd::new(0.01).momentum(0.9));
        for _ in 0..3 {
            net.train(&mut tape, &mut sgd, &images, &labels);
        }
        TOTAL.store(0, Ordering::Relaxed);
        LARGEST.store(0, Ordering::Relaxed);
        let loss = net.train(&mut tape, &mut sgd, &images, &labels);
        let counts = (TOTAL.load(Ordering::Relaxed), LARGEST.load(Ordering::Relaxed));
        assert!(loss.is_finite());
        counts
    };
    // One thread: with several, it is chance which of them meets its first large task when.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (small, large) = pool.install(|| (measure(4), measure(64)));
    assert_eq!(
        small, large,
        "bytes in all and in the largest request must not grow with the batch"
    );
    let (total, largest) = small;
    println!("a warm training step allocates {total} bytes, at most {largest} at once");
    assert!(total < 4096, "a step allocates {total} bytes");
    assert!(largest < 1024, "one of them has {largest} bytes");
    // The counters do count.
    assert!(Tensor::zeros([1000]).data().len() * 4 <= LARGEST.load(Ordering::Relaxed));
}
