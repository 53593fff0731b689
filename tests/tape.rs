//! What the tape promises, whatever the operations: gradients accumulate along every path, nothing
//! leaks from one step into the next, evaluation leaves no trace, and the number of threads does
//! not change a single bit.

use ferrotape::ops::Conv2dOptions;
use ferrotape::rng::{Purpose, Stream};
use ferrotape::{Graph, Init, ParamId, Params, Tape, Tensor, Var};
use ferrotape_kernels::isa::{Isa, with_isa};

fn uniform(seed: u64, shape: &[usize]) -> Tensor {
    let mut tensor = Tensor::zeros(shape);
    Stream::new(seed, Purpose::User(0), 0, 0).fill_uniform(tensor.data_mut(), -1.0, 1.0);
    tensor
}

/// A small network with every kind of kernel on the main road of a convolutional network.
struct Cnn {
    params: Params,
    weights: [ParamId; 3],
    biases: [ParamId; 3],
}

const SIDE: usize = 20;
const CLASSES: usize = 10;

impl Cnn {
    fn new() -> Self {
        let mut params = Params::new(3);
        let weights = [
            params.add("conv1.weight", [8, 1, 3, 3], Init::KaimingUniform),
            params.add("conv2.weight", [12, 8, 3, 3], Init::KaimingUniform),
            params.add("fc.weight", [CLASSES, 12 * 5 * 5], Init::XavierUniform),
        ];
        let biases = [
            params.add("conv1.bias", [8], Init::Uniform { bound: 0.1 }),
            params.add("conv2.bias", [12], Init::Uniform { bound: 0.1 }),
            params.add("fc.bias", [CLASSES], Init::Uniform { bound: 0.1 }),
        ];
        Cnn { params, weights, biases }
    }

    fn logits(&self, g: &mut Graph, images: Var) -> Var {
        let [w1, w2, w3] = self.weights.map(|weight| g.param(weight));
        let [b1, b2, b3] = self.biases.map(|bias| g.param(bias));
        let same = Conv2dOptions { padding: [1, 1], ..Default::default() };
        let h = g.conv2d(images, w1, Some(b1), same);
        let h = g.relu(h);
        let h = g.max_pool2d(h, 2, 2);
        let h = g.dropout(h, 0.25);
        let h = g.conv2d(h, w2, Some(b2), same);
        let h = g.gelu(h);
        let h = g.avg_pool2d(h, 2, 2);
        let h = g.flatten(h);
        g.linear(h, w3, Some(b3))
    }

    /// The loss, the gradients of all parameters and that of the images.
    fn step(&self, tape: &mut Tape, images: &Tensor) -> (f32, Vec<f32>, Vec<f32>) {
        let targets: Vec<usize> = (0..images.shape()[0]).map(|i| i * 7 % CLASSES).collect();
        let mut g = Graph::new(tape, &self.params).at_step(5);
        let x = g.leaf(images);
        let logits = self.logits(&mut g, x);
        let loss = g.cross_entropy(logits, &targets);
        let value = g.item(loss);
        let gradients = g.backward(loss);
        (value, gradients.flat().to_vec(), gradients.wrt(x).unwrap().to_vec())
    }
}

fn images(n: usize) -> Tensor {
    uniform(1, &[n, 1, SIDE, SIDE])
}

fn bits((loss, params, images): (f32, Vec<f32>, Vec<f32>)) -> Vec<u32> {
    std::iter::once(loss).chain(params).chain(images).map(f32::to_bits).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let cnn = Cnn::new();
    // Enough images that every kernel is worth dividing.
    let images = images(64);
    for isa in Isa::available() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| with_isa(isa, || bits(cnn.step(&mut Tape::new(), &images))))
        };
        let alone = run(1);
        for threads in [2, 3, 4, 7, 16] {
            assert!(run(threads) == alone, "{threads} threads, {}", isa.name());
        }
    }
}

