//! What is measured: shapes, networks and data, the same for every bench, and the checks that come
//! before the clock starts. The names are those of the peers' scripts.

// Each bench uses its part of this module.
#![allow(dead_code)]

mod twin;

use ferrotape::checkpoint::{NamedTensor, TrainingState};
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::rng::{Purpose, Stream};
use ferrotape::{Graph, Params, Tape, Tensor};
use ferrotape_kernels::Write;
use ferrotape_kernels::conv2d::{self, Conv2dDims};
use ferrotape_kernels::gemm::{Mat, gemm};
use ferrotape_kernels::reference;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

/// `m x k x n` of the matrix products.
pub(crate) const GEMMS: [(usize, usize, usize); 12] = [
    (32, 32, 32),
    (64, 64, 64),
    (128, 128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (64, 784, 128),
    (128, 512, 512),
    (10, 84, 64),
    (64, 1176, 120),
    (10, 84, 1),
];

/// The convolutions A to L.
pub(crate) fn convs() -> Vec<(&'static str, Conv2dDims)> {
    let conv = |n, c, (h, w), o, k, stride, padding, groups| Conv2dDims {
        n,
        c,
        h,
        w,
        o,
        kernel: [k; 2],
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [1; 2],
        groups,
    };
    vec![
        ("A", conv(64, 3, (32, 32), 6, 5, 1, 0, 1)),
        ("B", conv(64, 1, (28, 28), 32, 3, 1, 1, 1)),
        ("C", conv(32, 64, (56, 56), 64, 3, 1, 1, 1)),
        ("D", conv(32, 128, (28, 28), 128, 3, 1, 1, 1)),
        ("E", conv(32, 256, (14, 14), 256, 3, 1, 1, 1)),
        ("F", conv(32, 512, (7, 7), 512, 3, 1, 1, 1)),
        ("G", conv(32, 64, (56, 56), 256, 1, 1, 0, 1)),
        ("H", conv(8, 3, (224, 224), 64, 7, 2, 3, 1)),
        ("I", conv(32, 128, (28, 28), 128, 3, 2, 1, 1)),
        ("J", conv(32, 128, (28, 28), 128, 3, 1, 1, 128)),
        ("K", conv(64, 32, (14, 14), 64, 3, 1, 1, 1)),
        ("L", conv(64, 6, (14, 14), 16, 5, 1, 0, 1)),
    ]
}

/// The directions of a convolution.
pub(crate) const CONV_OPS: [&str; 3] = ["fwd", "bwd_data", "bwd_weight"];

/// Networks and batch sizes of the training steps; `seednet` is a small network on 32 x 32
/// colour images.
pub(crate) const STEPS: [(&str, usize); 6] = [
    ("seednet", 1),
    ("seednet", 4),
    ("seednet", 32),
    ("seednet", 128),
    ("lenet", 64),
    ("mlp", 128),
];

/// Uniform on `[-0.5, 0.5)`.
pub(crate) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, Purpose::User(2), 0, 0);
    (0..len).map(|_| stream.uniform(-0.5, 0.5)).collect()
}

/// A convolution, its operands, and memory for its results, all of it touched before the clock
/// starts. The results are NaN until a kernel has overwritten them.
pub(crate) struct ConvData {
    pub(crate) dims: Conv2dDims,
    pub(crate) x: Vec<f32>,
    pub(crate) w: Vec<f32>,
    pub(crate) y: Vec<f32>,
    pub(crate) dy: Vec<f32>,
    pub(crate) dx: Vec<f32>,
    pub(crate) dw: Vec<f32>,
}

impl ConvData {
    pub(crate) fn new(dims: Conv2dDims) -> Self {
        ConvData {
            x: random(dims.x_len(), 1),
            w: random(dims.w_len(), 2),
            dy: random(dims.y_len(), 3),
            y: vec![f32::NAN; dims.y_len()],
            dx: vec![f32::NAN; dims.x_len()],
            dw: vec![f32::NAN; dims.w_len()],
            dims,
        }
    }

