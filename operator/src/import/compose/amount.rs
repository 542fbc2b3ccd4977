//! Bytes and times as compose writes them.

use std::time::Duration;

use evenkeel_crds::{Cpu, HumanDuration, Memory};
use serde_yaml::Value;

/// 366 days.
const LONGEST: Duration = Duration::from_secs(31_622_400);

/// A text, or what is one without quotes.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Tagged(tagged) => text(&tagged.value),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

/// `512m`, `1gb`, `1.5G`, `64MiB` or a number of bytes, as the nearest amount of a document that is not less.
pub(super) fn memory(value: &Value) -> Option<Memory> {
    let text = text(value)?.to_ascii_lowercase();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 1.0,
        "k" => 1024.0,
        "m" => 1024.0 * 1024.0,
        "g" => 1024.0 * 1024.0 * 1024.0,
        "t" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    [("Ki", 1024.0), ("Mi", 1_048_576.0), ("Gi", 1_073_741_824.0)].into_iter().find_map(
        |(unit, size)| {
            let amount = (bytes / size).ceil();
            let fits = (1.0..10_000_000.0).contains(&amount);
            fits.then(|| format!("{amount:.0}{unit}").parse().ok())?
        },
    )
}

/// `0.5` processors.
pub(super) fn cpus(value: &Value) -> Option<Cpu> {
    let millis = (text(value)?.parse::<f64>().ok()? * 1000.0).round();
    let millis = (1.0..10_000_000.0).contains(&millis).then(|| format!("{millis:.0}"))?;
    Cpu::from_millis(millis.parse().ok()?)
}

/// `1m30s`, `1.5h`, `500ms`, or a number of seconds.
pub(super) fn duration(value: &Value) -> Option<HumanDuration> {
    let text = text(value)?;
    let mut rest = text.trim();
    let mut millis = 0.0_f64;
    if let Ok(seconds) = rest.parse::<f64>() {
        millis = seconds * 1000.0;
        rest = "";
    } else if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let size = match unit {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        millis += number.parse::<f64>().ok()? * size;
        rest = tail;
    }
    let whole: u64 = format!("{:.0}", millis.ceil()).parse().ok()?;
    let given = Duration::from_millis(whole);
    if given > LONGEST {
        return None;
    }
    // The form has seven digits for each unit.
    let (seconds, millis) = (given.as_secs(), given.subsec_millis());
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    format!("{minutes}m{seconds}s{millis}ms").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_never_less() {
        for (given, expect) in [
            ("512m", "512Mi"),
            ("1gb", "1Gi"),
            ("1.5G", "1536Mi"),
            ("64MiB", "64Mi"),
            ("1000000", "977Ki"),
            ("100k", "100Ki"),
            ("1b", "1Ki"),
            ("20000000000", "19074Mi"),
            ("\"300 mb\"", "300Mi"),
        ] {
            let value: Value = serde_yaml::from_str(given).unwrap();
            assert_eq!(memory(&value).unwrap().to_string(), expect, "{given}");
        }
        for wrong in ["0", "", "m", "12x", "-5m", "1e99", "[1]"] {
            assert_eq!(memory(&serde_yaml::from_str(wrong).unwrap()), None, "{wrong}");
        }
    }

    #[test]
    fn times_and_processors_are_read() {
        for (given, expect) in [
            ("1m30s", "1m30s"),
            ("90", "1m30s"),
            ("1.5h", "1h30m"),
            ("500ms", "500ms"),
            ("0s", "0s"),
            ("1us", "1ms"),
        ] {
            let value: Value = serde_yaml::from_str(given).unwrap();
            assert_eq!(duration(&value).unwrap().to_string(), expect, "{given}");
        }
        for wrong in ["", "5x", "s", "1m 30", "-3s", "400d", "1e300", "nan", "inf"] {
            assert_eq!(duration(&serde_yaml::from_str(wrong).unwrap()), None, "{wrong}");
        }
        assert_eq!(cpus(&Value::from("0.50")).unwrap().to_string(), "500m");
        assert_eq!(cpus(&Value::from(2)).unwrap().to_string(), "2");
        assert_eq!(cpus(&Value::from("0")), None);
    }
}
