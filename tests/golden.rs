//! The engine against PyTorch: every operation (value and all gradients), the optimizer, and
//! twenty training steps, with the numbers in `tests/golden/`.
//!
//! The names, shapes and settings of the cases are in `tests/golden/generate.py`; here each is
//! repeated in the engine's own words. Every case runs on every instruction set of the machine,
//! and twice: alone, where each gradient is written, and with its operands used by a second copy
//! of the operation, where gradients must add up.
//!
//! Each comparison states its tolerance: a few times the largest error that has been seen,
//! most of it the unavoidable rounding of f32 (6e-8 per operation).
//!
//! Dropout is not here: its random mask is the engine's own.

#[path = "golden/reader.rs"]
mod reader;

use std::cell::RefCell;
use std::collections::BTreeSet;

use ferrotape::ops::{Conv2dOptions, CrossEntropyOptions, Pool2dOptions, Reduction};
use ferrotape::optim::Sgd;
use ferrotape::{Graph, Init, Params, Tape, Tensor, Var};
use ferrotape_kernels::isa::{Isa, with_isa};

use reader::Tolerance::{self, OfRms, Relative};
use reader::{Golden, assert_close};

/// The cases of one file, and which of them have been checked.
struct Family {
    golden: Golden,
    checked: RefCell<BTreeSet<String>>,
}

impl Family {
    fn open(name: &str) -> Family {
        Family { golden: Golden::open(name), checked: RefCell::default() }
    }

    /// Compares the operation that `f` records, and its gradients, with those of `case`.
    #[track_caller]
    fn check(&self, case: &str, tolerance: Tolerance, f: impl Fn(&mut Graph, &[Var]) -> Var) {
        self.checked.borrow_mut().insert(case.into());
        for isa in Isa::available() {
            with_isa(isa, || {
                self.check_here(case, false, tolerance, &f);
                self.check_here(case, true, tolerance, &f);
            });
        }
    }

    #[track_caller]
    fn check_here(
        &self,
        case: &str,
        twice: bool,
        tolerance: Tolerance,
        f: &impl Fn(&mut Graph, &[Var]) -> Var,
    ) {
        let used = if twice { "used twice" } else { "used once" };
        let label = |part: &str| format!("{case} ({used}, {}): {part}", Isa::current().name());
        let part = |part: String| self.golden.get(&format!("{case}/{part}"));
        let inputs: Vec<&Tensor> = (0..).map_while(|k| part(format!("in{k}"))).collect();
        let want = self.golden.tensor(&format!("{case}/out"));

        let (mut tape, params) = (Tape::new(), Params::new(0));
        let mut g = Graph::new(&mut tape, &params);
        let vars: Vec<Var> = inputs.iter().map(|input| g.leaf(input)).collect();
        let out = f(&mut g, &vars);
        assert_eq!(g.shape(out), want.shape(), "{}", label("shape"));
        assert_close(&label("output"), g.value(out), want.data(), tolerance);

        let Some(upstream) = part("upstream".into()) else { return };
        let gradients = if twice {
            // The mean of two equal values has the gradients of either.
            let again = f(&mut g, &vars);
            let sum = g.add(out, again);
            let halves: Vec<f32> = upstream.data().iter().map(|d| d / 2.0).collect();
            g.backward_with(sum, &halves)
        } else {
            g.backward_with(out, upstream.data())
        };
        for (k, &var) in vars.iter().enumerate() {
            let what = label(&format!("gradient of operand {k}"));
            let got = gradients.wrt(var).unwrap_or_else(|| panic!("{what}: there is none"));
            let want = self.golden.tensor(&format!("{case}/grad{k}"));
            assert_close(&what, got, want.data(), tolerance);
        }
    }

    /// Panics if the file holds a case that was not checked.
    #[track_caller]
    fn finish(self) {
        let checked = self.checked.into_inner();
        let all: BTreeSet<_> = self
            .golden
            .names()
            .filter_map(|name| Some(name.strip_suffix("/out")?.into()))
            .collect();
        assert_eq!(checked, all, "cases checked (left) and cases in the file (right)");
    }
}

