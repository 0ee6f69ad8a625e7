//! `_cat`: tables for people, or the same as JSON.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{Call, cluster};
use crate::cluster::patterns;
use crate::dates;
use crate::engine::{Engine, Options};
use crate::error::EsError;
use crate::http::Answer;
use crate::mapping::wildcard;

/// A table: names of columns, whether numbers, and rows in which `None` shows as empty.
struct Table {
    columns: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Option<String>>>,
}

pub(super) fn cat(
    engine: &Arc<Engine>,
    call: &Call,
    what: &str,
    target: Option<&str>,
) -> Result<Answer, EsError> {
    let table = match what {
        "indices" => indices(engine, call, target.unwrap_or_default())?,
        "health" => health(engine)?,
        "count" => count(engine, target.unwrap_or_default())?,
        "aliases" => aliases(engine, target.unwrap_or("*")),
        "templates" => templates(engine, target.unwrap_or("*")),
        "nodes" => Table {
            columns: vec![
                ("ip", false),
                ("heap.percent", true),
                ("ram.percent", true),
                ("cpu", true),
                ("node.role", false),
                ("master", false),
                ("name", false),
            ],
            rows: vec![row([
                &engine.config.listen.ip().to_string(),
                "0",
                "0",
                "0",
                "cdfhilmrstw",
                "*",
                &engine.config.node_name,
            ])],
        },
        "shards" => shards(engine, target.unwrap_or_default())?,
        "plugins" | "pending_tasks" | "repositories" | "tasks" => {
            Table { columns: vec![("name", false)], rows: Vec::new() }
        }
        _ => {
            return Err(EsError::text(
                400,
                format!("no handler found for uri [{}] and method [GET]", call.path),
                false,
            ));
        }
    };
    show(call, table)
}

fn row<const N: usize>(values: [&str; N]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

fn bytes_text(call: &Call, bytes: u64) -> String {
    if call.parameter("bytes").is_some() {
        return bytes.to_string();
    }
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 5] = ["b", "kb", "mb", "gb", "tb"];
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = if unit == 0 { format!("{value}") } else { format!("{value:.1}") };
    format!("{}{}", text.trim_end_matches(".0"), UNITS[unit])
}

fn indices(engine: &Engine, call: &Call, expression: &str) -> Result<Table, EsError> {
    let options = Options { takes_closed: true, ..call.options() };
    let mut rows = Vec::new();
    for index in engine.resolve(expression, options)? {
        let info = index.info();
        let setting =
            |key: &str| info.settings.get(key).and_then(Value::as_str).unwrap_or("0").to_owned();
        let replicas = setting("number_of_replicas");
        let searcher = index.searcher()?;
        let deleted: u32 =
            searcher.segment_readers().iter().map(|segment| segment.num_deleted_docs()).sum();
        let bytes = bytes_text(call, index.disk_bytes());
        rows.push(vec![
            Some(if replicas == "0" { "green" } else { "yellow" }.to_owned()),
            Some(if info.is_closed { "close" } else { "open" }.to_owned()),
            Some(index.name.clone()),
            Some(info.uuid.clone()),
            Some(setting("number_of_shards")),
            Some(replicas),
            Some(searcher.num_docs().to_string()),
            Some(deleted.to_string()),
            Some(bytes.clone()),
            Some(bytes.clone()),
            Some(bytes),
            Some(info.created_ms.to_string()),
            Some(dates::format_utc(info.created_ms)),
        ]);
    }
    Ok(Table {
        columns: vec![
            ("health", false),
            ("status", false),
            ("index", false),
            ("uuid", false),
            ("pri", true),
            ("rep", true),
            ("docs.count", true),
            ("docs.deleted", true),
            ("store.size", true),
            ("pri.store.size", true),
            ("dataset.size", true),
            ("creation.date", true),
            ("creation.date.string", false),
        ],
        rows,
    })
}

fn clock() -> (String, String) {
    let now = dates::now_ms();
    ((now / 1000).to_string(), dates::format(now, "HH:mm:ss", &jiff::tz::TimeZone::UTC))
}