#[test]
fn what_an_earlier_step_left_in_the_buffers_does_not_matter() {
    let cnn = Cnn::new();
    let mut used = Tape::new();
    for n in [3, 5, 1, 5] {
        let images = images(n);
        let fresh = bits(cnn.step(&mut Tape::new(), &images));
        assert!(bits(cnn.step(&mut used, &images)) == fresh, "batch of {n}");
    }
    // Nor what another model left there.
    let (x, params) = (uniform(2, &[9, 9]), Params::new(0));
    let mut g = Graph::new(&mut used, &params);
    let x = g.leaf(&x);
    let y = g.matmul(x, x);
    let y = g.mean(y);
    g.backward(y);
    let images = images(2);
    let fresh = bits(cnn.step(&mut Tape::new(), &images));
    assert!(bits(cnn.step(&mut used, &images)) == fresh);
}

#[test]
fn a_value_used_twice_gets_both_shares() {
    let (mut tape, params) = (Tape::new(), Params::new(0));
    let input = Tensor::from_vec(vec![1.0, -2.0, 3.0], [3]);
    let mut g = Graph::new(&mut tape, &params);
    let x = g.leaf(&input);
    let y = g.mul(x, x);
    let loss = g.sum(y);
    assert_eq!(g.backward(loss).wrt(x), Some(&[2.0, -4.0, 6.0][..]));
}

#[test]
fn paths_that_part_and_meet_again_add_up() {
    let (mut tape, params) = (Tape::new(), Params::new(0));
    let input = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]);
    let mut g = Graph::new(&mut tape, &params);
    let x = g.leaf(&input);
    // y = 2 x and z = x^2 share x, also under another shape; then y z + y + x = 2 x^3 + 3 x.
    let y = g.scale(x, 2.0);
    let flat = g.flatten(x);
    let z = g.mul(flat, x);
    let product = g.mul(y, z);
    let sum = g.add(product, y);
    let all = g.add(sum, x);
    let total = g.sum(all);
    let gradients = g.backward(total);
    let expected: Vec<f32> = input.data().iter().map(|x| 6.0 * x * x + 3.0).collect();
    assert_eq!(gradients.wrt(x).unwrap(), expected);
    assert_eq!(gradients.wrt(flat), gradients.wrt(x), "an alias has its operand's gradient");
    assert_eq!(gradients.wrt(z).unwrap(), [2.0, 4.0, 6.0, 8.0]);
}

#[test]
fn a_parameter_used_twice_gets_both_shares() {
    let (mut tape, mut params) = (Tape::new(), Params::new(0));
    let p = params.add("p", [2], Init::Constant(3.0));
    let mut g = Graph::new(&mut tape, &params);
    let (a, b) = (g.param(p), g.param(p));
    let y = g.mul(a, b);
    let y = g.mul(y, a);
    let loss = g.sum(y);
    let gradients = g.backward(loss);
    assert_eq!(gradients.param(&params, p), [27.0, 27.0]);
    assert_eq!(gradients.wrt(a), Some(&[27.0, 27.0][..]), "by whichever name");
    assert_eq!(gradients.wrt(b), gradients.wrt(a));
}

#[test]
fn what_the_loss_does_not_depend_on_has_no_gradient() {
    let (mut tape, mut params) = (Tape::new(), Params::new(0));
    let used = params.add("used", [2], Init::Ones);
    let unused = params.add("unused", [3], Init::Ones);
    for (first, second) in [(used, unused), (unused, used)] {
        // The second round finds the first one's gradients in the buffers.
        let input = Tensor::full(1.0, [2]);
        let mut g = Graph::new(&mut tape, &params);
        let (x, idle) = (g.leaf(&input), g.param(second));
        let weight = g.param(first);
        let aside = g.exp(x);
        let loss = g.sum(weight);
        let gradients = g.backward(loss);
        assert!(gradients.param(&params, first).iter().all(|&d| d == 1.0));
        assert!(gradients.param(&params, second).iter().all(|&d| d == 0.0));
        for var in [x, aside, idle] {
            assert_eq!(gradients.wrt(var), None);
        }
    }
}

#[test]
fn the_gaps_between_parameters_stay_zero_when_the_tape_serves_another_model() {
    let mut tape = Tape::new();
    // The same length in all, but the parameters lie in other places.
    for sizes in [[20, 3], [3, 20]] {
        let mut params = Params::new(0);
        let ids = sizes.map(|size| params.add(format!("p{size}"), [size], Init::Ones));
        let mut g = Graph::new(&mut tape, &params);
        let sums = ids.map(|id| {
            let p = g.param(id);
            g.sum(p)
        });
        let loss = g.add(sums[0], sums[1]);
        let gradients = g.backward(loss);
        assert_eq!(gradients.flat().iter().sum::<f32>(), 23.0);
    }
}