#[test]
fn arithmetic() {
    let family = Family::open("arithmetic");
    for shapes in ["same", "scalar", "row", "column", "outer", "left", "rank", "long"] {
        // Where an operand was broadcast, its gradient is a sum.
        let tolerance = if shapes == "same" { Relative(3e-7) } else { OfRms(6e-7) };
        family.check(&format!("add/{shapes}"), tolerance, |g, v| g.add(v[0], v[1]));
        family.check(&format!("sub/{shapes}"), tolerance, |g, v| g.sub(v[0], v[1]));
        family.check(&format!("mul/{shapes}"), tolerance, |g, v| g.mul(v[0], v[1]));
        family.check(&format!("div/{shapes}"), tolerance, |g, v| g.div(v[0], v[1]));
    }
    let tolerance = OfRms(6e-7);
    family.check("add/itself", tolerance, |g, v| g.add(v[0], v[0]));
    family.check("sub/itself", tolerance, |g, v| g.sub(v[0], v[0]));
    family.check("mul/itself", tolerance, |g, v| g.mul(v[0], v[0]));
    for case in ["exp", "exp/extreme"] {
        family.check(case, Relative(5e-7), |g, v| g.exp(v[0]));
    }
    for case in ["log", "log/extreme"] {
        family.check(case, Relative(5e-7), |g, v| g.log(v[0]));
    }
    family.check("neg", Relative(0.0), |g, v| g.neg(v[0]));
    family.check("scale", Relative(2e-7), |g, v| g.scale(v[0], -1.75));
    family.check("add_scalar", Relative(2e-7), |g, v| g.add_scalar(v[0], 0.75));
    family.finish();
}

#[test]
fn activations() {
    let family = Family::open("activations");
    for case in ["", "/one", "/large", "/extreme"] {
        let name = |op: &str| format!("{op}{case}");
        family.check(&name("relu"), Relative(0.0), |g, v| g.relu(v[0]));
        family.check(&name("leaky_relu"), Relative(3e-7), |g, v| g.leaky_relu(v[0], 0.2));
        family.check(&name("gelu"), OfRms(6e-7), |g, v| g.gelu(v[0]));
        family.check(&name("sigmoid"), OfRms(1e-6), |g, v| g.sigmoid(v[0]));
        family.check(&name("tanh"), OfRms(1e-6), |g, v| g.tanh(v[0]));
    }
    family.finish();
}

#[test]
fn matmul_and_linear() {
    let family = Family::open("matmul");
    for case in [
        "odd",
        "row",
        "column",
        "inner",
        "outer",
        "deep",
        "batched",
        "twice_batched",
        "shared_right",
        "shared_left",
        "shared_right_4d",
    ] {
        family.check(&format!("matmul/{case}"), OfRms(2e-6), |g, v| g.matmul(v[0], v[1]));
    }
    family.check("matmul/itself", OfRms(2e-6), |g, v| g.matmul(v[0], v[0]));
    family.check("matmul/gram", OfRms(2e-6), |g, v| {
        let transposed = g.transpose(v[0], 0, 1);
        g.matmul(v[0], transposed)
    });
    for case in ["bias", "no_bias", "one_example", "one_output", "wide"] {
        family.check(&format!("linear/{case}"), OfRms(2e-6), |g, v| {
            g.linear(v[0], v[1], v.get(2).copied())
        });
    }
    family.finish();
}

#[test]
fn conv2d() {
    let plain = Conv2dOptions::default();
    let padding = |h, w| Conv2dOptions { padding: [h, w], ..plain };
    let stride = |h, w| Conv2dOptions { stride: [h, w], ..plain };
    let family = Family::open("conv2d");
    for (case, options) in [
        ("plain", plain),
        ("no_bias", plain),
        ("first_layer", plain),
        ("one_by_one", plain),
        ("one_by_one_strided", stride(2, 2)),
        ("whole_image", plain),
        ("same", padding(1, 1)),
        ("oblong", padding(1, 2)),
        ("padding_beyond_kernel", padding(3, 2)),
        ("strided", stride(2, 3)),
        ("strided_same", Conv2dOptions { stride: [2, 2], ..padding(1, 1) }),
        ("stride_beyond_kernel", stride(3, 4)),
        ("stem", Conv2dOptions { stride: [2, 2], ..padding(3, 3) }),
        ("dilated", Conv2dOptions { dilation: [2, 1], ..padding(1, 1) }),
        ("dilated_strided", Conv2dOptions { dilation: [3, 2], stride: [1, 2], ..padding(2, 3) }),
        ("groups", Conv2dOptions { groups: 2, ..padding(1, 1) }),
        ("groups_dilated", Conv2dOptions { groups: 3, dilation: [2, 2], ..plain }),
        ("depthwise", Conv2dOptions { groups: 5, ..padding(1, 1) }),
        ("depthwise_strided", Conv2dOptions { groups: 3, ..stride(2, 2) }),
        ("deep", padding(1, 1)),
    ] {
        family.check(case, OfRms(3e-6), |g, v| g.conv2d(v[0], v[1], v.get(2).copied(), options));
    }
    family.finish();
}