fn health(engine: &Engine) -> Result<Table, EsError> {
    let (active, unassigned, status) = cluster::shard_counts(engine, "*,.*")?;
    let (epoch, time) = clock();
    let percent = if active + unassigned == 0 {
        100.0
    } else {
        active as f64 * 100.0 / (active + unassigned) as f64
    };
    let columns = [
        ("epoch", true),
        ("timestamp", false),
        ("cluster", false),
        ("status", false),
        ("node.total", true),
        ("node.data", true),
        ("shards", true),
        ("pri", true),
        ("relo", true),
        ("init", true),
        ("unassign", true),
        ("unassign.pri", true),
        ("pending_tasks", true),
        ("max_task_wait_time", false),
        ("active_shards_percent", true),
    ];
    let active = active.to_string();
    Ok(Table {
        columns: columns.to_vec(),
        rows: vec![row([
            &epoch,
            &time,
            &engine.config.cluster_name,
            status,
            "1",
            "1",
            &active,
            &active,
            "0",
            "0",
            &unassigned.to_string(),
            "0",
            "0",
            "-",
            &format!("{percent:.1}%"),
        ])],
    })
}

fn count(engine: &Engine, expression: &str) -> Result<Table, EsError> {
    let mut total = 0;
    for index in engine.resolve(expression, Options::default())? {
        total += index.searcher()?.num_docs();
    }
    let (epoch, time) = clock();
    Ok(Table {
        columns: vec![("epoch", true), ("timestamp", false), ("count", true)],
        rows: vec![row([&epoch, &time, &total.to_string()])],
    })
}

fn aliases(engine: &Engine, pattern: &str) -> Table {
    let mut rows = Vec::new();
    for index in engine.all() {
        for (alias, options) in index.info().aliases {
            if pattern.split(',').any(|pattern| wildcard(pattern, &alias)) {
                let writes = options
                    .get("is_write_index")
                    .and_then(Value::as_bool)
                    .map_or("-".to_owned(), |writes| writes.to_string());
                rows.push(row([&alias, &index.name, "-", "-", "-", &writes]));
            }
        }
    }
    Table {
        columns: vec![
            ("alias", false),
            ("index", false),
            ("filter", false),
            ("routing.index", false),
            ("routing.search", false),
            ("is_write_index", false),
        ],
        rows,
    }
}

fn templates(engine: &Engine, pattern: &str) -> Table {
    let cluster = engine.cluster();
    let mut rows = Vec::new();
    let version = |template: &Value| template.get("version").map(ToString::to_string);
    let shown_patterns = |template: &Value| Some(format!("[{}]", patterns(template).join(", ")));
    for (name, template) in &cluster.legacy_templates {
        let order = template.get("order").map_or("0".to_owned(), ToString::to_string);
        rows.push(vec![
            Some(name.clone()),
            shown_patterns(template),
            Some(order),
            version(template),
            Some(String::new()),
        ]);
    }
    for (name, template) in &cluster.index_templates {
        let order = template.get("priority").map_or("0".to_owned(), ToString::to_string);
        let composed: Vec<&str> = template
            .get("composed_of")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        rows.push(vec![
            Some(name.clone()),
            shown_patterns(template),
            Some(order),
            version(template),
            Some(format!("[{}]", composed.join(", "))),
        ]);
    }
    rows.retain(|row| {
        row[0]
            .as_deref()
            .is_some_and(|name| pattern.split(',').any(|pattern| wildcard(pattern, name)))
    });
    Table {
        columns: vec![
            ("name", false),
            ("index_patterns", false),
            ("order", true),
            ("version", true),
            ("composed_of", false),
        ],
        rows,
    }
}

