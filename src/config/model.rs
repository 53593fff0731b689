//! The list of layers: what each is, and how large, which follows from the layer before.

use super::document::{Document, Place, Value, did_you_mean};
use crate::error::{Error, Result};
use crate::nn::{Layer, MAX_SIDE, Module, Sequential};
use crate::params::Params;

/// The sides that a window and a stride may have.
const SIDE: std::ops::Range<u64> = 1..MAX_SIDE as u64 + 1;

/// A layer as written; the sizes of its input are not known yet.
pub(super) struct LayerSpec {
    layer: Layer,
    place: Place,
}

/// The names of the layers, with the other keys that each may have.
const LAYERS: [(&str, &[&str]); 13] = [
    ("conv2d", &["kernel", "stride", "padding"]),
    ("linear", &[]),
    ("batch_norm2d", &[]),
    ("max_pool2d", &["stride"]),
    ("avg_pool2d", &["stride"]),
    ("global_avg_pool2d", &[]),
    ("relu", &[]),
    ("leaky_relu", &[]),
    ("gelu", &[]),
    ("sigmoid", &[]),
    ("tanh", &[]),
    ("flatten", &[]),
    ("dropout", &[]),
];

/// Reads the list.
pub(super) fn parse(list: &Value<'_>) -> Result<Vec<LayerSpec>> {
    let layers = list.list("a list of layers, such as [\"flatten\", { linear = 10 }]")?;
    if layers.is_empty() {
        return Err(list.expected("at least one layer"));
    }
    let spec = |value: &Value<'_>| Ok(LayerSpec { layer: layer(value)?, place: value.place() });
    layers.iter().map(spec).collect()
}

fn layer(value: &Value<'_>) -> Result<Layer> {
    let names = LAYERS.map(|(name, _)| name);
    let known = |name: &str| LAYERS.into_iter().find(|(known, _)| *known == name);
    if !value.is_table() {
        let what = "the name of a layer, or a table such as { linear = 10 }";
        let name = value.string(what)?;
        let unknown =
            || value.error(format!("unknown layer `{name}`{}", did_you_mean(name, &names)));
        known(name).ok_or_else(unknown)?;
        return Ok(match name {
            "batch_norm2d" => Layer::BatchNorm2d { channels: 0 },
            "global_avg_pool2d" => Layer::GlobalAvgPool2d,
            "relu" => Layer::Relu,
            "leaky_relu" => Layer::LeakyRelu { slope: 0.01 },
            "gelu" => Layer::Gelu,
            "sigmoid" => Layer::Sigmoid,
            "tanh" => Layer::Tanh,
            "flatten" => Layer::Flatten,
            "conv2d" => return Err(value.error(
                "`conv2d` needs its output channels and its kernel: { conv2d = 16, kernel = 3 }",
            )),
            "linear" => return Err(value.error("`linear` needs its outputs: { linear = 10 }")),
            "dropout" => {
                return Err(value.error("`dropout` needs a probability: { dropout = 0.5 }"));
            }
            pool => {
                return Err(value.error(format!("`{pool}` needs a window: {{ {pool} = 2 }}")));
            }
        });
    }
    let table = value.table("this layer")?;
    let keys = table.keys();
    let Some((name, options)) = keys.iter().find_map(|(key, _)| known(key)) else {
        let first = keys.first().map_or("", |(key, _)| key);
        return Err(value.error(format!("unknown layer `{first}`{}", did_you_mean(first, &names))));
    };
    let table = table.only(&[&[name], options].concat())?;
    let main = table.need(name, "")?;
    let size = |key: &str| table.get(key).map(|v| v.whole(SIDE)).transpose();
    Ok(match name {
        "conv2d" => {
            let outputs = main.whole(1..1 << 24)?;
            let what = "the height and width of the window, such as kernel = 3";
            let kernel: usize = table.need("kernel", what)?.whole(SIDE)?;
            let padding = match table.get("padding") {
                None => 0,
                Some(same) if same.string("").is_ok_and(|text| text == "same") => {
                    if kernel.is_multiple_of(2) {
                        let reason = "\"same\" needs an odd kernel, which has a middle";
                        return Err(same.error(reason));
                    }
                    kernel / 2
                }
                Some(other) => other.whole(0..kernel as u64).map_err(|_| {
                    other.expected("a whole number of pixels, less than the kernel, or \"same\"")
                })?,
            };
            Layer::Conv2d {
                inputs: 0,
                outputs,
                kernel,
                stride: size("stride")?.unwrap_or(1),
                padding,
            }
        }
        "linear" => Layer::Linear { inputs: 0, outputs: main.whole(1..1 << 24)? },
        "max_pool2d" | "avg_pool2d" => {
            let kernel = main.whole(SIDE)?;
            let stride = size("stride")?.unwrap_or(kernel);
            match name {
                "max_pool2d" => Layer::MaxPool2d { kernel, stride },
                _ => Layer::AvgPool2d { kernel, stride },
            }
        }
        "leaky_relu" => Layer::LeakyRelu { slope: main.number("a slope", |_| true)? },
        "dropout" => {
            let what = "a probability, at least 0 and below 1";
            Layer::Dropout { p: main.number(what, |p| (0.0..1.0).contains(&p))? }
        }
        plain => {
            return Err(main.error(format!("`{plain}` takes no number: write \"{plain}\"")));
        }
    })
}

