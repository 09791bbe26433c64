//! Times of one way of doing something.

use std::time::Duration;

/// Times, in the order they were measured.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// From milliseconds.
    pub fn from_milliseconds(times: &[f64]) -> Self {
        Self(times.iter().map(|time| Duration::from_secs_f64(time / 1e3)).collect())
    }

    /// Smallest, middle and largest, milliseconds.
    pub fn milliseconds(&self) -> [f64; 3] {
        let mut sorted: Vec<f64> = self.0.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        [at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1))]
    }

    /// The middle one, milliseconds.
    pub fn median(&self) -> f64 {
        self.milliseconds()[1]
    }
}

/// Prints the head of a table of samples.
pub fn head(title: &str) {
    println!("\n{title:<48} {:>9} {:>9} {:>9}", "min ms", "median", "max");
}

/// Prints a row of such a table.
pub fn row(name: &str, samples: &Samples) {
    let [min, median, max] = samples.milliseconds();
    println!("{name:<48} {min:>9.2} {median:>9.2} {max:>9.2}");
}
