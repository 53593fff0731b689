//! Chains of layers, described by data: what a [`Sequential`] is can be saved with its weights.

use serde::{Deserialize, Serialize};

use super::{BatchNorm2d, Conv2d, Dropout, Linear, Module};
use crate::error::{Error, Result};
use crate::ops::Conv2dOptions;
use crate::params::Params;
use crate::tape::{Graph, Var};

/// No text makes [`Sequential::from_architecture`] allocate more than this: 4 GiB.
const MAX_WEIGHTS: usize = 1 << 30;

/// No window, stride or padding that a text describes is larger.
pub(crate) const MAX_SIDE: usize = 4096;

/// The description of one layer of a [`Sequential`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Layer {
    /// `[n, in, h, w] -> [n, out, oh, ow]` with a square kernel.
    Conv2d {
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
        /// Height and width of the kernel.
        kernel: usize,
        /// Distance between windows.
        stride: usize,
        /// Zeros added on each side.
        padding: usize,
    },
    /// `[n, in] -> [n, out]`.
    Linear {
        /// Input features.
        inputs: usize,
        /// Output features.
        outputs: usize,
    },
    /// `[n, channels, ..]`, see [`BatchNorm2d`].
    BatchNorm2d {
        /// Channels.
        channels: usize,
    },
    /// The largest of each window.
    MaxPool2d {
        /// Height and width of the window.
        kernel: usize,
        /// Distance between windows.
        stride: usize,
    },
    /// The mean of each window.
    AvgPool2d {
        /// Height and width of the window.
        kernel: usize,
        /// Distance between windows.
        stride: usize,
    },
    /// `[n, c, h, w] -> [n, c]`, the mean of each channel.
    GlobalAvgPool2d,
    /// `max(x, 0)`.
    Relu,
    /// `x` or `slope * x`.
    LeakyRelu {
        /// The factor for negative values.
        slope: f32,
    },
    /// Gaussian error linear unit.
    Gelu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `[n, ...] -> [n, rest]`.
    Flatten,
    /// See [`Dropout`].
    Dropout {
        /// The probability of zeroing an element.
        p: f32,
    },
}

impl Layer {
    /// A square convolution with stride 1 and no padding.
    pub fn conv2d(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Layer::Conv2d { inputs, outputs, kernel, stride: 1, padding: 0 }
    }

    /// A square convolution with stride 1 and an odd kernel that keeps height and width.
    pub fn conv2d_same(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Layer::Conv2d { inputs, outputs, kernel, stride: 1, padding: kernel / 2 }
    }

    /// A fully connected layer.
    pub fn linear(inputs: usize, outputs: usize) -> Self {
        Layer::Linear { inputs, outputs }
    }

    /// Max-pooling.
    pub fn max_pool2d(kernel: usize, stride: usize) -> Self {
        Layer::MaxPool2d { kernel, stride }
    }

    /// How many weights the layer has; `None` if the number does not fit a `usize`.
    fn weights(&self) -> Option<usize> {
        let (inputs, outputs, window) = match *self {
            Layer::Conv2d { inputs, outputs, kernel, .. } => {
                (inputs, outputs, kernel.checked_mul(kernel)?)
            }
            Layer::Linear { inputs, outputs } => (inputs, outputs, 1),
            _ => return Some(0),
        };
        inputs.checked_mul(window)?.checked_add(1)?.checked_mul(outputs)
    }

    /// Whether the numbers of a description make sense, whatever the input.
    fn is_possible(&self) -> bool {
        let side = |n: usize| (1..=MAX_SIDE).contains(&n);
        match *self {
            Layer::Conv2d { inputs, outputs, kernel, stride, padding } => {
                inputs > 0 && outputs > 0 && side(kernel) && side(stride) && padding < kernel
            }
            Layer::Linear { inputs, outputs } => inputs > 0 && outputs > 0,
            Layer::BatchNorm2d { channels } => channels > 0 && channels <= MAX_WEIGHTS,
            Layer::MaxPool2d { kernel, stride } | Layer::AvgPool2d { kernel, stride } => {
                side(kernel) && side(stride)
            }
            Layer::Dropout { p } => (0.0..1.0).contains(&p),
            _ => true,
        }
    }
}

/// A layer with its parameters.
#[derive(Clone, Debug)]
enum Built {
    Conv2d(Conv2d),
    Linear(Linear),
    BatchNorm2d(BatchNorm2d),
    /// A layer without parameters is its description.
    Plain(Layer),
}