    pub(crate) fn run(&mut self, op: &str) {
        let ConvData { dims, x, w, y, dy, dx, dw } = self;
        match op {
            "fwd" => conv2d::forward(y, x, w, None, dims),
            "bwd_data" => conv2d::backward_input(dx, Write::Set, dy, w, dims),
            "bwd_weight" => conv2d::backward_weight(dw, Write::Set, dy, x, dims),
            _ => unreachable!("no convolution direction {op}"),
        }
    }

    /// Compares what a direction has written with the naive twin: the first, the middle and the
    /// last image of it, or output channel of the weights' gradient. The rest must be no NaN.
    pub(crate) fn check(&self, name: &str, op: &str) {
        let ConvData { dims, x, w, y, dy, dx, dw } = self;
        let what = format!("conv2d {name} {op}");
        if op == "bwd_weight" {
            assert_written(&what, dw);
            for o in ends_and_middle(dims.o) {
                assert_close(&what, part(dw, o, dims.o), &self.naive_weight_gradient(o));
            }
            return;
        }
        let (one, w) = (Conv2dDims { n: 1, ..*dims }, wide(w));
        let output = if op == "fwd" { y } else { dx };
        assert_written(&what, output);
        for image in ends_and_middle(dims.n) {
            let [x, dy] = [x, dy].map(|all| wide(part(all, image, dims.n)));
            let mut want = vec![0.0; output.len() / dims.n];
            match op {
                "fwd" => reference::conv2d::forward(&mut want, &x, &w, None, &one),
                _ => reference::conv2d::backward_input(&mut want, &dy, &w, &one),
            }
            assert_close(&what, part(output, image, dims.n), &want);
        }
    }

    /// The gradient of one output channel's weights, which sums over all images: that of a
    /// convolution with this channel alone, and with the input channels that it reads.
    fn naive_weight_gradient(&self, o: usize) -> Vec<f64> {
        let d = self.dims;
        let group = o / (d.o / d.groups);
        let one = Conv2dDims { c: d.c / d.groups, o: 1, groups: 1, ..d };
        let of_each_image = |all, index, count| -> Vec<f64> {
            (0..d.n).flat_map(|n| wide(part(part(all, n, d.n), index, count))).collect()
        };
        let x = of_each_image(&self.x, group, d.groups);
        let dy = of_each_image(&self.dy, o, d.o);
        let mut dw = vec![0.0; one.w_len()];
        reference::conv2d::backward_weight(&mut dw, &dy, &x, &one);
        dw
    }
}

/// The `index`-th of `count` equal parts.
fn part(all: &[f32], index: usize, count: usize) -> &[f32] {
    let len = all.len() / count;
    &all[index * len..][..len]
}

/// Where mistakes at the borders between threads or tiles show: the first, the middle, the last.
fn ends_and_middle(count: usize) -> Vec<usize> {
    let mut places = vec![0, count / 2, count - 1];
    places.dedup();
    places
}

/// Fails if a kernel left out an element of an output that was all NaN.
fn assert_written(what: &str, output: &[f32]) {
    let missing = output.iter().position(|x| x.is_nan());
    assert!(missing.is_none(), "{what}: element {missing:?} was not written");
}

/// Numbers as the naive twins take them.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Fails unless the largest error is at most 1e-5 of the largest value: enough to tell a wrong
/// kernel from rounding; the tests have the exact bounds.
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(error <= 1e-5 * scale, "{what}: element {i} is {got}, the naive twin has {want}");
    }
}

