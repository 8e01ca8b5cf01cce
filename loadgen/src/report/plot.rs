//! Plots as SVG, drawn by `plotters`. Colours are drawn as place-holders and replaced afterwards: by CSS variables for
//! a page (light, dark, paper), or by fixed colours for a picture that stands alone.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const INK: RGBColor = RGBColor(2, 0, 0);
const MUTED: RGBColor = RGBColor(2, 0, 1);
const GRID: RGBColor = RGBColor(2, 0, 2);
/// Series colours repeat after this many.
pub const SERIES_COUNT: usize = 8;

fn series_color(i: usize) -> RGBColor {
    RGBColor(1, 0, (i % SERIES_COUNT) as u8)
}

/// Blue, orange, teal, rose, violet, olive, sky, brown: told apart by most colour-blind readers, also on paper.
pub const LIGHT: [&str; SERIES_COUNT] =
    ["#2563c9", "#e07b18", "#0e9384", "#d1437f", "#7c5cd6", "#8a8d1a", "#3ea6d8", "#9a6244"];
pub const DARK: [&str; SERIES_COUNT] =
    ["#6ea3ff", "#f5a04c", "#3fc9b4", "#f27aa9", "#ab92f5", "#c6c84f", "#7fd0f5", "#cf9a7a"];

/// For a page: colours come from its style sheet.
pub fn with_variables(svg: &str) -> String {
    let mut out =
        svg.replace("#020000", "var(--ink)").replace("#020001", "var(--muted)").replace("#020002", "var(--grid)");
    for i in 0..SERIES_COUNT {
        out = out.replace(&format!("#01000{i}"), &format!("var(--s{i})"));
    }
    // The page sizes it; the view box keeps the proportions.
    out.replacen("<svg ", "<svg role=\"img\" class=\"plot\" ", 1)
}

/// For a picture of its own, on white.
pub fn with_fixed_colors(svg: &str) -> String {
    let mut out = svg.replace("#020000", "#1c2430").replace("#020001", "#5c6675").replace("#020002", "#dfe3e8");
    for (i, color) in LIGHT.iter().enumerate() {
        out = out.replace(&format!("#01000{i}"), color);
    }
    let end = out.find("xmlns").map_or(0, |at| out[at..].find('>').map_or(0, |e| at + e + 1));
    out.insert_str(end, "\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#ffffff\"/>");
    out
}

fn font<'a>(size: i32, color: &'a RGBColor, h: HPos, v: VPos) -> TextStyle<'a> {
    TextStyle::from(("system-ui, sans-serif", size).into_font()).color(color).pos(Pos::new(h, v))
}

fn drawn<E: std::error::Error + Send + Sync>(e: DrawingAreaErrorKind<E>) -> anyhow::Error {
    anyhow!("draw a plot: {e}")
}

/// One bar with the spread of its repeats.
#[derive(Clone, Debug)]
pub struct Bar {
    pub series: usize,
    pub value: f64,
    pub min: f64,
    pub max: f64,
}

/// Bars that belong together, such as the brokers of one cell.
#[derive(Clone, Debug)]
pub struct Group {
    pub label: String,
    pub bars: Vec<Bar>,
}

const WIDTH: u32 = 860;
const BAR: i32 = 20;
const GAP: i32 = 4;
const LEGEND: i32 = 30;

/// Horizontal bars, one group under the other, value at the end, whiskers from the worst to the best repeat.
/// `legend` names the series above them; a page writes its own and gives none.
pub fn bars(groups: &[Group], legend: &[String], show: &dyn Fn(f64) -> String) -> Result<String> {
    let longest = groups.iter().map(|g| g.label.chars().count()).max().unwrap_or(0) as i32;
    let left = (longest * 8 + 24).clamp(90, 300);
    let right = 92;
    let above = if legend.len() > 1 { LEGEND } else { 0 };
    let height: i32 = above + 16 + groups.iter().map(|g| g.bars.len() as i32 * (BAR + GAP) + 14).sum::<i32>();
    let top = groups.iter().flat_map(|g| &g.bars).map(|b| b.max.max(b.value)).fold(0.0, f64::max).max(1e-12);
    let span = WIDTH as i32 - left - right;
    let x = |value: f64| left + (value / top * span as f64) as i32;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height as u32)).into_drawing_area();
        for quarter in 0..=4 {
            let at = left + span * quarter / 4;
            area.draw(&PathElement::new([(at, above + 6), (at, height - 6)], GRID)).map_err(drawn)?;
        }
        if above > 0 {
            let mut at = left;
            for (i, name) in legend.iter().enumerate() {
                let chip = [(at, 12), (at + 12, 24)];
                area.draw(&Rectangle::new(chip, series_color(i).filled())).map_err(drawn)?;
                let style = font(14, &INK, HPos::Left, VPos::Center);
                area.draw(&Text::new(name.clone(), (at + 18, 18), style)).map_err(drawn)?;
                at += 18 + 8 * name.chars().count() as i32 + 24;
            }
        }
        let mut y = above + 10;
        for group in groups {
            let middle = y + (group.bars.len() as i32 * (BAR + GAP) - GAP) / 2;
            let style = font(15, &INK, HPos::Right, VPos::Center);
            area.draw(&Text::new(group.label.clone(), (left - 12, middle), style)).map_err(drawn)?;
            for bar in &group.bars {
                let color = series_color(bar.series);
                let body = [(left, y), (x(bar.value).max(left + 2), y + BAR)];
                area.draw(&Rectangle::new(body, color.filled())).map_err(drawn)?;
                let center = y + BAR / 2;
                if bar.max > bar.min {
                    for line in [
                        [(x(bar.min), center), (x(bar.max), center)],
                        [(x(bar.min), center - 4), (x(bar.min), center + 4)],
                        [(x(bar.max), center - 4), (x(bar.max), center + 4)],
                    ] {
                        area.draw(&PathElement::new(line, INK.stroke_width(1))).map_err(drawn)?;
                    }
                }
                let at = (x(bar.value.max(bar.max)) + 8, center);
                let style = font(14, &INK, HPos::Left, VPos::Center);
                area.draw(&Text::new(show(bar.value), at, style)).map_err(drawn)?;
                y += BAR + GAP;
            }
            y += 14;
        }
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}

