//! `/metrics` and `/ready`.
//!
//! Whoever reaches the port may ask, but cannot hold the sensor up: the number of connections, how long each lasts, and the
//! bytes of a request are limited. Connections take few descriptors beside those of the sensor.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::sink::Outcome;

/// Connections at once; for one more, the oldest is closed, which answers would have ended long ago.
const CONNECTIONS: usize = 32;
/// How long one lasts, whatever is asked or not asked.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of a request's head; hyper takes no less.
const MOST_BYTES: usize = 8192;

/// A server at work; dropping it ends it.
pub(crate) struct Server {
    page: Arc<Mutex<Page>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Page {
    metrics: Bytes,
    is_ready: bool,
}

/// Takes the port, as long as there are the rights to.
pub(crate) fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error: std::io::Error| format!("listening on {address}: {error}").into())
}

impl Server {
    pub(crate) fn start(listener: TcpListener) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(async { tokio::net::TcpListener::from_std(listener) })?;
        let page = Arc::new(Mutex::new(Page::default()));
        let (end, ended) = oneshot::channel();
        let served = Arc::clone(&page);
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, served) => {}
                    _ = ended => {} // with all connections
                }
            });
        };
        let thread = thread::Builder::new().name("http".to_owned()).spawn(work)?;
        Ok(Self { page, end: Some(end), thread: Some(thread) })
    }

    fn page(&self) -> std::sync::MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is answered from here on.
    pub(crate) fn publish(&self, metrics: String, is_ready: bool) {
        *self.page() = Page { metrics: metrics.into(), is_ready };
    }

    /// It is not ready any more.
    pub(crate) fn end(&self) {
        self.page().is_ready = false;
    }
}

async fn serve(listener: tokio::net::TcpListener, page: Arc<Mutex<Page>>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await; // no descriptor is left, perhaps
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() == CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let page = Arc::clone(&page);
        let connection = tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(MOST_BYTES)
                .keep_alive(false)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(|request| {
                        let answer = answer(&request, &page);
                        async move { Ok::<_, Infallible>(answer) }
                    }),
                );
            let _ = timeout(LONGEST, connection).await; // who asked may be gone
        });
        open.push_back(connection.abort_handle());
    }
}

fn answer(request: &Request<Incoming>, page: &Mutex<Page>) -> Response<Full<Bytes>> {
    let page = page.lock().unwrap_or_else(PoisonError::into_inner);
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    // The body of an answer to HEAD is left out by hyper.
    let is_asked = matches!(request.method(), &Method::GET | &Method::HEAD);
    let (status, body) = match request.uri().path() {
        "/metrics" if is_asked => (StatusCode::OK, page.metrics.clone()),
        "/ready" if is_asked && page.is_ready => (StatusCode::OK, text("ready\n")),
        "/ready" if is_asked => (StatusCode::SERVICE_UNAVAILABLE, text("not ready\n")),
        _ => (StatusCode::NOT_FOUND, text("there is /metrics and /ready\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
