//! Normalisation: inputs around 0 with a spread around 1, which keeps the first layer's activations
//! in the range its initialisation was made for.

use serde::{Deserialize, Serialize};

use super::{Dataset, Fingerprint};

/// How stored values become network inputs, per channel: `x = (value - mean) / std`.
///
/// The channel is the first dimension of an example; each column of a table is one. A pixel stored
/// as a byte has a value from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalize {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel.
    pub std: Vec<f32>,
}

impl Normalize {
    /// Leaves values as they are.
    pub fn none(channels: usize) -> Self {
        Normalize { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// The constants that everybody uses for MNIST.
    pub fn mnist() -> Self {
        Normalize { mean: vec![0.1307], std: vec![0.3081] }
    }

    /// The constants that everybody uses for CIFAR-10.
    pub fn cifar10() -> Self {
        Normalize { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] }
    }

    /// Mean and standard deviation of each channel of `data`: of the *training* part, as the others
    /// must stay unseen, and before it is normalised. A channel without any variation gets `std` 1.
    pub fn of(data: &dyn Dataset) -> Self {
        let shape = data.input_shape();
        let channels = shape.first().copied().unwrap_or(1);
        let mut x = vec![0.0; shape.iter().product()];
        let plane = x.len() / channels;
        let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
        for i in 0..data.len() {
            data.read(i, &mut x);
            for (c, x) in x.chunks_exact(plane).enumerate() {
                for &value in x {
                    sums[c] += f64::from(value);
                    squares[c] += f64::from(value) * f64::from(value);
                }
            }
        }
        let count = (data.len() * plane) as f64;
        let deviation = |(sum, square): (&f64, &f64)| {
            let variance = square / count - (sum / count).powi(2);
            // What is smaller than the values' own rounding is none.
            let deviation = variance.max(0.0).sqrt() as f32;
            let varies = variance > 1e-14 * (square / count) && deviation >= f32::MIN_POSITIVE;
            if varies { deviation } else { 1.0 }
        };
        let std = sums.iter().zip(&squares).map(deviation).collect();
        Normalize { mean: sums.iter().map(|sum| (sum / count) as f32).collect(), std }
    }

    /// Whether there are a finite mean and a positive, finite deviation for each channel.
    pub(crate) fn fits(&self, channels: usize) -> bool {
        let lengths = self.mean.len() == channels && self.std.len() == channels;
        let usable = |&s: &f32| s > 0.0 && s.is_finite();
        lengths && self.mean.iter().all(|m| m.is_finite()) && self.std.iter().all(usable)
    }

    /// For each channel `(scale, shift)` with `x = value * scale + shift`.
    pub(super) fn factors(&self) -> impl Iterator<Item = (f32, f32)> {
        self.mean.iter().zip(&self.std).map(|(mean, std)| (1.0 / std, -mean / std))
    }

    pub(super) fn fingerprint(&self) -> u64 {
        let constants = self.mean.iter().chain(&self.std).map(|x| u64::from(x.to_bits()));
        Fingerprint::new().numbers(constants).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ArrayDataset;
    use super::*;

    #[test]
    fn a_channel_that_does_not_vary_is_not_blown_up() {
        let of = |values: Vec<f32>| {
            let n = values.len();
            Normalize::of(&ArrayDataset::new("x", &[1], values, vec![0; n], 1).unwrap())
        };
        for value in [0.1, -1e-30, 1e30, 0.0, f32::MAX] {
            assert_eq!(of(vec![value; 1000]), Normalize { mean: vec![value], std: vec![1.0] });
        }
        assert_eq!(of(vec![1.0, 3.0]), Normalize { mean: vec![2.0], std: vec![1.0] });
        assert_eq!(of(vec![1e-45, 0.0, 0.0]).std, [1.0]);
    }
}
