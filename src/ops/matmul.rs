//! The matrix product: `y = a b`, for one pair of matrices or for a batch of them.
//!
//! ```text
//! y[i,j] = sum over l of a[i,l] * b[l,j]
//! ```
//!
//! `y` is linear in `a` and in `b`, and transposing either linear map gives
//!
//! ```text
//! da = dy b^T             db = a^T dy
//! ```
//!
//! Leading dimensions form a batch of independent products. A two-dimensional operand is shared
//! by the whole batch, and its gradient is the sum over the batch. A shared `b` needs no loop at
//! all: the rows of all the `a` below one another are a single tall matrix.

use ferrotape_kernels::Write;
use ferrotape_kernels::gemm::{Mat, gemm};
use ferrotape_kernels::isa::{Isa, with_isa};
use ferrotape_kernels::par::{self, Rows, Work};

use crate::tape::{BackwardCtx, ForwardCtx, Graph, Op, Var};
use crate::tensor::Shape;

impl Graph<'_, '_> {
    /// The matrix product of `a` `[.., m, k]` and `b` `[.., k, n]`; gives `[.., m, n]`. The leading
    /// dimensions must be equal, or one operand has none and is used for all.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn matmul(&mut self, a: Var, b: Var) -> Var {
        self.apply(Matmul, &[a, b])
    }
}

struct Matmul;

/// `batch` products of `[m, k]` by `[k, n]`.
#[derive(Clone, Copy)]
struct Dims {
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    /// Whether the batch has a single `a`.
    shared_a: bool,
}

impl Dims {
    /// Of operands that passed [`Op::output_shape`].
    fn new(a: Shape, b: Shape) -> Self {
        let ([a_batch @ .., m, k], [b_batch @ .., _, n]) = (&*a, &*b) else {
            unreachable!("the shape rule has refused vectors and scalars")
        };
        let (m, k, n) = (*m, *k, *n);
        if b_batch.is_empty() {
            let rows = a_batch.iter().product::<usize>() * m;
            return Dims { batch: 1, m: rows, k, n, shared_a: false };
        }
        let batch = b_batch.iter().product();
        Dims { batch, m, k, n, shared_a: a_batch.is_empty() }
    }

    /// Matrix `i` of the left operand.
    fn a<'a>(&self, data: &'a [f32], i: usize) -> Mat<'a> {
        matrix(data, if self.shared_a { 0 } else { i }, self.m, self.k)
    }

    /// Matrix `i` of the right operand.
    fn b<'a>(&self, data: &'a [f32], i: usize) -> Mat<'a> {
        matrix(data, i, self.k, self.n)
    }

    /// Matrix `i` of the output.
    fn y<'a>(&self, data: &'a [f32], i: usize) -> Mat<'a> {
        matrix(data, i, self.m, self.n)
    }

    /// Computes `factors(i).0 * factors(i).1` into block `i` of `out` for the whole batch.
    fn products<'a>(
        &self,
        out: &mut [f32],
        write: Write,
        factors: impl Fn(usize) -> (Mat<'a>, Mat<'a>) + Sync,
    ) {
        let work = Work::MultiplyAdds(self.batch * self.m * self.k * self.n);
        let row = out.len() / self.batch.max(1);
        // The instruction set may have been chosen for this thread only.
        let isa = Isa::current();
        par::split(work, self.batch, Rows { data: out, row }, |range, out| {
            with_isa(isa, || {
                for (at, i) in range.enumerate() {
                    let (left, right) = factors(i);
                    gemm(&mut out.data[at * row..][..row], write, left, right);
                }
            });
        });
    }
}

/// Matrix `i` of a row of them.
fn matrix(data: &[f32], i: usize, rows: usize, cols: usize) -> Mat<'_> {
    Mat::row_major(&data[i * rows * cols..][..rows * cols], rows, cols)
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let ([a_batch @ .., m, k], [b_batch @ .., k_b, n]) = (&*inputs[0], &*inputs[1]) else {
            return Err("expected two matrices [m, k] and [k, n], or batches of them".into());
        };
        if k != k_b {
            return Err(format!("the left one has {k} columns but the right one {k_b} rows"));
        }
        if a_batch != b_batch && !a_batch.is_empty() && !b_batch.is_empty() {
            return Err(format!("the batches {a_batch:?} and {b_batch:?} differ"));
        }
        let batch = if a_batch.is_empty() { b_batch } else { a_batch };
        Ok(Shape::new(&[batch, &[*m, *n]].concat()))
    }

    fn forward(&self, ctx: ForwardCtx<'_>) {
        let d = Dims::new(ctx.inputs.shape(0), ctx.inputs.shape(1));
        let (a, b) = (ctx.inputs.data(0), ctx.inputs.data(1));
        d.products(ctx.output, Write::Set, |i| (d.a(a, i), d.b(b, i)));
    }

    fn backward(&self, mut ctx: BackwardCtx<'_>) {
        let d = Dims::new(ctx.inputs.shape(0), ctx.inputs.shape(1));
        let (a, b, dy) = (ctx.inputs.data(0), ctx.inputs.data(1), ctx.d_output);
        match ctx.grads.wrt(0) {
            None => {}
            Some((da, write)) if !d.shared_a => {
                d.products(da, write, |i| (d.y(dy, i), d.b(b, i).t()));
            }
            Some((da, write)) => {
                if write == Write::Set {
                    da.fill(0.0);
                }
                for i in 0..d.batch {
                    gemm(da, Write::Add, d.y(dy, i), d.b(b, i).t());
                }
            }
        }
        if let Some((db, write)) = ctx.grads.wrt(1) {
            d.products(db, write, |i| (d.a(a, i).t(), d.y(dy, i)));
        }
    }

    fn macs(&self, inputs: &[Shape], output: Shape) -> u64 {
        output.numel() as u64 * inputs[0].last().copied().unwrap_or(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::testing::{shape_error, uniform};
    use crate::tape::gradcheck;

    const CASES: [(&[usize], &[usize]); 7] = [
        (&[3, 4], &[4, 5]),
        (&[1, 4], &[4, 1]),
        (&[2, 3, 4], &[2, 4, 5]),
        (&[2, 3, 4], &[4, 5]),
        (&[3, 4], &[2, 4, 5]),
        (&[2, 3, 1, 4], &[2, 3, 4, 2]),
        (&[3, 4], &[2, 1, 4, 2]),
    ];

    #[test]
    fn gradient() {
        for (a, b) in CASES {
            let inputs = [uniform(1, a), uniform(2, b)];
            gradcheck(&inputs, |g, x| g.matmul(x[0], x[1])).unwrap();
        }
    }

    #[test]
    fn gradient_of_a_squared_matrix() {
        gradcheck(&[uniform(1, [4, 4])], |g, x| g.matmul(x[0], x[0])).unwrap();
        gradcheck(&[uniform(1, [2, 3, 3])], |g, x| g.matmul(x[0], x[0])).unwrap();
    }

    #[test]
    fn shape_errors_say_what_was_expected() {
        let cases: [(&[usize], &[usize], &str); 3] = [
            (&[3, 4], &[5, 4], "the left one has 4 columns but the right one 5 rows"),
            (&[2, 3, 4], &[3, 4, 5], "the batches [2] and [3] differ"),
            (&[4], &[4, 5], "expected two matrices"),
        ];
        for (a, b, expected) in cases {
            let error = shape_error(&[a, b], |g, v| g.matmul(v[0], v[1]));
            assert!(error.contains(expected), "{error}");
        }
    }
}
