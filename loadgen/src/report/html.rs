//! One self-contained page: no script, no network, light and dark, readable on a phone and on paper. Text is written by
//! `maud`, which escapes it; plots are inlined SVG whose colours come from the style sheet.

use super::plot::{self, Axes, Bar, Group, Line, SERIES_COUNT};
use super::text::{self, Table, ms};
use super::{human, human_bytes};
use crate::compare::{Comparison, rate_verdict};
use crate::machine::Machine;
use crate::run_file::{CellResult, RunFile};
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

pub fn page(runs: &[RunFile]) -> Result<String> {
    let comparison = Comparison::of(runs);
    let first = &runs[0];
    let title = if runs.len() == 1 {
        let brokers: Vec<&str> = first.targets.iter().map(|t| t.name.as_str()).collect();
        format!("{}: {}", brokers.join(" beside "), first.workload.name)
    } else {
        format!("{} runs compared", runs.len())
    };
    let mut warnings: Vec<String> = comparison.warnings.clone();
    warnings.extend(runs.iter().flat_map(|r| r.all_warnings()));
    warnings.dedup();
    let body = html! {
        header {
            p.brand { "loadgen report" }
            h1 { (title) }
            @for run in runs { p.where { (where_line(run)) } }
        }
        @if !warnings.is_empty() {
            section.warnings {
                h2 { "Before you believe a figure" }
                ul { @for w in &warnings { li { (w) } } }
            }
        }
        (tiles(&comparison))
        (throughput(&comparison)?)
        @if comparison.columns.len() > 1 { (side_by_side(&comparison)) }
        (latency(&comparison)?)
        (rate_against_latency(&comparison)?)
        (over_time(&comparison)?)
        (ceiling_shares(&comparison)?)
        @for run in runs { (details(run)) }
        footer { p { (text::LEGEND) } p { "Made by loadgen " (first.loadgen_version) ". Figures and histograms: run.json." } }
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(style())) }
            }
            body { main { (body) } }
        }
    };
    Ok(page.into_string())
}

/// The throughput plot as a picture of its own.
pub fn throughput_svg(runs: &[RunFile]) -> Result<String> {
    let comparison = Comparison::of(runs);
    let (groups, legend) = bar_groups(&comparison, &|c| {
        (c.messages_per_second.median, c.messages_per_second.min, c.messages_per_second.max)
    });
    Ok(plot::with_fixed_colors(&plot::bars(&groups, &legend, &human)?))
}

fn where_line(run: &RunFile) -> String {
    let m = &run.machine;
    let brokers: Vec<String> = run
        .targets
        .iter()
        .map(|t| match t.cores.len() {
            0 => format!("{} {}", t.name, t.version),
            1 => format!("{} {} on 1 core", t.name, t.version),
            n => format!("{} {} on {n} cores", t.name, t.version),
        })
        .collect();
    let day = run.created.split('T').next().unwrap_or("");
    if m.cores == 0 {
        return format!("{} · {day}", brokers.join(", "));
    }
    format!("{} · {} ({}, {} cores, Linux {}) · {day}", brokers.join(", "), m.name, m.cpu, m.cores, m.kernel)
}

/// The figures one looks for first.
fn tiles(c: &Comparison<'_>) -> Markup {
    let all = || c.rows.iter().flat_map(|r| r.cells.iter().flatten().map(move |cell| (r, *cell)));
    let best = |value: &dyn Fn(&CellResult) -> Option<f64>, high: bool| {
        all().filter_map(|(_, cell)| value(cell).map(|v| (v, cell))).max_by(|a, b| {
            let order = a.0.total_cmp(&b.0);
            if high { order } else { order.reverse() }
        })
    };
    let name = |cell: &CellResult| {
        if c.columns.len() > 1 { format!("{}, {}", cell.target, cell.label()) } else { cell.label() }
    };
    let mut tiles = Vec::new();
    if let Some((v, cell)) = best(&|c| Some(c.messages_per_second.median), true) {
        tiles.push(("messages per second", human(v), name(cell)));
    }
    if let Some((v, cell)) = best(&|c| Some(c.bytes_per_second.median), true) {
        tiles.push(("payload per second", human_bytes(v), name(cell)));
    }
    if let Some((v, cell)) = best(&|c| (c.latency_ms.p99 > 0.0 && c.acks != "0").then_some(c.latency_ms.p99), false) {
        tiles.push(("lowest p99", format!("{} ms", ms(v)), name(cell)));
    }
    if let Some((v, cell)) = best(&|c| c.broker.cpu_seconds_per_gb, false) {
        tiles.push(("broker CPU seconds per GB", format!("{v:.2}"), name(cell)));
    }
    if c.columns.len() == 2 {
        let ratios = c.rows.iter().filter_map(|r| Some((r, rate_verdict(r.cells[1]?, r.cells[0]?).ratio)));
        if let Some((row, ratio)) = ratios.filter(|r| r.1.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1)) {
            let label = format!("{} over {}, {}", c.columns[0].label, c.columns[1].label, row.label);
            tiles.push(("times the messages, at most", format!("{ratio:.1}x"), label));
        }
    }
    html! {
        section.tiles {
            @for (what, value, which) in tiles {
                div.tile { p.value { (value) } p.what { (what) } p.which { (which) } }
            }
        }
    }
}

