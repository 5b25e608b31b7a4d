//! A fake backend: an HTTP server that notes each request and answers as a test told it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use drumline::tls::provider::provider;

use super::certificates::Pair;

/// A request that a backend got.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: HashMap<String, String>,
}

#[derive(Default)]
struct State {
    /// Bodies of the answers, by path.
    answers: HashMap<String, String>,
    asked: Vec<Asked>,
    /// Status lines of the answers, by path; without one: 200.
    statuses: HashMap<String, String>,
    /// Whether answers are held back.
    held: bool,
}

/// A backend on a free port.
#[derive(Clone)]
pub struct Backend {
    pub port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Backend {
    pub fn start() -> Backend {
        Backend::listen(Ok)
    }

    /// The same with TLS.
    pub fn start_with_tls(pair: &Pair) -> Backend {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(pair.chain(), pair.private_key())
            .unwrap();
        let config = Arc::new(config);
        Backend::listen(move |socket| {
            let connection = ServerConnection::new(config.clone())?;
            Ok(StreamOwned::new(connection, socket))
        })
    }

    /// Serves each connection over what `wrap` makes of its socket.
    fn listen<S: Read + Write + Send + 'static>(
        wrap: impl Fn(TcpStream) -> Result<S, rustls::Error> + Send + 'static,
    ) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend = Backend { port, state: Arc::default() };
        let serving = backend.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let backend = serving.clone();
                let mut stream = wrap(socket).unwrap();
                std::thread::spawn(move || while backend.serve(&mut stream).is_some() {});
            }
        });
        backend
    }

    /// Serves one request; `None`: the connection has ended.
    fn serve(&self, socket: &mut (impl Read + Write)) -> Option<()> {
        let mut reader = BufReader::new(&mut *socket);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        let mut headers = HashMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (state, released) = &*self.state;
        let mut state = state.lock().unwrap();
        state.asked.push(Asked { path: path.clone(), headers });
        let state = released.wait_while(state, |state| state.held).unwrap();
        let answer = state.answers.get(&path).cloned().unwrap_or_default();
        let status = state.statuses.get(&path).cloned().unwrap_or_else(|| "200 OK".to_owned());
        drop(state);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
        socket.write_all((head + &answer).as_bytes()).ok()
    }

    /// Sets the body of a path's answers from now on.
    pub fn answer(&self, path: &str, body: &str) {
        self.state.0.lock().unwrap().answers.insert(path.to_owned(), body.to_owned());
    }

    /// Sets the status line of a path's answers from now on, with more headers after it.
    pub fn status(&self, path: &str, status: &str) {
        self.state.0.lock().unwrap().statuses.insert(path.to_owned(), status.to_owned());
    }

    /// Holds the answers back, or releases them.
    pub fn hold(&self, held: bool) {
        self.state.0.lock().unwrap().held = held;
        self.state.1.notify_all();
    }

    /// The requests of a path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let state = self.state.0.lock().unwrap();
        state.asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}