/// Layers applied one after the other.
///
/// Parameters are named by position, `0.weight`, `0.bias`, `3.weight`, ..., as in PyTorch's
/// `nn.Sequential`. A ReLU that max-pooling follows is applied after it: the same bits, in less
/// time.
///
/// ```
/// use ferrotape::nn::{Layer, Module, Sequential};
/// use ferrotape::Params;
///
/// let mut params = Params::new(0);
/// let layers =
///     [Layer::conv2d(1, 6, 5), Layer::Relu, Layer::max_pool2d(2, 2), Layer::Flatten, Layer::linear(864, 10)];
/// let model = Sequential::new(&mut params, layers);
/// assert_eq!(*model.check(&params, [32, 1, 28, 28]).unwrap(), [32, 10]);
///
/// let mut params = Params::new(0);
/// let same = Sequential::from_architecture(&mut params, &model.architecture()).unwrap();
/// assert_eq!(same.layers(), model.layers());
/// ```
#[derive(Clone, Debug)]
pub struct Sequential {
    layers: Vec<Layer>,
    built: Vec<Built>,
}

impl Sequential {
    /// Builds the layers, adding their parameters to `params`.
    ///
    /// # Panics
    /// If `params` already has parameters named by position.
    #[track_caller]
    pub fn new(params: &mut Params, layers: impl IntoIterator<Item = Layer>) -> Self {
        let layers: Vec<Layer> = layers.into_iter().collect();
        let built = layers.iter().enumerate().map(|(index, layer)| {
            let name = index.to_string();
            match *layer {
                Layer::Conv2d { inputs, outputs, kernel, stride, padding } => {
                    let options = Conv2dOptions {
                        stride: [stride; 2],
                        padding: [padding; 2],
                        ..Conv2dOptions::default()
                    };
                    Built::Conv2d(Conv2d::with_options(
                        params, &name, inputs, outputs, kernel, options,
                    ))
                }
                Layer::Linear { inputs, outputs } => {
                    Built::Linear(Linear::new(params, &name, inputs, outputs))
                }
                Layer::BatchNorm2d { channels } => {
                    Built::BatchNorm2d(BatchNorm2d::new(params, &name, channels))
                }
                ref plain => Built::Plain(plain.clone()),
            }
        });
        let mut built: Vec<Built> = built.collect();
        pool_before_relu(&mut built);
        Sequential { layers, built }
    }

    /// The descriptions of the layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Builds a model from the text of [`Module::architecture`], which may come from anywhere.
    ///
    /// # Errors
    /// [`Error::Config`] if the text does not describe layers this version knows, has a layer that
    /// cannot be (no channels, a padding as large as its window, a window of more than 4096), or
    /// describes more than 2^30 weights.
    pub fn from_architecture(params: &mut Params, text: &str) -> Result<Self> {
        let layers: Vec<Layer> =
            serde_json::from_str(text).map_err(|e| Error::config("architecture", e.to_string()))?;
        if let Some(layer) = layers.iter().find(|layer| !layer.is_possible()) {
            return Err(Error::config("architecture", format!("there can be no {layer:?}")));
        }
        let weights =
            layers.iter().try_fold(0_usize, |sum, layer| sum.checked_add(layer.weights()?));
        if weights.is_none_or(|weights| weights > MAX_WEIGHTS) {
            let reason = format!("describes more than {MAX_WEIGHTS} weights");
            return Err(Error::config("architecture", reason));
        }
        Ok(Sequential::new(params, layers))
    }
}

/// Exchanges a ReLU with the max-pooling that follows it. The largest of four ReLUs is the ReLU of
/// the largest, bit for bit, and so are the gradients; but there is a quarter as much to do.
fn pool_before_relu(built: &mut [Built]) {
    for at in 1..built.len() {
        if let [Built::Plain(Layer::Relu), Built::Plain(Layer::MaxPool2d { .. })] =
            built[at - 1..=at]
        {
            built.swap(at - 1, at);
        }
    }
}

impl Module for Sequential {
    /// The layers as JSON.
    fn architecture(&self) -> String {
        serde_json::to_string(&self.layers).expect("layers are plain data")
    }

