//! Bar charts: one panel per quantity, one horizontal bar per target.
//!
//! Owns the layout. Invariant: a chart reads without colours, by names, values and hatching; a bar
//! starts at zero and its length is in proportion to its value.

use anyhow::{Result, ensure};

use super::svg::{Svg, WIDTH, document, escape, wrap};

/// Where the longest bar ends: its value stands behind it.
const END: f64 = WIDTH - 150.0;
const MARGIN: f64 = 24.0;
const HEIGHT: f64 = 18.0;
const STEP: f64 = 26.0;
/// Characters of the longest name that is shown whole, and width of a character.
const NAME_CHARS: usize = 40;
const CHAR: f64 = 7.1;
/// Gap between names and bars.
const GAP: f64 = 10.0;
/// Characters of the subtitle that fit on a line.
const SUBTITLE_CHARS: usize = 130;
/// Fill of the bars, which only these charts need: a reference to the hatching is in it.
const FILL: &str = "<style>.plot .bar{fill:#0b3f6b;stroke:#0b3f6b}\
    .plot .other{fill:url(#hatching);stroke:#5d6570}.plot .hatch{stroke:#8a9099;stroke-width:3}\
    @media (prefers-color-scheme: dark){.plot .bar{fill:#5aa9e6;stroke:#5aa9e6}\
    .plot .other{fill:url(#hatching);stroke:#a3abb6}.plot .hatch{stroke:#5d6570}}</style>\n\
    <defs><pattern id='hatching' width='6' height='6' \
    patternUnits='userSpaceOnUse' patternTransform='rotate(45)'>\
    <line x1='0' y1='0' x2='0' y2='6' class='hatch'/></pattern></defs>\n";

/// A target's bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// The target.
    pub name: String,
    /// The value and its text; `None`: the target has none.
    pub value: Option<(f64, String)>,
}

/// A quantity of all targets; the bar of the first is solid.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// Its name, and which direction is better.
    pub title: String,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// The chart as an SVG document. An error if there is nothing to draw.
pub fn chart(title: &str, subtitle: &str, quantities: &[Quantity]) -> Result<String> {
    let any = |one: &Quantity| one.bars.iter().any(|bar| bar.value.is_some());
    ensure!(quantities.iter().any(any), "no bars to draw");
    let mut svg = Svg { body: FILL.to_owned() };
    svg.text(MARGIN, 36.0, title, "class='t'");
    let mut y = 40.0;
    for line in wrap(subtitle, SUBTITLE_CHARS) {
        y += 18.0;
        svg.text(MARGIN, y, &line, "class='s'");
    }
    let bars = bars_start(quantities);
    for quantity in quantities {
        y = panel(&mut svg, (bars, y + 34.0), quantity);
    }
    Ok(document(title, &svg.body, y + 16.0))
}

/// Where the bars of a chart start: its longest name ends before it.
fn bars_start(quantities: &[Quantity]) -> f64 {
    let names = quantities.iter().flat_map(|quantity| &quantity.bars).map(|bar| &bar.name);
    let longest = names.map(|name| name.chars().count()).max().unwrap_or_default();
    MARGIN + longest.min(NAME_CHARS) as f64 * CHAR + GAP
}

/// Draws a quantity with its title at `y` and its bars from `start` on; returns the bottom.
fn panel(svg: &mut Svg, (start, mut y): (f64, f64), quantity: &Quantity) -> f64 {
    svg.text(MARGIN, y, &quantity.title, "class='b'");
    y += 12.0;
    let top = y;
    let values = quantity.bars.iter().filter_map(|bar| bar.value.as_ref());
    let most = values.fold(0.0_f64, |most, (value, _)| most.max(*value));
    for (nth, bar) in quantity.bars.iter().enumerate() {
        let text_y = y + HEIGHT - 4.5;
        svg.text(start - GAP, text_y, &shortened(&bar.name), "text-anchor='end'");
        match &bar.value {
            Some((value, text)) => {
                let part = if most > 0.0 { value.max(0.0) / most } else { 0.0 };
                // A value that is small beside the others stays visible as a line.
                let width = (part * (END - start)).max(1.5);
                let class = if nth == 0 { "bar" } else { "bar other" };
                svg.bar((start, y), (width, HEIGHT), class);
                svg.text(
                    start + width + 8.0,
                    text_y,
                    text,
                    if nth == 0 { "class='b'" } else { "" },
                );
            }
            None => svg.text(start + 8.0, text_y, "no value", "class='s'"),
        }
        y += STEP;
    }
    svg.line((start, top - 4.0), (start, y - STEP + HEIGHT + 4.0), "axis");
    y - STEP + HEIGHT
}

/// A name that fits before the bars.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    let kept: String = name.chars().take(NAME_CHARS - 1).collect();
    format!("{kept}\u{2026}")
}

impl Svg {
    fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        let class = escape(class);
        self.body.push_str(&format!(
            "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='{height:.1}' class='{class}'/>\n"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: Option<f64>) -> Bar {
        Bar { name: name.to_owned(), value: value.map(|value| (value, format!("{value} us"))) }
    }

    #[test]
    fn bars_are_in_proportion_and_every_value_is_written() {
        let bars = vec![
            bar("drumline", Some(25.0)),
            bar("a < b", Some(100.0)),
            bar("a-name-that-is-longer-than-the-longest-one-shown", Some(0.001)),
            bar("absent", None),
        ];
        let quantity = Quantity { title: "CPU (less is better)".to_owned(), bars };
        let text = chart("fanout", "some load", std::slice::from_ref(&quantity)).unwrap();
        let full = END - bars_start(std::slice::from_ref(&quantity));
        for part in [
            format!("width='{full:.1}' height='18.0' class='bar other'"),
            format!("width='{:.1}' height='18.0' class='bar'", full / 4.0),
            "width='1.5'".to_owned(),
            "a &lt; b".to_owned(),
            ">25 us<".to_owned(),
            ">100 us<".to_owned(),
            ">no value<".to_owned(),
            "a-name-that-is-longer-than-the-longest-\u{2026}".to_owned(),
        ] {
            assert!(text.contains(&part), "{part} not in {text}");
        }
        assert!(chart("empty", "", &[]).is_err());
    }
}
