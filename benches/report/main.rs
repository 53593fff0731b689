//! The performance report: this machine's limits, then every workload as a fraction of them, and
//! beside other frameworks' figures.
//!
//! ```text
//! cargo bench --bench report                                  everything, as a table
//! cargo bench --bench report -- W2 --name C --threads 2       one workload, row and thread count
//! cargo bench --bench report -- --json                        one JSON object per row
//! cargo bench --bench report -- --vs FILE                     peers' JSON rows beside ours
//! FERROTAPE_ISA=avx2 cargo bench --bench report               with another instruction set
//! FERROTAPE_WINOGRAD=0 cargo bench --bench report -- W2       convolutions in direct loops only
//! ```
//!
//! | workload | what |
//! |---|---|
//! | W1 | matrix products |
//! | W2 | convolutions: forward, gradient by input, gradient by weights |
//! | W3 | pooling, ReLU, batch normalisation, cross-entropy, SGD |
//! | W4 | whole training steps; each in a process of its own, for its peak memory |
//! | W5 | inference on one image |
//! | W7 | saving and loading 500 MB; saving in the background |
//!
//! Each result is compared with its naive twin before it is timed; of large products and
//! convolutions the first, the middle and the last part are, and the rest must be no NaN. Products
//! on one thread are timed beside those of `ndarray`, which uses one, as well. Times are medians;
//! compare rows of one run only, since absolute times drift. FLOPs are two per multiply-add of the
//! direct algorithm, of which Winograd's does four ninths, or 25/36 with stride 2: it can be above
//! 100% of its limit. Networks count those of convolutions and linear layers; in a training step
//! forward and both backward passes, without the gradient of the images, which nobody computes.

mod checkpoint;
mod machine;
mod rows;
mod small_ops;
#[path = "../workloads/mod.rs"]
mod workloads;

use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use ferrotape_kernels::conv2d::{Conv2dDims, winograd_from_env};
use ferrotape_kernels::isa::Isa;
use rayon::ThreadPool;
use rows::{Limits, Peers, Row, Timing};
use serde_json::json;
use workloads::{CONV_OPS, ConvData, GEMMS, GemmData, Network, STEPS, convs};

/// What the command line asks for.
struct Options {
    workloads: Vec<String>,
    name: Option<String>,
    op: Option<String>,
    threads: Vec<usize>,
    json: bool,
    peers: Peers,
    /// Run everything once, briefly: `cargo bench -- --test`.
    test: bool,
    /// This process was started by the report to run one row.
    child: bool,
}

fn main() -> ExitCode {
    let options = match parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("report: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = Isa::from_env().and(winograd_from_env()) {
        eprintln!("report: {error}");
        return ExitCode::from(2);
    }
    let mut report = Report {
        options,
        limits: Vec::new(),
        compared: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    };
    report.run();
    if !report.options.peers.is_empty() && !report.compared.into_inner() {
        eprintln!(
            "report: none of the rows of --vs has the workload, name, op and threads of one here"
        );
    }
    ExitCode::SUCCESS
}

const HELP: &str = r#"usage: cargo bench --bench report -- [WORKLOAD ...] [OPTION ...]
workloads: W1 matrix products, W2 convolutions, W3 small operations, W4 training steps,
           W5 inference, W7 checkpoints; all of them without a selection
  --list         print the names and operations that can be selected
  --name NAME    only rows of this name
  --op OP        only rows of this operation
  --threads N    with so many threads; may be repeated; 1 and 2 without it
  --json         one JSON object per row
  --vs FILE      set peers' rows, one JSON object per line, beside ours; may be repeated.
                 "med" is in seconds; the other five say of what row:
                 {"fw":"torch","wl":"W2","name":"C","op":"fwd","thr":1,"med":0.05}
environment:
  FERROTAPE_ISA=scalar|avx2|avx512|neon   another instruction set
  FERROTAPE_WINOGRAD=0                    convolutions in direct loops only
  FERROTAPE_BENCH_DIR=DIR                 where W7 saves 500 MB; without it Cargo's target/tmp"#;
