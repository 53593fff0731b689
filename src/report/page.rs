//! The parts of the page, in their order.

use std::fmt::Write as _;

use super::curves::Curves;
use super::html::{Table, escape, or_dash, shortened, tidy};
use super::{Mistake, Network, Report, Validation, confusion, words};
use crate::monitor::{Comparison, StopReason, compare};
use crate::nn::{Summary, SummaryRow};
use crate::numbers::{duration, grouped, percent, setting, short, size, two_digits};
use crate::trainer::Stop;

const STYLE: &str = include_str!("style.css");

/// The whole file.
pub(super) fn page(report: &Report) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta \
         name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta \
         name=\"color-scheme\" content=\"light \
         dark\"/>\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(&report.title)
    );
    header(&mut html, report);
    let curves = Curves::new(report);
    loss(&mut html, report, &curves);
    if let Some(chart) = curves.metric() {
        section(&mut html, report.metric(), "The metric that decides which epoch is best.", &chart);
    }
    if let Some(chart) = curves.accuracy() {
        section(
            &mut html,
            "Accuracy",
            "The share of examples whose most likely class is the right one.",
            &chart,
        );
    }
    if let Some(chart) = curves.learning_rate() {
        section(&mut html, "Learning rate", "", &chart);
    }
    readings(&mut html, report, &curves);
    comparison(&mut html, report);
    if let Some(validation) = &report.validation {
        mistakes(&mut html, validation);
    }
    filters(&mut html, report);
    network(&mut html, report);
    settings(&mut html, report);
    checkpoints(&mut html, report);
    html + &format!(
        "<footer>Written by Ferrotape {}. This file is complete: it loads \
         nothing.</footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// A part with a heading; `note`, plain text, explains it.
fn section(html: &mut String, heading: &str, note: &str, content: &str) {
    let note = if note.is_empty() {
        String::new()
    } else {
        format!("<p class=\"note\">{}</p>\n", escape(note))
    };
    let _ = write!(html, "<section>\n<h2>{}</h2>\n{note}{content}</section>\n", escape(heading));
}

fn header(html: &mut String, report: &Report) {
    let _ = write!(
        html,
        "<header>\n<p class=\"eyebrow\">Training report <span>{}</span></p>\n<h1>{}</h1>\n<dl \
         class=\"verdict\">\n",
        escape(&report.title),
        escape(&words::headline(report))
    );
    for (question, answer) in words::explanation(report) {
        let _ = writeln!(html, "<div><dt>{question}</dt><dd>{}</dd></div>", escape(&answer));
    }
    html.push_str("</dl>\n<dl class=\"figures\">\n");
    for (name, value, beside) in figures(report) {
        let _ = writeln!(
            html,
            "<div><dt>{name}</dt><dd>{} <small>{}</small></dd></div>",
            escape(&value),
            escape(&beside)
        );
    }
    html.push_str("</dl>\n");
    if !report.warnings.is_empty() {
        html.push_str("<ul class=\"warnings\">\n");
        for warning in &report.warnings {
            let _ = writeln!(html, "<li>{}</li>", escape(warning));
        }
        html.push_str("</ul>\n");
    }
    html.push_str("</header>\n");
}

/// The numbers to remember: name, value, and what belongs beside it.
fn figures(report: &Report) -> Vec<(&'static str, String, String)> {
    let mut figures = Vec::new();
    if let Some(best) = report.best() {
        let seen = &report.history[best.index];
        let error =
            seen.standard_error().map_or(String::new(), |error| format!("± {}", two_digits(error)));
        figures.push(("Best validation loss", short(seen.valid_loss), error));
        if let Some(accuracy) = seen.value("accuracy") {
            figures.push(("Its accuracy", percent(accuracy), String::new()));
        }
        if let Some(mae) = seen.value("mae") {
            figures.push(("Its mean absolute error", short(mae), String::new()));
        }
        if let Some(train) = seen.train_loss.filter(|loss| loss.is_finite()) {
            figures.push(("Its training loss", short(train), String::new()));
        }
    }
    if let Some(seconds) = report.history.iter().rev().find_map(|seen| seen.elapsed) {
        figures.push(("Time", duration(seconds), String::new()));
    }
    figures.extend(report.facts.iter().map(|(name, value)| (*name, value.clone(), String::new())));
    figures
}

fn loss(html: &mut String, report: &Report, curves: &Curves<'_>) {
    let mut note =
        "How far predictions are from the truth, epoch by epoch; lower is better.".to_owned();
    if report.history.iter().any(|seen| seen.standard_error().is_some()) {
        note += " The band is one standard error: what another sample of as many validation \
                 examples might have given.";
    }
    let anchored = report.verdicts.last().is_some_and(|verdict| verdict.anchor.is_some());
    if anchored {
        note += " Patience counts from the anchor, the last improvement that was large enough to \
                 matter.";
    }
    section(html, "Loss", &note, &curves.loss());
}

fn readings(html: &mut String, report: &Report, curves: &Curves<'_>) {
    let mut content = String::new();
    for (rule, chart) in curves.readings() {
        let _ = write!(content, "<h3><code>{}</code></h3>\n{chart}", escape(&rule));
    }
    if !content.is_empty() {
        let note = format!(
            "What each rule of {} measured; it asks to stop when it reaches the dashed line.",
            report.spec
        );
        section(html, "Stopping rules", &note, &content);
    }
}

fn comparison(html: &mut String, report: &Report) {
    let specs: Vec<_> = std::iter::once(&report.spec).chain(&report.rules).cloned().collect();
    let found = compare(&specs, &report.history).unwrap_or_default();
    if report.history.len() < 2 || found.is_empty() {
        return;
    }
    let headings = ["rule", ">stops at", "-", ">best", "->value", ">regret", ">saved"];
    let mut table = Table::new("What each stopping rule would have done", &headings);
    for (i, comparison) in found.iter().enumerate() {
        let Comparison { rule, stop_epoch, best_epoch, best_value, regret, saved, reason } =
            comparison;
        let own = match (i, report.own) {
            (0, true) => " <small>this run</small>",
            (0, false) => " <small>assumed</small>",
            _ => "",
        };
        let missing = matches!(reason, Some(StopReason::Missing { .. }));
        let why = reason.as_ref().map_or("It never stops.".to_owned(), ToString::to_string);
        table.row(
            if i == 0 { "own" } else { "" },
            [
                // A long composition may break behind its commas.
                format!(
                    "<code title=\"{}\">{}</code>{own}",
                    escape(&why),
                    escape(rule).replace(',', ",<wbr/>")
                ),
                if missing { "cannot say".to_owned() } else { or_dash(*stop_epoch) },
                bar(report, comparison),
                or_dash(*best_epoch),
                or_dash(best_value.map(short)),
                or_dash(regret.map(short)),
                format!("{:.0}%", 100.0 * saved),
            ],
        );
    }
    let note = "Each rule replayed over the recorded evaluations. Regret is how much worse than \
                the best of the whole run its best would have been; saved is the share of the \
                training that it would have spared. The record ends where this run ended: a rule \
                with more patience may have gone on.";
    section(html, "What other rules would have done", note, &table.finish());
}

/// The run as a line, up to where a rule stops, with a dot at the best that it found.
fn bar(report: &Report, found: &Comparison) -> String {
    let at = |epoch: u64| {
        let last = report.history.last().map_or(1, |seen| seen.epoch).max(1);
        4.0 + 92.0 * epoch as f64 / last as f64
    };
    let end = found.stop_epoch.map_or(96.0, at);
    let mut svg = format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 12\" aria-hidden=\"true\"><path class=\"rest\" \
         d=\"M4 6H96\"/><path class=\"run\" d=\"M4 6H{end:.1}\"/>"
    );
    if let Some(best) = found.best_epoch {
        let _ = write!(svg, "<circle class=\"dot best\" cx=\"{:.1}\" cy=\"6\" r=\"4\"/>", at(best));
    }
    svg + "</svg>"
}

