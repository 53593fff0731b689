//! Elementwise kernels: exact ones exactly, the others within their documented error in units of
//! the last place, PyTorch's rules for NaN, derivatives against the twin's formulas.

mod common;

use common::*;
use ferrotape_kernels::{
    Write, elementwise::*, isa::Isa, par::Work, reference::elementwise as naive,
};

/// Lengths around every vector length.
const LENGTHS: [usize; 11] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 100];

/// A dense walk over the floats of both signs, denormals included, and the special values.
fn all_kinds_of_floats() -> Guarded {
    let bits = (0..1 << 21).map(|i: u32| f32::from_bits((i * 1021 % 0x7f80_0000) | (i << 31)));
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, 1.0];
    bits.chain(special).chain(random(1 << 18, 1).iter().map(|v| v * 20.0)).collect()
}

/// Checks a function of one number within `bound` ulp; results below `floor` in size may be lost.
fn check(name: &str, bound: f64, floor: f64, f: fn(&mut [f32], &[f32]), exact: fn(f64) -> f64) {
    let x = all_kinds_of_floats();
    on_every_isa(|_| {
        let y = output(x.len(), |y| f(y, &x));
        let errors = x.iter().zip(&y).map(|(&x, &y)| {
            let expected = exact(f64::from(x));
            let lost = (f64::from(y) - expected).abs() <= floor;
            (if lost { 0.0 } else { ulps(y, expected) }, x)
        });
        let (worst, at) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        println!("{}: {name} {worst:.2} ulp at {at}", Isa::current().name());
        // The portable path rounds twice where others have FMA.
        let bound = if Isa::current().name() == "scalar" { 1.5 * bound } else { bound };
        assert!(worst <= bound, "{name}({at}) is {worst} ulp off, more than {bound}");
    });
}

#[test]
fn exp_log_and_their_relatives_keep_their_error_bounds() {
    check("exp", 1.0, 0.0, exp_forward, f64::exp);
    check("log", 1.0, 0.0, log_forward, f64::ln);
    check("tanh", 2.0, 0.0, tanh_forward, f64::tanh);
    check("sigmoid", 3.0, 1e-38, sigmoid_forward, naive::sigmoid);
    check("relu", 0.0, 0.0, relu_forward, naive::relu);
}

#[test]
fn gelu_keeps_its_relative_precision_in_the_tail() {
    // Beyond 4 the portable path loses digits of exp(-x^2/2); the result is tiny there.
    let x: Guarded = random(1 << 18, 2).iter().map(|v| v * 13.0).collect();
    on_every_isa(|_| {
        let y = output(x.len(), |y| gelu_forward(y, &x));
        let dy = vec![1.0; x.len()];
        let dx = both_writes(x.len(), |dx, write| gelu_backward(dx, write, &dy, &x));
        let fused = Isa::current().name() != "scalar";
        for ((&x, &y), &dx) in x.iter().zip(&y).zip(&dx) {
            let expected = naive::gelu(f64::from(x));
            let bound = if fused { 6.0 } else { 6.0 + f64::from(x * x) };
            let off = ulps(y, expected);
            assert!(off <= bound || expected.abs() < 1e-37, "gelu({x}) = {y} is {off} ulp off");
            let slope = naive::gelu_derivative(f64::from(x));
            assert!((f64::from(dx) - slope).abs() <= 4e-7, "gelu'({x}) = {dx}, not {slope}");
        }
    });
}

#[test]
fn forward_passes_of_any_length_stay_in_their_buffers() {
    type Case = (fn(&mut [f32], &[f32]), fn(f64) -> f64);
    let cases: [Case; 9] = [
        (relu_forward, naive::relu),
        (|y, x| leaky_relu_forward(y, x, 0.125), |x| naive::leaky_relu(x, 0.125)),
        (gelu_forward, naive::gelu),
        (sigmoid_forward, naive::sigmoid),
        (tanh_forward, f64::tanh),
        (exp_forward, f64::exp),
        (log_forward, f64::ln),
        (neg_forward, |x| -x),
        (|y, x| scale(y, x, -1.5), |x| -1.5 * x),
    ];
    on_every_isa(|_| {
        for (kernel, exact) in cases {
            for len in LENGTHS {
                let mut x = random(len, len as u64);
                if len > 4 {
                    x[len - 2] = f32::NAN;
                }
                let expected: Vec<_> = f64s(&x).into_iter().map(exact).collect();
                assert_near(&output(len, |y| kernel(y, &x)), &expected, 1e-7, 4e-7);
            }
        }
    });
}

