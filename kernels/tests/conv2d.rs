//! Convolutions against their f64 twins, over a grid of shapes, on every instruction set.

#![allow(clippy::type_complexity)] // closures that take closures

mod common;

use common::*;
use ferrotape_kernels::{
    Write,
    conv2d::{self, Conv2dDims, without_winograd},
    isa::Isa,
    par::Work,
    reference::conv2d as twin,
};

/// A random corner of the grid, small enough for the naive twin.
fn shape(random: &mut Random) -> Conv2dDims {
    loop {
        let channels = [1, 2, 3, 7, 8, 16, 17];
        let sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 28];
        let kernels = [1, 2, 3, 5, 7];
        let mut pair = |from: &[usize]| [random.pick(from), random.pick(from)];
        let [h, w] = pair(&sizes);
        let [c, mut o] = pair(&channels);
        let mut kernel = pair(&kernels);
        let [stride, padding, dilation] =
            [pair(&[1, 1, 2, 3]), pair(&[0, 1, 2, 3]), pair(&[1, 1, 2])];
        let n = random.pick(&[0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        if random.pick(&[true, false]) {
            kernel[1] = kernel[0];
        }
        let groups = random.pick(&[1, 1, c]);
        if groups > 1 {
            o = groups * random.pick(&[1, 1, 2]);
        }
        let d = Conv2dDims { n, c, h, w, o, kernel, stride, padding, dilation, groups };
        // Empty outputs are cases, too, but not half of them.
        let enough = d.y_len() > 0 || random.pick(&[true, false, false, false]);
        if enough && d.flops() < 2_000_000 {
            return d;
        }
    }
}

struct Case {
    d: Conv2dDims,
    x: Guarded,
    w: Guarded,
    dy: Guarded,
    bias: Option<Guarded>,
}

impl Case {
    fn new(random: &mut Random, d: Conv2dDims) -> Self {
        let mut guarded = |len| Guarded::new(&random.floats(len));
        let [x, w, dy, bias] = [d.x_len(), d.w_len(), d.y_len(), d.o].map(&mut guarded);
        let bias = random.pick(&[true, false]).then_some(bias);
        Self { d, x, w, dy, bias }
    }

    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Every kernel once, by name: output length, terms in a sum, the kernel, the twin.
    fn each(
        &self,
        mut f: impl FnMut(
            &str,
            usize,
            usize,
            &(dyn Fn(&mut [f32], Write) + Sync),
            &dyn Fn(&mut [f64], &dyn Fn(&[f32]) -> Vec<f64>),
        ),
    ) {
        let d = &self.d;
        let (x, w, dy) = (&self.x, &self.w, &self.dy);
        let taps = d.kernel[0] * d.kernel[1];
        let pixels = d.n * d.oh() * d.ow();
        f(
            "forward",
            dy.len(),
            d.c / d.groups * taps + 1,
            &|y, _| conv2d::forward(y, x, w, self.bias(), d),
            &|y, f| {
                twin::forward(y, &f(x), &f(w), self.bias().map(f).as_deref(), d);
            },
        );
        f(
            "backward_input",
            x.len(),
            d.o / d.groups * taps,
            &|dx, write| conv2d::backward_input(dx, write, dy, w, d),
            &|dx, f| {
                twin::backward_input(dx, &f(dy), &f(w), d);
            },
        );
        f(
            "backward_weight",
            w.len(),
            pixels,
            &|dw, write| conv2d::backward_weight(dw, write, dy, x, d),
            &|dw, f| {
                twin::backward_weight(dw, &f(dy), &f(x), d);
            },
        );
        f(
            "backward_bias",
            d.o,
            pixels,
            &|db, write| conv2d::backward_bias(db, write, dy, d),
            &|db, f| {
                twin::backward_bias(db, &f(dy), d);
            },
        );
    }

    fn check(&self) {
        self.each(|op, len, terms, kernel, twin| {
            let (mut value, mut magnitude) = (vec![0.0; len], vec![0.0; len]);
            twin(&mut value, &f64s);
            twin(&mut magnitude, &abs);
            let run = |isa: Isa, how: &str| {
                let what = format!("conv2d::{op} {:?} on {}{how}", self.d, isa.name());
                let mut out = Guarded::output(len);
                kernel(&mut out, Write::Set);
                out.check(&what);
                assert_close(&what, &out, &value, &magnitude, terms);
                if op != "forward" {
                    kernel(&mut out, Write::Add);
                    out.check(&what);
                    let twice = |x: &[f64]| x.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
                    assert_close(&what, &out, &twice(&value), &twice(&magnitude), terms + 1);
                }
            };
            on_every_isa(|isa| {
                run(isa, "");
                if self.d.kernel == [3, 3] {
                    without_winograd(|| run(isa, ", direct"));
                }
            });
        });
    }
}

fn dims(
    n: usize,
    c: usize,
    [h, w]: [usize; 2],
    o: usize,
    k: usize,
    stride: usize,
    padding: usize,
) -> Conv2dDims {
    Conv2dDims {
        n,
        c,
        h,
        w,
        o,
        kernel: [k; 2],
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [1; 2],
        groups: 1,
    }
}

/// Few channels of as many small images as fill one to five vectors, or nearly.
fn batch(random: &mut Random) -> Conv2dDims {
    let mut pick = |from: &[usize]| random.pick(from);
    let size = [0, 1].map(|_| pick(&[1, 2, 3, 5, 6, 7, 8, 9, 11, 14]));
    let kernel = [0, 1].map(|_| pick(&[1, 2, 3, 5, 7]));
    let padding = [0, 1].map(|axis| {
        let least = kernel[axis].saturating_sub(size[axis]).div_ceil(2);
        pick(&[0, 1, 2, 3]).max(least)
    });
    let [c, o] = [0, 1].map(|_| pick(&[1, 2, 3, 4, 5, 6, 8, 9, 13]));
    let groups = pick(&[1, 1, 2]);
    let n = pick(&[15, 16, 16, 30, 32, 33, 48, 79]);
    Conv2dDims { kernel, padding, groups, ..dims(n, c * groups, size, o * groups, 1, 1, 0) }
}

/// Channels and pixels of which Winograd's algorithm wants no more, mostly.
fn winograd(random: &mut Random) -> Conv2dDims {
    let mut pick = |from: &[usize]| random.pick(from);
    let size = [0, 1].map(|_| pick(&[3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 28]));
    let stride = pick(&[1, 2]);
    let [c, o] = [0, 1].map(|_| pick(if stride == 1 { &[16, 17, 33] } else { &[64, 65] }));
    let groups = pick(&[1, 1, 2]);
    let padding = [0, 1].map(|_| pick(&[0, 1, 2, 3]));
    let d = Conv2dDims { padding, groups, ..dims(1, c * groups, size, o * groups, 3, stride, 0) };
    let n = 128usize.div_ceil(d.oh() * d.ow()) + pick(&[0, 1]);
    Conv2dDims { n: n.min(8), ..d }
}

#[test]
fn every_kernel_on_the_grid() {
    let mut random = Random(1);
    for _ in 0..4000 {
        let d = shape(&mut random);
        Case::new(&mut random, d).check();
    }
}

/// 3 x 3 kernels of stride 1 have engines of their own, which the grid rarely meets.
#[test]
fn every_kernel_on_squares() {
    let mut random = Random(6);
    let sizes = [[1, 1], [1, 3], [3, 1], [3, 3], [5, 15], [7, 16], [3, 17], [9, 33], [20, 31]];
    let channels =
        [[1, 1, 1], [5, 1, 1], [1, 5, 1], [4, 4, 4], [6, 3, 3], [3, 12, 3], [0, 1, 1], [0, 4, 4]];
    for padding in [[0, 0], [1, 1], [2, 2], [3, 3], [0, 2], [5, 4]] {
        for size in sizes {
            for [c, o, groups] in channels {
                for n in [0, 1, 3] {
                    let d = Conv2dDims { groups, padding, ..dims(n, c, size, o, 3, 1, 0) };
                    Case::new(&mut random, d).check();
                }
            }
        }
    }
}

/// Winograd's algorithm, which wants many channels and pixels, at all edges.
#[test]
fn every_kernel_with_winograd() {
    let mut random = Random(7);
    for _ in 0..120 {
        let d = winograd(&mut random);
        Case::new(&mut random, d).check();
    }
}

/// Lanes of images, which want a batch of small ones, at all edges.
#[test]
fn every_kernel_on_batches() {
    let mut random = Random(8);
    for _ in 0..200 {
        let d = batch(&mut random);
        Case::new(&mut random, d).check();
    }
}

/// The layers of the networks we train and measure, with fewer images and channels.
#[test]
fn every_kernel_on_real_layers() {
    let mut random = Random(2);
    let depthwise = Conv2dDims { groups: 8, ..dims(2, 8, [28, 28], 8, 3, 1, 1) };
    let grouped = Conv2dDims { groups: 2, ..dims(2, 16, [9, 9], 40, 3, 1, 1) };
    for d in [
        dims(3, 3, [32, 32], 6, 5, 1, 0),
        dims(2, 1, [28, 28], 32, 3, 1, 1),
        dims(1, 64, [14, 14], 16, 3, 1, 1),
        dims(7, 70, [7, 7], 33, 3, 1, 1),
        dims(2, 24, [20, 20], 50, 1, 1, 0),
        dims(1, 3, [56, 56], 16, 7, 2, 3),
        dims(2, 16, [28, 28], 24, 3, 2, 1),
        dims(3, 6, [14, 14], 16, 5, 1, 0),
        depthwise,
        grouped,
    ] {
        Case::new(&mut random, d).check();
    }
}

/// What lets Winograd's products be the default: against f64, their root mean square error is no
/// larger than that of the direct loops.
#[test]
fn winograd_is_as_exact_as_the_direct_loops() {
    let mut random = Random(5);
    let sizes = [(2, 16, 14), (2, 48, 9), (2, 64, 14), (4, 128, 6), (8, 16, 4), (8, 16, 28)]
        .map(|size| (size, 1));
    let halving = [(2, 64, 28), (3, 130, 13), (8, 64, 8)].map(|size| (size, 2));
    for ((n, channels, side), stride) in sizes.into_iter().chain(halving) {
        let d = dims(n, channels, [side, side], channels, 3, stride, 1);
        let case = Case { bias: None, ..Case::new(&mut random, d) };
        case.each(|op, len, _, kernel, twin| {
            if op == "backward_bias" {
                return;
            }
            let mut exact = vec![0.0; len];
            twin(&mut exact, &f64s);
            on_every_isa(|isa| {
                let error = || {
                    let mut out = vec![0.0; len];
                    kernel(&mut out, Write::Set);
                    let squares = out.iter().zip(&exact).map(|(&a, b)| (f64::from(a) - b).powi(2));
                    (squares.sum::<f64>() / len as f64).sqrt()
                };
                let (winograd, direct) = (error(), without_winograd(error));
                assert!(winograd != direct, "{d:?}: Winograd's products were not used");
                assert!(
                    winograd <= direct,
                    "conv2d::{op} {d:?} on {}: rms error {winograd:e}, direct {direct:e}",
                    isa.name()
                );
            });
        });
    }
}

/// `<conv(x, w), dy> = <x, backward_input(dy, w)> = <w, backward_weight(dy, x)>`: the kernels agree
/// with each other.
#[test]
fn forward_and_backward_are_adjoint() {
    let mut random = Random(3);
    let shapes: [fn(&mut Random) -> Conv2dDims; 3] = [shape, batch, winograd];
    for (shape, count) in shapes.into_iter().zip([200, 40, 40]) {
        for _ in 0..count {
            let d = shape(&mut random);
            check_adjoint(Case { bias: None, ..Case::new(&mut random, d) });
        }
    }
}

fn check_adjoint(case: Case) {
    let Case { d, x, w, dy, .. } = &case;
    on_every_isa(|isa| {
        let mut sides = vec![];
        case.each(|op, len, _, kernel, _| {
            let mut out = vec![0.0; len];
            kernel(&mut out, Write::Set);
            match op {
                "forward" => sides.push(inner(&out, dy)),
                "backward_input" => sides.push(inner(&out, x)),
                "backward_weight" => sides.push(inner(&out, w)),
                _ => {}
            }
        });
        let scale = (d.flops() as f64).sqrt() + 1.0;
        assert!(
            (sides[0] - sides[1]).abs() < 1e-5 * scale
                && (sides[0] - sides[2]).abs() < 1e-5 * scale,
            "{d:?} on {}: {sides:?}",
            isa.name()
        );
    });
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let mut random = Random(4);
    let depthwise = Conv2dDims { groups: 24, ..dims(7, 24, [28, 28], 24, 3, 1, 1) };
    for d in [
        dims(3, 16, [14, 14], 40, 3, 1, 1),
        dims(1, 16, [17, 19], 96, 3, 1, 1),
        dims(17, 3, [32, 32], 6, 5, 1, 0),
        dims(45, 6, [14, 14], 16, 5, 1, 0),
        dims(32, 8, [8, 8], 16, 3, 1, 1),
        dims(5, 17, [15, 15], 24, 3, 2, 1),
        dims(5, 32, [16, 16], 48, 1, 1, 0),
        dims(7, 24, [28, 28], 1, 3, 1, 1),
        dims(2, 64, [17, 17], 64, 3, 2, 1),
        Conv2dDims { dilation: [2; 2], groups: 2, ..dims(7, 24, [20, 20], 40, 3, 1, 1) },
        depthwise,
    ] {
        Case::new(&mut random, d).each(|op, len, _, kernel, _| {
            if op == "backward_bias" {
                return;
            }
            let work = Work::MultiplyAdds(d.flops() / 2);
            let same_bits = || {
                assert_same_bits(&format!("conv2d::{op} {d:?}"), work, || {
                    let mut out = vec![0.0; len];
                    kernel(&mut out, Write::Set);
                    out
                });
            };
            same_bits();
            without_winograd(same_bits);
        });
    }
    let d = dims(6, 1, [28, 28], 33, 3, 1, 1);
    let dy = random.floats(d.y_len());
    assert_same_bits("conv2d::backward_bias", Work::Elements(dy.len()), || {
        let mut db = vec![0.0; d.o];
        conv2d::backward_bias(&mut db, Write::Set, &dy, &d);
        db
    });
}

#[test]
#[should_panic(expected = "conv2d::forward: w has 17 elements")]
fn a_wrong_length_is_named() {
    let d = dims(1, 1, [5, 5], 2, 3, 1, 0);
    conv2d::forward(&mut [0.0; 18], &[0.0; 25], &[0.0; 17], None, &d);
}

/// Sizes whose product or sum wraps around to the length of an empty slice.
#[test]
fn sizes_beyond_all_memory_are_refused() {
    let (half, d) = (1 << (usize::BITS - 1), dims(2, 2, [3, 3], 2, 3, 1, 1));
    for d in [
        Conv2dDims { n: half, ..d },
        Conv2dDims { c: half, o: half, groups: half, ..d },
        Conv2dDims { padding: [half; 2], ..d },
        Conv2dDims { kernel: [half + 1; 2], ..d },
        Conv2dDims { dilation: [half; 2], ..d },
        Conv2dDims { stride: [usize::MAX; 2], ..d },
        Conv2dDims { n: 1 << 30, c: 1 << 30, h: 1 << 30, w: 1 << 30, ..d },
        Conv2dDims { c: 1 << 30, o: 1 << 30, ..d },
    ] {
        let kernels: [&dyn Fn(); 4] = [
            &|| conv2d::forward(&mut [], &[], &[], None, &d),
            &|| conv2d::backward_input(&mut [], Write::Set, &[], &[], &d),
            &|| conv2d::backward_weight(&mut [], Write::Set, &[], &[], &d),
            &|| conv2d::backward_bias(&mut [], Write::Set, &[], &d),
        ];
        for kernel in kernels {
            let run = std::panic::AssertUnwindSafe(kernel);
            let panic = std::panic::catch_unwind(run).expect_err(&format!("{d:?} was accepted"));
            let panic = panic.downcast::<String>().expect("a text");
            let known = ["beyond 2^31 - 1", "more elements than", "at most 2^32 - 1 work"];
            assert!(known.iter().any(|text| panic.contains(text)), "{d:?}: {panic}");
        }
    }
}
