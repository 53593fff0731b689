//! 3. A convolutional network on real images, with early stopping, and the loop still in sight.
//!
//! This is what `Trainer` does for you in the next example, less checkpoints.
//!
//! Run it: `cargo run --release --example 03_mnist_loop [EPOCHS]`

use ferrotape::data::{Batches, load_idx_dir};
use ferrotape::monitor::{EarlyStopping, Monitor, Observation};
use ferrotape::nn::{Conv2d, Linear, Module};
use ferrotape::optim::Sgd;
use ferrotape::trainer::evaluate;
use ferrotape::{Graph, Params, Tape, Var};

struct LeNet {
    conv: Conv2d,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl LeNet {
    fn new(params: &mut Params) -> Self {
        LeNet {
            conv: Conv2d::new(params, "conv", 1, 6, 5),
            fc1: Linear::new(params, "fc1", 6 * 12 * 12, 120),
            fc2: Linear::new(params, "fc2", 120, 84),
            fc3: Linear::new(params, "fc3", 84, 10),
        }
    }
}

impl Module for LeNet {
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        let h = self.conv.forward(g, x);
        // The same as ReLU first, which would have four times as much to do.
        let h = g.max_pool2d(h, 2, 2);
        let h = g.relu(h);
        let h = g.flatten(h);
        let h = self.fc1.forward(g, h);
        let h = g.relu(h);
        let h = self.fc2.forward(g, h);
        let h = g.relu(h);
        self.fc3.forward(g, h)
    }
}

fn main() -> ferrotape::Result<()> {
    let epochs = std::env::args().nth(1).map_or(10, |n| n.parse().expect("EPOCHS is a number"));
    // A loop on a thread of the pool need not wake the others anew for each operation.
    let mut result = Ok(());
    rayon::scope(|_| result = train(epochs));
    result
}

fn train(epochs: u64) -> ferrotape::Result<()> {
    let data = load_idx_dir("data/mnist", 10, 0)?;
    let mut params = Params::new(0);
    let model = LeNet::new(&mut params);
    let mut sgd = Sgd::new(0.05).momentum(0.9);
    let mut monitor = Monitor::new(EarlyStopping::patience(3))?;
    let mut best = params.clone();

    let mut tape = Tape::new();
    let mut batches = Batches::new(&data.train, 64).shuffled(0);
    for epoch in 0..epochs {
        batches.seek(epoch, 0);
        while let Some(batch) = batches.next() {
            let mut g = Graph::new(&mut tape, &params);
            let x = g.input(&batch.inputs);
            let logits = model.forward(&mut g, x);
            let loss = g.cross_entropy(logits, &batch.labels);
            let gradients = g.backward(loss);
            sgd.step(&mut params, &gradients);
        }
        let valid = evaluate(&model, &params, &data.valid);
        let verdict = monitor.observe(Observation::new(epoch + 1, valid.loss));
        println!("epoch {:>2}  valid {:.4}  {:.2}%", epoch + 1, valid.loss, 100.0 * valid.accuracy);
        if verdict.new_best {
            best.clone_from(&params);
        }
        if let Some(reason) = verdict.stop_reason() {
            println!("stopped: {reason}");
            break;
        }
    }
    let test = evaluate(&model, &best, &data.test);
    println!("best model on the test images: {:.2}%", 100.0 * test.accuracy);
    Ok(())
}
