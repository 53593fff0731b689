//! The reading half of the text form of rules and specifications.
//!
//! ```text
//! spec  = call { "," arg }                        the named arguments are the settings
//! call  = name "(" [ arg { "," arg } ] ")"
//! arg   = [ name "=" ] ( number | name | call )
//! ```
//!
//! Two steps: the text becomes nested calls, knowing nothing about rules; then each call takes
//! its arguments by position or by name. Every piece remembers its column, so that every
//! complaint can point at it.

use std::str::FromStr;

use super::rule::{Budget, MinDelta, Mode, Rule};
use super::spec::{EarlyStopping, NanPolicy, Smoothing};
use crate::error::{Error, Result};
use crate::names::did_you_mean;

/// Reads one rule. The parameters' values are checked by the caller.
pub(super) fn rule(text: &str) -> Result<Rule> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let call = reader.call()?;
    reader.finish()?;
    build(text, call)
}

/// Reads a rule and the settings after it. Their values are checked by the caller.
pub(super) fn spec(text: &str) -> Result<EarlyStopping> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let call = reader.call()?;
    let mut settings = Vec::new();
    while reader.eat(',') {
        settings.push(reader.argument()?);
    }
    reader.finish()?;
    let mut spec = EarlyStopping::new(build(text, call)?);
    let mut args = Args { text, name: "the monitor", args: settings, end: text.len() };
    if let Some(delta) = args.min_delta()? {
        spec = spec.min_delta(delta);
    }
    if let Some(metric) = args.word::<String>("monitor", false, "a metric's name")? {
        spec = spec.monitor(metric);
    }
    if let Some(mode) = args.word("mode", false, "min or max")? {
        spec = spec.mode(mode);
    }
    if let Some(evaluations) = args.word("warm_up", false, COUNT)? {
        spec = spec.warm_up(evaluations);
    }
    if let Some(epochs) = args.word("min_epochs", false, COUNT)? {
        spec = spec.min_epochs(epochs);
    }
    if let Some(smoothing) = args.smoothing()? {
        spec = spec.smoothing(smoothing);
    }
    if let Some(policy) = args.word("nan_policy", false, "stop, count_as_bad or roll_back")? {
        spec = spec.nan_policy(policy);
    }
    if let Some(evaluations) = args.word("grace_after_lr_change", false, COUNT)? {
        spec = spec.grace_after_lr_change(evaluations);
    }
    args.finish().map(|()| spec)
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(word: &str) -> Result<Mode, ()> {
        [Mode::Min, Mode::Max].into_iter().find(|mode| mode.to_string() == word).ok_or(())
    }
}

impl FromStr for NanPolicy {
    type Err = ();

    fn from_str(word: &str) -> Result<NanPolicy, ()> {
        let all = [NanPolicy::Stop, NanPolicy::CountAsBad, NanPolicy::RollBack];
        all.into_iter().find(|policy| policy.to_string() == word).ok_or(())
    }
}

/// `name(args)` as written, not yet understood.
struct Call<'t> {
    name: &'t str,
    at: usize,
    args: Vec<Arg<'t>>,
    /// Position of the closing parenthesis, where a missing argument is missing.
    end: usize,
}

struct Arg<'t> {
    key: Option<&'t str>,
    at: usize,
    value: Value<'t>,
}

