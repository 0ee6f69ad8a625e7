//! Telling receivers: one POST each, in the form of Alertmanager's webhooks, whose `text` Slack and its
//! like show as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;

use super::post::Post;
use super::watch::Change;
use super::{CHANGES_MAX, RECEIVERS_MAX};
use crate::{Shared, hold, now_ms};

/// Messages on their way to who tells their receiver; each has some 50 KiB at most. Further ones are left
/// out and told in the log.
pub(crate) const WAITING_MAX: usize = 50;
/// Messages that wait for one receiver.
const WAITING_OF_ONE_MAX: usize = 10;
/// Receivers that are told at once: more than there may be, for one that was removed is told to the end.
const TELLERS_MAX: usize = 2 * RECEIVERS_MAX;
/// Who has nothing to tell for this long goes.
const IDLE: Duration = Duration::from_secs(60);

/// A message to a receiver.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) receiver: String,
    pub(crate) url: String,
    pub(crate) body: Bytes,
}

/// The message to `receiver` of these changes; of very many the first, and how many more there are.
pub(super) fn note(
    receiver: &super::Receiver,
    changes: &[&Change],
    page_url: &str,
    now_ms: i64,
) -> Note {
    let (told, more) = changes.split_at(changes.len().min(CHANGES_MAX));
    let body = body(&receiver.name, told, more, page_url, now_ms);
    let (receiver, url) = (receiver.name.clone(), receiver.url.clone());
    Note { receiver, url, body: body.to_string().into() }
}

/// What Alertmanager would send: `told`, and of `more` only how many there are.
fn body(receiver: &str, told: &[&Change], more: &[&Change], page_url: &str, now_ms: i64) -> Value {
    let is_over = told.iter().chain(more).all(|change| change.is_over);
    let status = if is_over { "resolved" } else { "firing" };
    let alerts = told.iter().map(|change| {
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
            "generatorURL": format!("{page_url}/alerts"),
            "fingerprint": format!("{:08x}", crc32fast::hash(format!("{}\0{}", rule.id, target.text()).as_bytes())),
        })
    });
    let mut text: Vec<String> = told.iter().map(|change| summary(change)).collect();
    if !more.is_empty() {
        text.push(format!("and {} more", more.len()));
    }
    json!({
        "version": "4",
        "groupKey": "elkfk",
        "truncatedAlerts": more.len(),
        "status": status,
        "receiver": receiver,
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": page_url,
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

/// Hands each message to the one who tells its receiver: one that does not answer keeps none of the others
/// waiting.
pub(crate) async fn run(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Note>) {
    let post = Arc::new(Post::new());
    let mut tellers: BTreeMap<String, mpsc::Sender<Note>> = BTreeMap::new();
    loop {
        let note = tokio::select! {
            () = shared.tasks.stopping() => return,
            note = waiting.recv() => note,
        };
        let Some(mut note) = note else { return };
        if let Some(teller) = tellers.get(&note.receiver) {
            note = match teller.try_send(note) {
                Ok(()) => continue,
                Err(mpsc::error::TrySendError::Closed(note)) => note,
                Err(mpsc::error::TrySendError::Full(note)) => {
                    let text = format!(
                        "it does not keep up: one message was left out, for {WAITING_OF_ONE_MAX} wait"
                    );
                    leave_out(&shared, &note, text);
                    continue;
                }
            };
        }
        tellers.retain(|_, teller| !teller.is_closed());
        if tellers.len() >= TELLERS_MAX {
            leave_out(&shared, &note, "too many other receivers are being told".to_owned());
            continue;
        }
        let (teller, notes) = mpsc::channel(WAITING_OF_ONE_MAX);
        let receiver = note.receiver.clone();
        // There is room for the first.
        let _ = teller.try_send(note);
        shared.tasks.spawn("tell a receiver", tell(shared.clone(), post.clone(), notes));
        tellers.insert(receiver, teller);
    }
}

fn leave_out(shared: &Shared, note: &Note, why: String) {
    warn!(receiver = %note.receiver, why, "a message of an alert is left out");
    hold(&shared.alerts).told(&note.receiver, now_ms(), Err(why));
}

/// Tells one receiver, message by message, until there are none for a while.
async fn tell(shared: Arc<Shared>, post: Arc<Post>, mut notes: mpsc::Receiver<Note>) {
    loop {
        let note = tokio::select! {
            () = shared.tasks.stopping() => return,
            note = tokio::time::timeout(IDLE, notes.recv()) => note,
        };
        let note = match note {
            Ok(note) => note,
            // What came at this very moment is still told; the next one finds it closed.
            Err(_) => {
                notes.close();
                notes.recv().await
            }
        };
        let Some(note) = note else { return };
        let result = tokio::select! {
            () = shared.tasks.stopping() => return,
            result = post.send(&note.url, note.body) => result,
        };
        if let Err(error) = &result {
            warn!(receiver = %note.receiver, %error, "a receiver could not be told of an alert");
        }
        hold(&shared.alerts).told(&note.receiver, now_ms(), result);
    }
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
        let body = body("chat", &[&change], &[], "http://localhost:5601", 1);
        assert_eq!((&body["version"], &body["status"]), (&"4".into(), &"firing".into()));
        let alert = &body["alerts"][0];
        assert_eq!(alert["startsAt"], "1970-01-01T00:00:00Z");
        assert_eq!(alert["labels"]["topic"], "<script>");
        assert_eq!(
            body["text"],
            "[warning] The backlog never drains: sink / <script>: drain_never >= 1 for 300 s (never)"
        );
        let over = Change { is_over: true, ..change.clone() };
        assert_eq!(super::body("chat", &[&over], &[], "", 1)["status"], "resolved");
        assert_eq!(super::body("chat", &[&over], &[&change], "", 1)["status"], "firing");
    }

    #[test]
    fn of_very_many_changes_the_number_of_those_left_out_is_told() {
        let held = Held { since_ms: 0, is_firing: true, value: 1.0 };
        let change = |n: usize| {
            let target = Target::new(&format!("group-{n}"), "logs");
            Change { rule: shipped()[1].clone(), target, held: held.clone(), is_over: false }
        };
        let changes: Vec<_> = (0..137).map(change).collect();
        let chat = super::super::Receiver {
            name: "chat".into(),
            kind: super::super::ReceiverKind::Webhook,
            url: "http://a/".into(),
        };
        let note = note(&chat, &changes.iter().collect::<Vec<_>>(), "", 1);
        let body: Value = serde_json::from_slice(&note.body).unwrap();
        let told = body["alerts"].as_array().unwrap().len();
        assert_eq!((told, &body["truncatedAlerts"]), (CHANGES_MAX, &87.into()));
        assert!(body["text"].as_str().unwrap().ends_with("and 87 more"));
    }
}
