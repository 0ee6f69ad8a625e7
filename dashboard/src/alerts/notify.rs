//! Telling receivers: one POST each, in the form of Alertmanager's webhooks, whose `text` Slack and its
//! like show as well.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;

use super::watch::Change;
use crate::{Shared, hold, now_ms};

/// Messages that wait; further ones are left out and told in the log.
pub(crate) const WAITING_MAX: usize = 100;
const ATTEMPTS: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A message to a receiver.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) receiver: String,
    pub(crate) url: String,
    pub(crate) body: Value,
}

/// Whether a receiver can be told there: TLS is not spoken here.
///
/// # Errors
/// A sentence that says what to do instead.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    if url.starts_with("https://") {
        let text =
            "https is not spoken here; give http:// and put Alertmanager or another relay between";
        return Err(text.to_owned());
    }
    let is_sound = url.len() <= 500
        && url.parse::<hyper::Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())
        });
    if is_sound { Ok(()) } else { Err("a receiver is told at http://host:port/path".to_owned()) }
}

/// What Alertmanager would send.
pub(crate) fn body(receiver: &str, changes: &[Change], external_url: &str, now_ms: i64) -> Value {
    let status = if changes.iter().all(|change| change.is_over) { "resolved" } else { "firing" };
    let alerts = changes.iter().map(|change| {
        let Change { rule, target, held, is_over } = change;
        json!({
            "status": if *is_over { "resolved" } else { "firing" },
            "labels": {
                "alertname": rule.name,
                "rule": rule.id,
                "severity": rule.severity,
                "group": target.group,
                "topic": target.topic,
                "place": target.place,
            },
            "annotations": {"summary": summary(change), "description": rule.text()},
            "startsAt": time(held.since_ms),
            "endsAt": if *is_over { time(now_ms) } else { "0001-01-01T00:00:00Z".to_owned() },
            "generatorURL": format!("{external_url}/alerts"),
            "fingerprint": format!("{:08x}", crc32fast::hash(format!("{}\0{}", rule.id, target.text()).as_bytes())),
        })
    });
    let text: Vec<String> = changes.iter().map(summary).collect();
    json!({
        "version": "4",
        "groupKey": "elkfk",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": external_url,
        "alerts": alerts.collect::<Vec<_>>(),
        "text": text.join("\n"),
    })
}

/// One line for people.
pub(crate) fn summary(change: &Change) -> String {
    let Change { rule, target, held, is_over } = change;
    let sign = if *is_over { "over" } else { rule.severity.as_str() };
    let value =
        if held.value.is_infinite() { "never".to_owned() } else { format!("{:.1}", held.value) };
    format!("[{sign}] {}: {}: {} ({value})", rule.name, target.text(), rule.text())
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |time| time.to_string())
}

pub(crate) async fn run(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Note>) {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    loop {
        let note = tokio::select! {
            () = shared.tasks.stopping() => return,
            note = waiting.recv() => note,
        };
        let Some(note) = note else { return };
        let result = tokio::select! {
            () = shared.tasks.stopping() => return,
            result = send(&client, &note) => result,
        };
        if let Err(error) = &result {
            warn!(receiver = %note.receiver, %error, "a receiver could not be told of an alert");
        }
        hold(&shared.alerts).told(&note.receiver, now_ms(), result);
    }
}

/// Sends a message, again and again where that may help, though not for ever.
async fn send(client: &Client<HttpConnector, Full<Bytes>>, note: &Note) -> Result<(), String> {
    let body = Bytes::from(note.body.to_string());
    let mut pause = FIRST_PAUSE;
    let mut failure = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let request = Request::post(&note.url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))
            .map_err(|error| error.to_string())?;
        failure = match tokio::time::timeout(TIMEOUT, client.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => return Ok(()),
            // It understood and does not want it: again would be the same.
            Ok(Ok(answer)) if answer.status().is_client_error() && answer.status() != 429 => {
                return Err(format!("it answered {}", answer.status()));
            }
            Ok(Ok(answer)) => format!("it answered {}", answer.status()),
            Ok(Err(error)) => match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
            Err(_) => format!("no answer in {} s", TIMEOUT.as_secs()),
        };
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::super::measure::Target;
    use super::super::rule::shipped;
    use super::super::watch::Held;
    use super::*;

    #[test]
    fn the_message_is_alertmanagers_with_a_text_for_slack() {
        let held = Held { since_ms: 0, is_firing: true, value: f64::INFINITY };
        let target = Target::new("sink", "<script>");
        let change = Change { rule: shipped()[0].clone(), target, held, is_over: false };
        let body = body("chat", std::slice::from_ref(&change), "http://localhost:5601", 1);
        assert_eq!((&body["version"], &body["status"]), (&"4".into(), &"firing".into()));
        let alert = &body["alerts"][0];
        assert_eq!(alert["startsAt"], "1970-01-01T00:00:00Z");
        assert_eq!(alert["labels"]["topic"], "<script>");
        assert_eq!(
            body["text"],
            "[warning] The backlog never drains: sink / <script>: drain_never >= 1 for 300 s (never)"
        );
        let over = Change { is_over: true, ..change };
        assert_eq!(super::body("chat", &[over], "", 1)["status"], "resolved");
    }

    #[test]
    fn only_http_is_a_receiver() {
        assert_eq!(check_url("http://127.0.0.1:9093/api/hook"), Ok(()));
        assert!(check_url("https://hooks.slack.com/x").unwrap_err().contains("Alertmanager"));
        for url in ["", "file:///etc/passwd", "http://", "javascript:alert(1)"] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