#[test]
fn derivatives_follow_their_formulas() {
    type Kernel = fn(&mut [f32], Write, &[f32], &[f32]);
    type Formula = fn(f64, f64) -> f64;
    let cases: [(Kernel, Formula); 11] = [
        (relu_backward, |dy, y| if y <= 0.0 { 0.0 } else { dy }),
        (
            |dx, write, dy, y| leaky_relu_backward(dx, write, dy, y, 0.125),
            |dy, y| if y > 0.0 { dy } else { 0.125 * dy },
        ),
        (gelu_backward, |dy, x| dy * naive::gelu_derivative(x)),
        (sigmoid_backward, |dy, y| dy * y * (1.0 - y)),
        (tanh_backward, |dy, y| dy * (1.0 - y * y)),
        (exp_backward, |dy, y| dy * y),
        (log_backward, |dy, x| dy / x),
        (mul_backward, |dy, b| dy * b),
        (div_backward_a, |dy, b| dy / b),
        (|dx, write, dy, _| neg_backward(dx, write, dy), |dy, _| -dy),
        (|dx, write, dy, _| add_scaled(dx, write, dy, 2.5), |dy, _| 2.5 * dy),
    ];
    on_every_isa(|_| {
        for (i, (kernel, exact)) in cases.into_iter().enumerate() {
            for len in LENGTHS {
                let dy = random(len, 3);
                let mut saved = random(len, 4);
                if len > 4 {
                    saved[1] = 0.0;
                    saved[len - 2] = f32::NAN;
                }
                let expected: Vec<_> =
                    f64s(&dy).into_iter().zip(f64s(&saved)).map(|(dy, s)| exact(dy, s)).collect();
                let dx = both_writes(len, |dx, write| kernel(dx, write, &dy, &saved));
                println!("case {i} of length {len}");
                assert_near(&dx, &expected, 3e-7, 4e-7);
            }
        }
    });
}

#[test]
fn arithmetic_is_exact() {
    on_every_isa(|_| {
        for len in LENGTHS {
            let (a, b, c) = (random(len, 5), random(len, 6), random(len, 7));
            let expect = |f: fn(f32, f32) -> f32| -> Vec<f32> {
                a.iter().zip(&*b).map(|(&a, &b)| f(a, b)).collect()
            };
            assert_eq!(output(len, |y| add(y, &a, &b)), expect(|a, b| a + b));
            assert_eq!(output(len, |y| sub(y, &a, &b)), expect(|a, b| a - b));
            assert_eq!(output(len, |y| mul(y, &a, &b)), expect(|a, b| a * b));
            assert_eq!(output(len, |y| div(y, &a, &b)), expect(|a, b| a / b));
            let db = both_writes(len, |db, write| div_backward_b(db, write, &a, &b, &c));
            let expected: Vec<_> = (0..len).map(|i| -(a[i] * c[i]) / b[i]).collect();
            assert_eq!(db, expected);
        }
    });
}

#[test]
fn outputs_too_large_for_the_caches_are_written_to_the_last_element() {
    let len = (1 << 23) + 13;
    let x = random(len, 9);
    on_every_isa(|_| {
        let y = output(len, |y| neg_forward(y, &x));
        assert!(x.iter().zip(&y).all(|(x, y)| *y == -x));
    });
}

#[test]
fn thread_count_does_not_change_the_bits() {
    let x = random(200_001, 8);
    assert_same_bits("elementwise", Work::Elements(2 * x.len()), || {
        let mut y = vec![0.0; x.len()];
        gelu_forward(&mut y, &x);
        let mut dx = vec![0.5; x.len()];
        gelu_backward(&mut dx, Write::Add, &y, &x);
        dx
    });
}

#[test]
#[should_panic(expected = "add: inputs of [3, 2] values for an output of 3")]
fn lengths_must_agree() {
    add(&mut [0.0; 3], &[0.0; 3], &[0.0; 2]);
}