/// A convolution in all its directions.
const ALL_OPS: &str = "fwd+bwd";
const WORKLOADS: [&str; 6] = ["W1", "W2", "W3", "W4", "W5", "W7"];

fn parse() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        workloads: Vec::new(),
        name: None,
        op: None,
        threads: Vec::new(),
        json: false,
        peers: Peers::default(),
        test: false,
        child: false,
    };
    let mut list = false;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(workload) => {
                let workload = workload.string()?.to_uppercase();
                if !WORKLOADS.contains(&workload.as_str()) {
                    return Err(format!("no workload {workload}: {}", WORKLOADS.join(", ")).into());
                }
                options.workloads.push(workload);
            }
            Long("help") | Short('h') => {
                print_line(HELP);
                std::process::exit(0);
            }
            Long("name") => options.name = Some(parser.value()?.string()?),
            Long("op") => options.op = Some(parser.value()?.string()?),
            Long("threads") => {
                let threads = parser.value()?.parse::<NonZeroUsize>()?.get();
                let most = rayon::max_num_threads();
                if threads > most {
                    return Err(format!("--threads {threads}: at most {most} work").into());
                }
                if !options.threads.contains(&threads) {
                    options.threads.push(threads);
                }
            }
            Long("json") => options.json = true,
            Long("list") => list = true,
            Long("vs") => options.peers.read(parser.value()?.as_ref())?,
            Long("test") => options.test = true,
            Long("child") => options.child = true,
            Long("bench") => {} // cargo says so
            _ => return Err(argument.unexpected()),
        }
    }
    if options.threads.is_empty() {
        options.threads = vec![1, 2];
    }
    let selected =
        catalogue().into_iter().filter(|(workload, name, op)| options.selects(workload, name, op));
    let selected: Vec<_> = selected.collect();
    if selected.is_empty() {
        return Err("no row has this workload, name and op: --list prints all there are".into());
    }
    if list {
        selected.iter().all(|(workload, name, op)| {
            print_line(format_args!("{workload} {name:<15} {op:<14} {}", shape(workload, name)))
        });
        std::process::exit(0);
    }
    Ok(options)
}

/// What the letter of a convolution stands for.
fn shape(workload: &str, name: &str) -> String {
    let conv = convs().into_iter().find(|(letter, _)| workload == "W2" && *letter == name);
    conv.map_or(String::new(), |(_, Conv2dDims { n, c, h, w, o, kernel, stride, groups, .. })| {
        let ([kh, kw], groups) = (kernel, if groups > 1 { ", depthwise" } else { "" });
        format!("{n} images {c}x{h}x{w} -> {o} channels, {kh}x{kw}, stride {}{groups}", stride[0])
    })
}

/// Workload, name and operation of all rows.
fn catalogue() -> Vec<(&'static str, String, &'static str)> {
    let gemms = GEMMS.iter().map(|(m, k, n)| ("W1", format!("{m}x{k}x{n}"), "gemm"));
    let convs = convs().into_iter().flat_map(|(name, _)| {
        CONV_OPS.into_iter().chain([ALL_OPS]).map(move |op| ("W2", name.to_owned(), op))
    });
    let small = small_ops::ROWS.iter();
    let small = small.flat_map(|(name, ops)| ops.iter().map(|op| ("W3", name.to_string(), *op)));
    let steps = STEPS.iter().map(|(net, batch)| ("W4", format!("{net}-b{batch}"), "trainstep"));
    let inference = [("W5", "seednet-b1".to_owned(), "infer")];
    let checkpoints = checkpoint::rows().map(|(name, op)| ("W7", name, op));
    gemms.chain(convs).chain(small).chain(steps).chain(inference).chain(checkpoints).collect()
}

/// So many threads, or the end of the report.
fn pool(threads: usize) -> ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap_or_else(|error| {
        eprintln!("report: --threads {threads}: {error}");
        std::process::exit(2)
    })
}

/// Writes to standard output; whether there still is somebody who reads.
fn print_line(line: impl Display) -> bool {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
        result => {
            result.expect("standard output can be written");
            true
        }
    }
}