enum Value<'t> {
    /// A number or a bare name.
    Word(&'t str),
    Call(Call<'t>),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Consumes `symbol` if it is next.
    fn eat(&mut self, symbol: char) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(symbol);
        self.at += if found { symbol.len_utf8() } else { 0 };
        found
    }

    /// Nothing may follow.
    fn finish(&mut self) -> Result<()> {
        self.skip_space();
        match self.rest() {
            "" => Ok(()),
            _ => Err(self.expected("the end of the rule")),
        }
    }

    fn expected(&self, what: &str) -> Error {
        fault(self.text, self.at, &format!("expected {what}"))
    }

    /// The longest run of characters that names, numbers and metric names are made of.
    fn word(&mut self, what: &str) -> Result<&'t str> {
        self.skip_space();
        let inside = |c: char| c.is_alphanumeric() || "_-+./".contains(c);
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !inside(c)).unwrap_or(rest.len())];
        if word.is_empty() {
            return Err(self.expected(what));
        }
        self.at += word.len();
        Ok(word)
    }

    fn call(&mut self) -> Result<Call<'t>> {
        self.skip_space();
        let at = self.at;
        let name = self.word("a rule such as patience(5)")?;
        match self.eat('(') {
            true => self.arguments(name, at),
            false => Err(self.expected(&format!("`(` after `{name}`"))),
        }
    }

    /// What follows the opening parenthesis of `name(`.
    fn arguments(&mut self, name: &'t str, at: usize) -> Result<Call<'t>> {
        self.depth += 1;
        if self.depth > Rule::MAX_DEPTH {
            return Err(fault(self.text, at, "rules are nested too deeply"));
        }
        let mut args = Vec::new();
        self.skip_space();
        if !self.rest().starts_with(')') {
            args.push(self.argument()?);
            while self.eat(',') {
                args.push(self.argument()?);
            }
        }
        self.skip_space();
        let end = self.at;
        if !self.eat(')') {
            return Err(self.expected("`,` or `)`"));
        }
        self.depth -= 1;
        Ok(Call { name, at, args, end })
    }

    fn argument(&mut self) -> Result<Arg<'t>> {
        let (mut at, mut word) = self.positioned_word()?;
        let mut key = None;
        if self.eat('=') {
            key = Some(word);
            (at, word) = self.positioned_word()?;
        }
        let value = match self.eat('(') {
            true => Value::Call(self.arguments(word, at)?),
            false => Value::Word(word),
        };
        Ok(Arg { key, at, value })
    }

    fn positioned_word(&mut self) -> Result<(usize, &'t str)> {
        self.skip_space();
        Ok((self.at, self.word("a number, a name or a rule")?))
    }
}

/// A complaint about the character at byte `at`; columns are counted from 1, in characters.
fn fault(text: &str, at: usize, what: &str) -> Error {
    let column = text[..at].chars().count() + 1;
    let found = match text[at..].split_inclusive([',', '(', ')', '=', ' ']).next() {
        Some(piece) => format!("`{}`", piece.trim_end()),
        None => "the end".to_owned(),
    };
    let rule = if text.len() <= 200 { format!("rule `{text}`") } else { "rule".to_owned() };
    Error::config(rule, format!("column {column}: {what}, found {found}"))
}

/// The arguments of a call, taken one by one.
struct Args<'t> {
    text: &'t str,
    name: &'t str,
    args: Vec<Arg<'t>>,
    end: usize,
}

