//! Pooling against its naive twin over a grid of shapes, PyTorch's rules for ties and NaN, what is
//! refused, thread counts.

mod common;

use common::*;
use ferrotape_kernels::{
    Write,
    par::Work,
    pool2d::{self, Pool2dDims},
    reference::pool2d as naive,
};

const SHAPES: usize = 3000;

/// A random corner of the grid, possible or not.
fn corner(random: &mut Random) -> Pool2dDims {
    // The last two give whole vectors of AVX-512 and a rest, also with a stride.
    let sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 28, 34, 70];
    let mut pair = |from: &[usize]| [random.pick(from), random.pick(from)];
    let ([h, w], mut kernel) = (pair(&sizes), pair(&[1, 2, 3, 5, 7]));
    let [stride, padding] = [pair(&[1, 2, 3]), pair(&[0, 1, 2, 3])];
    if random.pick(&[true, false]) {
        kernel[1] = kernel[0];
    }
    let n = random.pick(&[0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    let c = random.pick(&[1, 2, 3, 7, 8, 16, 17]);
    Pool2dDims { n, c, h, w, kernel, stride, padding }
}

/// Why a shape must be refused, if it must: the first reason, rows before columns.
fn refusal(d: &Pool2dDims) -> Option<&'static str> {
    (0..2).find_map(|axis| {
        let (size, kernel, padding) = ([d.h, d.w][axis], d.kernel[axis], d.padding[axis]);
        match () {
            _ if 2 * padding > kernel => Some("padding must be at most half"),
            _ if size + 2 * padding < kernel => Some("window is larger"),
            _ => None,
        }
    })
}

/// Windows of 2 x 2 next to each other, which have a path of their own.
fn side_by_side(d: Pool2dDims) -> Pool2dDims {
    Pool2dDims { kernel: [2; 2], stride: [2; 2], padding: [0; 2], ..d }
}

/// A random possible shape, small enough for the twin.
fn shape(random: &mut Random) -> Pool2dDims {
    loop {
        let mut d = corner(random);
        if random.pick(&[true, false, false]) {
            d = side_by_side(d);
        }
        if refusal(&d).is_none() && d.y_len() * d.kernel[0] * d.kernel[1] < 100_000 {
            return d;
        }
    }
}

/// NaN where no window looks: it must not get out.
fn hide_nan(x: &mut [f32], d: &Pool2dDims) {
    let seen = naive::avg_backward(&vec![1.0; d.y_len()], d);
    for (x, _) in x.iter_mut().zip(seen).filter(|&(_, seen)| seen == 0.0) {
        *x = f32::NAN;
    }
}

/// A backward kernel on every instruction set: it sets, then adds.
fn check_backward(
    op: &str,
    d: &Pool2dDims,
    dy: &[f32],
    terms: usize,
    kernel: impl Fn(&mut [f32], Write, &[f32]),
    twin: impl Fn(&[f64]) -> Vec<f64>,
) {
    let dy = Guarded::new(dy);
    let (value, magnitude) = (twin(&f64s(&dy)), twin(&abs(&dy)));
    let twice = |x: &[f64]| x.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
    on_every_isa(|isa| {
        let what = format!("{op} {d:?} on {}", isa.name());
        let mut dx = Guarded::output(d.x_len());
        kernel(&mut dx, Write::Set, &dy);
        dx.check(&what);
        assert_close(&what, &dx, &value, &magnitude, terms);
        kernel(&mut dx, Write::Add, &dy);
        dx.check(&what);
        assert_close(&what, &dx, &twice(&value), &twice(&magnitude), terms + 1);
    });
}

/// Values and winners exactly, NaN and infinities too; then the way back to the winners.
fn check_max(x: &[f32], dy: &[f32], d: &Pool2dDims) {
    let x = Guarded::new(x);
    let (expected, expected_codes) = naive::max_forward(&f64s(&x), d);
    on_every_isa(|isa| {
        let what = format!("max_pool2d {d:?} on {}", isa.name());
        let [mut y, mut alone] = [(); 2].map(|()| Guarded::output(d.y_len()));
        let codes = guarded(&vec![0xee; d.y_len()], 0xee, |codes| {
            pool2d::max_forward(&mut y, Some(codes), &x, d);
        });
        pool2d::max_forward(&mut alone, None, &x, d);
        for y in [y, alone] {
            y.check(&what);
            let same = |(&y, &e): (&f32, &f64)| f64::from(y) == e || y.is_nan() && e.is_nan();
            let wrong = y.iter().zip(&expected).position(|pair| !same(pair));
            assert!(wrong.is_none(), "{what}: another value at {wrong:?}");
        }
        assert_eq!(codes, expected_codes, "{what}");
    });
    let canaries = [0xff; 64];
    let around = [&canaries, &expected_codes[..], &canaries].concat();
    let codes = &around[canaries.len()..][..d.y_len()];
    check_backward(
        "max_pool2d_backward",
        d,
        dy,
        d.kernel[0] * d.kernel[1],
        |dx, write, dy| pool2d::max_backward(dx, write, dy, codes, d),
        |dy| naive::max_backward(dy, &expected_codes, d),
    );
}

