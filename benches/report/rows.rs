//! Timing, and one row of the report: as JSON in the schema that the peers' scripts write, and as
//! a line of a table.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ferrotape_kernels::conv2d::winograd_from_env;
use ferrotape_kernels::isa::Isa;
use serde_json::{Value, json};

/// The columns of [`Row::table_line`].
pub(crate) const HEADER: &str = "\
% of limit: of the FMA peak where there are GFLOP/s, else of the fastest access to memory, which
data in a cache can exceed. MB: peak memory of the process. vs: above 1 ferrotape is faster.
workload         name op            threads       median   GFLOP/s % of limit      GB/s  MB   vs";

/// What this machine can do at best with so many threads: FMA in GFLOP/s, then bandwidths in GB/s.
pub(crate) struct Limits {
    pub(crate) threads: usize,
    pub(crate) values: Vec<(&'static str, f64)>,
}

/// Repetitions of one measurement, in seconds, sorted.
pub(crate) struct Timing(Vec<f64>);

impl Timing {
    /// Repeats `f` for at least `seconds` and seven times, after a warm-up; once or twice if
    /// `seconds` is zero.
    pub(crate) fn of(seconds: f64, mut f: impl FnMut()) -> Self {
        let least = if seconds > 0.0 { 7 } else { 1 };
        let warm_up = Instant::now();
        f();
        while warm_up.elapsed().as_secs_f64() < 0.2 * seconds {
            f();
        }
        let (mut times, begun) = (Vec::new(), Instant::now());
        while times.len() < least || begun.elapsed().as_secs_f64() < seconds {
            let started = Instant::now();
            f();
            times.push(started.elapsed().as_secs_f64());
        }
        Timing::new(times)
    }

    pub(crate) fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// Measured times, in seconds.
    pub(crate) fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Timing(times)
    }
}

/// One measured row.
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) name: String,
    pub(crate) op: String,
    pub(crate) threads: usize,
    median: f64,
    min: f64,
    max: f64,
    repetitions: usize,
    /// GFLOP/s, two FLOPs per multiply-add of the direct algorithm.
    gflops: Option<f64>,
    /// GB/s of the least traffic that the operation needs.
    gbytes: Option<f64>,
    images_per_second: Option<f64>,
    /// Peak memory of the process.
    rss_mb: Option<f64>,
    /// What it is compared with, and the time of that over its own.
    ratio: Option<(&'static str, f64)>,
    /// The same of each peer, the fastest first.
    peers: Vec<(String, f64)>,
}

impl Row {
    pub(crate) fn new(
        workload: &str,
        name: &str,
        op: &str,
        threads: usize,
        timing: Timing,
    ) -> Self {
        let (median, Timing(times)) = (timing.median(), timing);
        Row {
            workload: workload.into(),
            name: name.into(),
            op: op.into(),
            threads,
            median,
            min: times[0],
            max: times[times.len() - 1],
            repetitions: times.len(),
            gflops: None,
            gbytes: None,
            images_per_second: None,
            rss_mb: None,
            ratio: None,
            peers: Vec::new(),
        }
    }

    pub(crate) fn flops(mut self, flops: f64) -> Self {
        self.gflops = Some(flops / self.median * 1e-9);
        self
    }

    pub(crate) fn bytes(mut self, bytes: usize) -> Self {
        self.gbytes = Some(bytes as f64 / self.median * 1e-9);
        self
    }

    pub(crate) fn images(mut self, images: usize) -> Self {
        self.images_per_second = Some(images as f64 / self.median);
        self
    }

    /// Notes how fast it is beside something else: that one's time over its own.
    pub(crate) fn beside(mut self, what: &'static str, ratio: f64) -> Self {
        self.ratio = Some((what, ratio));
        self
    }

    /// Notes the peers that measured the same.
    pub(crate) fn vs(mut self, peers: &Peers) -> Self {
        let ratios = peers.on(&self).into_iter().map(|(peer, median)| (peer, median / self.median));
        self.peers = ratios.collect();
        self.peers.sort_by(|a, b| a.1.total_cmp(&b.1));
        self
    }

    pub(crate) fn median(&self) -> f64 {
        self.median
    }

