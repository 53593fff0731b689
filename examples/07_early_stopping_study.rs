//! 7. Which stopping rule? Measured, not believed.
//!
//! Early stopping is usually chosen by habit. Here networks are trained without stopping, and then
//! each rule is asked when it would have stopped and what that would have cost, in the manner of
//! Prechelt, "Early Stopping - But When?" (1998). `docs/early-stopping-study.md` discusses the
//! result.
//!
//! Run it: `cargo run --release --example 07_early_stopping_study` reads the recorded curves in
//! `docs/study`; with `-- --train DIR` it trains all networks anew and writes their curves to DIR.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ferrotape::data::{Batches, Dataset, Split, Subset, load_idx_dir};
use ferrotape::monitor::{EarlyStopping, Observation, compare, read_log};
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::trainer::evaluate;
use ferrotape::{Error, Graph, Params, Result, Tape};

const EPOCHS: u64 = 60;

const RULES: [&str; 28] = [
    "patience(1)",
    "patience(2)",
    "patience(3)",
    "patience(5)",
    "patience(8)",
    "patience(10)",
    "patience(15)",
    "patience(20)",
    "patience(5), min_delta=auto",
    "patience(5), min_delta=relative(0.01)",
    "patience(10), min_delta=relative(0.01)",
    "patience(5), smoothing=mean(3)",
    "patience(5), smoothing=median(3)",
    "gl(2)",
    "gl(5)",
    "gl(10)",
    "gl(20)",
    "pq(0.5,k=5)",
    "pq(1,k=5)",
    "pq(2,k=5)",
    "up(2,k=5)",
    "up(3,k=5)",
    "correlation(-0.5,k=10)",
    "paired(5,z=1.645)",
    "paired(10,z=1.645)",
    "any(patience(10),gl(10))",
    "all(patience(5),gl(5))",
    "all(patience(3),gl(2))",
];

/// A network and how it is trained.
struct Setting {
    network: &'static str,
    examples: usize,
    lr: f32,
    weight_decay: f32,
    dropout: f32,
    seed: u64,
}

/// Four networks, each on little and on much data, gently and hard, with and without
/// regularisation.
fn settings() -> Vec<Setting> {
    let mut all = Vec::new();
    for network in ["mlp", "cnn", "large", "norm"] {
        for (examples, lr, weight_decay, dropout, seed) in [
            (200, 0.01, 0.0, 0.0, 0),
            (200, 0.05, 0.0, 0.5, 1),
            (500, 0.01, 0.0, 0.0, 2),
            (500, 0.05, 0.0, 0.0, 3),
            (1000, 0.003, 0.0, 0.0, 4),
            (1000, 0.05, 1e-3, 0.0, 5),
            (2000, 0.02, 0.0, 0.0, 6),
            (2000, 0.02, 1e-3, 0.5, 7),
            (6000, 0.02, 0.0, 0.3, 8),
        ] {
            let examples = if network == "large" { examples.min(3000) } else { examples };
            all.push(Setting { network, examples, lr, weight_decay, dropout, seed });
        }
    }
    all
}

impl Setting {
    fn name(&self) -> String {
        let Setting { network, examples, lr, weight_decay, dropout, seed } = self;
        format!("{network}-n{examples}-lr{lr}-wd{weight_decay}-drop{dropout}-seed{seed}")
    }

    fn layers(&self) -> Vec<Layer> {
        let dropout = Layer::Dropout { p: self.dropout };
        let pool = Layer::max_pool2d(2, 2);
        let head = |inputs, hidden| {
            let dropout = dropout.clone();
            let (first, last) = (Layer::linear(inputs, hidden), Layer::linear(hidden, 10));
            vec![Layer::Flatten, first, Layer::Relu, dropout, last]
        };
        let trunk = match self.network {
            "mlp" => return head(784, 128),
            "cnn" => vec![Layer::conv2d(1, 6, 5), Layer::Relu, pool],
            "large" => vec![
                Layer::conv2d_same(1, 16, 3),
                Layer::Relu,
                pool.clone(),
                Layer::conv2d_same(16, 32, 3),
                Layer::Relu,
                pool,
            ],
            _ => {
                vec![Layer::conv2d(1, 8, 5), Layer::BatchNorm2d { channels: 8 }, Layer::Relu, pool]
            }
        };
        let features = match self.network {
            "cnn" => 6 * 12 * 12,
            "large" => 32 * 7 * 7,
            _ => 8 * 12 * 12,
        };
        [trunk, head(features, 100)].concat()
    }

    /// Trains to the end, whatever the validation loss says; a line per epoch for the log.
    fn train(&self, data: &Split) -> Result<(Vec<Observation>, String)> {
        let (_, train) = data.train.hold_out(self.examples, self.seed)?;
        // As one would have it: a validation part of a quarter of the training part's size.
        let (_, valid) = data.valid.hold_out((self.examples / 4).min(999), self.seed)?;
        let probe = Subset::all(std::sync::Arc::new(train.clone()));
        let probe = probe.hold_out(valid.len(), self.seed)?.1;

        let mut params = Params::new(self.seed);
        let model = Sequential::new(&mut params, self.layers());
        let mut sgd = Sgd::new(self.lr).momentum(0.9).weight_decay(self.weight_decay);
        let mut tape = Tape::new();
        let mut batches = Batches::new(&train, 32).shuffled(self.seed);
        let (mut history, mut log, mut step) = (Vec::new(), String::new(), 0);
        for epoch in 1..=EPOCHS {
            batches.seek(epoch - 1, 0);
            while let Some(batch) = batches.next() {
                let mut g = Graph::new(&mut tape, &params).at_step(step);
                let x = g.input(&batch.inputs);
                let logits = model.forward(&mut g, x);
                let loss = g.cross_entropy(logits, &batch.labels);
                let gradients = g.backward(loss);
                sgd.step(&mut params, &gradients);
                step += 1;
            }
            let [seen, unseen, test] = [&probe as &dyn Dataset, &valid, &data.test]
                .map(|part| evaluate(&model, &params, part));
            let mut o =
                Observation::new(epoch, round(unseen.loss)).with_train_loss(round(seen.loss));
            o.valid_loss_se = Some(round(unseen.standard_error));
            o = o.with_metric("test_loss", round(test.loss));
            let (train_loss, valid_loss) = (round(seen.loss), round(unseen.loss));
            let (se, test_loss) = (round(unseen.standard_error), round(test.loss));
            let _ = writeln!(
                log,
                "{{\"epoch\":{epoch},\"train_loss\":{train_loss},\"valid_loss\":{valid_loss},\
                 \"valid_loss_se\":{se},\"test_loss\":{test_loss}}}"
            );
            o.example_losses = unseen.losses;
            history.push(o);
        }
        Ok((history, log))
    }
}

