//! Plain words for numbers, times and names, so that every cause says them alike.

use std::time::Duration;

/// `1,204`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `was` of one, `were` of others.
pub fn were(number: u64) -> &'static str {
    if number == 1 { "was" } else { "were" }
}

/// `1 reset`, `312 connection attempts`, `1 connection turned away`: units are plurals, of the first word that may be one.
pub fn amount(number: u64, unit: &str) -> String {
    let singular = |word: &str| match word.strip_suffix("es").filter(|one| one.ends_with("ss")) {
        Some(one) => Some(one.to_owned()),
        None => word.strip_suffix('s').filter(|one| !one.ends_with('s')).map(str::to_owned),
    };
    let mut words: Vec<String> = unit.split(' ').map(str::to_owned).collect();
    if number == 1
        && let Some((place, one)) = words.iter().enumerate().find_map(|(place, word)| Some((place, singular(word)?)))
        && let Some(word) = words.get_mut(place)
    {
        *word = one;
    }
    format!("{} {}", thousands(number), words.join(" "))
}

/// `1 reset`, `1,204 resets`.
pub fn counted(number: u64, singular: &str) -> String {
    let ending = match singular {
        _ if number == 1 => "",
        word if word.ends_with(['s', 'x']) => "es",
        _ => "s",
    };
    format!("{} {singular}{ending}", thousands(number))
}

/// `nginx (pid 4121)`, `pid 4121` where the name is not known; text from outside, not escaped.
pub fn process(name: &str, pid: u32) -> String {
    if name.is_empty() { format!("pid {pid}") } else { format!("{name} (pid {pid})") }
}

/// A duration for people: `0.4 s`, `3 s`, `12.4 s`, `5 min`, `2 h 10 min`, `3 days`.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    let whole = duration.as_secs();
    match whole {
        0..120 if (s - s.round()).abs() < 0.05 => format!("{s:.0} s"),
        0..120 => format!("{s:.1} s"),
        120..7_200 => format!("{} min", whole / 60),
        7_200..172_800 if whole % 3600 / 60 == 0 => format!("{} h", whole / 3600),
        7_200..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

/// As [`seconds`], with the short ones in `ms` and `us`.
pub fn short(duration: Duration) -> String {
    let us = duration.as_micros();
    match us {
        0..1_000 => format!("{us} us"),
        1_000..10_000 => format!("{:.1} ms", us as f64 / 1_000.0),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => seconds(duration),
    }
}

/// Events per second: `0.4`, `15,329.8`.
pub fn rate(per_s: f64) -> String {
    let tenths = (per_s.max(0.0) * 10.0).round() as u64;
    format!("{}.{}", thousands(tenths / 10), tenths % 10)
}

/// `98 %`, from a share between 0 and 1; `0.3 %` below one per cent, so that a few of many are not none.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 0.1 => "under 0.1 %".to_owned(),
        percent if percent > 0.0 && percent < 1.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_thousands_separators() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(12_345_678), "12,345,678");
    }

    #[test]
    fn one_of_something_is_named_as_one() {
        assert_eq!(amount(1, "resets"), "1 reset");
        assert_eq!(amount(1, "connections turned away"), "1 connection turned away");
        assert_eq!(amount(1, "processes"), "1 process");
        assert_eq!(amount(1_200, "unanswered connects"), "1,200 unanswered connects");
    }

    #[test]
    fn a_few_of_many_are_not_none() {
        assert_eq!(
            (percent(0.0), percent(0.0003), percent(0.003)),
            ("0 %".into(), "under 0.1 %".into(), "0.3 %".into())
        );
        assert_eq!((percent(0.704), percent(1.0)), ("70 %".into(), "100 %".into()));
    }

    #[test]
    fn rates_have_one_decimal_and_separators() {
        assert_eq!(rate(0.04), "0.0");
        assert_eq!(rate(0.96), "1.0");
        assert_eq!(rate(15_329.84), "15,329.8");
        assert_eq!(rate(f64::NAN), "0.0");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(1, "reset"), "1 reset");
        assert_eq!(counted(0, "reset"), "0 resets");
        assert_eq!(counted(25, "process"), "25 processes");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(seconds(Duration::from_millis(400)), "0.4 s");
        assert_eq!(seconds(Duration::from_millis(3001)), "3 s");
        assert_eq!(seconds(Duration::from_secs(351)), "5 min");
        assert_eq!(seconds(Duration::from_secs(7800)), "2 h 10 min");
        assert_eq!(seconds(Duration::from_secs(432_000)), "5 days");
    }
}