impl<'t> Args<'t> {
    /// The argument called `key`, or the first unnamed one if `by_position`.
    fn take(&mut self, key: &str, by_position: bool) -> Option<Arg<'t>> {
        let named = self.args.iter().position(|arg| arg.key == Some(key));
        let found =
            named.or_else(|| self.args.iter().position(|arg| by_position && arg.key.is_none()));
        found.map(|i| self.args.remove(i))
    }

    /// Parses a word; `None` if the argument is not there.
    fn word<T: FromStr>(&mut self, key: &str, by_position: bool, what: &str) -> Result<Option<T>> {
        let Some(arg) = self.take(key, by_position) else { return Ok(None) };
        let parsed = match arg.value {
            Value::Word(word) => word.parse().ok(),
            Value::Call(_) => None,
        };
        let expected = || fault(self.text, arg.at, &format!("expected {what} for `{key}`"));
        parsed.map(Some).ok_or_else(expected)
    }

    /// A required word, first in line if unnamed.
    fn need<T: FromStr>(&mut self, key: &str, what: &str) -> Result<T> {
        let missing = format!("{} needs {what} for `{key}`", self.name);
        let end = self.end;
        self.word(key, true, what)?.ok_or_else(|| fault(self.text, end, &missing))
    }

    /// A count that has a default and may be given by name or as the next unnamed argument.
    fn count_or(&mut self, key: &str, default: u32) -> Result<u32> {
        Ok(self.word(key, true, COUNT)?.unwrap_or(default))
    }

    fn min_delta(&mut self) -> Result<Option<MinDelta>> {
        const WHAT: &str = "expected a number, relative(fraction) or auto for `min_delta`";
        let Some(arg) = self.take("min_delta", false) else { return Ok(None) };
        let wrong = || fault(self.text, arg.at, WHAT);
        match arg.value {
            Value::Word("auto") => Ok(Some(MinDelta::Auto)),
            Value::Word(word) => {
                word.parse().map(|delta| Some(MinDelta::Absolute(delta))).map_err(|_| wrong())
            }
            Value::Call(call) if call.name == "relative" => {
                let mut args = Args::of(self.text, call);
                let fraction = args.need("fraction", NUMBER)?;
                args.finish().map(|()| Some(MinDelta::Relative(fraction)))
            }
            Value::Call(_) => Err(wrong()),
        }
    }

    fn smoothing(&mut self) -> Result<Option<Smoothing>> {
        let Some(arg) = self.take("smoothing", false) else { return Ok(None) };
        let wrong = fault(self.text, arg.at, "expected none, mean(n), median(n) or ema(beta)");
        let call = match arg.value {
            Value::Word("none") => return Ok(Some(Smoothing::None)),
            Value::Word(_) => return Err(wrong),
            Value::Call(call) => call,
        };
        let mut args = Args::of(self.text, call);
        let smoothing = match args.name {
            "mean" => Smoothing::Mean(args.need("n", COUNT)?),
            "median" => Smoothing::Median(args.need("n", COUNT)?),
            "ema" => Smoothing::Ema(args.need("beta", NUMBER)?),
            _ => return Err(wrong),
        };
        args.finish().map(|()| Some(smoothing))
    }

    /// All arguments that are left, as rules.
    fn rules(&mut self) -> Result<Vec<Rule>> {
        let text = self.text;
        let read = |arg: Arg<'t>| match (arg.key, arg.value) {
            (None, Value::Call(call)) => build(text, call),
            _ => Err(fault(text, arg.at, "expected a rule such as patience(5)")),
        };
        self.args.drain(..).map(read).collect()
    }

    /// Complains about arguments that nobody took.
    fn finish(self) -> Result<()> {
        match self.args.first() {
            None => Ok(()),
            Some(Arg { key: Some(key), at, .. }) => {
                let what = format!("{} has no argument called `{key}`", self.name);
                Err(fault(self.text, *at, &what))
            }
            Some(arg) => {
                Err(fault(self.text, arg.at, &format!("too many arguments for {}", self.name)))
            }
        }
    }

    fn of(text: &'t str, call: Call<'t>) -> Self {
        Args { text, name: call.name, args: call.args, end: call.end }
    }
}

const COUNT: &str = "a whole number";
const NUMBER: &str = "a number";
const NAMES: [&str; 13] = [
    "patience",
    "gl",
    "pq",
    "up",
    "correlation",
    "paired",
    "target",
    "divergence",
    "budget",
    "any",
    "all",
    "at_least",
    "on",
];

/// What is said about a name that is no rule's.
fn no_rule(name: &str) -> String {
    let meant = did_you_mean(name, &NAMES).map(|meant| format!(" ({meant})"));
    let (last, others) = NAMES.split_last().expect("not empty");
    format!("expected {} or {last}{}", others.join(", "), meant.unwrap_or_default())
}

