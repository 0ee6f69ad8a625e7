//! The sink's compressed requests to our store.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use elkfk_base::Mistakes;
use elkfk_sink::delivery::acks::{Acks, TopicPartition};
use elkfk_sink::delivery::budget::Budget;
use elkfk_sink::delivery::chunk::Batch;
use elkfk_sink::event::{Event, Timestamp};
use elkfk_sink::metrics::Meters;
use elkfk_sink::output::elasticsearch::Writer;
use elkfk_sink::output::elasticsearch::documents::{Documents, IndexNames};
use elkfk_sink::output::elasticsearch::options::Elasticsearch;
use elkfk_sink::pipeline::Pipeline;
use tokio_util::sync::CancellationToken;

#[expect(dead_code, reason = "other tests use the rest")]
mod store_support;

use store_support::{Store, call};

/// Hands on what clients send to `to`, and keeps it.
fn listen_in(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = heard.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(to) else { return };
            let (mut from_client, mut to_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            let kept = kept.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(count @ 1..) = from_client.read(&mut buffer) {
                    kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                    if to_server.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
            let (mut from_server, mut to_client) = (server, client);
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
        }
    });
    (addr, heard)
}

#[test]
fn compressed_requests_are_indexed_by_the_store() {
    const COUNT: usize = 2000;
    let store = Store::start(|_| {});
    let (addr, heard) = listen_in(store.address);
    let text = format!(
        "output {{ elasticsearch {{ hosts => [\"{addr}\"] index => \"packed\" http_compression => true }} }}"
    );
    let pipeline = Pipeline::parse("a.conf", &text, &|_| None).unwrap();
    let output = Elasticsearch::read(&pipeline.outputs()[0], &mut Mistakes::default()).unwrap();
    let output = Arc::new(output);

    let acks = Arc::new(Mutex::new(Acks::default()));
    let name = TopicPartition { topic: "logs".into(), partition: 0 };
    let epoch = acks.lock().unwrap().assign(name.clone());
    let mut batch = Batch::new(name, epoch, acks.clone());
    for offset in 0..COUNT {
        batch.push(offset as i64, Some(1_772_323_200_000), None, Some(b""), []);
    }
    batch.first = acks.lock().unwrap().track(epoch, 0..COUNT as i64).unwrap();
    let batch = Arc::new(batch);
    let names = IndexNames::new(10, Instant::now()).into();
    let mut documents = Documents::new(output.clone(), Budget::new(64 << 20), names);
    for (record, view) in batch.iter().enumerate() {
        let event = Event::from_message(&format!("event {record}"), Timestamp::from_millis(0));
        documents.add(&event, view, record as u32, 0).unwrap();
    }

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (chunks, waiting) = tokio::sync::mpsc::channel(16);
    let stop = CancellationToken::new();
    let writer = Writer {
        output,
        chunks: waiting,
        dead_letters: Vec::new().into(),
        meters: Arc::new(Meters::default()),
        stop: stop.clone(),
    };
    let running = runtime.spawn(writer.run());
    chunks.blocking_send(documents.finish(&batch)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while acks.lock().unwrap().in_flight(epoch) > 0 {
        assert!(Instant::now() < deadline, "not acknowledged");
        std::thread::sleep(Duration::from_millis(10));
    }
    stop.cancel();
    runtime.block_on(running).unwrap();

    call(store.address, "POST", "/packed/_refresh", &[], b"").unwrap();
    let count = call(store.address, "GET", "/packed/_count", &[], b"").unwrap().json();
    assert_eq!(count["count"], COUNT, "{count}");
    let heard = heard.lock().unwrap();
    let said = String::from_utf8_lossy(&heard).to_lowercase();
    assert!(said.contains("content-encoding: gzip"), "sent as it was");
    assert!(heard.len() < COUNT * 60, "{} bytes for {COUNT} documents", heard.len());
}