pub struct Line {
    pub series: usize,
    pub points: Vec<(f64, f64)>,
    /// Marks each point; for few points.
    pub dots: bool,
}

pub struct Axes<'a> {
    pub x_title: &'a str,
    pub y_title: &'a str,
    pub show_x: &'a dyn Fn(f64) -> String,
    pub show_y: &'a dyn Fn(f64) -> String,
    /// Logarithmic y.
    pub log: bool,
    pub x_labels: usize,
}

/// Lines over a common x.
pub fn lines(all: &[Line], axes: &Axes<'_>) -> Result<String> {
    let points = || all.iter().flat_map(|l| l.points.iter());
    let bounds = |f: &dyn Fn(&(f64, f64)) -> f64| {
        points().map(f).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    let ((x0, x1), (y0, y1)) = (bounds(&|p| p.0), bounds(&|p| p.1));
    if !x0.is_finite() || !y0.is_finite() {
        return Ok(String::new());
    }
    let x1 = if x1 > x0 { x1 } else { x0 + 1.0 };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, 380)).into_drawing_area();
        let mut builder = ChartBuilder::on(&area);
        builder.margin_top(10).margin_right(24).x_label_area_size(48).y_label_area_size(84);
        // The two kinds of axis are two types; the drawing is the same.
        macro_rules! draw {
            ($chart:expr) => {{
                let mut chart = $chart.map_err(drawn)?;
                chart
                    .configure_mesh()
                    .axis_style(GRID)
                    .bold_line_style(GRID)
                    .light_line_style(TRANSPARENT)
                    .label_style(font(14, &MUTED, HPos::Left, VPos::Top))
                    .axis_desc_style(font(14, &MUTED, HPos::Left, VPos::Top))
                    .x_desc(axes.x_title)
                    .y_desc(axes.y_title)
                    .x_labels(axes.x_labels)
                    .y_labels(6)
                    .x_label_formatter(&|x| (axes.show_x)(*x))
                    .y_label_formatter(&|y| (axes.show_y)(*y))
                    .draw()
                    .map_err(drawn)?;
                for line in all {
                    let color = series_color(line.series);
                    chart
                        .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))
                        .map_err(drawn)?;
                    if line.dots {
                        let dots = line.points.iter().map(|p| Circle::new(*p, 4, color.filled()));
                        chart.draw_series(dots).map_err(drawn)?;
                    }
                }
            }};
        }
        if axes.log {
            let low = 10f64.powf(y0.max(1e-4).log10().floor());
            let high = 10f64.powf(y1.max(low * 1.01).log10().ceil());
            draw!(builder.build_cartesian_2d(x0..x1, (low..high).log_scale()));
        } else {
            draw!(builder.build_cartesian_2d(x0..x1, 0.0..y1.max(1e-12) * 1.08));
        }
        area.present().map_err(drawn)?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_hold_every_value_and_no_place_holder() {
        let bar = |series, value| Bar { series, value, min: value * 0.9, max: value * 1.1 };
        let groups = vec![
            Group { label: "acks=1, 100 B".into(), bars: vec![bar(0, 10.0), bar(1, 2.0)] },
            Group { label: "acks=all, 100 B".into(), bars: vec![bar(0, 8.0)] },
        ];
        let svg = with_variables(&bars(&groups, &["ours".into(), "theirs".into()], &|v| format!("{v} units")).unwrap());
        for word in
            ["theirs", "acks=1, 100 B", "10 units", "2 units", "8 units", "var(--s0)", "var(--s1)", "var(--ink)"]
        {
            assert!(svg.contains(word), "{word}");
        }
        let axes = Axes {
            x_title: "s",
            y_title: "ms",
            show_x: &|x| format!("{x}"),
            show_y: &|y| format!("{y}"),
            log: true,
            x_labels: 5,
        };
        let line = Line { series: 3, points: vec![(0.0, 0.1), (1.0, 100.0)], dots: true };
        let svg = with_fixed_colors(&lines(&[line], &axes).unwrap());
        assert!(svg.contains(LIGHT[3].to_uppercase().as_str()) || svg.contains(LIGHT[3]), "{svg}");
        assert!(!svg.contains("#0100") && !svg.contains("#0200"));
    }
}