/// Understands a call as a rule.
fn build(text: &str, call: Call<'_>) -> Result<Rule> {
    let at = call.at;
    let mut args = Args::of(text, call);
    let rule = match args.name {
        "patience" => Rule::Patience {
            evaluations: args.need("evaluations", COUNT)?,
            min_delta: args.min_delta()?,
        },
        "gl" => Rule::Gl { alpha: args.need("alpha", NUMBER)? },
        "pq" => Rule::Pq { alpha: args.need("alpha", NUMBER)?, k: args.count_or("k", 5)? },
        "up" => Rule::Up { s: args.need("s", COUNT)?, k: args.count_or("k", 5)? },
        "correlation" => Rule::Correlation {
            threshold: args.need("threshold", NUMBER)?,
            k: args.count_or("k", 10)?,
        },
        "paired" => Rule::Paired {
            evaluations: args.need("evaluations", COUNT)?,
            z: args.word("z", true, NUMBER)?.unwrap_or(1.645),
        },
        "target" => Rule::Target { value: args.need("value", NUMBER)? },
        "divergence" => Rule::Divergence { factor: args.need("factor", NUMBER)? },
        "budget" => Rule::Budget(Budget {
            epochs: args.word("epochs", false, COUNT)?,
            steps: args.word("steps", false, COUNT)?,
            seconds: args.word("seconds", false, NUMBER)?,
        }),
        "any" => Rule::Any(args.rules()?),
        "all" => Rule::All(args.rules()?),
        "at_least" => Rule::AtLeast { count: args.need("count", COUNT)?, rules: args.rules()? },
        "on" => {
            let metric: String = args.need("metric", "a metric's name")?;
            let mode = args.need("mode", "min or max")?;
            let end = args.end;
            let missing = || fault(text, end, "`on` needs a rule after the mode");
            let mut rules = args.rules()?;
            match rules.len() {
                0 => return Err(missing()),
                1 => Rule::On { metric, mode, rule: Box::new(rules.remove(0)) },
                _ => return Err(fault(text, at, "`on` takes one rule; use on(m,mode,any(..))")),
            }
        }
        name => return Err(fault(text, at, &no_rule(name))),
    };
    args.finish().map(|()| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        text.parse::<Rule>().unwrap_err().to_string()
    }

    #[test]
    fn the_text_form_round_trips() {
        for text in [
            "patience(3)",
            "patience(3,min_delta=0.001)",
            "patience(3,min_delta=relative(0.07))",
            "patience(3,min_delta=auto)",
            "gl(5)",
            "pq(0.75,k=5)",
            "up(3,k=5)",
            "correlation(-0.5,k=10)",
            "paired(5,z=1.645)",
            "target(0.1)",
            "target(-0.0000001)",
            "divergence(2.5)",
            "budget(epochs=10)",
            "budget(epochs=10,steps=900,seconds=0.5)",
            "any(patience(5),gl(10))",
            "all(up(2,k=1),at_least(2,gl(1),pq(1,k=4),target(3)))",
            "on(top-5/acc,max,any(patience(2),target(0.9)))",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn defaults_spaces_names_and_positions_are_accepted() {
        for (text, canonical) in [
            (" up( 3 ) ", "up(3,k=5)"),
            ("pq(0.75)", "pq(0.75,k=5)"),
            ("pq(k=4, alpha=1)", "pq(1,k=4)"),
            ("up(3,7)", "up(3,k=7)"),
            ("gl(1e1)", "gl(10)"),
            ("any( gl(1) , gl(+2) )", "any(gl(1),gl(2))"),
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn complaints_say_where_and_what() {
        for (text, pieces) in [
            ("", ["column 1", "a rule such as patience(5), found the end"]),
            ("patience", ["column 9", "`(` after `patience`"]),
            ("patience(", ["column 10", "found the end"]),
            ("patience()", ["column 10", "needs a whole number for `evaluations`"]),
            ("patience(x)", ["column 10", "expected a whole number for `evaluations`, found `x)`"]),
            ("patience(-1)", ["column 10", "a whole number"]),
            ("patience(3", ["column 11", "`,` or `)`"]),
            ("patience(3))", ["column 12", "the end of the rule"]),
            ("patience(3,delta=1)", ["column 18", "no argument called `delta`"]),
            ("patience(3,4)", ["column 12", "too many arguments"]),
            ("patience(3,min_delta=big)", ["column 22", "relative(fraction) or auto"]),
            ("any(patience(5), glx(10))", ["column 18", "expected patience, gl, pq"]),
            ("patence(5)", ["column 1: ", "at_least or on (did you mean `patience`?), found"]),
            ("any(gl(5),budgte(epochs=3))", ["column 11", "(did you mean `budget`?)"]),
            ("stop(5)", ["column 1: ", "at_least or on, found `stop(`"]),
            ("any(5)", ["column 5", "expected a rule"]),
            ("on(acc,up,gl(1))", ["column 8", "expected min or max"]),
            ("on(acc,max)", ["column 11", "needs a rule"]),
            ("gl(ü)", ["column 4", "found `ü)`"]),
            ("patience(0)", ["patience(0)", "at least 1 evaluation"]),
            ("gl(nan)", ["gl(NaN)", "above 0 percent"]),
            ("any()", ["any()", "at least one rule"]),
            ("at_least(3,gl(1),gl(2))", ["at_least", "from 1 to the number of rules"]),
            ("budget()", ["budget()", "at least one of epochs="]),
            ("on(acc,max,paired(3))", ["paired(3", "another metric"]),
        ] {
            let message = complaint(text);
            assert!(pieces.iter().all(|piece| message.contains(piece)), "{text}: {message}");
        }
    }

    #[test]
    fn specifications_round_trip() {
        for text in [
            "patience(3)",
            "patience(3), min_delta=relative(0.01), monitor=accuracy, mode=max",
            "gl(5), warm_up=2, min_epochs=10, smoothing=median(3), nan_policy=roll_back",
            "up(1,k=5), smoothing=ema(0.6), nan_policy=count_as_bad, grace_after_lr_change=3",
        ] {
            let spec: EarlyStopping = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<EarlyStopping>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn complaints_about_settings_say_where_and_what() {
        for (text, pieces) in [
            ("gl(5),", ["column 7", "found the end"]),
            ("gl(5), patience=3", ["column 17", "the monitor has no argument called `patience`"]),
            ("gl(5), 3", ["column 8", "too many arguments"]),
            ("gl(5), mode=up", ["column 13", "expected min or max"]),
            ("gl(5), smoothing=mean", ["column 18", "mean(n), median(n) or ema(beta)"]),
            ("gl(5), nan_policy=ignore", ["column 19", "count_as_bad or roll_back"]),
            ("gl(5), smoothing=ema(1)", ["smoothing=ema(1)", "below 1"]),
            ("gl(5), smoothing=mean(0)", ["smoothing=mean(0)", "at least 1"]),
            ("gl(5), min_delta=0.1", ["min_delta=0.1", "no patience rule"]),
            ("patience(5), min_delta=-1", ["min_delta=-1", "not negative"]),
            ("patience(5), min_delta=auto, monitor=f1", ["min_delta=auto", "valid_loss"]),
            ("budget(epochs=5), min_epochs=9", ["min_epochs", "more than budget(epochs=5)"]),
            ("gl(5), monitor=5", ["metric `5`", "begins with a letter"]),
        ] {
            let message = text.parse::<EarlyStopping>().unwrap_err().to_string();
            assert!(pieces.iter().all(|piece| message.contains(piece)), "{text}: {message}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = format!("{}gl(1){}", "any(".repeat(100_000), ")".repeat(100_000));
        assert!(complaint(&deep).contains("nested too deeply"));
        let fine = format!("{}gl(1){}", "any(".repeat(15), ")".repeat(15));
        assert_eq!(fine.parse::<Rule>().unwrap().to_string(), fine);
    }
}