fn mistakes(html: &mut String, validation: &Validation) {
    let Validation { confusion, class_names, mistakes } = validation;
    let mut content = String::from("<div class=\"beside\">\n");
    content += &confusion::picture(confusion, class_names);
    let mut table = Table::new("The most frequent mistakes", &["is", "taken for", ">times"]);
    let largest = confusion::largest(confusion, 8);
    for &(label, predicted, count) in &largest {
        let name = |class: usize| escape(&shortened(&class_names[class], 24));
        table.row("", [name(label), name(predicted), count.to_string()]);
    }
    if !largest.is_empty() {
        content += &format!("<div>\n<h3>Most frequent mistakes</h3>\n{}</div>\n", table.finish());
    }
    content += "</div>\n";
    if !mistakes.is_empty() {
        content += "<h3>Worst mistakes</h3>\n<p class=\"note\">The wrong answers with the highest \
                    loss: those the model was surest about. Look at them: some may be \
                    mislabelled.</p>\n";
        content += &worst(mistakes, class_names);
    }
    let wrong =
        confusion.total() - (0..confusion.classes()).map(|c| confusion.count(c, c)).sum::<u64>();
    let note = format!(
        "The best weights on the {} validation examples, of which they get {} wrong. Rows are \
         what an example is, columns what it was taken for.",
        grouped(confusion.total()),
        grouped(wrong)
    );
    section(html, "Mistakes", &note, &content);
}

