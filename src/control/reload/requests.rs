//! Requests to reload: SIGHUP and the connections of `drumline reload`, one after the other.
//!
//! Owns the order of the requests. The invariants: each request is answered with the outcome of a
//! reload that began after it; the service manager gets `READY=1` after every `RELOADING=1`.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::base::failure::Failure;
use crate::base::log;
use crate::base::notify;
use crate::control::reload::reloader::Reloader;
use crate::control::reload::socket::ReloadSocket;

/// Requests that wait.
const WAITING_MAX: usize = 16;

/// Reloads whenever a signal or a request arrives, as long as the process runs.
pub async fn serve(mut reloader: Reloader, mut hangups: Signal, socket: Option<ReloadSocket>) {
    let (requests, mut waiting) = mpsc::channel(WAITING_MAX);
    if let Some(socket) = socket {
        tokio::spawn(Arc::new(socket).serve(requests.clone()));
    }
    loop {
        let request = tokio::select! {
            _ = hangups.recv() => None,
            request = waiting.recv() => request,
        };
        notify::reloading();
        // The file may have been renamed.
        log::reopen();
        let outcome = reloader.reload().await;
        match &outcome {
            Ok(report) => tracing::info!(target: "reload", "configuration reloaded: {report}"),
            Err(Failure { cause, cure }) => {
                let kept = "the configuration in force stays";
                tracing::error!(target: "reload", "reload failed: {cause}; {cure}; {kept}");
            }
        }
        notify::notify("READY=1");
        if let Some(request) = request {
            // The command may have been interrupted.
            let _ = request.send(outcome);
        }
    }
}
