//! Twins of [`conv2d`](crate::conv2d). All four walk the same products `y += x * w` of the
//! definition.

use crate::conv2d::Conv2dDims;

/// Calls `f(y index, x index, w index)` for every product of the convolution; padding contributes
/// none.
pub fn for_each_product(d: &Conv2dDims, mut f: impl FnMut(usize, usize, usize)) {
    let (oh, ow, [kh, kw]) = (d.oh(), d.ow(), d.kernel);
    let (c_group, o_group) = (d.c / d.groups, d.o / d.groups);
    for n in 0..d.n {
        for o in 0..d.o {
            let first_channel = o / o_group * c_group;
            for yh in 0..oh {
                for yw in 0..ow {
                    for c in 0..c_group {
                        for i in 0..kh {
                            for j in 0..kw {
                                // In the padded image; unsigned subtraction below skips what lies
                                // outside.
                                let (xh, xw) = (
                                    yh * d.stride[0] + i * d.dilation[0],
                                    yw * d.stride[1] + j * d.dilation[1],
                                );
                                let (xh, xw) =
                                    (xh.wrapping_sub(d.padding[0]), xw.wrapping_sub(d.padding[1]));
                                if xh < d.h && xw < d.w {
                                    f(
                                        ((n * d.o + o) * oh + yh) * ow + yw,
                                        ((n * d.c + first_channel + c) * d.h + xh) * d.w + xw,
                                        ((o * c_group + c) * kh + i) * kw + j,
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `y[n, o, oh, ow] = x[n, c, h, w] * w[o, c/g, kh, kw] + bias[o]`
pub fn forward(y: &mut [f64], x: &[f64], w: &[f64], bias: Option<&[f64]>, d: &Conv2dDims) {
    let pixels = d.oh() * d.ow();
    for (i, y) in y.iter_mut().enumerate() {
        *y = bias.map_or(0.0, |b| b[i / pixels % d.o]);
    }
    for_each_product(d, |iy, ix, iw| y[iy] += x[ix] * w[iw]);
}

/// `dx[n, c, h, w]` from `dy[n, o, oh, ow]`
pub fn backward_input(dx: &mut [f64], dy: &[f64], w: &[f64], d: &Conv2dDims) {
    dx.fill(0.0);
    for_each_product(d, |iy, ix, iw| dx[ix] += dy[iy] * w[iw]);
}

/// `dw[o, c/g, kh, kw]` from `dy[n, o, oh, ow]`
pub fn backward_weight(dw: &mut [f64], dy: &[f64], x: &[f64], d: &Conv2dDims) {
    dw.fill(0.0);
    for_each_product(d, |iy, ix, iw| dw[iw] += dy[iy] * x[ix]);
}

/// `db[o] = sum over n, oh, ow of dy`
pub fn backward_bias(db: &mut [f64], dy: &[f64], d: &Conv2dDims) {
    let pixels = d.oh() * d.ow();
    db.fill(0.0);
    for (i, dy) in dy.iter().enumerate() {
        db[i / pixels % d.o] += dy;
    }
}