fn figure(title: &str, caption: &str, legend: &[String], svg: &str) -> Markup {
    html! {
        figure {
            h3 { (title) }
            @if legend.len() > 1 {
                ul.legend {
                    @for (i, name) in legend.iter().enumerate() {
                        li { span.chip style={ "background:var(--s" (i % SERIES_COUNT) ")" } {} (name) }
                    }
                }
            }
            div.scroll { (PreEscaped(plot::with_variables(svg))) }
            figcaption { (caption) }
        }
    }
}

/// Rows become groups; a series is one broker, and one payload mode where there are several.
fn bar_groups(c: &Comparison<'_>, value: &dyn Fn(&CellResult) -> (f64, f64, f64)) -> (Vec<Group>, Vec<String>) {
    let payloads: std::collections::BTreeSet<&str> =
        c.rows.iter().flat_map(|r| r.cells.iter().flatten()).map(|cell| cell.payload.as_str()).collect();
    let several = payloads.len() > 1;
    let mut series: Vec<String> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for row in &c.rows {
        for (column, cell) in c.columns.iter().zip(&row.cells) {
            let Some(cell) = cell else { continue };
            let name = if several && cell.kind != "consume" {
                if c.columns.len() > 1 { format!("{}, {}", column.label, cell.payload) } else { cell.payload.clone() }
            } else {
                column.label.clone()
            };
            let index = series.iter().position(|s| *s == name).unwrap_or_else(|| {
                series.push(name);
                series.len() - 1
            });
            let label = cell.label().replace(&format!(", {}", cell.payload), "");
            let (value, min, max) = value(cell);
            let bar = Bar { series: index, value, min, max };
            match groups.iter_mut().find(|g| g.label == label) {
                Some(group) => group.bars.push(bar),
                None => groups.push(Group { label, bars: vec![bar] }),
            }
        }
    }
    groups.iter_mut().for_each(|g| g.bars.sort_by_key(|b| b.series));
    (groups, series)
}

fn throughput(c: &Comparison<'_>) -> Result<Markup> {
    let (messages, legend) = bar_groups(c, &|cell| {
        (cell.messages_per_second.median, cell.messages_per_second.min, cell.messages_per_second.max)
    });
    let (bytes, _) =
        bar_groups(c, &|cell| (cell.bytes_per_second.median, cell.bytes_per_second.min, cell.bytes_per_second.max));
    if messages.is_empty() {
        return Ok(html! {});
    }
    Ok(html! {
        section {
            h2 { "Throughput" }
            (figure("Messages per second", "Bar: median of the repeats. Whisker: worst and best repeat.", &legend, &plot::bars(&messages, &[], &human)?))
            (figure("Payload bytes per second", "Sum of record values; the protocol around them is not counted.", &legend, &plot::bars(&bytes, &[], &human_bytes)?))
        }
    })
}

fn side_by_side(c: &Comparison<'_>) -> Markup {
    html! {
        section {
            h2 { "Side by side" }
            (table(&c.table()))
            p.note { (Comparison::LEGEND) }
        }
    }
}

