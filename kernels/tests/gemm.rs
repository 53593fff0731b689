//! Matrix products and linear layers against their f64 twins, on every instruction set.

#![allow(clippy::type_complexity)] // closures that take closures

mod common;

use common::*;
use ferrotape_kernels::{
    Write,
    gemm::{Mat, gemm},
    linear::{self, LinearDims},
    par::Work,
    reference,
};

/// A `rows x cols` matrix stored in one of four ways: row- or column-major, tight or with gaps (of
/// NaN).
fn store(random: &mut Random, values: &[f32], rows: usize, cols: usize) -> (Guarded, usize, usize) {
    let gap = random.pick(&[0, 0, 3]);
    let (row, col) = if random.pick(&[true, false]) { (cols + gap, 1) } else { (1, rows + gap) };
    let len = if rows * cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 };
    let mut data = vec![f32::NAN; len];
    for i in 0..rows {
        for j in 0..cols {
            data[i * row + j * col] = values[i * cols + j];
        }
    }
    (Guarded::new(&data), row, col)
}

fn check_gemm(random: &mut Random, (m, k, n): (usize, usize, usize)) {
    let (a, b, old) = (random.floats(m * k), random.floats(k * n), random.floats(m * n));
    let (sa, a_row, a_col) = store(random, &a, m, k);
    let (sb, b_row, b_col) = store(random, &b, k, n);
    let write = random.pick(&[Write::Set, Write::Add]);
    let mut expected = vec![0.0; m * n];
    let mut magnitude = vec![0.0; m * n];
    reference::gemm::gemm(&mut expected, &f64s(&a), &f64s(&b), (m, k, n));
    reference::gemm::gemm(&mut magnitude, &abs(&a), &abs(&b), (m, k, n));
    let start = if write == Write::Add { old.clone() } else { Guarded::output(m * n) };
    if write == Write::Add {
        for (i, &old) in old.iter().enumerate() {
            expected[i] += f64::from(old);
            magnitude[i] += f64::from(old).abs();
        }
    }
    on_every_isa(|isa| {
        let what = format!(
            "{m}x{k}x{n} {write:?} A({a_row},{a_col}) B({b_row},{b_col}) on {}",
            isa.name()
        );
        let mut c = Guarded::new(&start);
        let a = Mat { data: &sa, rows: m, cols: k, row_stride: a_row, col_stride: a_col };
        let b = Mat { data: &sb, rows: k, cols: n, row_stride: b_row, col_stride: b_col };
        gemm(&mut c, write, a, b);
        c.check(&what);
        assert_close(&what, &c, &expected, &magnitude, k);
    });
}

#[test]
fn gemm_of_every_small_shape() {
    let mut random = Random(1);
    let sizes = [0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 15, 16, 17, 31, 33];
    for m in sizes {
        for n in sizes {
            for _ in 0..2 {
                let k = random.pick(&sizes);
                check_gemm(&mut random, (m, k, n));
            }
        }
    }
}

#[test]
fn gemm_across_blocks() {
    let mut random = Random(2);
    for shape in [
        (150, 300, 70),
        (37, 520, 33),
        (200, 257, 17),
        (7, 100, 2100),
        (145, 3, 49),
        (1, 700, 130),
        (130, 513, 1),
    ] {
        for _ in 0..4 {
            check_gemm(&mut random, shape);
        }
    }
}

/// A second opinion from a library that shares no code with this one.
#[test]
fn gemm_agrees_with_matrixmultiply() {
    let mut random = Random(3);
    let (m, k, n) = (97, 211, 83);
    let (a, b) = (random.floats(m * k), random.floats(k * n));
    let mut theirs = vec![0.0; m * n];
    // SAFETY: three row-major matrices of these sizes.
    unsafe {
        let (k1, n1) = (k as isize, n as isize);
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.as_ptr(),
            k1,
            1,
            b.as_ptr(),
            n1,
            1,
            0.0,
            theirs.as_mut_ptr(),
            n1,
            1,
        );
    }
    on_every_isa(|_| {
        let mut ours = vec![0.0; m * n];
        gemm(&mut ours, Write::Set, Mat::row_major(&a, m, k), Mat::row_major(&b, k, n));
        assert_close("ours against theirs", &ours, &f64s(&theirs), &vec![k as f64; m * n], k);
    });
}