fn shards(engine: &Engine, expression: &str) -> Result<Table, EsError> {
    let mut rows = Vec::new();
    for index in engine.resolve(expression, Options::default())? {
        let replicas: usize = index
            .info()
            .settings
            .get("number_of_replicas")
            .and_then(Value::as_str)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let documents = index.searcher()?.num_docs().to_string();
        rows.push(row([
            &index.name,
            "0",
            "p",
            "STARTED",
            &documents,
            &index.disk_bytes().to_string(),
            &engine.config.listen.ip().to_string(),
            &engine.config.node_name,
        ]));
        for _ in 0..replicas {
            let mut replica = row([&index.name, "0", "r", "UNASSIGNED"]);
            replica.extend([None, None, None, None]);
            rows.push(replica);
        }
    }
    Ok(Table {
        columns: vec![
            ("index", false),
            ("shard", true),
            ("prirep", false),
            ("state", false),
            ("docs", true),
            ("store", true),
            ("ip", false),
            ("node", false),
        ],
        rows,
    })
}

fn show(call: &Call, mut table: Table) -> Result<Answer, EsError> {
    for key in call
        .parameter("s")
        .into_iter()
        .flat_map(|keys| keys.split(',').rev().map(str::to_owned).collect::<Vec<_>>())
    {
        let (name, descends) = match key.split_once(':') {
            Some((name, order)) => (name, order == "desc"),
            None => (key.as_str(), false),
        };
        if let Some(at) = column(&table, name) {
            let is_number = table.columns[at].1;
            table.rows.sort_by(|a, b| {
                let number = |row: &Vec<Option<String>>| {
                    row[at].as_deref().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0)
                };
                let order =
                    if is_number { number(a).total_cmp(&number(b)) } else { a[at].cmp(&b[at]) };
                if descends { order.reverse() } else { order }
            });
        }
    }
    // Columns that only show when asked for by name.
    let is_extra = |name: &str| name.starts_with("creation.date");
    let chosen: Vec<usize> = match call.parameter("h") {
        Some(names) => names
            .split(',')
            .flat_map(|name| match column(&table, name) {
                Some(at) => vec![at],
                None => (0..table.columns.len())
                    .filter(|at| wildcard(name, table.columns[*at].0))
                    .collect(),
            })
            .collect(),
        None => (0..table.columns.len()).filter(|at| !is_extra(table.columns[*at].0)).collect(),
    };
    let is_json = call.parameter("format") == Some("json")
        || (call.wants_json && call.parameter("format").is_none() && !call.wants_text);
    if is_json {
        let rows = table.rows.iter().map(|row| {
            let cells = chosen.iter().map(|at| {
                (
                    table.columns[*at].0.to_owned(),
                    row[*at].clone().map_or(Value::Null, Value::String),
                )
            });
            Value::Object(cells.collect::<Map<_, _>>())
        });
        return Ok(Answer::json(200, &json!(rows.collect::<Vec<_>>())));
    }
    let mut lines: Vec<Vec<String>> = Vec::new();
    if call.flag("v") {
        lines.push(chosen.iter().map(|at| table.columns[*at].0.to_owned()).collect());
    }
    for row in &table.rows {
        lines.push(chosen.iter().map(|at| row[*at].clone().unwrap_or_default()).collect());
    }
    let widths: Vec<usize> = (0..chosen.len())
        .map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .enumerate()
            .map(|(i, cell)| {
                let width = widths[i];
                if table.columns[chosen[i]].1 {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        text.push_str(&cells.join(" "));
        text.push('\n');
    }
    Ok(Answer::text(text))
}

/// A column by its name or a usual short form of it.
fn column(table: &Table, name: &str) -> Option<usize> {
    let name = match name {
        "i" | "idx" => "index",
        "dc" | "docsCount" => "docs.count",
        "dd" => "docs.deleted",
        "ss" | "storeSize" => "store.size",
        "h" => "health",
        "p" | "shards.primary" => "pri",
        "r" | "shards.replica" => "rep",
        "cd" => "creation.date",
        "cds" => "creation.date.string",
        "id" => "uuid",
        other => other,
    };
    table.columns.iter().position(|(known, _)| *known == name)
}