/// Cells cut into plots of at most eight lines, so that lines can be told apart.
fn line_charts<'a>(c: &'a Comparison<'a>) -> Vec<(String, Vec<(String, &'a CellResult)>)> {
    let mut charts: Vec<(String, Vec<(String, &CellResult)>)> = Vec::new();
    let cells: Vec<(String, &CellResult)> = c
        .rows
        .iter()
        .flat_map(|row| c.columns.iter().zip(&row.cells))
        .filter_map(|(column, cell)| cell.map(|cell| (column.label.clone(), cell)))
        .collect();
    if cells.len() <= SERIES_COUNT {
        let name = |column: &str, cell: &CellResult| {
            if c.columns.len() > 1 { format!("{column}, {}", cell.label()) } else { cell.label() }
        };
        return vec![(String::new(), cells.into_iter().map(|(l, cell)| (name(&l, cell), cell)).collect())];
    }
    for (column, cell) in cells {
        let (chart, name) = if cell.kind == "consume" {
            ("consume".to_string(), format!("{column}, {} B", cell.record_size_label))
        } else {
            let rate = cell.rate.map_or(String::new(), |r| format!(" at {}/s", human(r)));
            let name = format!("acks={}, {} B{rate}", cell.acks, cell.record_size_label);
            let name = if c.columns.len() > 1 { format!("{column}, {name}") } else { name };
            (cell.payload.clone(), name)
        };
        // The next chart of the same kind begins when one is full.
        let place = charts.iter().position(|(title, lines)| *title == chart && lines.len() < SERIES_COUNT + 1);
        match place {
            Some(i) => charts[i].1.push((name, cell)),
            None => charts.push((chart, vec![(name, cell)])),
        }
    }
    charts
}

/// How far out the percentile axis goes: 1 - 10^-4.
const NINES_MAX: f64 = 4.0;

fn latency(c: &Comparison<'_>) -> Result<Markup> {
    let mut figures = Vec::new();
    for (chart, cells) in line_charts(c) {
        let (mut lines, mut legend) = (Vec::new(), Vec::new());
        for (name, cell) in &cells {
            let points = percentile_curve(cell)?;
            if points.len() > 1 {
                lines.push(Line { series: lines.len(), points, dots: false });
                legend.push(name.clone());
            }
        }
        if lines.is_empty() {
            continue;
        }
        let show_x = |x: f64| match x.round() as i32 {
            0 => "0 %".to_string(),
            1 => "90 %".to_string(),
            2 => "99 %".to_string(),
            n => format!("99.{} %", "9".repeat((n - 2) as usize)),
        };
        let axes = Axes {
            x_title: "percentile of requests",
            y_title: "latency, ms",
            show_x: &show_x,
            show_y: &tick,
            log: true,
            x_labels: 5,
        };
        let title =
            if chart.is_empty() { "Latency by percentile".into() } else { format!("Latency by percentile, {chart}") };
        figures.push(figure(
            &title,
            "From the intended send time to the answer, all repeats merged. Both axes stretch towards the tail.",
            &legend,
            &plot::lines(&lines, &axes)?,
        ));
    }
    if figures.is_empty() {
        return Ok(html! {});
    }
    Ok(html! { section { h2 { "Latency" } @for f in figures { (f) } } })
}

/// Percentile (as a number of nines) against milliseconds, from the stored histograms.
fn percentile_curve(cell: &CellResult) -> Result<Vec<(f64, f64)>> {
    let h = cell.histogram("from_intended")?;
    if h.is_empty() {
        let l = &cell.latency_ms; // a foreign file: only its percentiles are known
        let known = [(0.301, l.p50), (2.0, l.p99), (3.0, l.p999), (4.0, l.p9999)];
        return Ok(known.into_iter().filter(|p| p.1 > 0.0).collect());
    }
    // No further than the number of samples supports.
    let nines = (h.len() as f64).log10().min(NINES_MAX);
    let steps = 120;
    Ok((0..=steps)
        .map(|i| {
            let x = nines * i as f64 / steps as f64;
            let ns = h.value_at_quantile(1.0 - 10f64.powf(-x)).max(h.min());
            (x, (ns as f64 / 1e6).max(1e-3))
        })
        .collect())
}

