//! Sizes and durations as the ancestors' files write them.

use std::time::Duration;

/// Bytes of `10MB`, `10 MiB`, `512`, `64k`. Powers of 1024, as Beats and Logstash count.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Duration of `5s`, `1m30s`, `250ms`, `1.5h`, `7d`; a bare number is in `bare_unit`.
pub fn parse_duration(text: &str, bare_unit: Duration) -> Option<Duration> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return seconds(number * bare_unit.as_secs_f64());
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    (!text.is_empty()).then(|| seconds(total)).flatten()
}

fn seconds(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok()
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

/// `1.4 GiB`: a size for people.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("512", 512), ("64k", 65536), ("10 MiB", 10 << 20), ("1.5GB", 3 << 29), ("0", 0)]
        {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "ten", "1 potato", "-1", "1e400"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
        assert_eq!(format_bytes(1536), "1.5 KiB");
    }

    #[test]
    fn durations_add_up_their_parts() {
        let ms = |n| Some(Duration::from_millis(n));
        let second = Duration::from_secs(1);
        assert_eq!(parse_duration("1m30s", second), ms(90_000));
        assert_eq!(parse_duration("250ms", second), ms(250));
        assert_eq!(parse_duration("1.5h", second), ms(5_400_000));
        assert_eq!(parse_duration("5", second), ms(5_000));
        for text in ["", "5 parsecs", "m", "-1s", "1s2"] {
            assert_eq!(parse_duration(text, second), None, "{text}");
        }
    }
}
