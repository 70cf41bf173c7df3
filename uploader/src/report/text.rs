//! Amounts as people read them in a column: rates, times to come and percentages. Units are decimal (1 MB is 1,000,000 bytes).

use std::time::Duration;

use blobferry_crds::Progress;

const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `812 B`, `12.3 MB`, `456 GB`: at most three digits and a point.
pub fn bytes(amount: f64) -> String {
    let mut amount = if amount.is_finite() { amount.max(0.0) } else { 0.0 };
    let mut unit = 0;
    // What would be rounded to 1000 belongs to the next unit.
    while amount >= 999.5 && unit < UNITS.len() - 1 {
        amount /= 1000.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && amount < 99.95);
    format!("{amount:.decimals$} {}", UNITS[unit])
}

/// `12.3 MB/s`.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// Time until `left` bytes are sent: `45s`, `4m`, `2h10m`, `3d4h`; `0s` when nothing is left, and `-` when nobody can say.
#[allow(clippy::cast_precision_loss)]
pub fn eta(left: u64, bytes_per_second: f64) -> String {
    if left == 0 {
        return "0s".into();
    }
    if bytes_per_second < 1.0 {
        return "-".into();
    }
    Duration::try_from_secs_f64((left as f64 / bytes_per_second).ceil()).map_or_else(|_| "-".into(), time)
}

fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR..DAY => two(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        _ if seconds < 100 * DAY => two(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        _ => ">99d".into(),
    }
}

fn two(large: u64, large_unit: char, small: u64, small_unit: char) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

/// How many of the bytes are uploaded, rounded down: `87%`.
///
/// `100%` means that no file is waiting, active, being retried or set aside, so that who waits for it can rely on it; all bytes sent but
/// not yet committed are `99%`. `-` means that no file was ever seen: an empty folder is no success, it may be the wrong one.
pub fn percent(progress: &Progress) -> String {
    let left = progress.files_waiting + progress.files_active + progress.files_retrying + progress.files_failed;
    let settled = progress.files_uploaded + progress.files_superseded + progress.files_withdrawn;
    match (left, settled) {
        (0, 0) => "-".into(),
        (0, _) => "100%".into(),
        _ => {
            let hundredths = u128::from(progress.bytes_uploaded) * 100;
            let percent = hundredths.checked_div(progress.bytes_total.into()).unwrap_or(0).min(99);
            format!("{percent}%")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_at_most_three_digits() {
        for (amount, text) in [
            (0.0, "0 B"),
            (999.4, "999 B"),
            (999.6, "1.0 kB"),
            (12_345_678.0, "12.3 MB"),
            (99_960_000.0, "100 MB"),
            (456e9, "456 GB"),
            (1e19, "10000 PB"),
            (-1.0, "0 B"),
            (f64::NAN, "0 B"),
        ] {
            assert_eq!(bytes(amount), text);
        }
        assert_eq!(rate(12_345_678.0), "12.3 MB/s");
    }

    #[test]
    fn times_to_come_have_at_most_two_units() {
        let at_one_byte_a_second = |seconds| eta(seconds, 1.0);
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (299, "4m"),
            (2 * HOUR, "2h"),
            (2 * HOUR + 10 * MINUTE + 59, "2h10m"),
            (3 * DAY + 4 * HOUR, "3d4h"),
            (100 * DAY, ">99d"),
        ] {
            assert_eq!(at_one_byte_a_second(seconds), text);
        }
    }

    #[test]
    fn nobody_can_say_when_nothing_moves() {
        assert_eq!(eta(5, 0.0), "-");
        assert_eq!(eta(u64::MAX, f64::NAN), "-");
        assert_eq!(eta(0, 0.0), "0s");
    }

    fn progress(uploaded: u64, total: u64) -> Progress {
        Progress { bytes_uploaded: uploaded, bytes_total: total, ..Progress::default() }
    }

    #[test]
    fn a_hundred_percent_is_shown_only_when_no_file_is_left() {
        let all_sent = Progress { files_active: 1, ..progress(1000, 1000) };
        assert_eq!(percent(&all_sent), "99%");
        assert_eq!(percent(&Progress { files_uploaded: 1, ..progress(1000, 1000) }), "100%");
        assert_eq!(percent(&Progress { files_uploaded: 9, files_failed: 1, ..progress(900, 1000) }), "90%");
        assert_eq!(percent(&Progress { files_uploaded: 9, files_waiting: 1, ..progress(999, 1000) }), "99%");
        assert_eq!(percent(&Progress { files_retrying: 1, ..progress(0, 1000) }), "0%");
    }

    #[test]
    fn empty_files_count_as_well() {
        assert_eq!(percent(&Progress { files_waiting: 1, ..progress(0, 0) }), "0%");
        assert_eq!(percent(&Progress { files_uploaded: 1, ..progress(0, 0) }), "100%");
    }

    #[test]
    fn nothing_seen_is_no_percentage() {
        assert_eq!(percent(&progress(0, 0)), "-");
        assert_eq!(percent(&Progress { files_seen: 3, files_ignored: 3, ..progress(0, 0) }), "-");
    }

    #[test]
    fn percentages_do_not_overflow() {
        assert_eq!(percent(&Progress { files_active: 1, ..progress(u64::MAX / 2, u64::MAX) }), "49%");
    }
}