fn rate_against_latency(c: &Comparison<'_>) -> Result<Markup> {
    let mut ladders: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for row in &c.rows {
        for (column, cell) in c.columns.iter().zip(&row.cells) {
            let Some(cell) = cell else { continue };
            if cell.rate.is_none() || cell.latency_ms.p99 <= 0.0 {
                continue;
            }
            let name = format!("{}, acks={}, {} B, {}", column.label, cell.acks, cell.record_size_label, cell.payload);
            let point = (cell.messages_per_second.median, cell.latency_ms.p99);
            match ladders.iter_mut().find(|l| l.0 == name) {
                Some(ladder) => ladder.1.push(point),
                None => ladders.push((name, vec![point])),
            }
        }
    }
    ladders.retain(|l| l.1.len() > 1);
    if ladders.is_empty() {
        return Ok(html! {});
    }
    let legend: Vec<String> = ladders.iter().map(|l| l.0.clone()).collect();
    let lines: Vec<Line> = ladders
        .into_iter()
        .enumerate()
        .map(|(series, (_, mut points))| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line { series, points, dots: true }
        })
        .collect();
    let axes = Axes {
        x_title: "messages per second",
        y_title: "p99, ms",
        show_x: &human,
        show_y: &tick,
        log: true,
        x_labels: 8,
    };
    let knees = c.columns.iter().flat_map(|column| &column.run.saturation).map(|s| {
        let knee = s.knee.map_or("no rate held it".into(), |k| format!("{} messages/s", human(k)));
        format!("{}, acks={}, {} B: highest rate with {}: {knee}", s.target, s.acks, s.record_size_label, s.bound)
    });
    let mut knees: Vec<String> = knees.collect();
    knees.dedup();
    Ok(html! {
        section {
            h2 { "Rate against latency" }
            (figure("p99 at each rate", "Open loop: requests are due at fixed times, and a late one counts its waiting.", &legend, &plot::lines(&lines, &axes)?))
            @for knee in knees { p.note { (knee) } }
        }
    })
}

fn over_time(c: &Comparison<'_>) -> Result<Markup> {
    let mut figures = Vec::new();
    for (chart, cells) in line_charts(c) {
        let (mut lines, mut legend) = (Vec::new(), Vec::new());
        for (name, cell) in &cells {
            // Repeats one after the other, as if no time had passed between them.
            let seconds = cell.repeats.iter().flat_map(|r| {
                // The last second of a repeat may be a part of one.
                let whole = (r.measured_s.round() as usize).max(1);
                r.seconds.iter().take(whole)
            });
            let points: Vec<(f64, f64)> =
                seconds.enumerate().map(|(i, s)| (i as f64 + 1.0, s.messages as f64)).collect();
            if points.len() > 1 {
                lines.push(Line { series: lines.len(), dots: points.len() < 40, points });
                legend.push(name.clone());
            }
        }
        if lines.is_empty() {
            continue;
        }
        let longest = lines.iter().map(|l| l.points.len()).max().unwrap_or(2);
        let axes = Axes {
            x_title: "measured second, all repeats in a row",
            y_title: "messages per second",
            show_x: &|x| format!("{x:.0}"),
            show_y: &human,
            log: false,
            x_labels: longest.min(10),
        };
        let title = if chart.is_empty() {
            "Messages in each second".into()
        } else {
            format!("Messages in each second, {chart}")
        };
        figures.push(figure(&title, "Steady lines mean steady figures.", &legend, &plot::lines(&lines, &axes)?));
    }
    if figures.is_empty() {
        return Ok(html! {});
    }
    Ok(html! { section { h2 { "Over time" } @for f in figures { (f) } } })
}

fn ceiling_shares(c: &Comparison<'_>) -> Result<Markup> {
    let any = c.rows.iter().flat_map(|r| r.cells.iter().flatten()).any(|cell| cell.ceiling_share.is_some());
    if !any {
        return Ok(html! {});
    }
    let (mut groups, legend) = bar_groups(c, &|cell| {
        let share = cell.ceiling_share.unwrap_or(0.0);
        (share, share, share)
    });
    groups.iter_mut().for_each(|g| g.bars.retain(|b| b.value > 0.0));
    groups.retain(|g| !g.bars.is_empty());
    let caption = "Payload bytes per second as a share of what bare loops reach on this host with the same frame size: \
                   receive + CRC32C + append for producing (for the sink: receive alone), sendfile for consuming. This is what makes two hosts comparable.";
    Ok(html! {
        section {
            h2 { "Share of the host's ceiling" }
            (figure("How much of this host is used", caption, &legend, &plot::bars(&groups, &[], &|v| format!("{:.0} %", v * 100.0))?))
        }
    })
}