#[test]
fn pool2d() {
    let family = Family::open("pool2d");
    for (case, kernel, stride, padding) in [
        ("halves", [2, 2], [2, 2], [0, 0]),
        ("odd", [2, 2], [2, 2], [0, 0]),
        ("wide", [2, 2], [2, 2], [0, 0]),
        ("overlapping", [3, 3], [2, 2], [0, 0]),
        ("padded", [3, 3], [2, 2], [1, 1]),
        ("oblong", [4, 2], [3, 1], [2, 1]),
        ("gaps", [2, 2], [3, 4], [0, 0]),
        ("whole_image", [4, 5], [1, 1], [0, 0]),
    ] {
        let options = Pool2dOptions { kernel, stride, padding };
        // Windows that overlap add up to four numbers into a gradient.
        family.check(&format!("max/{case}"), OfRms(5e-7), |g, v| g.max_pool2d_with(v[0], options));
        family.check(&format!("avg/{case}"), OfRms(6e-7), |g, v| g.avg_pool2d_with(v[0], options));
    }
    let padded = Pool2dOptions { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
    for case in ["max/below_padding", "max/ties_padded"] {
        family.check(case, OfRms(5e-7), |g, v| g.max_pool2d_with(v[0], padded));
    }
    for case in ["max/ties", "max/not_finite"] {
        family.check(case, Relative(0.0), |g, v| g.max_pool2d(v[0], 2, 2));
    }
    family.check("avg/halves", OfRms(6e-7), |g, v| g.avg_pool2d(v[0], 2, 2));
    family.check("global_avg", OfRms(6e-7), |g, v| g.global_avg_pool2d(v[0]));
    family.finish();
}

#[test]
fn softmax() {
    let family = Family::open("softmax");
    let usual = OfRms(1e-6);
    for (case, dim, tolerance) in [
        ("last", -1, usual),
        ("first", 0, usual),
        ("middle", -2, usual),
        ("vector", 0, usual),
        ("one_class", 1, usual),
        ("large", 1, Relative(1e-6)),
    ] {
        family.check(&format!("softmax/{case}"), tolerance, |g, v| g.softmax(v[0], dim));
        family.check(&format!("log_softmax/{case}"), tolerance, |g, v| g.log_softmax(v[0], dim));
    }
    family.finish();
}

#[test]
fn losses() {
    let family = Family::open("losses");
    let usual = OfRms(1e-6);
    for (case, label_smoothing, reduction, tolerance) in [
        ("mean", 0.0, Reduction::Mean, usual),
        ("sum", 0.0, Reduction::Sum, usual),
        ("none", 0.0, Reduction::None, usual),
        ("smooth_mean", 0.1, Reduction::Mean, usual),
        ("smooth_sum", 0.3, Reduction::Sum, usual),
        ("smooth_none", 0.1, Reduction::None, usual),
        ("one_example", 0.0, Reduction::Mean, usual),
        ("two_classes", 0.1, Reduction::Mean, usual),
        ("many_classes", 0.1, Reduction::Mean, usual),
        ("large", 0.0, Reduction::None, Relative(1e-6)),
    ] {
        let name = format!("cross_entropy/{case}");
        let targets = family.golden.labels(&format!("{name}/targets"));
        let options = CrossEntropyOptions { label_smoothing, reduction };
        family.check(&name, tolerance, |g, v| g.cross_entropy_with(v[0], &targets, options));
        if reduction == Reduction::Mean && label_smoothing == 0.0 {
            family.check(&name, tolerance, |g, v| g.cross_entropy(v[0], &targets));
        }
    }
    family.check("mse/matrix", usual, |g, v| g.mse(v[0], v[1]));
    family.check("mse/scalar", usual, |g, v| g.mse(v[0], v[1]));
    family.finish();
}

#[test]
fn reductions() {
    let family = Family::open("reductions");
    family.check("sum/all", OfRms(1e-6), |g, v| g.sum(v[0]));
    family.check("sum/long", OfRms(1e-6), |g, v| g.sum(v[0]));
    family.check("mean/all", OfRms(1e-6), |g, v| g.mean(v[0]));
    family.check("mean/scalar", OfRms(0.0), |g, v| g.mean(v[0]));
    for (case, axes, keepdim) in [
        ("first", &[0][..], false),
        ("middle", &[1], false),
        ("last", &[-1], false),
        ("first_and_last", &[0, -1], false),
        ("trailing", &[-2, -1], false),
        ("unordered", &[2, 0], false),
        ("all", &[0, 1, 2], false),
        ("keep_middle", &[-2], true),
        ("keep_first_and_last", &[0, 2], true),
        ("batch_norm", &[0, 2, 3], true),
    ] {
        let name = |op: &str| format!("{op}/{case}");
        family.check(&name("sum_axes"), OfRms(5e-7), |g, v| g.sum_axes(v[0], axes, keepdim));
        family.check(&name("mean_axes"), OfRms(5e-7), |g, v| g.mean_axes(v[0], axes, keepdim));
    }
    family.finish();
}

#[test]
fn layout() {
    let family = Family::open("layout");
    // Nothing is computed: the numbers must be the very same.
    let exact = Relative(0.0);
    family.check("reshape", exact, |g, v| g.reshape(v[0], [4, 3, 5]));
    family.check("reshape/scalar", exact, |g, v| g.reshape(v[0], []));
    family.check("flatten", exact, |g, v| g.flatten(v[0]));
    family.check("transpose", exact, |g, v| g.transpose(v[0], 0, 1));
    family.check("transpose/negative", exact, |g, v| g.transpose(v[0], -1, 0));
    family.check("transpose/last_two", exact, |g, v| g.transpose(v[0], -2, -1));
    family.check("permute/cycle", exact, |g, v| g.permute(v[0], &[2, 0, 1]));
    family.check("permute/channels_last", exact, |g, v| g.permute(v[0], &[0, 2, 3, 1]));
    family.check("permute/identity", exact, |g, v| g.permute(v[0], &[0, 1]));
    family.check("concat/first", exact, |g, v| g.concat(v, 0));
    family.check("concat/middle", exact, |g, v| g.concat(v, 1));
    family.check("concat/last", exact, |g, v| g.concat(v, -1));
    family.check("concat/one", exact, |g, v| g.concat(v, 0));
    family.check("concat/itself", exact, |g, v| g.concat(&[v[0], v[0]], 1));
    family.check("slice/first", exact, |g, v| g.slice(v[0], 0, 1..3));
    family.check("slice/middle", exact, |g, v| g.slice(v[0], 1, 2..5));
    family.check("slice/last", exact, |g, v| g.slice(v[0], -1, 0..2));
    family.check("slice/whole", exact, |g, v| g.slice(v[0], 1, 0..4));
    family.check("pad/image", exact, |g, v| g.pad(v[0], &[(0, 0), (0, 0), (0, 3), (2, 1)], 0.0));
    family.check("pad/value", exact, |g, v| g.pad(v[0], &[(1, 2)], -1.5));
    family.check("pad/all", exact, |g, v| g.pad(v[0], &[(3, 1), (0, 2), (1, 0)], 0.5));
    family.check("pad/nothing", exact, |g, v| g.pad(v[0], &[(0, 0), (0, 0)], 0.0));
    family.finish();
}

#[test]
fn sgd() {
    let golden = Golden::open("sgd");
    let momentum = |mu| Sgd::new(0.1).momentum(mu);
    for (variant, sgd) in [
        ("plain", Sgd::new(0.1)),
        ("weight_decay", Sgd::new(0.1).weight_decay(0.02)),
        ("momentum", momentum(0.9)),
        ("momentum_decay", momentum(0.9).weight_decay(0.02)),
        ("dampening", momentum(0.8).dampening(0.3).weight_decay(0.02)),
        ("nesterov", momentum(0.9).nesterov(true)),
        ("nesterov_decay", momentum(0.9).nesterov(true).weight_decay(0.02)),
    ] {
        for isa in Isa::available() {
            with_isa(isa, || sgd_steps(&golden, variant, sgd.clone()));
        }
    }
}

/// Steps along the given gradients; the learning rate halves half-way.
fn sgd_steps(golden: &Golden, variant: &str, mut sgd: Sgd) {
    let part = |part: &str| golden.tensor(&format!("{variant}/{part}"));
    let (start, gradients, weights) = (part("start"), part("gradients"), part("weights"));
    let (mut tape, mut params) = (Tape::new(), Params::new(0));
    let id = params.add("w", start.shape(), Init::Zeros);
    params.get_mut(id).copy_from_slice(start.data());

    let n = start.data().len();
    let steps = gradients.data().chunks(n).zip(weights.data().chunks(n));
    for (step, (gradient, want)) in steps.enumerate() {
        if step == weights.shape()[0] / 2 {
            sgd.lr /= 2.0;
        }
        let mut g = Graph::new(&mut tape, &params);
        let w = g.param(id);
        let gradients = g.backward_with(w, gradient);
        sgd.step(&mut params, &gradients);
        let what = format!("sgd {variant}, {}: step {step}", Isa::current().name());
        assert_close(&what, params.get(id), want, OfRms(5e-7));
    }
}

#[test]
fn twenty_training_steps() {
    let golden = Golden::open("training");
    let sgd = Sgd::new(0.05).momentum(0.9).weight_decay(5e-4);
    for (variant, sgd) in [("classical", sgd.clone()), ("nesterov", sgd.nesterov(true))] {
        for isa in Isa::available() {
            with_isa(isa, || train(&golden, variant, sgd.clone()));
        }
    }
}

/// The article's network, with nothing but operations of the graph.
fn forward(g: &mut Graph, params: &Params, x: Var) -> Var {
    let [wc, bc, w1, b1, w2, b2, w3, b3] =
        params.ids().map(|id| g.param(id)).collect::<Vec<_>>().try_into().expect("eight");
    let h = g.conv2d(x, wc, Some(bc), Conv2dOptions::default());
    let h = g.relu(h);
    let h = g.max_pool2d(h, 2, 2);
    let h = g.flatten(h);
    let h = g.linear(h, w1, Some(b1));
    let h = g.relu(h);
    let h = g.linear(h, w2, Some(b2));
    let h = g.relu(h);
    g.linear(h, w3, Some(b3))
}

fn train(golden: &Golden, variant: &str, mut sgd: Sgd) {
    let what = |part: &str| format!("{variant}, {}: {part}", Isa::current().name());
    let (mut tape, mut params) = (Tape::new(), Params::new(0));
    for layer in ["conv", "fc1", "fc2", "fc3"] {
        for name in [format!("{layer}.weight"), format!("{layer}.bias")] {
            let first = golden.tensor(&format!("first/{name}"));
            let id = params.add(name, first.shape(), Init::Zeros);
            params.get_mut(id).copy_from_slice(first.data());
        }
    }
    let batches: Vec<Tensor> = golden
        .tensor("images")
        .data()
        .chunks(8 * 28 * 28)
        .map(|batch| Tensor::from_vec(batch.to_vec(), [8, 1, 28, 28]))
        .collect();
    let labels = golden.labels("labels");

    let losses = golden.tensor(&format!("{variant}/losses"));
    for (step, loss_wanted) in losses.data().iter().enumerate() {
        let batch = step % batches.len();
        let mut g = Graph::new(&mut tape, &params);
        let x = g.input(&batches[batch]);
        let logits = forward(&mut g, &params, x);
        let loss = g.cross_entropy(logits, &labels[8 * batch..][..8]);
        let label = what(&format!("loss of step {step}"));
        assert_close(&label, &[g.item(loss)], &[*loss_wanted], Relative(3e-6));
        let gradients = g.backward(loss);
        sgd.step(&mut params, &gradients);
    }

    for id in params.ids() {
        let name = params.name(id);
        let want = golden.tensor(&format!("{variant}/last/{name}"));
        // Of the two large matrices every so many-th weight is recorded.
        let stride = params.get(id).len().div_ceil(want.data().len());
        let got: Vec<f32> = params.get(id).iter().step_by(stride).copied().collect();
        assert_close(&what(name), &got, want.data(), OfRms(3e-6));
    }
}
