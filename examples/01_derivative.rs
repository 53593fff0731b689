//! 1. A derivative by hand, and the same by the tape.
//!
//! `y = tanh(a * x) / x` at `x = 1.5`, `a = 0.7`. The chain rule by hand, a finite difference, and
//! reverse-mode differentiation agree.
//!
//! Run it: `cargo run --release --example 01_derivative`

use ferrotape::{Graph, Params, Tape, Tensor};

fn main() {
    let (x, a) = (1.5f32, 0.7f32);

    // By hand. With u = a x and t = tanh u:  dt/du = 1 - t^2, so
    //   dy/dx = (a (1 - t^2) x - t) / x^2
    //   dy/da = 1 - t^2
    let t = (a * x).tanh();
    let by_hand = [(a * (1.0 - t * t) * x - t) / (x * x), 1.0 - t * t];

    // By moving the inputs a little.
    let y = |x: f64, a: f64| (a * x).tanh() / x;
    let (x64, a64, h) = (f64::from(x), f64::from(a), 1e-5);
    let by_difference = [
        (y(x64 + h, a64) - y(x64 - h, a64)) / (2.0 * h),
        (y(x64, a64 + h) - y(x64, a64 - h)) / (2.0 * h),
    ];

    // By the tape: run forward, then walk back through the record.
    let params = Params::new(0); // no weights in this example
    let mut tape = Tape::new();
    let (x, a) = (Tensor::scalar(x), Tensor::scalar(a));
    let mut g = Graph::new(&mut tape, &params);
    let x = g.leaf(&x);
    let a = g.leaf(&a);
    let u = g.mul(a, x);
    let t = g.tanh(u);
    let y = g.div(t, x);
    println!("the record:\n{}", g.listing());
    println!("y = {}", g.item(y));
    let gradients = g.backward(y);

    for (name, var, i) in [("dy/dx", x, 0), ("dy/da", a, 1)] {
        let by_tape = gradients.wrt(var).expect("y depends on it")[0];
        println!(
            "{name}   by hand {:.6}   by difference {:.6}   by the tape {by_tape:.6}",
            by_hand[i], by_difference[i]
        );
        assert!((by_tape - by_hand[i]).abs() < 1e-6);
    }
}