fn check_avg(x: &[f32], dy: &[f32], d: &Pool2dDims) {
    let x = Guarded::new(x);
    let (value, magnitude) = (naive::avg_forward(&f64s(&x), d), naive::avg_forward(&abs(&x), d));
    let area = d.kernel[0] * d.kernel[1];
    on_every_isa(|isa| {
        let what = format!("avg_pool2d {d:?} on {}", isa.name());
        let mut y = Guarded::output(d.y_len());
        pool2d::avg_forward(&mut y, &x, d);
        y.check(&what);
        assert_close(&what, &y, &value, &magnitude, area);
    });
    check_backward(
        "avg_pool2d_backward",
        d,
        dy,
        area,
        |dx, write, dy| pool2d::avg_backward(dx, write, dy, d),
        |dy| naive::avg_backward(dy, d),
    );
}

/// Of whole planes, which are windows of their own size; `dy` has a number for each plane.
fn check_global_avg(x: &[f32], dy: &[f32], [n, c, h, w]: [usize; 4]) {
    let d = Pool2dDims { n, c, h, w, kernel: [h, w], stride: [1; 2], padding: [0; 2] };
    let (rows, hw) = (n * c, h * w);
    let x = Guarded::new(x);
    let (value, magnitude) = (naive::avg_forward(&f64s(&x), &d), naive::avg_forward(&abs(&x), &d));
    on_every_isa(|isa| {
        let what = format!("global_avg_pool2d {d:?} on {}", isa.name());
        let mut y = Guarded::output(rows);
        pool2d::global_avg_forward(&mut y, &x, rows, hw);
        y.check(&what);
        // The totals of short runs are summed in f64.
        assert_close(&what, &y, &value, &magnitude, hw.min(128));
    });
    check_backward(
        "global_avg_pool2d_backward",
        &d,
        dy,
        1,
        |dx, write, dy| pool2d::global_avg_backward(dx, write, dy, rows, hw),
        |dy| naive::avg_backward(dy, &d),
    );
}

#[test]
fn every_kernel_on_the_grid() {
    let mut random = Random(1);
    let (mut filled, mut pairs) = (0, 0);
    for _ in 0..SHAPES {
        let d = shape(&mut random);
        filled += usize::from(d.y_len() > 0);
        pairs += usize::from(d == side_by_side(d));
        let (mut x, dy) = (random.floats(d.x_len()), random.floats(d.y_len()));
        check_global_avg(&x, &random.floats(d.n * d.c), [d.n, d.c, d.h, d.w]);
        hide_nan(&mut x, &d);
        check_avg(&x, &dy, &d);
        // Few distinct values: ties everywhere.
        let ties: Vec<f32> = x.iter().map(|v| (v * 4.0).round()).collect();
        check_max(&ties, &dy, &d);
    }
    assert!(filled > SHAPES * 4 / 5, "only {filled} of {SHAPES} shapes have an output");
    assert!(pairs > SHAPES / 4, "only {pairs} of {SHAPES} shapes are 2 x 2 and side by side");
}

#[test]
fn max_pool_propagates_nan_and_handles_infinities() {
    let mut random = Random(2);
    for _ in 0..SHAPES {
        let d = shape(&mut random);
        let special = |v: f32| match (v * 8.0) as i32 {
            3 | -3 => f32::NAN,
            1 => f32::INFINITY,
            -8..=-4 => f32::NEG_INFINITY,
            _ => v,
        };
        let x: Guarded = random.floats(d.x_len()).iter().copied().map(special).collect();
        check_max(&x, &random.floats(d.y_len()), &d);
    }
}

