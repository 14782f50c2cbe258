//! Which of two media types a client would rather have: Accept, RFC 9110 section 12.5.1.

/// It names the first type, and wants the second no more. Both are ranges without parameters; a range with a version that does not
/// exist is none of ours.
pub fn prefers(accept: &str, first: &str, second: &str) -> bool {
    let named = quality(accept, |range| range.eq_ignore_ascii_case(first));
    named.is_some_and(|named| named > 0 && named >= of(accept, second))
}

/// The quality of a type, 0 to 1000, as the most specific range has it; 0 where none has.
fn of(accept: &str, wanted: &str) -> u16 {
    let group = wanted.split('/').next().unwrap_or_default();
    let exact = quality(accept, |range| range.eq_ignore_ascii_case(wanted));
    let of_group =
        || quality(accept, |range| range.strip_suffix("/*").is_some_and(|own| own.eq_ignore_ascii_case(group)));
    exact.or_else(of_group).or_else(|| quality(accept, |range| range == "*/*")).unwrap_or(0)
}

/// The best quality of the ranges that are meant.
fn quality(accept: &str, is_meant: impl Fn(&str) -> bool) -> Option<u16> {
    let ranges = accept.split(',').filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let range = parts.next().filter(|range| is_meant(range))?;
        let mut quality = 1000;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = weight(value.trim())?,
                "version" if range.contains("openmetrics") && !VERSIONS.contains(&value.trim().trim_matches('"')) => {
                    return None;
                }
                _ => {}
            }
        }
        Some(quality)
    });
    ranges.max()
}

/// Of OpenMetrics; a text of the latter can be read as the former, its draft.
const VERSIONS: [&str; 2] = ["0.0.1", "1.0.0"];

/// `0.25` in thousandths.
fn weight(text: &str) -> Option<u16> {
    let weight: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&weight).then(|| (weight * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_would_rather_have() {
        let open = |accept: &str| prefers(accept, "application/openmetrics-text", "text/plain");
        // What Prometheus 2.42 sends, and curl.
        assert!(open(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(!open("*/*") && !open(""));
        assert!(open("Application/OpenMetrics-Text; Version=1.0.0"));
        assert!(!open("application/openmetrics-text;version=1.0.0;q=0"));
        assert!(!open("application/openmetrics-text;q=0.3, text/plain;q=0.9"));
        assert!(!open("application/openmetrics-text;q=0.3, */*"));
        assert!(open("text/*;q=0.5, application/openmetrics-text;q=0.8"));
        assert!(!open("application/openmetrics-text;version=7.0.0"));
        assert!(!open("application/openmetrics-text;q=soon"));
    }
}