/// A matrix product, its operands and its result, which is NaN until it was computed.
pub(crate) struct GemmData {
    pub(crate) size: (usize, usize, usize),
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl GemmData {
    pub(crate) fn new(size: (usize, usize, usize)) -> Self {
        let (m, k, n) = size;
        GemmData { size, a: random(m * k, 1), b: random(k * n, 2), c: vec![f32::NAN; m * n] }
    }

    pub(crate) fn flops(&self) -> f64 {
        let (m, k, n) = self.size;
        2.0 * (m * k * n) as f64
    }

    pub(crate) fn run(&mut self) {
        let (m, k, n) = self.size;
        gemm(&mut self.c, Write::Set, Mat::row_major(&self.a, m, k), Mat::row_major(&self.b, k, n));
    }

    /// The same product by `ndarray`, which is `matrixmultiply`'s.
    pub(crate) fn run_ndarray(&mut self) {
        let (m, k, n) = self.size;
        let a = ArrayView2::from_shape((m, k), &self.a).expect("m x k");
        let b = ArrayView2::from_shape((k, n), &self.b).expect("k x n");
        let mut c = ArrayViewMut2::from_shape((m, n), &mut self.c).expect("m x n");
        general_mat_mul(1.0, &a, &b, 0.0, &mut c);
    }

    /// Compares the first, the middle and the last row of the product with the naive twin. The
    /// rest must be no NaN.
    pub(crate) fn check(&self) {
        let (m, k, n) = self.size;
        let b = wide(&self.b);
        assert_written(&format!("gemm {m}x{k}x{n}"), &self.c);
        for row in ends_and_middle(m) {
            let mut want = vec![0.0; n];
            reference::gemm::gemm(&mut want, &wide(part(&self.a, row, m)), &b, (1, k, n));
            assert_close(&format!("gemm {m}x{k}x{n} row {row}"), part(&self.c, row, m), &want);
        }
    }
}

fn layers(net: &str) -> (Vec<Layer>, Vec<usize>) {
    match net {
        "seednet" => (
            vec![
                Layer::conv2d(3, 6, 5),
                Layer::Relu,
                Layer::max_pool2d(2, 2),
                Layer::Flatten,
                Layer::linear(6 * 14 * 14, 120),
                Layer::Relu,
                Layer::linear(120, 84),
                Layer::Relu,
                Layer::linear(84, 10),
            ],
            vec![3, 32, 32],
        ),
        "lenet" => (
            vec![
                Layer::conv2d_same(1, 32, 3),
                Layer::Relu,
                Layer::max_pool2d(2, 2),
                Layer::conv2d_same(32, 64, 3),
                Layer::Relu,
                Layer::max_pool2d(2, 2),
                Layer::Flatten,
                Layer::linear(64 * 7 * 7, 128),
                Layer::Relu,
                Layer::linear(128, 10),
            ],
            vec![1, 28, 28],
        ),
        "mlp" => (
            vec![
                Layer::linear(784, 512),
                Layer::Relu,
                Layer::linear(512, 512),
                Layer::Relu,
                Layer::linear(512, 10),
            ],
            vec![784],
        ),
        // 12.7 million parameters.
        "wide" => (
            vec![
                Layer::linear(784, 4096),
                Layer::Relu,
                Layer::linear(4096, 2304),
                Layer::Relu,
                Layer::linear(2304, 10),
            ],
            vec![784],
        ),
        _ => unreachable!("no network {net}"),
    }
}

const MOMENTUM: f32 = 0.9;

/// A network, an optimizer and a batch: everything for a training step or an inference.
///
/// Images are multiples of 1/8 and weights of 1/64. With so few digits hardly a sum before the last
/// layer rounds, and each ReLU and each maximum decides as it does in the twin, also where it is
/// close: among a million, some are, and one that decides otherwise shows in the gradients.
pub(crate) struct Network {
    model: Sequential,
    params: Params,
    sgd: Sgd,
    tape: Tape,
    input: Tensor,
    labels: Vec<usize>,
}

impl Network {
    pub(crate) fn new(net: &str, batch: usize) -> Self {
        let (layers, shape) = layers(net);
        let mut params = Params::new(0);
        let model = Sequential::new(&mut params, layers);
        let on_grid = |values: &mut [f32], steps: f32| {
            values.iter_mut().for_each(|value| *value = (*value * steps).round() / steps);
        };
        on_grid(params.flat_mut(), 64.0);
        let shape = [&[batch], &shape[..]].concat();
        let mut images = random(shape.iter().product(), 1);
        on_grid(&mut images, 8.0);
        Network {
            model,
            params,
            sgd: Sgd::new(1e-3).momentum(MOMENTUM),
            tape: Tape::new(),
            input: Tensor::from_vec(images, shape.as_slice()),
            labels: (0..batch).map(|i| i * 7 % 10).collect(),
        }
    }

