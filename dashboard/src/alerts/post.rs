//! Shell: one message to one receiver, over http or https.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elkfk_base::errors::in_one_line;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex;

const ATTEMPTS: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const URL_BYTES_MAX: usize = 500;

/// Whether a receiver can be told there.
///
/// # Errors
/// A sentence that says what is allowed.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let is_sound = url.len() <= URL_BYTES_MAX
        && url.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
    match is_sound {
        true => Ok(()),
        false => Err(format!(
            "a receiver is told at http://host:port/path or https://host/path, of {URL_BYTES_MAX} bytes at most"
        )),
    }
}

type Plain = Client<HttpConnector, Full<Bytes>>;
type Tls = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends messages.
#[derive(Debug)]
pub(super) struct Post {
    plain: Plain,
    /// Made for the first https receiver: whom the machine trusts takes some megabytes of files to know.
    tls: Mutex<Option<Tls>>,
}

impl Post {
    pub(super) fn new() -> Self {
        let plain = Client::builder(TokioExecutor::new()).build_http();
        Self { plain, tls: Mutex::default() }
    }

    /// Sends a message, again and again where that may help, though not for ever.
    ///
    /// # Errors
    /// What came of the last attempt.
    pub(super) async fn send(&self, url: &str, body: Bytes) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        let mut failure = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            failure = match tokio::time::timeout(TIMEOUT, self.once(url, body.clone())).await {
                Ok(Ok(status)) if status.is_success() => return Ok(()),
                // It understood and does not want it: again would be the same.
                Ok(Ok(status)) if status.is_client_error() && status != 429 => {
                    return Err(format!("it answered {status}"));
                }
                Ok(Ok(status)) => format!("it answered {status}"),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer in {} s", TIMEOUT.as_secs()),
            };
        }
        Err(failure)
    }

    async fn once(&self, url: &str, body: Bytes) -> Result<hyper::StatusCode, String> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let answer = match request.uri().scheme_str() {
            Some("https") => self.tls().await?.request(request).await,
            _ => self.plain.request(request).await,
        };
        answer.map(|answer| answer.status()).map_err(|error| {
            let why = in_one_line(&error);
            match why.contains("UnknownIssuer") {
                true => format!(
                    "{why}; have this machine trust its authority, or name that one's file in SSL_CERT_FILE"
                ),
                false => why,
            }
        })
    }

    async fn tls(&self) -> Result<Tls, String> {
        let mut held = self.tls.lock().await;
        if let Some(client) = held.as_ref() {
            return Ok(client.clone());
        }
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let found = found.map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        let (known, _) = roots.add_parsable_certificates(found.certs);
        if known == 0 {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(format!(
                "this machine trusts no authority for https{why}; install ca-certificates, or name a file of certificates in SSL_CERT_FILE"
            ));
        }
        let client = tls_client(roots)?;
        *held = Some(client.clone());
        Ok(client)
    }
}

fn tls_client(roots: RootCertStore) -> Result<Tls, String> {
    // Named, for a process may have linked another one as well.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const AUTHORITY: &[u8] = include_bytes!("../../testdata/tls/ca.pem");
    const CERTIFICATE: &[u8] = include_bytes!("../../testdata/tls/localhost.pem");
    const KEY: &[u8] = include_bytes!("../../testdata/tls/localhost.key");

    #[test]
    fn only_http_and_https_are_receivers() {
        for url in ["http://127.0.0.1:9093/api/hook", "https://hooks.example/x?y=1"] {
            assert_eq!(check_url(url), Ok(()));
        }
        let long = format!("http://a/{}", "x".repeat(URL_BYTES_MAX));
        for url in ["", "file:///etc/passwd", "http://", "javascript:alert(1)", "ftp://a/", &long] {
            assert!(check_url(url).unwrap_err().contains("https://host/path"), "{url}");
        }
    }

    /// A receiver that speaks TLS only; answers with what it was sent.
    async fn receiver() -> (String, tokio::task::JoinHandle<String>) {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/hook", listener.local_addr().unwrap().port());
        let told = tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                // Who does not trust it ends the handshake.
                let Ok(mut socket) = acceptor.accept(socket).await else { continue };
                let mut said = Vec::new();
                while !said.ends_with(b"\"an alert\"}") {
                    assert_ne!(socket.read_buf(&mut said).await.unwrap(), 0);
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                socket.write_all(answer).await.unwrap();
                socket.shutdown().await.unwrap();
                return String::from_utf8(said).unwrap();
            }
        });
        (url, told)
    }

    #[tokio::test]
    async fn a_receiver_is_told_over_tls_if_its_authority_is_trusted() {
        let (url, told) = receiver().await;
        let body = Bytes::from_static(b"{\"text\": \"an alert\"}");
        let post = Post::new();
        // Whom a machine trusts: nobody with this name.
        let why = post.once(&url, body.clone()).await.unwrap_err();
        assert!(why.contains("SSL_CERT_FILE"), "{why}");

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY).unwrap()).unwrap();
        *post.tls.lock().await = Some(tls_client(roots).unwrap());
        assert_eq!(post.send(&url, body).await, Ok(()));
        let said = told.await.unwrap();
        assert!(said.starts_with("POST /hook HTTP/1.1\r\n"), "{said}");
        assert!(said.to_lowercase().contains("content-type: application/json"), "{said}");
    }
}