impl Options {
    fn selects(&self, workload: &str, name: &str, op: &str) -> bool {
        (self.workloads.is_empty() || self.workloads.iter().any(|w| w == workload))
            && self.name.as_deref().is_none_or(|only| only == name)
            && self.op.as_deref().is_none_or(|only| only == op)
    }
}

struct Report {
    options: Options,
    /// Of each number of threads, at the start.
    limits: Vec<Limits>,
    /// Whether a peer has one of the rows.
    compared: AtomicBool,
    /// Whether the reader has left, as `head` does: then nothing more is measured.
    closed: AtomicBool,
}

impl Report {
    fn run(&mut self) {
        if self.options.child {
            return self.workloads();
        }
        self.limits = self.machine("start");
        if !self.options.json {
            self.say(format_args!("instruction set: {}\n{}", Isa::current().name(), rows::HEADER));
        }
        self.workloads();
        let after = self.machine("end");
        for (before, after) in self.limits.iter().zip(&after) {
            for ((name, first), (_, last)) in before.values.iter().zip(&after.values) {
                let drift = last / first - 1.0;
                if drift.abs() > 0.05 && !self.options.test {
                    self.warn_of_drift(name, before.threads, drift);
                }
            }
        }
    }

    fn warn_of_drift(&self, name: &str, threads: usize, drift: f64) {
        let percent = 100.0 * drift;
        let text = format!(
            "{name} of {threads} thread(s) drifted by {percent:+.1}% during this run: compare with \
             care"
        );
        if self.options.json {
            self.say(json!({
                "fw": "ferrotape", "wl": "peak", "name": "drift", "op": name, "thr": threads,
                "percent": percent, "isa": Isa::current().name(),
            }));
            eprintln!("{text}");
        } else {
            self.say(text);
        }
    }

