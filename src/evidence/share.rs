//! How sure a share of few is.

/// Quantile of the normal distribution for an interval that holds the true share in 95 of 100 cases.
const Z: f64 = 1.96;

/// The same where windows are judged one after the other: of 43,200 ticks of a day one in twenty is too often. A service of which
/// one in a hundred fails by chance is called sick by it less than about once a day.
const Z_IN_A_ROW: f64 = 5.0;

/// Where the true share of failures lies in 95 of 100 cases, if each attempt fails by itself: Wilson's score interval
/// (E. B. Wilson, 1927), which holds for few attempts and for shares near 0 and 1 as well. `None` without attempts.
pub fn interval(failures: u64, attempts: u64) -> Option<[f64; 2]> {
    within(Z, failures, attempts)
}

fn within(z: f64, failures: u64, attempts: u64) -> Option<[f64; 2]> {
    if attempts == 0 {
        return None;
    }
    let (n, share) = (attempts as f64, failures.min(attempts) as f64 / attempts as f64);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    Some([((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)])
}

/// The least that the share can be, where it is asked of each of a row of windows.
pub fn lowest_in_a_row(failures: u64, attempts: u64) -> Option<f64> {
    within(Z_IN_A_ROW, failures, attempts).map(|[low, _]| low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low(failures: u64, attempts: u64) -> f64 {
        interval(failures, attempts).map_or(f64::NAN, |[low, _]| low)
    }

    /// Values of the table in Brown, Cai, DasGupta (2001), and of R's binom.wilson.
    #[test]
    fn the_interval_is_wilsons() {
        let near = |got: f64, wanted: f64| assert!((got - wanted).abs() < 0.001, "{got} for {wanted}");
        near(low(3, 3), 0.4385);
        near(low(20, 420), 0.0310);
        near(low(0, 50), 0.0);
        near(low(3, 3000), 0.00034);
        near(interval(0, 50).map_or(0.0, |[_, high]| high), 0.0713);
        assert_eq!(interval(0, 0), None);
    }

    /// Of a service that is asked twice a second, and of which 1 % fails by chance, several half minutes of each hour have three failures
    /// and hardly one of a day has six.
    #[test]
    fn what_chance_does_in_a_day_is_no_finding() {
        let low = |failures, attempts| lowest_in_a_row(failures, attempts).unwrap();
        assert!(low(3, 50) < 0.015 && low(5, 60) < 0.015 && low(4, 40) < 0.015);
        assert!(low(8, 60) > 0.015 && low(10, 100) > 0.015 && low(30, 630) > 0.015, "13, 10 and 5 %");
    }
}
