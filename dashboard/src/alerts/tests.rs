//! Rules from measurement to message, and on disk.

use elkfk_broker_client::lag::{Figures, GroupLag, TopicLag};

use super::*;
use crate::cluster::Facts;

fn snapshot(seconds: f64) -> Snapshot {
    let figures = Figures { lag: Some(1), lag_seconds: Some(seconds), ..Figures::default() };
    let topic = TopicLag { topic: "logs".into(), figures: figures.clone(), ..TopicLag::default() };
    let group = GroupLag {
        group: "sink".into(),
        state: "Stable".into(),
        members: 1,
        figures,
        topics: vec![topic],
        why: None,
    };
    Snapshot { now_ms: 0, groups: vec![group] }
}

fn alerts() -> Alerts {
    let mut alerts = open(None);
    let url = "http://127.0.0.1:1/hook".to_owned();
    let receiver = Receiver { name: "chat".into(), kind: ReceiverKind::Webhook, url };
    alerts.kept.receivers.push(receiver);
    for rule in &mut alerts.kept.rules {
        rule.receiver = "chat".into();
    }
    alerts.measured_ms = 0;
    alerts
}

fn body(note: &Note) -> Value {
    serde_json::from_slice(&note.body).unwrap()
}

fn state(alerts: &Alerts, id: &str, now_ms: i64) -> Value {
    let rule = alerts.kept.rules.iter().find(|rule| rule.id == id).unwrap();
    alerts.row(rule, now_ms)["state"].clone()
}

#[test]
fn a_rule_goes_from_pending_to_firing_and_its_receiver_is_told() {
    let mut alerts = alerts();
    let facts = Facts::default();
    let look = |alerts: &mut Alerts, second: i64, seconds| {
        let changes = alerts.judge(second * 1000, Some((&snapshot(seconds), &facts)));
        alerts.notes(second * 1000, &changes, "")
    };
    assert_eq!(look(&mut alerts, 1, 400.0).len(), 0);
    assert_eq!(state(&alerts, "backlog-old", 1_000), "pending");
    let notes = look(&mut alerts, 301, 400.0);
    assert_eq!(notes.len(), 1);
    assert_eq!(body(&notes[0])["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(state(&alerts, "backlog-old", 301_000), "firing");
    alerts.kept.silences.insert("backlog-old".into(), 1_000_000);
    assert_eq!(state(&alerts, "backlog-old", 301_000), "silenced");
    // Who was told that it began is told that it is over.
    assert_eq!(look(&mut alerts, 302, 0.0).len(), 1);
    assert_eq!(state(&alerts, "backlog-old", 1_000_001), "ok");
}

#[test]
fn a_cluster_that_is_silent_is_told_and_ends_nothing() {
    let mut alerts = alerts();
    let facts = Facts::default();
    alerts.judge(0, Some((&snapshot(400.0), &facts)));
    let ids = |changes: Vec<Change>| -> Vec<(String, bool)> {
        changes.into_iter().map(|change| (change.rule.id, change.is_over)).collect()
    };
    assert_eq!(ids(alerts.judge(30_000, None)), []);
    assert_eq!(ids(alerts.judge(61_000, None)), [("cluster-silent".to_owned(), false)]);
    assert_eq!(state(&alerts, "backlog-old", 61_000), "pending");
    let back = ids(alerts.judge(62_000, Some((&snapshot(400.0), &facts))));
    assert_eq!(back, [("cluster-silent".to_owned(), true)]);
}

#[test]
fn rules_are_kept_and_damage_leaves_the_shipped_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts.json");
    let mut first = open(Some(directory.path()));
    first.kept.rules[0].enabled = false;
    first.kept.rules.push(Rule {
        id: "mine".into(),
        shipped: false,
        ..first.kept.rules[0].clone()
    });
    durable::replace(&path, &serde_json::to_vec(&first.kept).unwrap()).unwrap();
    let again = open(Some(directory.path()));
    assert_eq!(again.kept.rules, first.kept.rules);
    std::fs::write(&path, "{\"rules\": [").unwrap();
    assert_eq!(open(Some(directory.path())).kept.rules, rule::shipped());
}

#[test]
fn ids_are_made_of_names_and_free() {
    let rules = rule::shipped();
    assert_eq!(new_id("My Rule!", &rules), "my-rule-");
    assert_eq!(new_id("backlog-old", &rules), "backlog-old-2");
}

#[test]
fn what_begins_in_a_silence_is_told_when_that_ends_unless_it_is_over() {
    let mut alerts = alerts();
    let mut bodies = Vec::new();
    for second in 0..700 {
        // Silent from 200 s to 400 s; the rule holds from the first second on, and fires after 300 s.
        if second == 200 {
            alerts.kept.silences.insert("backlog-old".into(), 400_000);
        }
        let behind = if second < 600 { 400.0 } else { 1.0 };
        let measured = snapshot(behind);
        let changes =
            alerts.judge(second * 1000, Some((&measured, &crate::cluster::Facts::default())));
        let notes = alerts.notes(second * 1000, &changes, "");
        bodies.extend(notes.into_iter().map(|note| (second, body(&note))));
    }
    let when: Vec<_> = bodies.iter().map(|(second, _)| *second).collect();
    assert_eq!(when, [400, 600], "begun and ended, each once");

    // Over before the silence is: nobody needs to know.
    let mut alerts = self::alerts();
    alerts.kept.silences.insert("backlog-old".into(), 1_000_000);
    for second in 0..1_100 {
        let measured = snapshot(if second < 600 { 400.0 } else { 1.0 });
        let changes =
            alerts.judge(second * 1000, Some((&measured, &crate::cluster::Facts::default())));
        assert_eq!(alerts.notes(second * 1000, &changes, "").len(), 0, "{second}");
    }
    assert!(alerts.untold.is_empty());
}

#[test]
fn a_rule_that_is_changed_or_removed_ends_what_it_told() {
    let facts = crate::cluster::Facts::default();
    let mut alerts = alerts();
    let look = |alerts: &mut Alerts, second: i64| {
        let changes = alerts.judge(second * 1000, Some((&snapshot(400.0), &facts)));
        alerts.notes(second * 1000, &changes, "")
    };
    for second in [1, 301] {
        look(&mut alerts, second);
    }
    assert_eq!(state(&alerts, "backlog-old", 301_000), "firing");
    let at = alerts.kept.rules.iter().position(|rule| rule.id == "backlog-old").unwrap();
    let before = alerts.kept.rules[at].clone();
    // Its receiver is changed too: who was told that it fires is told that it is over.
    alerts.kept.rules[at].receiver.clear();
    let over = alerts.forget(&before);
    let notes = alerts.notes(302_000, &over, "");
    assert_eq!(notes.len(), 1);
    let body = body(&notes[0]);
    assert_eq!((&body["receiver"], &body["status"]), (&"chat".into(), &"resolved".into()));
    assert_eq!(body["alerts"][0]["labels"]["rule"], "backlog-old");
    assert_eq!(state(&alerts, "backlog-old", 302_000), "ok");
    assert!(alerts.forget(&before).is_empty(), "it is told once");

    // Begun while it was silenced, so never told: neither is its end.
    let mut alerts = self::alerts();
    alerts.kept.silences.insert("backlog-old".into(), 1_000_000);
    for second in [1, 301] {
        assert_eq!(look(&mut alerts, second).len(), 0);
    }
    assert_eq!(alerts.watch.of("backlog-old").count(), 1);
    assert!(alerts.forget(&before).is_empty());
    assert_eq!(alerts.notes(302_000, &[], "").len(), 0);
}
