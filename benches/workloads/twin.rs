//! The networks of the benches in `f64`, each layer by its definition: forward, loss, gradients,
//! update. What a training step has to compute, on a page.

use ferrotape::nn::Layer;
use ferrotape_kernels::conv2d::Conv2dDims;
use ferrotape_kernels::pool2d::Pool2dDims;
use ferrotape_kernels::reference::{conv2d, elementwise, pool2d, sgd, softmax};
use ferrotape_kernels::sgd::SgdStep;

/// What a training step computes before it updates the weights.
pub(crate) struct Pass {
    /// `[batch, classes]`
    pub(crate) logits: Vec<f64>,
    /// The mean cross-entropy.
    pub(crate) loss: f64,
    /// Of each weight and bias, in the order of the layers.
    pub(crate) gradients: Vec<Vec<f64>>,
}

/// A layer and the shape it works on.
enum Stage {
    /// A convolution. A linear layer is one of images that are a single pixel.
    Conv(Conv2dDims),
    Relu,
    MaxPool(Pool2dDims),
}

/// Forward and backward through `layers`, of `images` `[batch, c, h, w]` or `[batch, features]`.
/// `weights` has the weight and the bias of each layer that has them, in order.
pub(crate) fn pass(
    layers: &[Layer],
    shape: &[usize],
    images: &[f64],
    labels: &[usize],
    weights: &[Vec<f64>],
) -> Pass {
    let stages = stages(layers, shape);

    let mut values = vec![images.to_vec()];
    let mut parameters = weights.chunks_exact(2);
    for stage in &stages {
        let x = values.last().expect("the images are there");
        let y = match stage {
            Stage::Conv(d) => {
                let [w, bias] = parameters.next().expect("it has weights") else { unreachable!() };
                let mut y = vec![0.0; d.y_len()];
                conv2d::forward(&mut y, x, w, Some(bias), d);
                y
            }
            Stage::Relu => x.iter().map(|&x| elementwise::relu(x)).collect(),
            Stage::MaxPool(d) => pool2d::max_forward(x, d).0,
        };
        values.push(y);
    }

    let logits = values.pop().expect("it was just pushed");
    let (batch, classes) = (labels.len(), logits.len() / labels.len());
    let losses = softmax::cross_entropy(&logits, labels, 0.0, classes);
    let loss = losses.iter().sum::<f64>() / batch as f64;

    let share = vec![1.0 / batch as f64; batch];
    let mut dy = softmax::cross_entropy_backward(&share, &logits, labels, 0.0, classes);
    let mut gradients = Vec::new(); // the last layer's first
    let mut parameters = weights.chunks_exact(2).rev();
    for (stage, x) in stages.iter().zip(&values).rev() {
        let mut dx = vec![0.0; x.len()];
        match stage {
            Stage::Conv(d) => {
                let w = &parameters.next().expect("it has weights")[0];
                let (mut dw, mut dbias) = (vec![0.0; d.w_len()], vec![0.0; d.o]);
                conv2d::backward_input(&mut dx, &dy, w, d);
                conv2d::backward_weight(&mut dw, &dy, x, d);
                conv2d::backward_bias(&mut dbias, &dy, d);
                gradients.extend([dbias, dw]);
            }
            Stage::Relu => {
                for ((dx, dy), x) in dx.iter_mut().zip(&dy).zip(x) {
                    *dx = if *x > 0.0 { *dy } else { 0.0 };
                }
            }
            Stage::MaxPool(d) => dx = pool2d::max_backward(&dy, &pool2d::max_forward(x, d).1, d),
        }
        dy = dx;
    }
    gradients.reverse();
    Pass { logits, loss, gradients }
}

/// The update of SGD with momentum: of a tensor, the weights and the velocity after it. There is no
/// velocity before the first step.
pub(crate) fn update(
    weights: &[f64],
    velocity: Option<&[f64]>,
    gradient: &[f64],
    lr: f32,
    momentum: f32,
) -> (Vec<f64>, Vec<f64>) {
    let first = velocity.is_none();
    let step = SgdStep { lr, momentum, dampening: 0.0, weight_decay: 0.0, nesterov: false, first };
    let one = |i: usize| sgd::step(weights[i], velocity.map_or(0.0, |v| v[i]), gradient[i], &step);
    (0..weights.len()).map(one).unzip()
}

fn stages(layers: &[Layer], shape: &[usize]) -> Vec<Stage> {
    let n = shape[0];
    let [mut c, mut h, mut w] = match *shape {
        [_, c, h, w] => [c, h, w],
        _ => [shape[1], 1, 1],
    };
    let mut stages = Vec::new();
    for layer in layers {
        match *layer {
            Layer::Conv2d { outputs: o, kernel, stride, padding, .. } => {
                let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [padding; 2]);
                let (dilation, groups) = ([1; 2], 1);
                let d = Conv2dDims { n, c, h, w, o, kernel, stride, padding, dilation, groups };
                [c, h, w] = [o, d.oh(), d.ow()];
                stages.push(Stage::Conv(d));
            }
            Layer::Linear { inputs, outputs } => {
                [c, h, w] = [outputs, 1, 1];
                let d = Conv2dDims {
                    n,
                    c: inputs,
                    h,
                    w,
                    o: outputs,
                    kernel: [1; 2],
                    stride: [1; 2],
                    padding: [0; 2],
                    dilation: [1; 2],
                    groups: 1,
                };
                stages.push(Stage::Conv(d));
            }
            Layer::MaxPool2d { kernel, stride } => {
                let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [0; 2]);
                let d = Pool2dDims { n, c, h, w, kernel, stride, padding };
                [h, w] = [d.oh(), d.ow()];
                stages.push(Stage::MaxPool(d));
            }
            Layer::Relu => stages.push(Stage::Relu),
            Layer::Flatten => {} // the data stays as it is
            _ => unreachable!("no bench has a {layer:?}"),
        }
    }
    stages
}
