//! Sizes and times, as people write them and read them.

/// Reads a size in bytes, with a unit of 1,024 if there is one: `500G`, `64MiB`, `4096`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let shift = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(format!("{text:?} is no size: write 64M, 500G or 2T")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is no size: write 64M, 500G"))?;
    let size = number.checked_mul(1 << shift).filter(|size| *size > 0);
    size.ok_or_else(|| format!("{text:?} is no size: it is 0, or too large"))
}

/// A size with three digits and a unit.
pub(crate) fn bytes(bytes: u64) -> String {
    let (mut size, mut units) = (bytes as f64, ["KiB", "MiB", "GiB", "TiB", "PiB"].iter());
    let mut unit = "B";
    while size >= 1000.0
        && let Some(next) = units.next()
    {
        (size, unit) = (size / 1024.0, next);
    }
    let digits = if unit == "B" || size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{size:.digits$} {unit}")
}

/// A number of bits, with three digits and a unit of 1,000.
pub(crate) fn bits(bits: f64) -> String {
    let (mut number, mut unit) = (bits, "bit");
    for next in ["kbit", "Mbit", "Gbit", "Tbit"] {
        if number < 1000.0 {
            break;
        }
        (number, unit) = (number / 1000.0, next);
    }
    let digits = if unit == "bit" || number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$} {unit}")
}

/// A time of UTC, to the millisecond.
pub(crate) fn time(time: ringtap::packet::Timestamp) -> String {
    let nanos = i128::from(time.as_nanos());
    match jiff::Timestamp::from_nanosecond(nanos) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_as_people_do() {
        for (text, expected) in [
            ("500G", 500 << 30),
            ("64MiB", 64 << 20),
            ("4096", 4096),
            ("2 t", 2 << 40),
            ("1kB", 1024),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "G", "0", "0G", "-1G", "1.5G", "5X", "99999999999T", "1e3"] {
            assert!(size(text).is_err(), "{text}");
        }
        for (size, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (4096, "4.00 KiB"),
            (15 << 20, "15.0 MiB"),
            (500 << 30, "500 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(size), expected);
        }
        for (number, expected) in [(0.0, "0 bit"), (1500.0, "1.50 kbit"), (2.5e10, "25.0 Gbit")] {
            assert_eq!(bits(number), expected);
        }
    }
}