/// Builds the model for examples of a shape, and checks that it has as many outputs as it must, for
/// `of`.
pub(super) fn build(
    document: &Document,
    specs: &[LayerSpec],
    list: &Place,
    input: &[usize],
    (outputs, of): (usize, &str),
    seed: u64,
) -> Result<(Sequential, Params)> {
    let mut shape = [&[1], input].concat();
    let mut layers = Vec::new();
    for LayerSpec { layer, place } in specs {
        let at = |reason: String| document.error(place, reason);
        let layer = sized(layer, &shape).map_err(at)?;
        // Alone, to see at which layer something is wrong.
        let refused = |error: Error| {
            at(format!("this layer cannot follow: its input has shape {shape:?}\n{error}"))
        };
        let mut params = Params::new(seed);
        let one = chain(&mut params, std::slice::from_ref(&layer)).map_err(refused)?;
        shape = one.check(&params, shape.as_slice()).map_err(refused)?.to_vec();
        layers.push(layer);
    }
    if shape != [1, outputs] {
        let reason = format!(
            "the last layer gives shape {shape:?} for one example, but the data have {outputs} {of}: \
             expected [1, {outputs}]"
        );
        return Err(document.error(&specs.last().map_or(list.clone(), |s| s.place.clone()), reason));
    }
    let mut params = Params::new(seed);
    let model = chain(&mut params, &layers).map_err(|e| document.error(list, e))?;
    Ok((model, params))
}

/// The layers as a model, unless that would be too large.
fn chain(params: &mut Params, layers: &[Layer]) -> Result<Sequential> {
    let text = serde_json::to_string(layers).expect("layers are plain data");
    Sequential::from_architecture(params, &text)
}

/// The layer with the size that an input of this shape (with the batch) asks for.
fn sized(layer: &Layer, shape: &[usize]) -> Result<Layer, String> {
    let mut layer = layer.clone();
    match &mut layer {
        Layer::Linear { inputs, .. } => match shape {
            &[_, features] => *inputs = features,
            _ => {
                return Err(format!(
                    "`linear` follows something of shape {shape:?}: put \"flatten\" or \
                     \"global_avg_pool2d\" in between"
                ));
            }
        },
        Layer::Conv2d { inputs: channels, .. } | Layer::BatchNorm2d { channels } => match shape {
            &[_, c, ..] => *channels = c,
            _ => return Err(format!("expected an image as input, not shape {shape:?}")),
        },
        _ => {}
    }
    Ok(layer)
}
