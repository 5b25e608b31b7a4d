//! The lines of the tables: a way to get prices, and the server that gives them.
//!
//! Owns their names and settings. Never starts a server.

use super::article::{PATH, REQUEST_HEADERS, SMALLEST};
use crate::dialect::{self, Dialect, Unidirectional};
use crate::reader::Way;
use crate::target::FIXED;

/// A way to get prices, and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    UniWebSocket,
    WebSocket,
    Sse,
    HttpStream,
    LongPolling,
    LongPollingNchan,
    Polling,
    Nginx,
    NginxFixed,
    Servlet,
}

/// The server of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerKind {
    Drumline,
    Nginx,
    Nchan,
    Servlet,
}

impl Line {
    /// All lines; the others are compared with the first.
    pub(super) const ALL: &[Line] = &[
        Line::UniWebSocket,
        Line::WebSocket,
        Line::Sse,
        Line::HttpStream,
        Line::LongPolling,
        Line::LongPollingNchan,
        Line::Polling,
        Line::Nginx,
        Line::NginxFixed,
        Line::Servlet,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Line::UniWebSocket => "uni_websocket",
            Line::WebSocket => "WebSocket",
            Line::Sse => "SSE",
            Line::HttpStream => "HTTP streaming",
            Line::LongPolling => "long-polling",
            Line::LongPollingNchan => "long-polling nchan",
            Line::Polling => "polling",
            Line::Nginx => "polling nginx",
            Line::NginxFixed => "polling nginx (fixed)",
            Line::Servlet => "polling (article)",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Line::UniWebSocket => "pushes alone over WebSocket, from Drumline",
            Line::WebSocket => "the Centrifuge protocol in JSON over WebSocket, from Drumline",
            Line::Sse => "server-sent events, from Drumline (uni_sse)",
            Line::HttpStream => "a line per price in one response, from Drumline (uni_http_stream)",
            Line::LongPolling => {
                "a response per price, from Drumline (long_polling). Each response ends with its \
                 connection: a session of Drumline has the identity of its socket, in the ids of \
                 clients, in presence and in messages between shards, so a second session on the \
                 same socket could get what was meant for the first. The next request opens a \
                 new connection"
            }
            Line::LongPollingNchan => {
                "a response per price on a connection that stays open, from nginx with nchan"
            }
            Line::Polling => "a request per client and second, to Drumline (polling)",
            Line::Nginx => "the same to nginx, which reads the latest price from a file",
            Line::NginxFixed => "the same to nginx, which answers with a text of its configuration",
            Line::Servlet => {
                "the article's request and response headers, from a small server on tokio"
            }
        }
    }

    pub(super) fn way(self) -> Way {
        match self {
            Line::UniWebSocket => Way::UniWebSocket,
            Line::WebSocket => Way::WebSocket,
            Line::Sse => Way::Sse,
            Line::HttpStream => Way::HttpStream,
            Line::LongPolling => Way::LongPolling,
            Line::LongPollingNchan => Way::LongPollingNchan,
            Line::Polling | Line::Nginx | Line::NginxFixed | Line::Servlet => Way::Polling,
        }
    }

    /// The dialect of the dense client for ways that keep one connection open.
    pub(super) fn dialect(self) -> Option<&'static dyn Dialect> {
        match self {
            Line::UniWebSocket => Some(&Unidirectional::WebSocket),
            Line::WebSocket => Some(&dialect::Drumline),
            Line::Sse => Some(&Unidirectional::Sse),
            Line::HttpStream => Some(&Unidirectional::HttpStream),
            _ => None,
        }
    }

    pub(super) fn server(self) -> ServerKind {
        match self {
            Line::Nginx | Line::NginxFixed => ServerKind::Nginx,
            Line::LongPollingNchan => ServerKind::Nchan,
            Line::Servlet => ServerKind::Servlet,
            _ => ServerKind::Drumline,
        }
    }

    /// Path of a poll; `{}` stands for the channel.
    pub(super) fn path(self) -> &'static str {
        match self {
            Line::Nginx => "/{}",
            Line::NginxFixed => FIXED,
            Line::Servlet => PATH,
            _ => "/connection/polling?channel={}",
        }
    }

    /// Header lines of a request where the headers are not the subject: the smallest that work.
    pub(super) fn headers(self) -> &'static str {
        if self == Line::Servlet { REQUEST_HEADERS } else { SMALLEST }
    }

    /// Whether clients get every price, so that a missing one is lost.
    pub(super) fn is_push(self) -> bool {
        self.way() != Way::Polling
    }

    /// Whether a price changes, so that its age says something.
    pub(super) fn is_live(self) -> bool {
        self != Line::NginxFixed
    }
}