/// A power of ten in milliseconds, as short as it can be.
fn tick(ms: f64) -> String {
    if ms >= 1000.0 { format!("{} s", ms / 1000.0) } else { format!("{ms}") }
}

fn table(t: &Table) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for word in &t.rows[0] { th { (word) } } } }
                tbody { @for row in &t.rows[1..] { tr { @for word in row { td { (word) } } } } }
            }
        }
    }
}

fn details(run: &RunFile) -> Markup {
    let m = &run.machine;
    let mut facts: Vec<(&str, String)> = vec![("command", run.command.clone()), ("begun", run.created.clone())];
    for t in &run.targets {
        facts.push((
            "broker",
            format!("{} {}: {}", t.name, t.version, if t.command.is_empty() { &t.bootstrap } else { &t.command }),
        ));
        let settings: Vec<String> = t.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
        if !settings.is_empty() {
            facts.push(("its topic settings", settings.join(", ")));
        }
    }
    facts.push(("workload", text::headline(run).pop().unwrap_or_default()));
    if !run.workload.topic_configs.is_empty() {
        facts.push(("topic configuration", run.workload.topic_configs.join(", ")));
    }
    if m.cores > 0 {
        facts.push((
            "CPU",
            format!(
                "{}, {} cores, {} thread(s) each, {} NUMA node(s), {}",
                m.cpu, m.cores, m.threads_per_core, m.numa_nodes, m.virtualization
            ),
        ));
        facts.push(("memory", human_bytes(m.memory_bytes as f64)));
        facts.push(("kernel", m.kernel.clone()));
        facts.push(("governor, clock", format!("{}, {}", m.governor, m.clock_source)));
        facts.push(("huge pages", m.transparent_hugepages.clone()));
        facts.push(("mitigations", m.mitigations.clone()));
        facts.push(("file system", m.file_system.clone()));
        let nics: Vec<String> = m
            .nics
            .iter()
            .map(|n| format!("{} ({}, {} Mbit/s, {} queue(s))", n.name, n.driver, n.speed_mbit, n.queues))
            .collect();
        facts.push(("network", nics.join(", ")));
        facts
            .push(("kernel settings", m.sysctl.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")));
    }
    html! {
        section {
            h2 { "All figures: " (run.workload.name) }
            (table(&text::cells_table(run)))
            @if let Some(consumed) = text::consumed_table(run) { (table(&consumed)) }
        }
        section {
            h2 { "Host and command" }
            dl { @for (name, value) in facts { dt { (name) } dd { (value) } } }
            @if let Some(ceiling) = &run.ceiling {
                h3 { "What bare loops reach here" }
                (table(&ceiling_table(ceiling)))
            }
            @if !m.tuning.is_empty() {
                h3 { "What the host tuner says" }
                p.note { (text::tuning_line(m)) }
                @if m.short().next().is_some() { (table(&tuning_table(m))) }
            }
        }
    }
}

fn ceiling_table(ceiling: &crate::ceiling::Ceiling) -> Table {
    let mut t = Table::new(&["loop", "figure", "what it does"]);
    for f in &ceiling.figures {
        let value =
            if f.unit == "B/s" { human_bytes(f.value) + "/s" } else { format!("{} {}", human(f.value), f.unit) };
        t.rows.push(vec![f.name.replace('_', " "), value, f.what.clone()]);
    }
    t
}

/// What holds a broker back here. Findings that are as wanted, or cannot be read, are in run.json.
fn tuning_table(m: &Machine) -> Table {
    let mut t = Table::new(&["setting", "now, and wanted", "why"]);
    for f in m.short() {
        let name = if f.item.is_empty() { f.knob.clone() } else { format!("{} ({})", f.knob, f.item) };
        let wanted = if f.wanted.is_empty() { &f.note } else { &f.wanted };
        t.rows.push(vec![name, format!("{}, {wanted}", f.now), f.why.clone()]);
    }
    t
}

fn style() -> String {
    let variables = |colors: &[&str; SERIES_COUNT]| {
        colors.iter().enumerate().map(|(i, c)| format!("--s{i}:{c};")).collect::<String>()
    };
    include_str!("page.css")
        .replace("/* light series */", &variables(&plot::LIGHT))
        .replace("/* dark series */", &variables(&plot::DARK))
}
