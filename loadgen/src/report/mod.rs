//! Reports read run files and nothing else: text and Markdown tables here and in `text`, the page in `html`, plots in
//! `plot`. They never run anything.

pub mod html;
pub mod plot;
pub mod text;

use crate::run_file::RunFile;
use anyhow::{Context, Result};
use std::path::Path;

pub use text::{markdown, text};

/// 1234567 -> 1.23 M
pub fn human(x: f64) -> String {
    scaled(x, "")
}

/// 1234567 -> 1.23 MB
pub fn human_bytes(x: f64) -> String {
    scaled(x, "B")
}

fn scaled(x: f64, unit: &str) -> String {
    let (value, prefix) = match x.abs() {
        v if v >= 1e9 => (x / 1e9, "G"),
        v if v >= 1e6 => (x / 1e6, "M"),
        v if v >= 1e3 => (x / 1e3, "k"),
        _ => (x, ""),
    };
    let digits = if prefix.is_empty() && value.fract() == 0.0 || value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    let space = if prefix.is_empty() && unit.is_empty() { "" } else { " " };
    format!("{value:.digits$}{space}{prefix}{unit}")
}

pub fn write_html(runs: &[RunFile], path: &Path) -> Result<()> {
    std::fs::write(path, html::page(runs)?).with_context(|| format!("write {}", path.display()))
}

pub fn write_svg(runs: &[RunFile], path: &Path) -> Result<()> {
    std::fs::write(path, html::throughput_svg(runs)?).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_three_digits() {
        let shown: Vec<String> = [0.0, 7.0, 999.0, 1234.0, 12_345.0, 20_400_000.0, 3.1e9].map(human).to_vec();
        assert_eq!(shown, ["0", "7", "999", "1.23 k", "12.3 k", "20.4 M", "3.10 G"]);
        assert_eq!(human_bytes(2.04e9), "2.04 GB");
    }
}