    pub(crate) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Notes this process's peak memory, where the system tells it.
    pub(crate) fn memory(mut self) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|peak| peak.trim().split(' ').next()?.parse::<f64>().ok());
        self.rss_mb = kilobytes.map(|kb| kb / 1024.0);
        self
    }

    pub(crate) fn json(&self) -> Value {
        let mut row = json!({
            "fw": "ferrotape",
            "wl": self.workload,
            "name": self.name,
            "op": self.op,
            "thr": self.threads,
            "med": self.median,
            "min": self.min,
            "max": self.max,
            "n": self.repetitions,
            "isa": Isa::current().name(),
            "winograd": winograd_from_env() == Ok(true),
        });
        let optional = [
            ("gf", self.gflops),
            ("gbs", self.gbytes),
            ("ips", self.images_per_second),
            ("rss", self.rss_mb),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                row[key] = value.into();
            }
        }
        if let Some((what, ratio)) = self.ratio {
            row[format!("ratio_to_{what}")] = ratio.into();
        }
        if !self.peers.is_empty() {
            row["vs"] = self.peers.iter().cloned().collect();
        }
        row
    }

    /// A row that another process printed.
    pub(crate) fn from_json(text: &str) -> Option<Row> {
        let row: Value = serde_json::from_str(text).ok()?;
        Some(Row {
            workload: row["wl"].as_str()?.into(),
            name: row["name"].as_str()?.into(),
            op: row["op"].as_str()?.into(),
            threads: row["thr"].as_u64()? as usize,
            median: row["med"].as_f64()?,
            min: row["min"].as_f64()?,
            max: row["max"].as_f64()?,
            repetitions: row["n"].as_u64()? as usize,
            gflops: row["gf"].as_f64(),
            gbytes: row["gbs"].as_f64(),
            images_per_second: row["ips"].as_f64(),
            rss_mb: row["rss"].as_f64(),
            ratio: None,
            peers: Vec::new(),
        })
    }

    pub(crate) fn table_line(&self, limits: Option<&Limits>) -> String {
        let number =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.1}"));
        let part = limits.and_then(|Limits { values, .. }| {
            let fastest = values[1..].iter().map(|(_, gbs)| *gbs).fold(0.0, f64::max);
            self.gflops.map(|gf| gf / values[0].1).or(self.gbytes.map(|gbs| gbs / fastest))
        });
        let percent = part.map_or(String::new(), |part| format!("{:.0}%", 100.0 * part));
        let own = self.ratio.iter().map(|(what, ratio)| format!("{ratio:.2}x {what}"));
        let peers = self.peers.iter().map(|(peer, ratio)| {
            format!("{ratio:.2}x {peer} ({:.1} us)", 1e6 * ratio * self.median)
        });
        let beside: Vec<_> = own.chain(peers).collect();
        let Row { workload, name, op, threads, .. } = self;
        format!(
            "{workload:<8} {name:>12} {op:<12} {threads:>8} {:>9.1} us \
             {:>9} {percent:>10} {:>9} {:>3} {}",
            1e6 * self.median,
            number(self.gflops),
            number(self.gbytes),
            self.rss_mb.map_or(String::new(), |mb| format!("{mb:.0}")),
            beside.join(", "),
        )
    }
}

/// Other frameworks' rows.
#[derive(Default)]
pub(crate) struct Peers(Vec<Value>);

impl Peers {
    /// Reads JSON lines as the peers' scripts write them, beside those already here.
    pub(crate) fn read(&mut self, path: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            let at = |what: &str| format!("{}:{number}: {what}: {line}", path.display());
            let row: Value = serde_json::from_str(line).map_err(|e| at(&e.to_string()))?;
            row["wl"].as_str().ok_or_else(|| at("no row of a benchmark, which has \"wl\""))?;
            // Rows of the machine's limits have none.
            if let Some(median) = row.get("med")
                && !median.as_f64().is_some_and(|seconds| seconds > 0.0)
            {
                return Err(at("\"med\" must be seconds, more than 0"));
            }
            self.0.push(row);
        }
        if self.is_empty() { Err(format!("{}: no rows", path.display())) } else { Ok(()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The peers that have a row, and their medians; of one that has it more than once, the
    /// fastest.
    fn on(&self, row: &Row) -> BTreeMap<String, f64> {
        let same = self.0.iter().filter(|peer| {
            peer["wl"] == row.workload
                && peer["name"] == row.name
                && peer["op"] == row.op
                && peer["thr"] == row.threads
        });
        let mut fastest = BTreeMap::new();
        for (peer, median) in same.filter_map(|row| row["fw"].as_str().zip(row["med"].as_f64())) {
            let of_peer = fastest.entry(peer.to_owned()).or_insert(median);
            *of_peer = median.min(*of_peer);
        }
        fastest
    }
}
