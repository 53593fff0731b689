//! Twins of [`linear`](crate::linear).

use crate::linear::LinearDims;

/// `y[n, o] = x[n, i] w[o, i]^T + bias[o]`
pub fn forward(y: &mut [f64], x: &[f64], w: &[f64], bias: Option<&[f64]>, d: LinearDims) {
    for n in 0..d.n {
        for o in 0..d.o {
            let sum: f64 = (0..d.i).map(|i| x[n * d.i + i] * w[o * d.i + i]).sum();
            y[n * d.o + o] = sum + bias.map_or(0.0, |b| b[o]);
        }
    }
}

/// `dx[n, i] = dy[n, o] w[o, i]`
pub fn backward_input(dx: &mut [f64], dy: &[f64], w: &[f64], d: LinearDims) {
    for n in 0..d.n {
        for i in 0..d.i {
            dx[n * d.i + i] = (0..d.o).map(|o| dy[n * d.o + o] * w[o * d.i + i]).sum();
        }
    }
}

/// `dw[o, i] = dy[n, o]^T x[n, i]`
pub fn backward_weight(dw: &mut [f64], dy: &[f64], x: &[f64], d: LinearDims) {
    for o in 0..d.o {
        for i in 0..d.i {
            dw[o * d.i + i] = (0..d.n).map(|n| dy[n * d.o + o] * x[n * d.i + i]).sum();
        }
    }
}

/// `db[o] = sum over n of dy[n, o]`
pub fn backward_bias(db: &mut [f64], dy: &[f64], d: LinearDims) {
    for o in 0..d.o {
        db[o] = (0..d.n).map(|n| dy[n * d.o + o]).sum();
    }
}
