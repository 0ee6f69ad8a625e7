//! HTTP to the nodes of one cluster: kept-alive connections, compressed bodies.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use elkfk_base::errors::in_one_line;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::options::{Elasticsearch, Node};

/// Answers are cut here: no honest one to a bulk request of 15 MiB is as long.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Smaller bodies are not worth compressing.
const COMPRESSED_FROM_BYTES: usize = 1024;

/// Shared by all requests of one output.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Parts>,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: std::time::Duration,
}

/// Status and body.
pub type Reply = (u16, Bytes);

impl HttpClient {
    pub fn new(output: &Elasticsearch) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(output.timeout.min(std::time::Duration::from_secs(10))));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(std::time::Duration::from_secs(60))
            .build(connector);
        let given = output.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let authorization = output.authorization.as_deref().map(|value| ("authorization", value));
        let headers = given
            .chain(authorization)
            // What is not a header by HTTP's rules was never one Logstash could send either.
            .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
            .collect();
        Self { client, headers, timeout: output.timeout }
    }

    /// Sends one request; the error says in words why there is no answer.
    pub async fn call(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<Bytes>,
        compression: u32,
    ) -> Result<Reply, String> {
        let bytes: usize = body.iter().map(Bytes::len).sum();
        let compresses = compression > 0 && bytes >= COMPRESSED_FROM_BYTES;
        let body = match compresses {
            true => vec![compress(body, compression).await?],
            false => body,
        };
        let uri = format!("http://{}{}{path}", node.authority(), node.path);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if bytes > 0 {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if compresses {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let request = request.body(Parts(body.into())).map_err(|error| error.to_string())?;
        let exchange = async {
            let response =
                self.client.request(request).await.map_err(|error| in_one_line(&error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| format!("read the answer: {error}"))?;
            Ok((status, body.to_bytes()))
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", self.timeout.as_secs_f64())),
        }
    }
}

async fn compress(parts: Vec<Bytes>, level: u32) -> Result<Bytes, String> {
    // Some 20 ms for a full request: too long for a thread that serves sockets.
    let work = move || {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let into = Vec::with_capacity(bytes / 6);
        let mut encoder = flate2::write::GzEncoder::new(into, flate2::Compression::new(level));
        for part in &parts {
            encoder.write_all(part)?;
        }
        encoder.finish().map(Bytes::from)
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    done.map_err(|error: std::io::Error| error.to_string())
}

/// A body of several pieces whose length is known, so that it is sent without chunks or a copy.
#[derive(Debug)]
struct Parts(VecDeque<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}
