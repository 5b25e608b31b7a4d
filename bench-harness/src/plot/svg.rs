//! SVG text: elements, colours and the document around them.
//!
//! Owns the styles. Invariant: every text is escaped.

use std::fmt::Write;

/// Width of a plot.
pub const WIDTH: f64 = 960.0;
/// Margin left of the panels, for the labels of the latency axis.
pub const LEFT: f64 = 92.0;
/// Margin right of the panels.
pub const RIGHT: f64 = 44.0;
/// Line colours on a light and on a dark background.
const COLOURS: [(&str, &str); 8] = [
    ("#0b62a4", "#5aa9e6"),
    ("#d1495b", "#ff7f8e"),
    ("#2e8b57", "#5fcf92"),
    ("#b86f00", "#f2b04a"),
    ("#7b4ea3", "#bb93e0"),
    ("#0f8080", "#4ecaca"),
    ("#8c5a3c", "#c99878"),
    ("#5a5a5a", "#b4b4b4"),
];
/// Dashes distinguish lines without their colours.
const DASHES: [&str; 4] = ["none", "9 3", "3 3", "9 3 3 3"];

/// SVG elements. Writing to a string cannot fail, so this file drops the results of `write!`.
#[derive(Default)]
pub struct Svg {
    pub body: String,
}

impl Svg {
    pub fn text(&mut self, x: f64, y: f64, text: &str, attributes: &str) {
        let text = escape(text);
        let _ = writeln!(self.body, "<text x='{x:.1}' y='{y:.1}' {attributes}>{text}</text>");
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let _ = writeln!(
            self.body,
            "<line x1='{:.1}' y1='{:.1}' x2='{:.1}' y2='{:.1}' class='{class}'/>",
            from.0, from.1, to.0, to.1
        );
    }

    pub fn polyline(&mut self, points: &[(f64, f64)], i: usize) {
        let class = line_class(i);
        if let [(x, y)] = points {
            let _ = writeln!(self.body, "<circle cx='{x:.1}' cy='{y:.1}' r='2' class='{class}'/>");
            return;
        }
        let mut list = String::new();
        for (x, y) in points {
            let _ = write!(list, "{x:.1},{y:.1} ");
        }
        let list = list.trim_end();
        let _ = writeln!(self.body, "<polyline points='{list}' class='{class}'/>");
    }
}

/// Escapes a text for elements and quoted attributes of SVG and HTML.
pub fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&quot;")
}

/// The document. Its colours follow the reader's light or dark colour scheme.
pub fn document(title: &str, body: &str, height: f64) -> String {
    let mut light = String::from(
        ".plot text{fill:#2b2f36}.plot .t{font-size:20px;font-weight:600}\
         .plot .s{font-size:12px;fill:#5d6570}.plot .b{font-size:14px;font-weight:600}\
         .plot .ground{fill:#ffffff}.plot .grid{stroke:#e3e6ea}.plot .axis{stroke:#8a9099}\
         .plot .l{fill:none;stroke-width:2;stroke-linejoin:round}",
    );
    let mut dark = String::from(
        ".plot text{fill:#e4e7eb}.plot .s{fill:#a3abb6}.plot .ground{fill:#16191d}\
         .plot .grid{stroke:#2c3138}.plot .axis{stroke:#7d8590}",
    );
    for (i, (on_light, on_dark)) in COLOURS.iter().enumerate() {
        let _ = write!(light, ".plot .c{i}{{stroke:{on_light}}}");
        let _ = write!(dark, ".plot .c{i}{{stroke:{on_dark}}}");
    }
    for (i, dash) in DASHES.iter().enumerate() {
        let _ = write!(light, ".plot .d{i}{{stroke-dasharray:{dash}}}");
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' class='plot' role='img' aria-label='{}' \
         viewBox='0 0 {WIDTH} {height:.0}' width='{WIDTH}' height='{height:.0}' font-size='13' \
         font-family='system-ui, \"Segoe UI\", Roboto, \"DejaVu Sans\", sans-serif'>\n\
         <style>{light}\n@media (prefers-color-scheme: dark){{{dark}}}</style>\n\
         <rect width='100%' height='100%' class='ground'/>\n{body}</svg>\n",
        escape(title)
    )
}

/// CSS classes of the line of a series: colour and dashes.
pub fn line_class(i: usize) -> String {
    // Dashes move on when the colours begin again, so that no two lines look alike.
    let dash = (i + i / COLOURS.len()) % DASHES.len();
    format!("l c{} d{dash}", i % COLOURS.len())
}

/// Breaks a text at spaces into lines of at most `width` characters.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| {
            !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width
        });
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_breaks_at_spaces() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aaaaaaa b", 5), ["aaaaaaa", "b"]);
    }
}
