//! 2. A two-layer network learns exclusive or, with the loop written out.
//!
//! XOR is the smallest function that a single linear layer cannot compute. Everything a training
//! loop does is here: forward, loss, backward, update.
//!
//! Run it: `cargo run --release --example 02_xor`

use ferrotape::nn::{Linear, Module};
use ferrotape::optim::Sgd;
use ferrotape::{Graph, Params, Tape, Tensor, Var};

struct Xor {
    hidden: Linear,
    output: Linear,
}

impl Module for Xor {
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        let h = self.hidden.forward(g, x);
        let h = g.tanh(h);
        self.output.forward(g, h)
    }
}

fn main() {
    let mut params = Params::new(1);
    let model = Xor {
        hidden: Linear::new(&mut params, "hidden", 2, 8),
        output: Linear::new(&mut params, "output", 8, 2),
    };
    println!("{}\n", model.summary(&params, [4, 2]).expect("the shapes fit"));

    let inputs = Tensor::from_vec(vec![0., 0., 0., 1., 1., 0., 1., 1.], [4, 2]);
    let labels = [0, 1, 1, 0];

    let mut sgd = Sgd::new(0.5).momentum(0.9);
    let mut tape = Tape::new();
    let mut last = f32::INFINITY;
    for step in 0..=200 {
        let mut g = Graph::new(&mut tape, &params);
        let x = g.input(&inputs);
        let logits = model.forward(&mut g, x);
        let loss = g.cross_entropy(logits, &labels);
        last = g.item(loss);
        if step % 25 == 0 {
            println!("step {step:>3}  loss {last:.6}");
        }
        let gradients = g.backward(loss);
        sgd.step(&mut params, &gradients);
    }
    assert!(last < 0.01, "the network should have learnt XOR by now");

    let mut g = Graph::eval(&mut tape, &params);
    let x = g.input(&inputs);
    let logits = model.forward(&mut g, x);
    let probabilities = g.softmax(logits, -1);
    println!();
    for (input, p) in inputs.data().chunks(2).zip(g.value(probabilities).chunks(2)) {
        println!(
            "{} xor {} = {}   (certainty {:.4})",
            input[0],
            input[1],
            u8::from(p[1] > p[0]),
            p[0].max(p[1])
        );
    }
}
