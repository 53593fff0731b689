//! The parts together learn.

use ferrotape::data::{Batches, Dataset, load_idx_dir};
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::{Graph, Params, Tape};

fn lenet(params: &mut Params) -> Sequential {
    Sequential::new(
        params,
        [
            Layer::conv2d(1, 6, 5),
            Layer::Relu,
            Layer::max_pool2d(2, 2),
            Layer::Flatten,
            Layer::linear(864, 120),
            Layer::Relu,
            Layer::linear(120, 84),
            Layer::Relu,
            Layer::linear(84, 10),
        ],
    )
}

#[test]
fn one_batch_is_overfitted_to_near_zero_loss() {
    let data = load_idx_dir("data/mnist", 10, 0).unwrap();
    let mut params = Params::new(0);
    let model = lenet(&mut params);
    let mut sgd = Sgd::new(0.05).momentum(0.9);
    let mut tape = Tape::new();
    let mut batches = Batches::new(&data.train, 32).shuffled(0);
    let batch = batches.next().unwrap();
    let mut losses = Vec::new();
    for _ in 0..150 {
        let mut g = Graph::new(&mut tape, &params);
        let x = g.input(&batch.inputs);
        let logits = model.forward(&mut g, x);
        let loss = g.cross_entropy(logits, &batch.labels);
        losses.push(g.item(loss));
        let gradients = g.backward(loss);
        sgd.step(&mut params, &gradients);
    }
    assert!((losses[0] - 10f32.ln()).abs() < 0.2, "an untrained model guesses: {}", losses[0]);
    assert!(losses[149] < 1e-3, "loss after 150 steps: {}", losses[149]);
}

#[test]
fn a_step_along_the_negative_gradient_lowers_the_loss() {
    let data = load_idx_dir("data/mnist", 10, 0).unwrap();
    let mut params = Params::new(3);
    let model = lenet(&mut params);
    let mut tape = Tape::new();
    let mut batches = Batches::new(&data.train, 64);
    let batch = batches.next().unwrap();
    let mut loss_of = |params: &Params, sgd: Option<&mut Sgd>| -> (f32, Params) {
        let mut moved = params.clone();
        let mut g = Graph::new(&mut tape, params);
        let x = g.input(&batch.inputs);
        let logits = model.forward(&mut g, x);
        let loss = g.cross_entropy(logits, &batch.labels);
        let value = g.item(loss);
        let gradients = g.backward(loss);
        if let Some(sgd) = sgd {
            sgd.step(&mut moved, &gradients);
        }
        (value, moved)
    };
    let (before, moved) = loss_of(&params, Some(&mut Sgd::new(0.01)));
    let (after, _) = loss_of(&moved, None);
    assert!(after < before, "{before} -> {after}");
    assert_eq!(data.train.classes(), 10);
}
