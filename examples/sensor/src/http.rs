//! `/metrics` and `/ready`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tiny_http::{Method, Response};

use crate::sink::Outcome;

/// A server at work; dropping it ends it.
pub(crate) struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    listener: tiny_http::Server,
    page: Mutex<(String, bool)>,
}

/// Takes the port, as long as there are the rights to.
pub(crate) fn listen(address: SocketAddr) -> Outcome<tiny_http::Server> {
    tiny_http::Server::http(address)
        .map_err(|error| format!("listening on {address}: {error}").into())
}

impl Server {
    pub(crate) fn start(listener: tiny_http::Server) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { listener, page: Mutex::default() });
        let served = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("http".to_owned()).spawn(move || serve(&served))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What is answered from here on.
    pub(crate) fn publish(&self, metrics: String, is_ready: bool) {
        *self.shared.page.lock().unwrap_or_else(PoisonError::into_inner) = (metrics, is_ready);
    }

    /// It is not ready any more.
    pub(crate) fn end(&self) {
        self.shared.page.lock().unwrap_or_else(PoisonError::into_inner).1 = false;
    }
}

fn serve(shared: &Shared) {
    for request in shared.listener.incoming_requests() {
        let (metrics, is_ready) =
            shared.page.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = match (request.method(), request.url()) {
            (Method::Get, "/metrics") => {
                let kind = "Content-Type: text/plain; version=0.0.4";
                let kind: tiny_http::Header = kind.parse().expect("it is a header");
                Response::from_string(metrics).with_header(kind)
            }
            (Method::Get, "/ready") if is_ready => Response::from_string("ready\n"),
            (Method::Get, "/ready") => Response::from_string("not ready\n").with_status_code(503),
            _ => Response::from_string("there is /metrics and /ready\n").with_status_code(404),
        };
        let _ = request.respond(answer); // who asked may be gone
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.listener.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
