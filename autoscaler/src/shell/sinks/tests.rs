//! Sinks that lie, say too much, or say nothing.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn answer(change: impl FnOnce(&mut Value)) -> Result<Figures, String> {
    let mut value = json!({"elkfk": {
        "records": 5, "blocked_s": 1.5, "blocked_share": 0.25, "is_elasticsearch_away": false,
        "workers": 2, "workers_max": 8, "consumers": 1, "consumers_max": 4,
        "group": ["g"], "topics": ["logs"]
    }});
    change(&mut value["elkfk"]);
    Figures::read(value.to_string().as_bytes())
}

#[test]
fn figures_are_bounded_before_they_are_believed() {
    let plain = answer(|_| {}).unwrap();
    assert!(plain.reads("g", "logs") && !plain.reads("g", "other") && !plain.reads("h", "logs"));
    assert_eq!(answer(|f| f["group"] = json!("g")).unwrap(), plain);
    assert_eq!(answer(|f| f["blocked_share"] = json!(7e9)).unwrap().blocked_share, 1.0);
    assert_eq!(answer(|f| f["consumers"] = json!(4_000_000_000u32)).unwrap().consumers, COUNT_MAX);
    let shrunk = answer(|f| f["consumers_max"] = json!(0)).unwrap();
    assert_eq!((shrunk.consumers, shrunk.consumers_max), (1, 1));
    let many: Vec<_> = (0..5000).map(|n| format!("topic{n}")).collect();
    assert_eq!(answer(|f| f["topics"] = json!(many)).unwrap().inputs[0].topics.len(), NAMES_MAX);
    let two =
        json!([{"group": "g", "topics": ["a"]}, {"group": "h", "topics": ["b"], "consumers": 3}]);
    let two = answer(|f| f["inputs"] = two).unwrap();
    assert!(two.reads("g", "a") && two.reads("h", "b") && !two.reads("g", "b"));
    for wrong in [
        answer(|f| f["blocked_s"] = json!(-1)),
        answer(|f| f["workers"] = json!("two")),
        answer(|f| f["workers"] = json!(-2)),
        answer(|f| f["consumers"] = json!(1e30)),
        answer(|f| *f = Value::Null),
        Figures::read(b"{}"),
        Figures::read(b"<html>"),
    ] {
        assert!(wrong.is_err(), "{wrong:?}");
    }
}

#[test]
fn the_blocked_share_is_that_since_the_last_look() {
    let mut sink = Sink::new("http://a".into());
    let begun = Instant::now();
    let mut look = |after_s: u64, blocked_s: f64| {
        let figures = answer(|f| f["blocked_s"] = json!(blocked_s)).unwrap();
        sink.take(begun + Duration::from_secs(after_s), Ok(figures));
        sink.blocked_share
    };
    assert_eq!(look(0, 100.0), 0.25, "the first look takes the sink's word");
    assert_eq!(look(10, 105.0), 0.5, "of one consumer's ten seconds");
    assert_eq!(look(20, 1e9), 1.0, "no more than all of the time");
    assert_eq!(look(30, 3.0), 0.25, "a sink that was started anew counts from zero");
    sink.take(begun, Err(SinkError::Slow { url: "http://a".into() }));
    assert!(sink.now().is_none() && sink.figures.is_some());
}

#[test]
fn consumers_are_spread_evenly() {
    assert_eq!(spread(5, &[8, 8]), [3, 2]);
    assert_eq!(spread(7, &[2, 8, 8]), [2, 3, 2]);
    assert_eq!(spread(1, &[8, 8]), [1, 1], "no sink is left without");
    assert_eq!(spread(99, &[2, 3]), [2, 3]);
    assert_eq!(spread(4, &[]), [0; 0]);
}

#[test]
fn a_url_is_http_and_has_a_host() {
    assert_eq!(url_mistake("http://127.0.0.1:9600"), None);
    for wrong in ["https://a:1", "a:9600", "/x", "http://", "nonsense here"] {
        assert!(url_mistake(wrong).is_some(), "{wrong}");
    }
}

/// Answers each connection with `bytes`, then with zeros without end if `is_endless`.
async fn serve(bytes: Vec<u8>, is_endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(&bytes).await;
            while is_endless && socket.write_all(&[b'0'; 65536]).await.is_ok() {}
        }
    });
    url
}

#[tokio::test]
async fn an_endless_body_and_a_refusal_are_errors() {
    let endless = serve(b"HTTP/1.1 200 OK\r\n\r\n{\"elkfk\": 1".to_vec(), true).await;
    let refusing = "HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\ntoo many!";
    let refusing = serve(refusing.into(), false).await;
    let mut sinks = Sinks::new(&[endless, refusing.clone(), "http://127.0.0.1:1".into()]);
    sinks.look().await;
    assert!(sinks.sinks.iter().all(|sink| !sink.is_answering && sink.figures.is_none()));
    let error = sinks.ask_for(&refusing, "consumers", 9).await.unwrap_err();
    assert!(error.to_string().ends_with("answered 400: too many!"), "{error}");
}