#[test]
fn global_average_of_large_planes() {
    let mut random = Random(3);
    for plane in [[1, 3, 20, 15], [1, 7, 1, 1023], [2, 1, 32, 32], [1, 2, 41, 25], [2, 1, 100, 200]]
    {
        let [n, c, h, w] = plane;
        check_global_avg(&random.floats(n * c * h * w), &random.floats(n * c), plane);
    }
}

/// Every kernel's complaint about the dimensions, which comes before that about lengths.
fn refusals(d: &Pool2dDims) -> Vec<String> {
    type Kernel<'a> = &'a dyn Fn(&mut [f32]);
    let x = vec![0.0; d.x_len()];
    let kernels: [Kernel; 4] = [
        &|_| pool2d::max_forward(&mut [], None, &x, d),
        &|dx| pool2d::max_backward(dx, Write::Set, &[], &[], d),
        &|_| pool2d::avg_forward(&mut [], &x, d),
        &|dx| pool2d::avg_backward(dx, Write::Set, &[], d),
    ];
    let complaint = |kernel: Kernel| {
        let run = std::panic::AssertUnwindSafe(|| kernel(&mut x.clone()));
        let panic = std::panic::catch_unwind(run).expect_err(&format!("{d:?} was accepted"));
        *panic.downcast::<String>().expect("a text")
    };
    kernels.into_iter().map(complaint).collect()
}

#[test]
fn impossible_shapes_are_refused() {
    let mut random = Random(4);
    let impossible = std::iter::repeat_with(|| corner(&mut random))
        .filter_map(|d| refusal(&d).map(|reason| (d, reason)));
    let d = Pool2dDims { n: 1, c: 1, h: 4, w: 4, kernel: [2; 2], stride: [2; 2], padding: [0; 2] };
    let zeros = [
        (Pool2dDims { kernel: [0, 2], ..d }, "kernel and stride must be positive"),
        (Pool2dDims { stride: [2, 0], ..d }, "kernel and stride must be positive"),
        (Pool2dDims { w: 0, kernel: [2, 1], ..d }, "window is larger"),
        (Pool2dDims { h: 0, padding: [1, 1], ..d }, "window is larger"),
    ];
    for (d, reason) in impossible.take(200).chain(zeros) {
        for found in refusals(&d) {
            assert!(found.contains(reason), "{d:?}: {found:?} does not say {reason:?}");
        }
    }
}

/// A winner's place in its window is a byte.
#[test]
#[should_panic(expected = "a window of 272 places does not fit a byte")]
fn a_window_of_too_many_places_has_no_codes() {
    let d =
        Pool2dDims { n: 1, c: 1, h: 20, w: 20, kernel: [16, 17], stride: [1; 2], padding: [0; 2] };
    let (mut y, x) = (vec![0.0; d.y_len()], vec![1.0; d.x_len()]);
    pool2d::max_forward(&mut y, None, &x, &d);
    assert!(y.iter().all(|&y| y == 1.0));
    pool2d::max_forward(&mut y, Some(&mut vec![0; d.y_len()]), &x, &d);
}

#[test]
fn thread_count_does_not_change_the_bits() {
    for kernel in [[2, 2], [3, 3]] {
        let d = Pool2dDims { n: 3, c: 11, h: 64, w: 70, kernel, stride: [2, 2], padding: [0, 0] };
        let x = random(d.x_len(), 1);
        assert_same_bits("pool2d", Work::Elements(x.len()), || {
            let mut y = vec![0.0; d.y_len()];
            let mut codes = vec![0; d.y_len()];
            let mut dx = vec![0.0; d.x_len()];
            pool2d::max_forward(&mut y, Some(&mut codes), &x, &d);
            pool2d::max_backward(&mut dx, Write::Set, &y, &codes, &d);
            pool2d::avg_backward(&mut dx, Write::Add, &y, &d);
            pool2d::avg_forward(&mut y, &dx, &d);
            let mut planes = vec![0.0; d.n * d.c];
            pool2d::global_avg_forward(&mut planes, &dx, d.n * d.c, d.h * d.w);
            pool2d::global_avg_backward(&mut dx, Write::Add, &planes, d.n * d.c, d.h * d.w);
            [y, dx, planes].concat()
        });
    }
}

#[test]
#[should_panic(expected = "max_pool2d: y has 3 values")]
fn a_wrong_length_is_named() {
    let d = Pool2dDims { n: 1, c: 1, h: 4, w: 4, kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
    pool2d::max_forward(&mut [0.0; 3], None, &[0.0; 16], &d);
}
