//! `elkfk healthcheck`: for containers and supervisors.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::Healthcheck;
use crate::say::sayln;

const TIMEOUT: Duration = Duration::from_secs(4);
/// Of an answer, as much as is needed to judge it.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Whether every box asked about is well; prints one line each.
pub(crate) async fn run(args: Healthcheck) -> Result<bool> {
    let Healthcheck { mut coordinator, mut bootstrap_server, mut elasticsearch, mut dashboard } =
        args;
    if [&coordinator, &bootstrap_server, &elasticsearch, &dashboard]
        .iter()
        .all(|asked| asked.is_none())
    {
        coordinator = Some("127.0.0.1:2181".into());
        bootstrap_server = Some("127.0.0.1:9092".into());
        elasticsearch = Some("http://127.0.0.1:9200".into());
        dashboard = Some("http://127.0.0.1:5601".into());
    }
    let mut is_well = true;
    let mut report = |name: &str, at: &str, result: Result<()>| match result {
        Ok(()) => sayln!("{name:<12} {at:<28} well"),
        Err(error) => {
            is_well = false;
            sayln!("{name:<12} {at:<28} {error:#}");
        }
    };
    if let Some(at) = coordinator {
        let answer = exchange(&at, b"srvr").await.and_then(|answer| expect(&answer, "Mode:"));
        report("coordinator", &at, answer);
    }
    if let Some(at) = bootstrap_server {
        // ApiVersions v0 with correlation id 7: every Kafka answers it to everyone.
        let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
        let answer = first_bytes(&at, &request, 10).await.and_then(|answer| {
            if answer.get(4..8) == Some(&[0, 0, 0, 7]) {
                Ok(())
            } else {
                bail!("the answer is not Kafka's")
            }
        });
        report("broker", &at, answer);
    }
    for (name, url, path) in
        [("store", elasticsearch, "/_cluster/health"), ("dashboard", dashboard, "/")]
    {
        let Some(url) = url else { continue };
        let result = async {
            let host = url
                .strip_prefix("http://")
                .context("the URL does not begin with http://")?
                .trim_end_matches('/');
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            expect(&exchange(host, request.as_bytes()).await?, "HTTP/1.1 200")
        };
        report(name, &url, result.await);
    }
    Ok(is_well)
}

fn expect(answer: &str, wanted: &str) -> Result<()> {
    if answer.contains(wanted) {
        return Ok(());
    }
    bail!("answered {:?}", answer.lines().next().unwrap_or(""))
}

async fn exchange(at: &str, request: &[u8]) -> Result<String> {
    let exchange = async {
        let mut socket = TcpStream::connect(at).await?;
        socket.write_all(request).await?;
        let mut answer = Vec::new();
        socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")?.context("ask")
}

async fn first_bytes(at: &str, request: &[u8], count: usize) -> Result<Vec<u8>> {
    let exchange = async {
        let mut socket = TcpStream::connect(at).await?;
        socket.write_all(request).await?;
        let mut answer = vec![0; count];
        socket.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")?.context("ask")
}
