//! Naive twins of [`crate::softmax`], one row at a time.

/// Softmax of each row of `x [rows, cols]`.
pub fn softmax(x: &[f64], cols: usize) -> Vec<f64> {
    log_softmax(x, cols).into_iter().map(f64::exp).collect()
}

/// The logarithm of the softmax of each row of `x [rows, cols]`.
pub fn log_softmax(x: &[f64], cols: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let max = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
        let log_sum = row.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
        row.iter().map(|v| v - max - log_sum).collect::<Vec<_>>()
    };
    x.chunks(cols.max(1)).flat_map(row).collect()
}

/// `dx = y * (dy - sum(dy * y))`, per row.
pub fn softmax_backward(dy: &[f64], y: &[f64], cols: usize) -> Vec<f64> {
    let row = |(dy, y): (&[f64], &[f64])| {
        let dot: f64 = dy.iter().zip(y).map(|(g, p)| g * p).sum();
        dy.iter().zip(y).map(|(g, p)| p * (g - dot)).collect::<Vec<_>>()
    };
    dy.chunks(cols.max(1)).zip(y.chunks(cols.max(1))).flat_map(row).collect()
}

/// `dx = dy - exp(y) * sum(dy)`, per row.
pub fn log_softmax_backward(dy: &[f64], y: &[f64], cols: usize) -> Vec<f64> {
    let row = |(dy, y): (&[f64], &[f64])| {
        let sum: f64 = dy.iter().sum();
        dy.iter().zip(y).map(|(g, l)| g - l.exp() * sum).collect::<Vec<_>>()
    };
    dy.chunks(cols.max(1)).zip(y.chunks(cols.max(1))).flat_map(row).collect()
}

/// The distribution that label smoothing aims at: `(1 - s) * onehot + s / c`.
fn aim(target: usize, class: usize, smoothing: f64, c: usize) -> f64 {
    f64::from(u8::from(target == class)) * (1.0 - smoothing) + smoothing / c as f64
}

/// `loss = -sum over classes of aim * log_softmax(logits)`, per row.
pub fn cross_entropy(logits: &[f64], targets: &[usize], smoothing: f64, c: usize) -> Vec<f64> {
    let rows = log_softmax(logits, c);
    let loss = |(row, &target): (&[f64], &usize)| {
        -row.iter().enumerate().map(|(j, l)| aim(target, j, smoothing, c) * l).sum::<f64>()
    };
    rows.chunks(c.max(1)).zip(targets).map(loss).collect()
}

/// `dlogits = dloss * (softmax(logits) - aim)`, per row.
pub fn cross_entropy_backward(
    dlosses: &[f64],
    logits: &[f64],
    targets: &[usize],
    smoothing: f64,
    c: usize,
) -> Vec<f64> {
    let mut dlogits = softmax(logits, c);
    for ((row, &target), dloss) in dlogits.chunks_mut(c.max(1)).zip(targets).zip(dlosses) {
        for (class, p) in row.iter_mut().enumerate() {
            *p = dloss * (*p - aim(target, class, smoothing, c));
        }
    }
    dlogits
}
