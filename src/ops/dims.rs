//! Dimensions counted from either end, as in PyTorch: -1 is the last one.

use crate::tensor::Shape;

/// The position that `dim` means in a value of this shape.
///
/// # Errors
/// If there is no such dimension.
pub(crate) fn dim_index(dim: isize, shape: Shape) -> Result<usize, String> {
    let rank = shape.rank() as isize;
    if (-rank..rank).contains(&dim) {
        return Ok(dim.rem_euclid(rank) as usize);
    }
    Err(match rank {
        0 => format!("there is no dimension {dim}: {shape} is the shape of a scalar"),
        _ => format!("there is no dimension {dim}: expected {}..={}", -rank, rank - 1),
    })
}

/// As [`dim_index`], in a pass that comes after the shape check.
pub(crate) fn checked_dim(dim: isize, shape: Shape) -> usize {
    dim_index(dim, shape).expect("the shape rule has accepted the dimension")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_dimensions_count_from_the_end() {
        let shape = Shape::from([4, 5, 6]);
        let dims = [0, 2, -1, -3].map(|dim| dim_index(dim, shape).unwrap());
        assert_eq!(dims, [0, 2, 2, 0]);
        for dim in [3, -4] {
            let message = format!("there is no dimension {dim}: expected -3..=2");
            assert_eq!(dim_index(dim, shape), Err(message));
        }
        assert!(dim_index(0, Shape::default()).unwrap_err().contains("scalar"));
    }
}