    /// Forward, loss, backward, update; gives the loss.
    pub(crate) fn train_step(&mut self) -> f32 {
        let mut g = Graph::new(&mut self.tape, &self.params);
        let x = g.input(&self.input);
        let logits = self.model.forward(&mut g, x);
        let loss = g.cross_entropy(logits, &self.labels);
        let value = g.item(loss);
        let gradients = g.backward(loss);
        assert!(gradients.wrt(x).is_none(), "FLOPs leave out the gradient of the images");
        self.sgd.step(&mut self.params, &gradients);
        value
    }

    /// The forward pass; `read` sees the scores.
    pub(crate) fn infer<R>(&mut self, read: impl FnOnce(&[f32]) -> R) -> R {
        let mut g = Graph::eval(&mut self.tape, &self.params);
        let x = g.input(&self.input);
        let logits = self.model.forward(&mut g, x);
        read(g.value(logits))
    }

    /// Floating-point operations of the forward pass: two per multiply-add of convolutions and
    /// linear layers. All else is left out.
    pub(crate) fn inference_flops(&self) -> usize {
        self.layer_flops().iter().sum()
    }

    /// Those of a training step: forward and both backward passes, except that nobody wants the
    /// gradient of the images, so the first layer has one backward pass.
    pub(crate) fn step_flops(&self) -> usize {
        let layers = self.layer_flops();
        3 * layers.iter().sum::<usize>() - layers[0]
    }

    fn layer_flops(&self) -> Vec<usize> {
        let summary = self.model.summary(&self.params, self.input.shape()).expect("it fits");
        let macs = summary.rows.iter().map(|row| row.macs as usize);
        macs.filter(|&macs| macs > 0).map(|macs| 2 * macs).collect()
    }

    /// The weights and the velocity, lent, as for a save.
    pub(crate) fn state(&self) -> TrainingState<'_> {
        let mut state =
            TrainingState { params: self.tensors(self.params.flat()), ..TrainingState::default() };
        state.optimizer.slots = self.tensors(self.sgd.velocity());
        state
    }

    fn tensors<'a>(&'a self, values: &'a [f32]) -> Vec<NamedTensor<'a>> {
        let params = &self.params;
        let tensor = |id| {
            let shape = params.shape(id).to_vec();
            NamedTensor::new(params.name(id), shape, &values[params.range(id)])
        };
        params.ids().map(tensor).collect()
    }

    /// Compares scores, loss, and each tensor's gradient, velocity and update with the twin, on the
    /// weights and the batch that a new network begins with.
    pub(crate) fn check(net: &str, batch: usize) {
        let mut network = Network::new(net, batch);
        network.sgd.lr = 1.0; // so that a wrong update shows beside the weight
        let begin = network.params.flat().to_vec();
        let weights: Vec<_> = network.params.ids().map(|id| wide(network.params.get(id))).collect();
        let twin = twin::pass(
            network.model.layers(),
            &network.input.shape(),
            &wide(network.input.data()),
            &network.labels,
            &weights,
        );
        assert_close(&format!("{net} scores"), &network.infer(<[f32]>::to_vec), &twin.logits);

        // Two steps from the same weights: the first makes the velocity, which is the gradient;
        // the second has one.
        let mut velocity: Vec<Option<Vec<f64>>> = vec![None; weights.len()];
        for step in 1..=2 {
            network.params.flat_mut().copy_from_slice(&begin);
            let loss = network.train_step();
            assert_close(&format!("{net} loss"), &[loss], &[twin.loss]);
            for (k, id) in network.params.ids().enumerate() {
                let what = format!("{net} {} after step {step}", network.params.name(id));
                let (new, v) = twin::update(
                    &weights[k],
                    velocity[k].as_deref(),
                    &twin.gradients[k],
                    network.sgd.lr,
                    MOMENTUM,
                );
                let own = &network.sgd.velocity()[network.params.range(id)];
                assert_close(&format!("{what}, velocity"), own, &v);
                assert_close(&what, network.params.get(id), &new);
                velocity[k] = Some(v);
            }
        }
    }
}

/// Parameters of a ResNet-18 for small images, about 11 million: what the update is timed on.
pub(crate) const SGD_LEN: usize = 11_173_962;
