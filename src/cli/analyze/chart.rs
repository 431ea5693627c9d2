//! Pictures as inline SVG.

use maud::{Markup, html};

use crate::analyze::Report;

/// Size of the picture of windows, in its own units.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 160.0;

/// Room for the text of an axis.
const MARGIN: f64 = 20.0;

/// The highest use of a window over time; low and exhausted parts have their own colours.
pub(super) fn timeline(report: &Report) -> Markup {
    let parts = &report.timeline.parts;
    let first = parts.first().map_or(0.0, |part| part.start_seconds);
    let last = parts.last().map_or(0.0, |part| part.start_seconds) + report.timeline.seconds;
    let scale = WIDTH / (last - first).max(report.timeline.seconds);
    let threshold = HEIGHT * report.limit.low_threshold;
    html! {
        svg class="timeline" role="img" viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + MARGIN)) {
            title { "Highest use of a window over time, in parts of " (report.timeline.seconds) " s" }
            rect class="track" x="0" y="0" width=(WIDTH) height=(HEIGHT) {}
            @for part in parts {
                @let height = HEIGHT * part.peak_usage.clamp(0.0, 1.0);
                @let kind = if part.exhausted > 0 { "bad" } else if part.low > 0 { "low" } else { "good" };
                rect class=(kind) x=(number((part.start_seconds - first) * scale)) y=(number(HEIGHT - height))
                    width=(number((report.timeline.seconds * scale - 0.3).max(0.7))) height=(number(height)) {
                    title {
                        (part.start) ": " (part.windows) " windows, " (part.low) " low, " (part.exhausted)
                        " exhausted"
                    }
                }
            }
            line class="threshold" x1="0" x2=(WIDTH) y1=(number(threshold)) y2=(number(threshold)) {}
            text x="0" y=(HEIGHT + MARGIN - 5.0) { (report.logs.first.as_deref().unwrap_or_default()) }
            text class="end" x=(WIDTH) y=(HEIGHT + MARGIN - 5.0) { (report.logs.last.as_deref().unwrap_or_default()) }
        }
    }
}

/// A bar of a share from 0 to 1.
pub(super) fn bar(share: f64, kind: &str) -> Markup {
    html! {
        svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect class="track" x="0" y="0" width="100" height="8" {}
            rect class=(kind) x="0" y="0" width=(number(share.clamp(0.0, 1.0) * 100.0)) height="8" {}
        }
    }
}

fn number(value: f64) -> String {
    format!("{value:.2}")
}
