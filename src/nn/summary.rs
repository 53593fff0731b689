//! A model at a glance: its operations, shapes, parameters, arithmetic and memory.

use std::fmt;

use crate::numbers::grouped;
use crate::tape::SummaryNode;
use crate::tensor::Shape;

/// The operations of a model for one input shape; its `Display` is a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The shape of the input, batch dimension included.
    pub input: Shape,
    /// The shape of the output.
    pub output: Shape,
    /// One row per operation, in order of execution.
    pub rows: Vec<SummaryRow>,
    /// Trainable values in the whole parameter store.
    pub parameters: usize,
}

/// One operation of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryRow {
    /// The operation's name.
    pub op: &'static str,
    /// The shape of its output.
    pub output: Shape,
    /// The parameters it reads, by name.
    pub params: Vec<String>,
    /// The number of trainable values among its operands.
    pub parameters: usize,
    /// Multiply-adds of one forward pass.
    pub macs: u64,
}

impl From<SummaryNode<'_>> for SummaryRow {
    fn from(node: SummaryNode<'_>) -> Self {
        SummaryRow {
            op: node.name,
            output: node.shape,
            params: node.params.iter().map(|(name, _)| (*name).to_owned()).collect(),
            parameters: node.params.iter().map(|(_, shape)| shape.numel()).sum(),
            macs: node.macs,
        }
    }
}

impl SummaryRow {
    /// The layer that the parameters belong to: `conv1` for `conv1.weight` and `conv1.bias`; empty
    /// without parameters.
    pub fn layer(&self) -> &str {
        let name = self.params.first().map_or("", String::as_str);
        name.rsplit_once('.').map_or(name, |(layer, _)| layer)
    }
}

impl Summary {
    /// Multiply-adds of one forward pass.
    pub fn macs(&self) -> u64 {
        self.rows.iter().map(|row| row.macs).sum()
    }

    /// Bytes of all trainable values.
    pub fn parameter_bytes(&self) -> usize {
        self.parameters * size_of::<f32>()
    }

    /// Bytes of all operations' outputs.
    pub fn activation_bytes(&self) -> usize {
        self.rows.iter().map(|row| row.output.numel() * size_of::<f32>()).sum()
    }

    /// Bytes that a training step works on, at most: every output and its gradient, and the
    /// parameters with gradient and momentum. The scratch memory of single operations comes on top.
    pub fn training_bytes(&self) -> usize {
        2 * self.activation_bytes() + 3 * self.parameter_bytes()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |row: &SummaryRow| match row.layer() {
            "" => row.op.to_owned(),
            layer => format!("{} ({layer})", row.op),
        };
        let count = |n: u64| if n == 0 { String::new() } else { grouped(n) };
        let heading = ["operation", "output", "parameters", "mult-adds"].map(str::to_owned);
        let input = ["input".to_owned(), self.input.to_string(), String::new(), String::new()];
        let mut rows = vec![heading, input];
        rows.extend(self.rows.iter().map(|row| {
            [name(row), row.output.to_string(), count(row.parameters as u64), count(row.macs)]
        }));
        let total = [self.parameters as u64, self.macs()].map(grouped);
        let [parameters, macs] = total;
        rows.push(["total".to_owned(), String::new(), parameters, macs]);

        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let [a, b, c, d] = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
        let rule = "─".repeat(a + b + c + d + 6);
        for (i, [op, output, parameters, macs]) in rows.iter().enumerate() {
            if i == 1 || i + 1 == rows.len() {
                writeln!(f, "{rule}")?;
            }
            let line = format!("{op:<a$}  {output:<b$}  {parameters:>c$}  {macs:>d$}");
            writeln!(f, "{}", line.trim_end())?;
        }
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        write!(
            f,
            "memory: parameters {:.2} MB, outputs {:.2} MB, a training step at most {:.2} MB",
            megabytes(self.parameter_bytes()),
            megabytes(self.activation_bytes()),
            megabytes(self.training_bytes())
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::Params;
    use crate::nn::{Layer, Module, Sequential};

    #[test]
    fn a_summary_by_hand() {
        let mut params = Params::new(0);
        let layers = [
            Layer::conv2d(1, 6, 5),
            Layer::max_pool2d(2, 2),
            Layer::Relu,
            Layer::Flatten,
            Layer::linear(864, 10),
        ];
        let model = Sequential::new(&mut params, layers);
        let summary = model.summary(&params, [2, 1, 28, 28]).unwrap();
        let text = "\
operation   output          parameters  mult-adds
─────────────────────────────────────────────────
input       [2, 1, 28, 28]
conv2d (0)  [2, 6, 24, 24]         156    172,800
max_pool2d  [2, 6, 12, 12]
relu        [2, 6, 12, 12]
flatten     [2, 864]
linear (4)  [2, 10]              8,650     17,280
─────────────────────────────────────────────────
total                            8,806    190,080
memory: parameters 0.04 MB, outputs 0.05 MB, a training step at most 0.20 MB";
        assert_eq!(summary.to_string(), text);
        // Convolution, pooling, ReLU, flattening, linear layer; 4 bytes, 2 examples.
        assert_eq!(summary.activation_bytes(), 4 * 2 * (6 * 24 * 24 + 3 * 864 + 10));
    }
}
