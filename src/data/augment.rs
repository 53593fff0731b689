//! Augmentation: showing the network a slightly different example each epoch.
//!
//! An [`Augment`] changes one example in place. Its random numbers belong to the epoch and to the
//! example's index, so that what happens to an example does not depend on the batch it is in, on
//! the thread that reads it, or on where a run was resumed.

use std::fmt::Debug;

use crate::rng::Stream;

/// A random change of one training example that leaves its label true.
///
/// The `Debug` form names the change and its settings; runs record it as part of their
/// configuration.
pub trait Augment: Debug + Send + Sync {
    /// Changes example `x` of the given shape (without batch dimension), in place. All randomness
    /// comes from `rng`.
    fn apply(&self, x: &mut [f32], shape: &[usize], rng: &mut Stream);
}

/// Moves an image by up to `max` pixels in each direction; what comes in from outside repeats the
/// border. The same as padding by `max` on all sides and cropping at random.
///
/// Every shift from `-max` to `max` is equally likely, vertically and horizontally.
#[derive(Debug, Clone, Copy)]
pub struct RandomShift {
    /// The largest shift, in pixels.
    pub max: usize,
}

impl Augment for RandomShift {
    /// # Panics
    /// If `shape` is not `[channels, height, width]`.
    fn apply(&self, x: &mut [f32], shape: &[usize], rng: &mut Stream) {
        let (height, width) = image_size("RandomShift", shape);
        let mut draw = || rng.below(2 * self.max + 1) as isize - self.max as isize;
        let (down, right) = (draw(), draw());
        for plane in x.chunks_exact_mut(height * width) {
            shift_rows(plane, width, down);
            for row in plane.chunks_exact_mut(width) {
                shift_rows(row, 1, right);
            }
        }
    }
}

/// Moves rows of `width` values towards the end by `by` (towards the front if negative). Copies of
/// the first (last) row, which itself stays where it is, fill what becomes free.
fn shift_rows(rows: &mut [f32], width: usize, by: isize) {
    let end = rows.len();
    let free = by.unsigned_abs().min(end / width - 1) * width;
    if by > 0 {
        rows.copy_within(..end - free, free);
        for start in (width..free).step_by(width) {
            rows.copy_within(..width, start);
        }
    } else if by < 0 {
        rows.copy_within(free.., 0);
        for start in (end - free..end - width).step_by(width) {
            rows.copy_within(end - width.., start);
        }
    }
}

/// Mirrors an image left to right with probability 1/2. Not for digits or letters.
#[derive(Debug, Clone, Copy)]
pub struct HorizontalFlip;

impl Augment for HorizontalFlip {
    /// # Panics
    /// If `shape` is not `[channels, height, width]`.
    fn apply(&self, x: &mut [f32], shape: &[usize], rng: &mut Stream) {
        let (_, width) = image_size("HorizontalFlip", shape);
        if rng.bernoulli(0.5) {
            x.chunks_exact_mut(width).for_each(<[f32]>::reverse);
        }
    }
}

/// One augmentation after the other.
#[derive(Debug)]
pub struct Compose(pub Vec<Box<dyn Augment>>);

impl Augment for Compose {
    fn apply(&self, x: &mut [f32], shape: &[usize], rng: &mut Stream) {
        for augment in &self.0 {
            augment.apply(x, shape, rng);
        }
    }
}

#[track_caller]
fn image_size(name: &str, shape: &[usize]) -> (usize, usize) {
    let &[_, height, width] = shape else {
        panic!("{name}: expected an image of shape [channels, height, width], got {shape:?}")
    };
    (height, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn rng(i: u64) -> Stream {
        Stream::new(1, Purpose::Augment, 0, i)
    }

    /// Two channels of 3x4, all values different.
    fn image() -> Vec<f32> {
        (0..24).map(|v| v as f32).collect()
    }

    #[test]
    fn shift_is_a_crop_of_the_padded_image() {
        for max in [0, 1, 2, 7] {
            for i in 0..50 {
                let mut x = image();
                RandomShift { max }.apply(&mut x, &[2, 3, 4], &mut rng(i));
                // The twin: pixel by pixel, from the same draws, clamped to the border.
                let mut draws = rng(i);
                let mut draw = || draws.below(2 * max + 1) as isize - max as isize;
                let (down, right) = (draw(), draw());
                for (at, &value) in x.iter().enumerate() {
                    let (c, h, w) = (at / 12, at / 4 % 3, at % 4);
                    let h = (h as isize - down).clamp(0, 2) as usize;
                    let w = (w as isize - right).clamp(0, 3) as usize;
                    assert_eq!(value, (c * 12 + h * 4 + w) as f32, "max {max} {down} {right}");
                }
            }
        }
    }

    #[test]
    fn flip_mirrors_about_half_of_the_images() {
        let mut flipped = 0;
        for i in 0..1000 {
            let mut x = image();
            HorizontalFlip.apply(&mut x, &[2, 3, 4], &mut rng(i));
            if x != image() {
                assert_eq!(x[..8], [3.0, 2.0, 1.0, 0.0, 7.0, 6.0, 5.0, 4.0]);
                flipped += 1;
            }
        }
        assert!((420..580).contains(&flipped), "{flipped}");
    }

    #[test]
    fn composed_changes_draw_one_after_the_other() {
        let both = Compose(vec![Box::new(HorizontalFlip), Box::new(RandomShift { max: 2 })]);
        for i in 0..20 {
            let (mut together, mut apart) = (image(), image());
            both.apply(&mut together, &[2, 3, 4], &mut rng(i));
            let mut stream = rng(i);
            HorizontalFlip.apply(&mut apart, &[2, 3, 4], &mut stream);
            RandomShift { max: 2 }.apply(&mut apart, &[2, 3, 4], &mut stream);
            assert_eq!(together, apart);
        }
        assert_eq!(format!("{both:?}"), "Compose([HorizontalFlip, RandomShift { max: 2 }])");
    }

    #[test]
    #[should_panic(expected = "HorizontalFlip: expected an image")]
    fn flipping_a_vector_is_a_mistake() {
        HorizontalFlip.apply(&mut [1.0, 2.0], &[2], &mut rng(0));
    }
}
