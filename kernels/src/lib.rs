//! The compute kernels of ferrotape: slices and dimensions in, slices out.
