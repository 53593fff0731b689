//! Naive twins of [`crate::pool2d`]: one loop nest over planes, outputs and window positions.

use crate::pool2d::Pool2dDims;

/// Calls `f(output index, code, input index)` for every window position that lies inside the
/// image, in PyTorch's order.
fn for_each_tap(d: &Pool2dDims, mut f: impl FnMut(usize, usize, usize)) {
    let (oh, ow) = (d.oh(), d.ow());
    for plane in 0..d.n * d.c {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            for (ky, kx) in (0..d.kernel[0]).flat_map(|ky| (0..d.kernel[1]).map(move |kx| (ky, kx)))
            {
                let (iy, ix) = (oy * d.stride[0] + ky, ox * d.stride[1] + kx);
                let (Some(iy), Some(ix)) =
                    (iy.checked_sub(d.padding[0]), ix.checked_sub(d.padding[1]))
                else {
                    continue;
                };
                if iy < d.h && ix < d.w {
                    let output = (plane * oh + oy) * ow + ox;
                    f(output, ky * d.kernel[1] + kx, (plane * d.h + iy) * d.w + ix);
                }
            }
        }
    }
}

/// Max pooling: the outputs `[n, c, oh, ow]` and, for each, the position in its window that won.
///
/// The first of equal values wins; NaN beats everything and a later NaN beats an earlier one.
pub fn max_forward(x: &[f64], d: &Pool2dDims) -> (Vec<f64>, Vec<u8>) {
    let mut best = vec![None; d.y_len()];
    for_each_tap(d, |output, code, input| {
        let value = x[input];
        match best[output] {
            Some((largest, _)) if !(value > largest || value.is_nan()) => {}
            _ => best[output] = Some((value, code as u8)),
        }
    });
    best.into_iter().map(|b| b.expect("every window touches the image")).unzip()
}

/// The gradient of max pooling `[n, c, h, w]`: each output's gradient goes to the winner.
pub fn max_backward(dy: &[f64], codes: &[u8], d: &Pool2dDims) -> Vec<f64> {
    let mut dx = vec![0.0; d.x_len()];
    for_each_tap(d, |output, code, input| {
        if usize::from(codes[output]) == code {
            dx[input] += dy[output];
        }
    });
    dx
}

/// Average pooling `[n, c, oh, ow]`; padding counts as zeros.
pub fn avg_forward(x: &[f64], d: &Pool2dDims) -> Vec<f64> {
    let area = (d.kernel[0] * d.kernel[1]) as f64;
    let mut y = vec![0.0; d.y_len()];
    for_each_tap(d, |output, _, input| y[output] += x[input] / area);
    y
}

/// The gradient of average pooling `[n, c, h, w]`.
pub fn avg_backward(dy: &[f64], d: &Pool2dDims) -> Vec<f64> {
    let area = (d.kernel[0] * d.kernel[1]) as f64;
    let mut dx = vec![0.0; d.x_len()];
    for_each_tap(d, |output, _, input| dx[input] += dy[output] / area);
    dx
}
