//! Templates that make the name of a channel from the routing key and the headers of a message.
//!
//! Owns the syntax. Never knows a broker. The invariant: a rendered name contains every field that
//! the template names; a message without one of them has no channel.

use std::fmt;

/// The fields of a message that a template can name.
pub trait TemplateFields {
    /// Routing key of the message; empty: none.
    fn routing_key(&self) -> &str;
    /// Exchange that the message was published to; empty: the default exchange.
    fn exchange(&self) -> &str;
    /// Text of a header; `None`: the message does not have it.
    fn header(&self, name: &str) -> Option<&str>;
}

/// A parsed template, such as `stock:{routing_key.1}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    RoutingKey,
    /// A word of the routing key, counted from 0.
    Word(usize),
    Exchange,
    Header(String),
}

/// A field that a template names and a message does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingField {
    /// The routing key is empty.
    RoutingKey,
    /// The routing key has fewer words.
    Word(usize),
    /// The message was published to the default exchange.
    Exchange,
    /// The message has no text in this header.
    Header(String),
}

impl fmt::Display for MissingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MissingField::RoutingKey => f.write_str("the message has no routing key"),
            MissingField::Word(at) => write!(f, "the routing key has no word {at}"),
            MissingField::Exchange => f.write_str("the message comes from the default exchange"),
            MissingField::Header(name) => write!(f, "the message has no header {name}"),
        }
    }
}

impl ChannelTemplate {
    /// Parses a template. `{{` and `}}` stand for single braces.
    ///
    /// # Errors
    /// The cause: an unknown field, or a brace without its counterpart.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let field = from.strip_prefix('{').ok_or("a `}` has no `{`; write `}}` for a brace")?;
            let (name, after) =
                field.split_once('}').ok_or("a `{` has no `}`; write `{{` for a brace")?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::parse(name)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(ChannelTemplate(parts))
    }

    /// The name of the channel for a message.
    ///
    /// # Errors
    /// The message does not have a field that the template names.
    pub fn render(&self, message: &impl TemplateFields) -> Result<String, MissingField> {
        let mut name = String::new();
        for part in &self.0 {
            name.push_str(part.text(message)?);
        }
        Ok(name)
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, String> {
        let part = match name.split_once('.') {
            None if name == "routing_key" => Some(Part::RoutingKey),
            None if name == "exchange" => Some(Part::Exchange),
            Some(("routing_key", at)) => at.parse().ok().map(Part::Word),
            Some(("header", header)) if !header.is_empty() => Some(Part::Header(header.to_owned())),
            _ => None,
        };
        part.ok_or_else(|| {
            format!(
                "{{{name}}} is unknown; use {{routing_key}}, {{routing_key.0}}, {{exchange}} or \
                 {{header.NAME}}"
            )
        })
    }

    fn text<'a>(&'a self, message: &'a impl TemplateFields) -> Result<&'a str, MissingField> {
        let filled = |text: &'a str, missing| if text.is_empty() { Err(missing) } else { Ok(text) };
        match self {
            Part::Text(text) => Ok(text),
            Part::RoutingKey => filled(message.routing_key(), MissingField::RoutingKey),
            Part::Word(at) => {
                let word = message.routing_key().split('.').nth(*at).unwrap_or_default();
                filled(word, MissingField::Word(*at))
            }
            Part::Exchange => filled(message.exchange(), MissingField::Exchange),
            Part::Header(name) => {
                let text = message.header(name).unwrap_or_default();
                filled(text, MissingField::Header(name.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fields;

    impl TemplateFields for Fields {
        fn routing_key(&self) -> &str {
            "stock.ACME..eu"
        }

        fn exchange(&self) -> &str {
            ""
        }

        fn header(&self, name: &str) -> Option<&str> {
            match name {
                "symbol" => Some("ACME"),
                "a.b" => Some("dotted"),
                "empty" => Some(""),
                _ => None,
            }
        }
    }

    #[test]
    fn a_template_names_the_channel_by_routing_key_and_headers() {
        for (template, expected) in [
            ("news", Ok("news")),
            ("{routing_key}", Ok("stock.ACME..eu")),
            ("{routing_key.0}:{routing_key.1}", Ok("stock:ACME")),
            ("stock:{header.symbol}", Ok("stock:ACME")),
            ("{header.a.b}", Ok("dotted")),
            ("{{{header.symbol}}}", Ok("{ACME}")),
            ("a}}b{{c", Ok("a}b{c")),
            ("{routing_key.2}", Err("the routing key has no word 2")),
            ("{routing_key.9}", Err("the routing key has no word 9")),
            ("{exchange}", Err("the message comes from the default exchange")),
            ("x{header.gone}", Err("the message has no header gone")),
            ("x{header.empty}", Err("the message has no header empty")),
        ] {
            let parsed = ChannelTemplate::parse(template).unwrap();
            let rendered = parsed.render(&Fields).map_err(|missing| missing.to_string());
            assert_eq!(rendered, expected.map(str::to_owned).map_err(str::to_owned), "{template}");
        }
    }

    #[test]
    fn a_template_with_an_unknown_field_or_a_single_brace_is_refused() {
        for (template, cause) in [
            ("{symbol}", "{symbol} is unknown"),
            ("{}", "{} is unknown"),
            ("{header.}", "{header.} is unknown"),
            ("{routing_key.x}", "{routing_key.x} is unknown"),
            ("{routing_key.-1}", "{routing_key.-1} is unknown"),
            ("{routing_key", "a `{` has no `}`"),
            ("a}", "a `}` has no `{`"),
        ] {
            let refused = ChannelTemplate::parse(template).unwrap_err();
            assert!(refused.contains(cause), "{template}: {refused}");
        }
    }
}