fn worst(mistakes: &[Mistake], class_names: &[String]) -> String {
    let name = |class: usize| escape(&shortened(&class_names[class], 14));
    if mistakes.iter().any(|mistake| mistake.image.is_none()) {
        let mut table = Table::new("The worst mistakes", &[">example", "is", "taken for", ">loss"]);
        for Mistake { index, label, predicted, loss, .. } in mistakes {
            table.row(
                "",
                [index.to_string(), name(*label), name(*predicted), short(f64::from(*loss))],
            );
        }
        return table.finish();
    }
    let mut html = String::from("<ul class=\"gallery\">\n");
    for Mistake { index, label, predicted, loss, image } in mistakes {
        let uri = image.as_ref().map(super::png::Image::data_uri).unwrap_or_default();
        let (label, predicted) = (name(*label), name(*predicted));
        let _ = writeln!(
            html,
            "<li><img src=\"{uri}\" alt=\"validation example {index}\"/><b>{label}</b> taken for \
             <b class=\"wrong\">{predicted}</b><small>loss {}</small></li>",
            short(f64::from(*loss))
        );
    }
    html + "</ul>\n"
}

fn filters(html: &mut String, report: &Report) {
    if report.filters.is_empty() {
        return;
    }
    let mut content = String::from("<ul class=\"filters\">\n");
    for (i, filter) in report.filters.iter().enumerate() {
        let _ =
            writeln!(content, "<li><img src=\"{}\" alt=\"filter {i}\"/></li>", filter.data_uri());
    }
    content += "</ul>\n";
    let note = "What the first layer looks for, in the best weights. Red weights want light, blue \
                ones want dark; on colour images, filters are shown in their own colours. Smooth \
                patterns are learnt, speckle is not.";
    section(html, "First-layer filters", note, &content);
}

fn network(html: &mut String, report: &Report) {
    match &report.network {
        Network::Unknown => {}
        Network::Summary(summary) => {
            let note = format!(
                "For one example: {} parameters ({}), {} multiply-adds, {} of outputs.",
                grouped(summary.parameters as u64),
                size(summary.parameter_bytes() as u64),
                grouped(summary.macs()),
                size(summary.activation_bytes() as u64)
            );
            section(html, "Network", &note, &operations(summary));
        }
        Network::Tensors(tensors) => {
            let mut table = Table::new("The parameters", &["tensor", "shape", ">values"]);
            for (name, shape) in tensors {
                let values: usize = shape.iter().product();
                table.row(
                    "",
                    [
                        format!("<code>{}</code>", escape(name)),
                        format!("{shape:?}"),
                        grouped(values as u64),
                    ],
                );
            }
            let total: usize =
                tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            let note = format!("{} parameters.", grouped(total as u64));
            section(html, "Network", &note, &table.finish());
        }
    }
}

fn operations(summary: &Summary) -> String {
    let mut table = Table::new(
        "The operations of the network",
        &["operation", "output", ">parameters", ">multiply-adds"],
    );
    table.row("", ["input".to_owned(), summary.input.to_string(), String::new(), String::new()]);
    for row in &summary.rows {
        let some = |n: u64| if n == 0 { String::new() } else { grouped(n) };
        table.row(
            "",
            [operation(row), row.output.to_string(), some(row.parameters as u64), some(row.macs)],
        );
    }
    table.finish()
}

/// The name of an operation and, if it has parameters, of its layer.
fn operation(row: &SummaryRow) -> String {
    match row.layer() {
        "" => escape(row.op),
        layer => format!("{} <small>{}</small>", escape(row.op), escape(layer)),
    }
}

fn settings(html: &mut String, report: &Report) {
    let assumed = if report.own { "" } else { " (assumed: none is recorded)" };
    let mut rows = vec![("stopping rule".to_owned(), format!("{}{assumed}", report.spec))];
    rows.extend(report.config.iter().cloned());
    if let Some(lr) = report.history.first().and_then(|seen| seen.lr) {
        rows.push(("learning rate at first".to_owned(), setting(lr)));
    }
    let mut content = String::from("<dl class=\"settings\">\n");
    for (name, value) in rows {
        let _ = writeln!(
            content,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(&name),
            escape(&tidy(&value))
        );
    }
    content += "</dl>\n";
    section(
        html,
        "Settings",
        "A run with the same settings, seed and data gives the same bits.",
        &content,
    );
}

fn checkpoints(html: &mut String, report: &Report) {
    if report.checkpoints.is_empty() {
        return;
    }
    let headings = ["file", ">epoch", "->step", "->metric", "kept as", "->size", "state digest"];
    let mut table = Table::new("The checkpoints", &headings);
    for (entry, roles) in &report.checkpoints {
        let name = entry.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        table.row(
            "",
            [
                format!("<code>{}</code>", escape(&name)),
                entry.cursor.epoch.to_string(),
                entry.cursor.step.to_string(),
                or_dash(entry.metric.as_ref().map(|metric| short(metric.value))),
                roles.names().join(", "),
                size(entry.bytes),
                format!("<code class=\"digest\">{}</code>", escape(&entry.digest)),
            ],
        );
    }
    let mut note = "Complete states, each verified to the last bit when it is read.".to_owned();
    if matches!(report.stop, Some(Stop::Interrupted(_))) {
        note += " The newest one is where the run can be resumed.";
    }
    section(html, "Checkpoints", &note, &table.finish());
}