/// To five significant digits, which keeps the logs small and is all that a table needs.
fn round(x: f64) -> f64 {
    format!("{x:.4e}").parse().expect("a number")
}

/// The curves, from training or from their logs.
fn curves(train_into: Option<&Path>) -> Result<Vec<(String, Vec<Observation>)>> {
    if let Some(dir) = train_into {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let data = load_idx_dir("data/mnist", 10, 0)?;
        return settings()
            .iter()
            .map(|setting| {
                let (history, log) = setting.train(&data)?;
                let path = dir.join(setting.name() + ".jsonl");
                fs::write(&path, log).map_err(|e| Error::io("write", &path, e))?;
                println!("{}", path.display());
                Ok((setting.name(), history))
            })
            .collect();
    }
    let log = |setting: Setting| {
        let path = Path::new("docs/study").join(setting.name() + ".jsonl");
        let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        Ok((setting.name(), read_log(&path, &text)?))
    };
    settings().into_iter().map(log).collect()
}

fn test_loss(o: &Observation) -> f64 {
    o.value("test_loss").expect("every line has one")
}

/// The sums that become a row of the table.
#[derive(Clone, Copy, Default)]
struct Row {
    curves: f64,
    never: f64,
    stop_epoch: f64,
    saved: f64,
    regret: f64,
    test_ratio: f64,
    worst: f64,
    false_stops: f64,
}

impl Row {
    fn add(&mut self, spec: &EarlyStopping, history: &[Observation]) -> Result<()> {
        let found = compare(std::slice::from_ref(spec), history)?.remove(0);
        let lowest = |value: fn(&Observation) -> f64| {
            history.iter().map(value).fold(f64::INFINITY, f64::min)
        };
        let chosen = found.best_epoch.expect("the losses are finite") as usize - 1;
        let regret = history[chosen].valid_loss / lowest(|o| o.valid_loss) - 1.0;
        let ratio = test_loss(&history[chosen]) / lowest(test_loss);
        self.curves += 1.0;
        self.never += f64::from(u8::from(found.stop_epoch.is_none()));
        self.stop_epoch += found.stop_epoch.unwrap_or(EPOCHS) as f64;
        self.saved += found.saved;
        self.regret += regret;
        self.test_ratio += ratio;
        self.worst = self.worst.max(ratio);
        // Stopped although more than a twentieth was still to be gained.
        self.false_stops += f64::from(u8::from(found.stop_epoch.is_some() && regret > 0.05));
        Ok(())
    }

    fn print(&self, rule: &str) {
        let n = self.curves;
        println!(
            "| `{rule}` | {:.1} | {:.0}% | {:.2}% | {:.3} | {:.2} | {} | {} |",
            self.stop_epoch / n,
            100.0 * self.saved / n,
            100.0 * self.regret / n,
            self.test_ratio / n,
            self.worst,
            self.false_stops,
            self.never,
        );
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let train_into = match &arguments[..] {
        [] => None,
        [option, dir] if option == "--train" => Some(PathBuf::from(dir)),
        _ => return Err(Error::config("arguments", "expected nothing, or --train DIR")),
    };
    let curves = curves(train_into.as_deref())?;
    let overfits = |history: &[Observation]| {
        let best = history.iter().map(|o| o.valid_loss).fold(f64::INFINITY, f64::min);
        history.last().is_some_and(|last| last.valid_loss > 1.1 * best)
    };
    let (over, under): (Vec<_>, Vec<_>) =
        curves.iter().map(|(_, history)| &history[..]).partition(|history| overfits(history));
    for (title, histories) in [
        ("all curves", [&over[..], &under].concat()),
        ("curves that overfit: the last validation loss is more than 10% above the best", over),
        ("curves that do not", under),
    ] {
        println!("\n{} {title}\n", histories.len());
        println!(
            "| rule | stop epoch | saved | regret | test loss ratio | worst | false stops | never |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|");
        for rule in RULES.iter().chain(&["budget(epochs=60)"]) {
            let spec: EarlyStopping = rule.parse()?;
            let needs_examples = spec.needs_example_losses();
            if needs_examples && train_into.is_none() {
                continue; // logs do not have the losses of single examples
            }
            let mut row = Row::default();
            histories.iter().try_for_each(|history| row.add(&spec, history))?;
            row.print(rule);
        }
        // What the last weights, instead of the best, would have been worth.
        let lasts = histories.iter().map(|history| {
            let lowest = history.iter().map(test_loss).fold(f64::INFINITY, f64::min);
            history.last().map_or(f64::NAN, test_loss) / lowest
        });
        let ratio = lasts.sum::<f64>() / histories.len() as f64;
        println!("\nlast weights instead of the best: test loss ratio {ratio:.3}");
    }
    Ok(())
}
