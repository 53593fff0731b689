//! Numbers as people read them: on the terminal, in the report, by the command line.
//!
//! Programs get numbers in full, from JSON and from the log.

/// `1 evaluation`, `2 evaluations`.
pub fn counted(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Four significant digits: a value in all its length helps nobody.
pub fn short(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e6).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let digits = if value == 0.0 { 0 } else { 3 - (value.abs().log10().floor() as i32).min(3) };
    format!("{value:.*}", digits.unsigned_abs() as usize)
}

/// Four significant digits, without zeros at the end: `0.5`, `1e-4`.
pub fn trimmed(value: f64) -> String {
    let text = short(value);
    let (digits, exponent) = text.split_at(text.find('e').unwrap_or(text.len()));
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned() + exponent,
        false => text,
    }
}

/// A standard error with two significant digits: more are not meant.
pub fn two_digits(error: f64) -> String {
    if !(1e-4..10.0).contains(&error) {
        return short(error);
    }
    format!("{error:.*}", (1.0 - error.log10().floor()) as usize)
}

/// A measurement to so many decimals, so that they stand one below the other; one that is too small
/// or too large for that as a power of ten.
pub fn decimals(value: f64, count: usize) -> String {
    match value.abs() {
        0.0 | 1e-3..1e6 => format!("{value:.count$}"),
        size if size.is_finite() => format!("{value:.3e}"),
        _ => value.to_string(),
    }
}

/// A setting as it was written down: one that was kept as an `f32` has the digits of one, 0.05 and
/// not 0.05000000074505806.
pub fn setting(value: f64) -> String {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string() } else { value.to_string() }
}

/// A number in at most seven characters, if it can be done: as it was written down, 0.05 for
/// instance, or, where it was computed, with three significant digits.
pub fn narrow(value: f64) -> String {
    let text = (value as f32).to_string();
    match value.abs() {
        _ if text.len() <= 7 => text,
        1e-3..1e6 => {
            let digits = (2.0 - value.abs().log10().floor()).max(0.0);
            format!("{value:.*}", digits as usize)
        }
        _ => format!("{value:.2e}"),
    }
}

/// A share from 0 to 1 in percent.
pub fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// A count with its thousands apart: `61,706`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A time in the two units that matter.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// A time as a clock shows it: `m:ss` or `h:mm:ss`.
pub fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_to_the_digits_that_matter() {
        for (value, text) in [
            (0.0, "0"),
            (0.9, "0.9000"),
            (-1.23456, "-1.235"),
            (12.3456, "12.35"),
            (123456.7, "123457"),
            (0.00123456, "0.001235"),
            (1.23456e-7, "1.235e-7"),
            (1.5e9, "1.500e9"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(
            [0.0, 0.5, 120.0, 1e-4, 3.0779e-4, 1e9].map(trimmed),
            ["0", "0.5", "120", "1e-4", "3.078e-4", "1e9"]
        );
        assert_eq!(
            [0.01883, 0.1, 1.26, 12.34, 1e-5].map(two_digits),
            ["0.019", "0.10", "1.3", "12.34", "1.000e-5"]
        );
        assert_eq!(
            [0.0, 12.5, -1e-9, f64::NAN, f64::INFINITY].map(|x| decimals(x, 4)),
            ["0.0000", "12.5000", "-1.000e-9", "NaN", "inf"]
        );
    }

    #[test]
    fn settings_have_the_digits_that_were_written() {
        assert_eq!([f64::from(0.05_f32), 0.05, 1e-4].map(setting), ["0.05", "0.05", "0.0001"]);
        let rates = [0.05_f32, 0.0005, 0.048776414, 0.0073223305, 3.0779e-4, -1234.567, 1e-8];
        let texts = rates.map(|rate| narrow(rate.into()));
        assert_eq!(texts, ["0.05", "0.0005", "0.0488", "0.00732", "3.08e-4", "-1235", "1.00e-8"]);
    }

    #[test]
    fn counts_sizes_and_times() {
        assert_eq!(percent(0.974), "97.40%");
        assert_eq!([0, 999, 1234, 12_345_678].map(grouped), ["0", "999", "1,234", "12,345,678"]);
        assert_eq!(
            [12, 12_340, 12_340_000, 12_340_000_000].map(size),
            ["12 B", "12.3 kB", "12.3 MB", "12.3 GB"]
        );
        assert_eq!(
            [0.04, 59.4, 61.0, 7290.0].map(duration),
            ["0.0 s", "59 s", "1 min 01 s", "2 h 01 min"]
        );
        assert_eq!([5.2, 65.0, 3725.0].map(clock), ["0:05", "1:05", "1:02:05"]);
    }
}