    #[track_caller]
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        self.built.iter().fold(x, |x, layer| match layer {
            Built::Conv2d(conv) => conv.forward(g, x),
            Built::Linear(linear) => linear.forward(g, x),
            Built::BatchNorm2d(norm) => norm.forward(g, x),
            Built::Plain(plain) => match *plain {
                Layer::Conv2d { .. } | Layer::Linear { .. } | Layer::BatchNorm2d { .. } => {
                    unreachable!("built with parameters")
                }
                Layer::MaxPool2d { kernel, stride } => g.max_pool2d(x, kernel, stride),
                Layer::AvgPool2d { kernel, stride } => g.avg_pool2d(x, kernel, stride),
                Layer::GlobalAvgPool2d => g.global_avg_pool2d(x),
                Layer::Relu => g.relu(x),
                Layer::LeakyRelu { slope } => g.leaky_relu(x, slope),
                Layer::Gelu => g.gelu(x),
                Layer::Sigmoid => g.sigmoid(x),
                Layer::Tanh => g.tanh(x),
                Layer::Flatten => g.flatten(x),
                Layer::Dropout { p } => Dropout { p }.forward(g, x),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Init;
    use crate::tape::Tape;

    #[test]
    fn pooling_before_relu_gives_the_same_bits() {
        let numbers = |len: usize| -> Vec<f32> {
            let wave = |i: usize| ((i * 7919 + 13) % 101) as f32 - 60.0;
            let mut numbers: Vec<f32> = (0..len).map(wave).collect();
            numbers[3] = f32::NAN;
            numbers[40..60].fill(-1.0);
            numbers[60..75].fill(0.0);
            numbers
        };
        for (kernel, stride) in [(2, 2), (3, 2), (3, 1)] {
            let mut params = Params::new(0);
            let id = params.add("x", [2, 3, 9, 8], Init::Zeros);
            params.get_mut(id).copy_from_slice(&numbers(432));
            let layers = [Layer::Relu, Layer::max_pool2d(kernel, stride)];
            let model = Sequential::new(&mut params, layers);
            let results = [false, true].map(|as_written| {
                let mut tape = Tape::new();
                let mut g = Graph::new(&mut tape, &params);
                let x = g.param(id);
                let y = if as_written {
                    let y = g.relu(x);
                    g.max_pool2d(y, kernel, stride)
                } else {
                    model.forward(&mut g, x)
                };
                let y_bits: Vec<u32> = g.value(y).iter().map(|y| y.to_bits()).collect();
                let seed: Vec<f32> = (0..y_bits.len()).map(|i| (i as f32 * 0.37).sin()).collect();
                let gradients = g.backward_with(y, &seed);
                let dx: Vec<u32> =
                    gradients.param(&params, id).iter().map(|dx| dx.to_bits()).collect();
                (y_bits, dx)
            });
            let [swapped, as_written] = &results;
            assert!(swapped == as_written, "kernel {kernel}, stride {stride}");
        }
    }

    #[test]
    fn an_architecture_that_no_memory_holds_is_refused() {
        let refused = |layers: &[Layer]| {
            let text = serde_json::to_string(layers).unwrap();
            let error = Sequential::from_architecture(&mut Params::new(0), &text).unwrap_err();
            assert!(error.to_string().contains("more than 1073741824 weights"), "{error}");
        };
        refused(&[Layer::linear(usize::MAX, 1)]);
        refused(&[Layer::conv2d(usize::MAX, 1, 2)]);
        refused(&[Layer::linear(1 << 15, 1 << 15)]);
        refused(&[Layer::linear(1 << 15, 1 << 14), Layer::linear(1 << 15, 1 << 14)]);
    }

    #[test]
    fn a_layer_that_cannot_be_is_refused() {
        let conv = |kernel, stride, padding| Layer::Conv2d {
            inputs: 1,
            outputs: 1,
            kernel,
            stride,
            padding,
        };
        for layer in [
            Layer::linear(0, 1),
            Layer::linear(1, 0),
            conv(0, 1, 0),
            conv(3, 0, 0),
            conv(3, 1, 3),
            conv(1 << 13, 1, 0),
            Layer::max_pool2d(2, 0),
            Layer::max_pool2d(0, 1),
            Layer::Dropout { p: 1.0 },
            Layer::BatchNorm2d { channels: usize::MAX },
        ] {
            let text = serde_json::to_string(&[&layer]).unwrap();
            let error = Sequential::from_architecture(&mut Params::new(0), &text).unwrap_err();
            assert!(error.to_string().contains("there can be no"), "{layer:?}: {error}");
        }
        assert!(conv(3, 1, 2).is_possible());
    }
}