    fn say(&self, line: impl Display) {
        if !self.is_closed() && !print_line(line) {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn seconds(&self) -> f64 {
        if self.options.test { 0.001 } else { 0.5 }
    }

    /// Measures and prints the machine's limits; none if nobody reads them.
    fn machine(&self, when: &str) -> Vec<Limits> {
        let seconds = self.seconds();
        let measure = |&threads: &usize| {
            let mut values = vec![("fma", machine::fma_peak(threads, seconds))];
            values.extend(machine::bandwidth(threads, seconds, self.options.test));
            if self.options.json {
                for (name, value) in &values {
                    let unit = if *name == "fma" { "gf" } else { "gbs" };
                    let row = json!({
                        "fw": "ferrotape", "wl": "peak", "name": when, "op": name, "thr": threads,
                        unit: value, "isa": Isa::current().name(),
                    });
                    self.say(row);
                }
            } else {
                let bandwidths: String = values[1..]
                    .iter()
                    .map(|(name, gbs)| format!(", {name} {gbs:.1} GB/s"))
                    .collect();
                let fma = values[0].1;
                self.say(format_args!(
                    "{when}, {threads} thread(s): FMA {fma:.1} GFLOP/s{bandwidths}"
                ));
            }
            Limits { threads, values }
        };
        self.options.threads.iter().take_while(|_| !self.is_closed()).map(measure).collect()
    }

    fn workloads(&mut self) {
        for threads in self.options.threads.clone() {
            pool(threads).install(|| {
                self.w1(threads);
                self.w2(threads);
                self.w3(threads);
                self.w4(threads);
                self.w5(threads);
            });
        }
        self.w7();
    }

    fn wanted(&self, workload: &str, name: &str, op: &str) -> bool {
        !self.is_closed() && self.options.selects(workload, name, op)
    }

    fn time(&self, f: impl FnMut()) -> Timing {
        Timing::of(if self.options.test { 0.0 } else { 0.35 }, f)
    }

    fn print(&self, row: Row) {
        let listed = catalogue().contains(&(&row.workload, row.name.clone(), &row.op));
        assert!(listed, "{} {} {} is not in the catalogue", row.workload, row.name, row.op);
        let row = row.vs(&self.options.peers);
        if row.has_peers() {
            self.compared.store(true, Ordering::Relaxed);
        }
        if self.options.json {
            self.say(row.json());
        } else {
            // W7 uses more threads than its rows say: no limit is theirs.
            let mut limits = self.limits.iter().filter(|_| row.workload != "W7");
            self.say(row.table_line(limits.find(|limits| limits.threads == row.threads)));
        }
    }

    fn w1(&self, threads: usize) {
        for size in GEMMS {
            let name = format!("{}x{}x{}", size.0, size.1, size.2);
            if self.wanted("W1", &name, "gemm") {
                let mut data = GemmData::new(size);
                data.run();
                data.check();
                let timing = self.time(|| data.run());
                let mut row = Row::new("W1", &name, "gemm", threads, timing).flops(data.flops());
                if threads == 1 {
                    let ratio = self.time(|| data.run_ndarray()).median() / row.median();
                    row = row.beside("ndarray", ratio);
                }
                self.print(row);
            }
        }
    }

    fn w2(&self, threads: usize) {
        for (name, dims) in convs() {
            let wanted = |op: &str| self.wanted("W2", name, op) || self.wanted("W2", name, ALL_OPS);
            let checked: Vec<_> = CONV_OPS.into_iter().filter(|op| wanted(op)).collect();
            if checked.is_empty() {
                continue;
            }
            let mut data = ConvData::new(dims);
            for op in checked {
                data.run(op);
                data.check(name, op);
            }
            let flops = dims.flops() as f64;
            for op in CONV_OPS.into_iter().filter(|op| self.wanted("W2", name, op)) {
                let timing = self.time(|| data.run(op));
                self.print(Row::new("W2", name, op, threads, timing).flops(flops));
            }
            if self.wanted("W2", name, ALL_OPS) {
                let timing = self.time(|| CONV_OPS.iter().for_each(|op| data.run(op)));
                self.print(Row::new("W2", name, ALL_OPS, threads, timing).flops(3.0 * flops));
            }
        }
    }

    fn w4(&self, threads: usize) {
        for (net, batch) in STEPS {
            let name = format!("{net}-b{batch}");
            if !self.wanted("W4", &name, "trainstep") {
                continue;
            }
            if !self.options.child {
                Network::check(net, batch);
            }
            let row = self.in_own_process("W4", &name, threads, || {
                let mut network = Network::new(net, batch);
                let timing = self.time(|| _ = network.train_step());
                let row = Row::new("W4", &name, "trainstep", threads, timing);
                row.flops(network.step_flops() as f64)
            });
            self.print(row.images(batch));
        }
    }

    fn w5(&self, threads: usize) {
        if self.wanted("W5", "seednet-b1", "infer") {
            if !self.options.child {
                Network::check("seednet", 1);
            }
            let row = self.in_own_process("W5", "seednet-b1", threads, || {
                let mut network = Network::new("seednet", 1);
                let timing = self.time(|| _ = network.infer(|scores| scores[0]));
                let row = Row::new("W5", "seednet-b1", "infer", threads, timing);
                row.flops(network.inference_flops() as f64)
            });
            self.print(row.images(1));
        }
    }

    /// Runs one row in a process of its own, so that its peak memory is that of the row.
    fn in_own_process(
        &self,
        workload: &str,
        name: &str,
        threads: usize,
        measure: impl FnOnce() -> Row,
    ) -> Row {
        if self.options.child || self.options.test {
            return measure().memory();
        }
        let threads = threads.to_string();
        let output = Command::new(std::env::current_exe().expect("a process has a path"))
            .args([workload, "--name", name, "--threads", &threads, "--json", "--child"])
            .output()
            .expect("the report can start itself");
        let text = String::from_utf8_lossy(&output.stdout);
        Row::from_json(text.trim()).unwrap_or_else(|| {
            eprintln!("report: {workload} {name}: {}", String::from_utf8_lossy(&output.stderr));
            std::process::exit(1)
        })
    }
}
