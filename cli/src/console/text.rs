//! Sizes, times and counts as people read them.

/// About how many bytes, in binary units with one decimal place: `1.4 GiB`.
pub(crate) fn about(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes} bytes");
    };
    let tenths = (u128::from(bytes) * 10 + (1 << (shift - 1))) >> shift;
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

/// A moment in UTC, from milliseconds since 1970: `2026-01-31 12:00:00`.
pub(crate) fn utc(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date so many days after 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March,
/// so that a leap day is the last of one).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// So many of something: `1 snapshot`, `2 snapshots`.
pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// How long, to the millisecond: `13.5 s`.
pub(crate) fn seconds(milliseconds: u64) -> String {
    let (seconds, milliseconds) = (milliseconds / 1000, milliseconds % 1000);
    match format!("{milliseconds:03}").trim_end_matches('0') {
        "" => format!("{seconds} s"),
        decimals => format!("{seconds}.{decimals} s"),
    }
}

/// How long, in the two largest units that say something: `3 d 4 h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes, seconds) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_shown_as_seconds_in_full() {
        for (ms, text) in [(0, "0 s"), (15_000, "15 s"), (13_500, "13.5 s"), (333, "0.333 s"), (1_050, "1.05 s")] {
            assert_eq!(seconds(ms), text);
        }
    }

    #[test]
    fn bytes_are_rounded_to_one_decimal_place() {
        let texts = [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (20 << 30, "20 GiB")];
        for (bytes, text) in texts {
            assert_eq!(about(bytes), text);
        }
        assert_eq!(about((1 << 20) - 1), "1024 KiB");
        assert_eq!(about(u64::MAX), "16777216 TiB");
    }

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_709_251_199_999), "2024-02-29 23:59:59");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00");
    }

    #[test]
    fn counts_and_durations_read_like_sentences() {
        assert_eq!([count(0, "volume"), count(1, "volume")], ["0 volumes", "1 volume"]);
        assert_eq!([duration(59), duration(61), duration(7260)], ["59 s", "1 min 1 s", "2 h 1 min"]);
        assert_eq!(duration(90_000), "1 d 1 h");
    }
}
