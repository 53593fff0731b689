//! Twin of [`gemm`](crate::gemm).

/// `C[m, n] = A[m, k] B[k, n]`, all row-major.
pub fn gemm(c: &mut [f64], a: &[f64], b: &[f64], (m, k, n): (usize, usize, usize)) {
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum();
        }
    }
}
