//! Fully connected layers: three matrix products and a sum of columns. Which path a product takes,
//! [`gemm`](mod@crate::gemm) decides; the bias is written first, and the product added to it.
//!
//! `x [n, i]`, `w [o, i]`, `y [n, o]`, as in PyTorch: each row of `w` is one output's weights.

use crate::{
    Write,
    gemm::{Mat, gemm},
    isa::Isa,
    simd::{Simd, SimdKernel},
};

/// The dimensions of a fully connected layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearDims {
    /// Rows in the batch.
    pub n: usize,
    /// Features in.
    pub i: usize,
    /// Features out.
    pub o: usize,
}

impl LinearDims {
    #[track_caller]
    fn check(self, op: &str, x: Option<usize>, w: Option<usize>, y: Option<usize>) {
        let Self { n, i, o } = self;
        for (name, len, rows, cols) in [("x", x, n, i), ("w", w, o, i), ("y", y, n, o)] {
            if let Some(len) = len {
                assert_eq!(
                    len,
                    crate::elements(&[rows, cols]),
                    "linear::{op}: {name} (or its gradient) must hold {rows} x {cols} elements"
                );
            }
        }
    }
}

/// `y[n, o] = x[n, i] w[o, i]^T + bias[o]`
///
/// # Panics
/// If a slice has another length than its shape.
#[track_caller]
pub fn forward(y: &mut [f32], x: &[f32], w: &[f32], bias: Option<&[f32]>, d: LinearDims) {
    d.check("forward", Some(x.len()), Some(w.len()), Some(y.len()));
    let write = match bias {
        Some(bias) => {
            assert_eq!(bias.len(), d.o, "linear::forward: bias must hold o = {} elements", d.o);
            if d.o > 0 {
                y.chunks_exact_mut(d.o).for_each(|y| y.copy_from_slice(bias));
            }
            Write::Add
        }
        None => Write::Set,
    };
    gemm(y, write, Mat::row_major(x, d.n, d.i), Mat::row_major(w, d.o, d.i).t());
}

/// `dx[n, i] (=|+=) dy[n, o] w[o, i]`
///
/// # Panics
/// If a slice has another length than its shape.
#[track_caller]
pub fn backward_input(dx: &mut [f32], write: Write, dy: &[f32], w: &[f32], d: LinearDims) {
    d.check("backward_input", Some(dx.len()), Some(w.len()), Some(dy.len()));
    gemm(dx, write, Mat::row_major(dy, d.n, d.o), Mat::row_major(w, d.o, d.i));
}

/// `dw[o, i] (=|+=) dy[n, o]^T x[n, i]`
///
/// # Panics
/// If a slice has another length than its shape.
#[track_caller]
pub fn backward_weight(dw: &mut [f32], write: Write, dy: &[f32], x: &[f32], d: LinearDims) {
    d.check("backward_weight", Some(x.len()), Some(dw.len()), Some(dy.len()));
    gemm(dw, write, Mat::row_major(dy, d.n, d.o).t(), Mat::row_major(x, d.n, d.i));
}

/// `db[o] (=|+=) sum over n of dy[n, o]`
///
/// # Panics
/// If a slice has another length than its shape.
#[track_caller]
pub fn backward_bias(db: &mut [f32], write: Write, dy: &[f32], d: LinearDims) {
    d.check("backward_bias", None, None, Some(dy.len()));
    assert_eq!(db.len(), d.o, "linear::backward_bias: db must hold o = {} elements", d.o);
    Isa::current().dispatch(ColumnSums { db, write, dy });
}

/// Sums the rows of `dy`, as many columns at a time as a vector has lanes.
struct ColumnSums<'a> {
    db: &'a mut [f32],
    write: Write,
    dy: &'a [f32],
}

impl SimdKernel for ColumnSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let o = self.db.len();
        for (i, db) in self.db.chunks_mut(S::LANES).enumerate() {
            let first = i * S::LANES;
            let mut sum = s.zero();
            for row in self.dy.chunks_exact(o) {
                sum = s.add(sum, s.read(&row[first..first + db.len()]));
            }
            if self.write == Write::Add {
                sum = s.add(s.read(db), sum);
            }
            s.write(db, sum);
        }
    }
}