#[test]
fn gemm_gives_the_same_bits_on_any_number_of_threads() {
    let mut random = Random(4);
    for (m, k, n) in [
        (200, 300, 150),
        (300, 400, 150),
        (50, 120, 1000),
        (25, 700, 90),
        (1, 1100, 999),
        (300, 4000, 1),
    ] {
        let (a, b) = (random.floats(m * k), random.floats(k * n));
        for transposed in [false, true] {
            assert_same_bits(&format!("{m}x{k}x{n}"), Work::MultiplyAdds(m * k * n), || {
                let mut c = vec![0.0; m * n];
                let b = if transposed {
                    Mat::row_major(&b, n, k).t()
                } else {
                    Mat::row_major(&b, k, n)
                };
                gemm(&mut c, Write::Set, Mat::row_major(&a, m, k), b);
                c
            });
        }
    }
}

#[test]
#[should_panic(expected = "gemm: A has 3 columns, B has 2 rows")]
fn gemm_names_what_does_not_fit() {
    let x = [0.0; 6];
    gemm(&mut [0.0; 4], Write::Set, Mat::row_major(&x, 2, 3), Mat::row_major(&x[..4], 2, 2));
}

#[test]
fn linear_against_its_twin() {
    let mut random = Random(5);
    let sizes = [0, 1, 2, 3, 7, 10, 16, 33, 84, 130];
    for _ in 0..200 {
        let d =
            LinearDims { n: random.pick(&sizes), i: random.pick(&sizes), o: random.pick(&sizes) };
        let (x, w, dy) =
            (random.floats(d.n * d.i), random.floats(d.o * d.i), random.floats(d.n * d.o));
        let bias = random.floats(d.o);
        let bias = random.pick(&[true, false]).then_some(&bias[..]);
        // [value, magnitude] of each output
        let twin = |len: usize, f: &dyn Fn(&mut [f64], &dyn Fn(&[f32]) -> Vec<f64>)| {
            let (mut value, mut magnitude) = (vec![0.0; len], vec![0.0; len]);
            f(&mut value, &f64s);
            f(&mut magnitude, &abs);
            (value, magnitude)
        };
        let y = twin(dy.len(), &|y, f| {
            reference::linear::forward(y, &f(&x), &f(&w), bias.map(f).as_deref(), d)
        });
        let dx = twin(x.len(), &|dx, f| reference::linear::backward_input(dx, &f(&dy), &f(&w), d));
        let dw = twin(w.len(), &|dw, f| reference::linear::backward_weight(dw, &f(&dy), &f(&x), d));
        let db = twin(d.o, &|db, f| reference::linear::backward_bias(db, &f(&dy), d));
        on_every_isa(|isa| {
            let run = |op: &str,
                       (value, magnitude): &(Vec<f64>, Vec<f64>),
                       terms: usize,
                       f: &dyn Fn(&mut [f32], Write)| {
                let what = format!("linear::{op} {d:?} on {}", isa.name());
                let mut out = Guarded::output(value.len());
                f(&mut out, Write::Set);
                out.check(&what);
                assert_close(&what, &out, value, magnitude, terms);
                f(&mut out, Write::Add);
                out.check(&what);
                let twice = |x: &[f64]| x.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
                if op != "forward" {
                    assert_close(&what, &out, &twice(value), &twice(magnitude), terms + 1);
                }
            };
            run("forward", &y, d.i + 1, &|out, _| linear::forward(out, &x, &w, bias, d));
            run("backward_input", &dx, d.o, &|out, write| {
                linear::backward_input(out, write, &dy, &w, d)
            });
            run("backward_weight", &dw, d.n, &|out, write| {
                linear::backward_weight(out, write, &dy, &x, d)
            });
            run("backward_bias", &db, d.n, &|out, write| linear::backward_bias(out, write, &dy, d));
        });
    }
}
