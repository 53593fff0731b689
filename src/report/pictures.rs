//! Numbers as pictures: examples that were mistaken, and what the first layer looks for.

use super::png::Image;
use crate::data::Dataset;
use crate::tensor::Shape;

/// No picture is larger than this in pixels; larger ones lose rows and columns.
const LARGEST: usize = 96;
/// No more filters than this are shown.
const FILTERS: usize = 64;

/// Whether examples of this shape are grey or colour images.
pub(super) fn is_image(shape: &[usize]) -> bool {
    matches!(*shape, [1 | 3, height, width] if height > 1 && width > 1)
}

/// Example `i` as a picture, if it is one. Its values are stretched from black to white, which
/// also undoes a normalisation.
pub(super) fn example(data: &dyn Dataset, i: usize) -> Option<Image> {
    let shape = data.input_shape();
    let [channels, height, width] = *shape else { return None };
    if !is_image(shape) {
        return None;
    }
    let mut values = vec![0.0; channels * height * width];
    data.read(i, &mut values);
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let low = finite().fold(f32::INFINITY, f32::min);
    let high = finite().fold(f32::NEG_INFINITY, f32::max);
    let grey = |value: f32| (255.0 * (value - low) / (high - low)) as u8;
    Some(draw([height, width], |y, x| {
        let channel = |c: usize| grey(values[((c % channels) * height + y) * width + x]);
        [0, 1, 2].map(channel)
    }))
}

/// The filters of a first layer with `weight`, one picture per output; none if they cannot be
/// shown. `input` is the shape of an example, if it is known.
///
/// A convolution's weights are `[outputs, channels, height, width]`, those of a linear layer on
/// images `[outputs, channels * height * width]`. One channel: blue is negative, white 0, red
/// positive. Three channels: as colours around grey.
pub(super) fn filters(weight: &[f32], shape: &Shape, input: Option<&[usize]>) -> Vec<Image> {
    let (channels, height, width) = match (&**shape, input) {
        (&[_, channels, height, width], _) => (channels, height, width),
        (&[_, inputs], Some(&[channels, height, width])) if inputs == channels * height * width => {
            (channels, height, width)
        }
        _ => return Vec::new(),
    };
    if !is_image(&[channels, height, width]) {
        return Vec::new();
    }
    let largest = weight.iter().fold(f32::MIN_POSITIVE, |largest, w| largest.max(w.abs()));
    let size = channels * height * width;
    let picture = |filter: &[f32]| {
        draw([height, width], |y, x| {
            let at = |c: usize| filter[(c * height + y) * width + x] / largest;
            if channels == 3 {
                return [0, 1, 2].map(|c| (127.5 + 127.5 * at(c)) as u8);
            }
            let strength = at(0);
            let end = if strength < 0.0 { [38.0, 86.0, 140.0] } else { [176.0, 58.0, 38.0] };
            end.map(|end: f32| (250.0 + (end - 250.0) * strength.abs()) as u8)
        })
    };
    weight.chunks_exact(size).take(FILTERS).map(picture).collect()
}

/// A picture of at most [`LARGEST`] pixels in each direction.
fn draw([height, width]: [usize; 2], pixel: impl Fn(usize, usize) -> [u8; 3]) -> Image {
    let stride = height.max(width).div_ceil(LARGEST);
    let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let places = (0..rows).flat_map(|y| (0..columns).map(move |x| (y * stride, x * stride)));
    let pixels = places.flat_map(|(y, x)| pixel(y, x)).collect();
    Image { width: columns, height: rows, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ArrayDataset;

    #[test]
    fn an_example_is_stretched_from_black_to_white() {
        let values = vec![-1.0, 0.0, 1.0, f32::NAN, 0.0, 0.0, 0.0, 0.0];
        let data = ArrayDataset::new("x", &[1, 2, 2], values, vec![0, 0], 1).unwrap();
        let image = example(&data, 0).unwrap();
        assert_eq!((image.width, image.height), (2, 2));
        assert_eq!(image.pixels, [0, 0, 0, 127, 127, 127, 255, 255, 255, 0, 0, 0]);
        // All the same: nothing to stretch, and nothing breaks.
        assert_eq!(example(&data, 1).unwrap().pixels, [0; 12]);
        let row = ArrayDataset::new("x", &[2], vec![1.0, 2.0], vec![0], 1).unwrap();
        assert_eq!(example(&row, 0), None);
    }

    #[test]
    fn large_pictures_lose_rows_and_columns() {
        let image = draw([200, 97], |y, x| [y as u8, x as u8, 0]);
        assert_eq!((image.height, image.width), (67, 33));
        assert_eq!(image.pixels[3..6], [0, 3, 0]);
    }

    #[test]
    fn filters_of_both_kinds_of_layers() {
        let weight: Vec<f32> = (0..24).map(|i| i as f32 - 12.0).collect();
        assert_eq!(filters(&weight, &Shape::new(&[2, 3, 2, 2]), None).len(), 2);
        let input: &[usize] = &[1, 3, 4];
        let found = filters(&weight, &Shape::new(&[2, 12]), Some(input));
        assert_eq!((found.len(), found[0].width, found[0].height), (2, 4, 3));
        assert_eq!(found[0].pixels[..3], [38, 86, 140]);
        assert_eq!(found[1].pixels[..3], [250, 250, 250]);
        assert!(filters(&weight, &Shape::new(&[2, 12]), None).is_empty());
        assert!(filters(&weight, &Shape::new(&[24, 1, 1, 1]), None).is_empty());
    }
}