#[test]
fn gradients_stop_at_inputs_that_need_none() {
    let (mut tape, params) = (Tape::new(), Params::new(0));
    let (a, b) = (Tensor::full(2.0, [2]), Tensor::full(5.0, [2]));
    let mut g = Graph::new(&mut tape, &params);
    let (a, b) = (g.input(&a), g.leaf(&b));
    let squares = g.mul(a, a);
    let y = g.mul(squares, b);
    let gradients = g.backward_with(y, &[1.0, 10.0]);
    assert_eq!(gradients.wrt(b), Some(&[4.0, 40.0][..]));
    assert_eq!((gradients.wrt(a), gradients.wrt(squares)), (None, None));
}

#[test]
fn evaluation_keeps_nothing_for_a_backward_pass() {
    let cnn = Cnn::new();
    let images = images(4);
    let mut tape = Tape::new();
    let mut g = Graph::eval(&mut tape, &cnn.params);
    let x = g.leaf(&images);
    let logits = cnn.logits(&mut g, x);
    let listing = g.listing();
    assert!(!listing.contains("dropout"), "dropout is the identity:\n{listing}");
    assert_eq!(g.shape(logits), [4, CLASSES].into());
    // The values of conv, relu, pool, conv, gelu, pool and linear; nothing else.
    let (pixels, pooled) = (SIDE * SIDE, SIDE * SIDE / 4);
    let floats = 4 * (2 * 8 * pixels + 8 * pooled + 2 * 12 * pooled + 12 * pooled / 4 + CLASSES);
    assert_eq!(tape.bytes(), 4 * floats);
}

#[test]
#[should_panic(expected = "backward: this graph was made to evaluate")]
fn evaluation_has_no_backward_pass() {
    let (mut tape, params) = (Tape::new(), Params::new(0));
    let mut g = Graph::eval(&mut tape, &params);
    let x = g.constant(Tensor::scalar(1.0));
    g.backward(x);
}

#[test]
#[should_panic(expected = "the loss has shape [2]; reduce it to a single number")]
fn a_loss_is_a_single_number() {
    let (mut tape, params) = (Tape::new(), Params::new(0));
    let mut g = Graph::new(&mut tape, &params);
    let x = g.constant(Tensor::zeros([2]));
    g.backward(x);
}

#[test]
#[should_panic(expected = "this one comes from another Graph")]
fn a_var_of_an_earlier_step_is_refused() {
    let (mut tape, params) = (Tape::new(), Params::new(0));
    let mut g = Graph::new(&mut tape, &params);
    let stale = g.constant(Tensor::scalar(1.0));
    let mut g = Graph::new(&mut tape, &params);
    let fresh = g.constant(Tensor::scalar(1.0));
    g.add(fresh, stale);
}

#[test]
#[should_panic(expected = "a Var belongs to the step that made it")]
fn gradients_refuse_a_var_of_another_step() {
    let (mut tape, mut other, params) = (Tape::new(), Tape::new(), Params::new(0));
    let foreign = Graph::new(&mut other, &params).constant(Tensor::scalar(1.0));
    let mut g = Graph::new(&mut tape, &params);
    let x = g.constant(Tensor::scalar(1.0));
    let y = g.exp(x);
    let gradients = g.backward(y);
    gradients.wrt(foreign);
}

#[test]
fn a_shape_error_names_the_operation_and_all_shapes() {
    let caught = std::panic::catch_unwind(|| {
        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::new(&mut tape, &params);
        let (a, b) = (g.constant(Tensor::zeros([2, 3])), g.constant(Tensor::zeros([4])));
        g.add(a, b);
    });
    let message = *caught.unwrap_err().downcast::<String>().unwrap();
    let expected = "add: cannot broadcast: lengths 3 and 4 differ (operands: [2, 3], [4])";
    assert_eq!(message, expected);
}
