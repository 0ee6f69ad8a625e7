//! All indices of this store: making, finding, expiring them; what is shared between requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use elkfk_base::durable::{self, DataDirectory};
use serde_json::{Map, Value, json};

use crate::cluster::{self, Cluster};
use crate::error::EsError;
use crate::index::{Index, IndexInfo};
use crate::mapping::{Mapping, wildcard};
use crate::{Config, dates, metrics};

/// Length of an id made here.
pub const AUTO_ID_CHARS: usize = 20;
/// Indices with an open writer; one takes three threads and its merges.
const WRITERS_MAX: usize = 4;
/// Merges at a time; each takes a thread, and keeps a writer open.
const MERGES_MAX: usize = 2;
/// Indices whose files stay open for searches.
const READERS_MAX: usize = 64;
/// Indices at most; one more costs files and a line in every listing.
const INDICES_MAX: usize = 10_000;
const DAY_MS: i64 = 86_400_000;

pub struct Engine {
    pub config: Config,
    directory: DataDirectory,
    indices: RwLock<BTreeMap<String, Arc<Index>>>,
    pub cluster: Mutex<Cluster>,
    /// Bytes of requests in hand.
    indexing_bytes: AtomicU64,
    next_id: AtomicU64,
    /// Distinguishes ids of this run from all others.
    id_prefix: u64,
    pub contexts: crate::search::context::Contexts,
    /// Set while the disk is too full to write; 0 or 1.
    is_disk_full: AtomicU64,
    /// Held by whoever chooses what is merged next.
    merging: Mutex<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_dir", &self.config.data_dir).finish_non_exhaustive()
    }
}

/// How an index expression is resolved.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub ignores_unavailable: bool,
    /// `allow_no_indices=false`
    pub refuses_none: bool,
    pub takes_closed: bool,
}

/// Where a write goes.
#[derive(Debug)]
pub struct Target {
    pub index: Arc<Index>,
    pub is_data_stream: bool,
}

impl Engine {
    pub fn open(config: Config, directory: DataDirectory) -> Result<Self, EsError> {
        let root = directory.path().join("indices");
        std::fs::create_dir_all(&root)?;
        let mut indices = BTreeMap::new();
        for entry in std::fs::read_dir(&root)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned)
            else {
                continue;
            };
            // An error is no answer: what cannot be looked at now may be whole.
            if name.starts_with(TRASH) || !path.join("index.json").try_exists()? {
                // Half deleted or half made when the process ended.
                std::fs::remove_dir_all(&path)?;
                continue;
            }
            indices.insert(name.clone(), Arc::new(Index::open(&path, &name)?));
        }
        metrics::INDICES.set(indices.len() as i64);
        let cluster = Cluster::open(directory.path())?;
        // What a killed process created and did not come to sync is built upon from here.
        durable::sync_directory(&root)?;
        durable::sync_directory(directory.path())?;
        Ok(Self {
            config,
            directory,
            indices: RwLock::new(indices),
            cluster: Mutex::new(cluster),
            indexing_bytes: AtomicU64::new(0),
            next_id: AtomicU64::new(dates::now_ms() as u64 & 0xffff_ffff_ffff),
            id_prefix: uuid::Uuid::new_v4().as_u64_pair().0,
            contexts: crate::search::context::Contexts::default(),
            is_disk_full: AtomicU64::new(0),
            merging: Mutex::new(()),
        })
    }

    pub fn cluster(&self) -> std::sync::MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new id: the run, then a count, so that ids of one run share a prefix and rise.
    pub fn new_id(&self) -> Box<str> {
        const DIGITS: &[u8; 64] =
            b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
        let count = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; AUTO_ID_CHARS];
        for (i, digit) in text.iter_mut().enumerate() {
            let (source, shift) =
                if i < 10 { (self.id_prefix, 54 - 6 * i) } else { (count, 54 - 6 * (i - 10)) };
            *digit = DIGITS[(source >> shift & 63) as usize];
        }
        String::from_utf8_lossy(&text).into()
    }

    /// Reserves memory for a body of `bytes`; given back when the guard is dropped.
    ///
    /// # Errors
    /// 429 where requests in hand hold more than allowed. One request alone is always let in.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, EsError> {
        let mut reservation = Reservation { engine: self.clone(), bytes: 0 };
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }

    /// Refuses writes while the disk is too full.
    pub fn check_disk(&self, index: &str) -> Result<(), EsError> {
        if self.is_disk_full.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        metrics::REJECTED.with_label_values(&["disk"]).inc();
        Err(EsError::new(
            429,
            "cluster_block_exception",
            format!(
                "index [{index}] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block; for more information, see https://www.elastic.co/docs/troubleshoot/elasticsearch/fix-watermark-errors];"
            ),
        ))
    }

    /// Looks at the disk; call every few seconds.
    pub fn watch_disk(&self) {
        let Ok(stat) = rustix::fs::statvfs(self.directory.path()) else { return };
        let used = 100.0 - stat.f_bavail as f64 * 100.0 / (stat.f_blocks as f64).max(1.0);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let was_full = self.is_disk_full.load(Ordering::Relaxed) == 1;
        // A little lower to open again than to close, so that it does not flutter.
        let limit = f64::from(self.config.flood_stage_percent) - if was_full { 5.0 } else { 0.0 };
        let is_full = used > limit && free < self.config.flood_stage_free_bytes_max;
        if is_full != was_full {
            self.is_disk_full.store(u64::from(is_full), Ordering::Relaxed);
            if is_full {
                tracing::error!(used_percent = used, "disk nearly full, refusing writes");
            } else {
                tracing::info!(used_percent = used, "disk has room again, taking writes");
            }
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.indices.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    pub fn all(&self) -> Vec<Arc<Index>> {
        self.indices.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Index>> {
        self.indices.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Finds the indices an expression names: names, aliases, data streams, wildcards, exclusions.
    pub fn resolve(&self, expression: &str, options: Options) -> Result<Vec<Arc<Index>>, EsError> {
        let all = self.all();
        let mut found: BTreeMap<String, Arc<Index>> = BTreeMap::new();
        let expression =
            if expression.is_empty() || expression == "_all" { "*" } else { expression };
        for part in expression.split(',').filter(|part| !part.is_empty()) {
            if let Some(excluded) = part.strip_prefix('-')
                && !found.is_empty()
            {
                found.retain(|name, _| !wildcard(excluded, name));
                continue;
            }
            let part = if part == "_all" { "*" } else { part };
            if part.contains(['*', '?']) {
                for index in &all {
                    let info = index.info();
                    if info.is_closed && !options.takes_closed {
                        continue;
                    }
                    let is_hidden = index.name.starts_with('.') && !part.starts_with('.');
                    if (wildcard(part, &index.name) && !is_hidden)
                        || info.aliases.keys().any(|alias| wildcard(part, alias))
                        || info.data_stream.as_deref().is_some_and(|stream| wildcard(part, stream))
                    {
                        found.insert(index.name.clone(), index.clone());
                    }
                }
                continue;
            }
            let mut is_known = false;
            for index in &all {
                let info = index.info();
                if index.name == part
                    || info.aliases.contains_key(part)
                    || info.data_stream.as_deref() == Some(part)
                {
                    is_known = true;
                    if info.is_closed && !options.takes_closed {
                        if options.ignores_unavailable {
                            continue;
                        }
                        return Err(EsError::new(400, "index_closed_exception", "closed")
                            .with("index_uuid", info.uuid)
                            .with("index", index.name.clone()));
                    }
                    found.insert(index.name.clone(), index.clone());
                }
            }
            if !is_known && !options.ignores_unavailable {
                return Err(EsError::no_such_index(part));
            }
        }
        if found.is_empty() && options.refuses_none {
            return Err(EsError::no_such_index(expression));
        }
        Ok(found.into_values().collect())
    }

    /// The index a write to `name` goes to, made where it is missing.
    ///
    /// # Errors
    /// A bad name, a template's mistake, an alias without one index to write to.
    pub fn target(&self, name: &str, requires_alias: bool) -> Result<Target, EsError> {
        if let Some(index) = self.get(name) {
            if requires_alias {
                return Err(require_alias(name));
            }
            if index.info().is_closed {
                return Err(EsError::new(400, "index_closed_exception", "closed")
                    .with("index_uuid", index.info().uuid)
                    .with("index", name));
            }
            return Ok(Target { index, is_data_stream: false });
        }
        let all = self.all();
        if let Some(index) =
            all.iter().rfind(|index| index.info().data_stream.as_deref() == Some(name))
        {
            return Ok(Target { index: index.clone(), is_data_stream: true });
        }
        let behind: Vec<_> =
            all.iter().filter(|index| index.info().aliases.contains_key(name)).collect();
        let writes = |index: &&&Arc<Index>| {
            index
                .info()
                .aliases
                .get(name)
                .and_then(|alias| alias.get("is_write_index"))
                .and_then(Value::as_bool)
                == Some(true)
        };
        match (behind.iter().find(writes), behind.as_slice()) {
            (Some(index), _) | (None, [index]) => {
                return Ok(Target { index: (*index).clone(), is_data_stream: false });
            }
            (None, []) => {}
            (None, _) => {
                return Err(EsError::illegal_argument(format!(
                    "no write index is defined for alias [{name}]. The write index may be explicitly disabled using is_write_index=false or the alias points to multiple indices without one being designated as a write index"
                )));
            }
        }
        if requires_alias {
            return Err(require_alias(name));
        }
        let is_data_stream = self.cluster().template_for(name).is_data_stream;
        let concrete = if is_data_stream {
            let today = dates::format(dates::now_ms(), "yyyy.MM.dd", &jiff::tz::TimeZone::UTC);
            format!(".ds-{name}-{today}-000001")
        } else {
            name.to_owned()
        };
        check_name(name)?;
        let index = match self.create(&concrete, &json!({}), is_data_stream.then_some(name)) {
            Ok(index) => index,
            // Another request was faster.
            Err(error) => self.get(&concrete).ok_or(error)?,
        };
        Ok(Target { index, is_data_stream })
    }

    /// Makes an index from a template and a body with `settings`, `mappings` and `aliases`.
    pub fn create(
        &self,
        name: &str,
        body: &Value,
        data_stream: Option<&str>,
    ) -> Result<Arc<Index>, EsError> {
        if data_stream.is_none() {
            check_name(name)?;
        }
        let template = self.cluster().template_for(data_stream.unwrap_or(name));
        let mut mapping = Mapping::default();
        if data_stream.is_some() {
            mapping.merge(&json!({"properties": {"@timestamp": {"type": "date"}}}))?;
        }
        for part in template.mappings.iter().chain(body.get("mappings")) {
            mapping.merge(part)?;
        }
        let mut settings = Map::new();
        settings.insert("number_of_shards".into(), "1".into());
        settings.insert("number_of_replicas".into(), "1".into());
        cluster::merge(&mut settings, template.settings);
        if let Some(own) = body.get("settings") {
            cluster::merge(&mut settings, cluster::index_settings(own));
        }
        let mut aliases = template.aliases;
        for (alias, value) in body.get("aliases").and_then(Value::as_object).into_iter().flatten() {
            aliases.insert(alias.clone(), value.clone());
        }
        let info = IndexInfo {
            uuid: cluster::random_id(),
            created_ms: dates::now_ms(),
            settings,
            aliases,
            is_closed: false,
            data_stream: data_stream.map(str::to_owned),
        };
        let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = indices.get(name) {
            let uuid = index.info().uuid;
            return Err(EsError::new(
                400,
                "resource_already_exists_exception",
                format!("index [{name}/{uuid}] already exists"),
            )
            .with("index_uuid", uuid)
            .with("index", name));
        }
        if indices.len() >= INDICES_MAX {
            return Err(EsError::new(
                400,
                "validation_exception",
                format!(
                    "Validation Failed: 1: this action would add [1] shards, but this store currently has [{INDICES_MAX}]/[{INDICES_MAX}] indices open;"
                ),
            ));
        }
        let path = self.path_of(name);
        let index = Arc::new(Index::create(&path, name, info, mapping)?);
        indices.insert(name.to_owned(), index.clone());
        metrics::INDICES.set(indices.len() as i64);
        tracing::info!(index = name, "index created");
        Ok(index)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        // Names passed `check_name`: no separators, no dot names.
        self.directory.path().join("indices").join(name)
    }

    /// Removes an index and its files.
    pub fn delete(&self, name: &str) -> Result<(), EsError> {
        let removed = {
            let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
            let removed = indices.remove(name);
            metrics::INDICES.set(indices.len() as i64);
            removed
        };
        let index = removed.ok_or_else(|| EsError::no_such_index(name))?;
        index.delete();
        // Renamed first: a crash on the way leaves something that the next start recognises.
        let trash = self.path_of(&format!("{TRASH}{}", cluster::random_id()));
        std::fs::rename(index.directory(), &trash)?;
        durable::sync_parent(&trash)?;
        std::fs::remove_dir_all(&trash)?;
        tracing::info!(index = name, "index deleted");
        Ok(())
    }

    /// Closes what exceeds the bounds on open writers and readers, the longest idle first.
    ///
    /// A writer that merges stays: closing it would throw its work away, and where many indices are
    /// written in turn no merge would ever end.
    pub fn trim(&self, idle_limit: Duration) {
        let mut all = self.all();
        all.sort_by_key(|index| std::cmp::Reverse(index.idle_since()));
        for (i, index) in all.iter().filter(|index| index.has_writer()).enumerate() {
            let is_idle = i >= WRITERS_MAX || index.idle_since().elapsed() > idle_limit;
            if is_idle && !index.is_merging() {
                index.close_writer();
            }
        }
        for index in all.iter().filter(|index| index.has_reader()).skip(READERS_MAX) {
            index.close_reader();
        }
    }

    /// Frees what indices that are not written to any more remember of their ids.
    pub fn forget_ids(&self, idle_limit: Duration) {
        for index in self.all() {
            if !index.has_writer() && index.idle_since().elapsed() > idle_limit {
                index.forget_ids();
            }
        }
    }

    /// Starts merges where segments are due to become one, as many as may run at a time.
    pub fn merge(&self) {
        let Ok(_choosing) = self.merging.try_lock() else { return };
        let all = self.all();
        let mut running = all.iter().filter(|index| index.is_merging()).count();
        for index in all.iter().filter(|index| index.wants_merge()) {
            if running >= MERGES_MAX {
                break;
            }
            match index.start_merge() {
                Ok(is_started) => running += usize::from(is_started),
                Err(error) => {
                    tracing::warn!(index = %index.name, error = error.reason(), "merge not started")
                }
            }
        }
    }

    /// Whether more writers are open than there should be.
    pub fn has_too_many_writers(&self) -> bool {
        let indices = self.indices.read().unwrap_or_else(PoisonError::into_inner);
        indices.values().filter(|index| index.has_writer()).count() > WRITERS_MAX
    }

    /// Removes indices whose newest document is older than the retention.
    ///
    /// That is at most as old as the end of the day in the name: the name of a data stream's index
    /// tells when it was made, and newer documents follow. An index with neither a day nor a
    /// document stays.
    pub fn expire(&self, now_ms: i64) {
        let Some(days) = self.config.retention_days else { return };
        let oldest_ms = now_ms - i64::from(days) * DAY_MS;
        for index in self.all() {
            let named = day_in_name(&index.name).map(|day| day + DAY_MS);
            if named.is_some_and(|end| end >= oldest_ms) {
                continue;
            }
            let last = match newest_timestamp(&index) {
                Ok(newest) => newest.max(named),
                Err(error) => {
                    tracing::warn!(index = %index.name, error = error.reason(), "age of index not known");
                    continue;
                }
            };
            if last.is_some_and(|last| last < oldest_ms) {
                match self.delete(&index.name) {
                    Ok(()) => metrics::INDICES_EXPIRED.inc(),
                    Err(error) => {
                        tracing::warn!(index = %index.name, error = error.reason(), "index not removed by retention")
                    }
                }
            }
        }
    }

    /// Closes every index. Nothing that was answered is lost by not calling it.
    pub fn close(&self) {
        for index in self.all() {
            index.close_writer();
            index.close_reader();
        }
    }

    pub fn data_directory(&self) -> &Path {
        self.directory.path()
    }
}

const TRASH: &str = ".trash-";

/// Memory held by a request's body.
#[derive(Debug)]
pub struct Reservation {
    engine: Arc<Engine>,
    bytes: u64,
}

impl Reservation {
    /// Reserves what is missing to `bytes`.
    ///
    /// # Errors
    /// 429 where this and others together would hold more than allowed; alone it gets what it asks.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), EsError> {
        let Some(more) = bytes.checked_sub(self.bytes) else { return Ok(()) };
        let (own, engine) = (self.bytes, &self.engine);
        let before = engine.indexing_bytes.fetch_add(more, Ordering::AcqRel);
        metrics::INDEXING_BYTES.add(more as i64);
        // Given back by `drop` from here on.
        self.bytes = bytes;
        if before > own && before + more > engine.config.memory_bytes {
            metrics::REJECTED.with_label_values(&["memory"]).inc();
            return Err(EsError::new(
                429,
                "es_rejected_execution_exception",
                format!(
                    "rejected execution of coordinating operation [coordinating_and_primary_bytes={before}, replica_bytes=0, all_bytes={before}, coordinating_operation_bytes={more}, max_coordinating_and_primary_bytes={}]",
                    engine.config.memory_bytes
                ),
            ));
        }
        Ok(())
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.engine.indexing_bytes.fetch_sub(less, Ordering::AcqRel);
            metrics::INDEXING_BYTES.sub(less as i64);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.engine.indexing_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        metrics::INDEXING_BYTES.sub(self.bytes as i64);
    }
}

fn require_alias(name: &str) -> EsError {
    EsError::new(
        404,
        "index_not_found_exception",
        format!("no such index [{name}] and [require_alias] request flag is [true] and [{name}] is not an alias"),
    )
    .with("index_uuid", "_na_")
    .with("index", name)
}

/// Refuses names that Elasticsearch refuses.
pub fn check_name(name: &str) -> Result<(), EsError> {
    let fault = if name.starts_with('_') {
        "must not start with '_'."
    } else if name.starts_with(['-', '+']) {
        "must not start with '_', '-', or '+'"
    } else if name.chars().any(char::is_uppercase) {
        "must be lowercase"
    } else if name.is_empty() {
        "must not be empty"
    } else if name == "." || name == ".." {
        "must not be '.' or '..'"
    } else if name.len() > 255 {
        "index name is too long"
    } else if name.contains(['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':'])
        || name.chars().any(char::is_control)
    {
        "must not contain the following characters ['\\','/','*','?','\"','<','>','|',' ',',','#',':']"
    } else if name.starts_with(TRASH) {
        "must not start with '.trash-'"
    } else {
        return Ok(());
    };
    Err(EsError::new(
        400,
        "invalid_index_name_exception",
        format!("Invalid index name [{name}], {fault}"),
    )
    .with("index_uuid", "_na_")
    .with("index", name))
}

/// The start of the day that an index name carries, as `2026.03.01` or `2026-03-01`, in milliseconds.
fn day_in_name(name: &str) -> Option<i64> {
    let bytes = name.as_bytes();
    (0..bytes.len().saturating_sub(9)).rev().find_map(|at| {
        let part = name.get(at..at + 10)?;
        let separator = part.as_bytes()[4];
        if !matches!(separator, b'.' | b'-') || part.as_bytes()[7] != separator {
            return None;
        }
        dates::parse_iso(&part.replace('.', "-")).map(|(start, _)| start)
    })
}

/// The newest `@timestamp`; one that lies after the last write is taken as that write's time, so
/// that a line from a clock gone wrong does not keep its index for ever.
fn newest_timestamp(index: &Index) -> Result<Option<i64>, EsError> {
    let searcher = index.searcher()?;
    let mut newest: Option<i64> = None;
    for segment in searcher.segment_readers() {
        let column = segment.fast_fields().column_opt::<i64>(crate::index::document::TIMESTAMP)?;
        newest = newest.max(column.map(|column| column.max_value()));
    }
    let Some(newest) = newest else { return Ok(None) };
    Ok(Some(newest.min(index.last_commit_ms()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_of_an_index_is_read_from_its_name() {
        let day = Some(1_772_323_200_000);
        for (name, expected) in [
            ("logs-2026.03.01", day),
            ("logs-2026-03-01-000001", day),
            (".ds-events-2026.03.01-000001", day),
            ("logs", None),
            ("logs-2026.13.01", None),
            ("2026.03", None),
        ] {
            assert_eq!(day_in_name(name), expected, "{name}");
        }
    }

    #[test]
    fn days_past_the_retention_are_dropped_and_stay_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let data = DataDirectory::open(directory.path(), 1).unwrap();
            let config = Config { retention_days: Some(7), ..Config::default() };
            Engine::open(config, data).unwrap()
        };
        let engine = open();
        for name in ["logs-2026.02.20", "logs-2026.02.22", "logs-2026.03.01", "undated"] {
            engine.create(name, &json!({}), None).unwrap();
        }
        let noon = dates::parse_iso("2026-03-01T12:00").unwrap().0;
        engine.expire(noon);
        let left = ["logs-2026.02.22", "logs-2026.03.01", "undated"];
        assert_eq!(engine.names(), left);
        drop(engine);
        assert_eq!(open().names(), left);
    }

    /// Puts one document, whose timestamp is `at`, into an index that is made where it is missing.
    fn put(engine: &Engine, name: &str, at: &str) {
        use crate::index::{Op, parse};
        let index = match engine.get(name) {
            Some(index) => index,
            None => engine.create(name, &json!({}), None).unwrap(),
        };
        let body = Arc::new(json!({"@timestamp": at, "message": name}).to_string());
        let mut mapping = index.mapping.get();
        let id = engine.new_id();
        let document =
            parse::parse(&body, 0..body.len(), &index.mapping, &mut mapping, index.fields, &id)
                .unwrap();
        let op = Op::Put {
            document: Box::new(document),
            is_create: false,
            is_auto_id: true,
            expects: None,
        };
        index.apply([op], body.len()).unwrap();
    }

    #[test]
    fn an_index_with_documents_newer_than_its_name_stays_as_long_as_they_do() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(directory.path(), 1).unwrap();
        let config = Config { retention_days: Some(7), ..Config::default() };
        let engine = Engine::open(config, data).unwrap();
        put(&engine, ".ds-logs-2021.02.01-000001", "2021-02-01T10:00:00Z");
        put(&engine, ".ds-logs-2021.02.01-000001", "2021-02-27T10:00:00Z");
        put(&engine, "old-2021.02.01", "2021-02-01T10:00:00Z");
        put(&engine, "undated", "2021-02-27T10:00:00Z");
        let at = |text: &str| dates::parse_iso(text).unwrap().0;
        engine.expire(at("2021-03-01T12:00"));
        assert_eq!(engine.names(), [".ds-logs-2021.02.01-000001", "undated"]);
        engine.expire(at("2021-03-06T09:00"));
        assert_eq!(engine.names(), [".ds-logs-2021.02.01-000001", "undated"]);
        engine.expire(at("2021-03-06T11:00"));
        assert!(engine.names().is_empty());
    }

    #[test]
    fn a_line_from_the_future_keeps_its_index_no_longer_than_its_writing() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(directory.path(), 1).unwrap();
        let config = Config { retention_days: Some(7), ..Config::default() };
        let engine = Engine::open(config, data).unwrap();
        put(&engine, "logs-2020.01.01", "2190-01-01T00:00:00Z");
        engine.expire(dates::now_ms() + 6 * DAY_MS);
        assert_eq!(engine.names(), ["logs-2020.01.01"]);
        engine.expire(dates::now_ms() + 8 * DAY_MS);
        assert!(engine.names().is_empty());
    }

    #[test]
    fn many_days_written_in_turn_end_in_few_segments() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(directory.path(), 1).unwrap();
        let engine = Engine::open(Config::default(), data).unwrap();
        let (days, rounds) = (12, 20);
        // A backlog over many days, in bulk requests that each touch every day.
        for round in 0..rounds {
            for day in 1..=days {
                let at = format!("2026-03-{day:02}T00:00:{round:02}Z");
                put(&engine, &format!("logs-2026.03.{day:02}"), &at);
            }
            engine.merge();
            engine.trim(Duration::MAX);
        }
        let open = engine.all().iter().filter(|index| index.has_writer()).count();
        assert!(open <= WRITERS_MAX + MERGES_MAX, "{open} open writers");
        // What upkeep does, until nothing is left to merge.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while engine.all().iter().any(|index| index.wants_merge() || index.is_merging()) {
            assert!(std::time::Instant::now() < deadline, "merges do not end");
            engine.merge();
            std::thread::yield_now();
        }
        for index in engine.all() {
            let count = index.segment_count();
            assert!(count < 8, "{count} segments of {} commits of {}", rounds, index.name);
            assert_eq!(index.searcher().unwrap().num_docs(), rounds);
        }
        engine.trim(Duration::ZERO);
        assert!(engine.all().iter().all(|index| !index.has_writer()));
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_half_made() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let data = DataDirectory::open(directory.path(), 1).unwrap();
            Engine::open(Config::default(), data)
        };
        drop(open().unwrap().create("logs", &json!({}), None).unwrap());
        // A link that leads nowhere but to itself: asking for what is behind it is an error, not a no.
        let file = directory.path().join("indices/logs/index.json");
        let kept = directory.path().join("kept.json");
        std::fs::rename(&file, &kept).unwrap();
        std::os::unix::fs::symlink(&file, &file).unwrap();
        assert!(open().is_err());
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(&kept, &file).unwrap();
        assert_eq!(open().unwrap().names(), ["logs"]);
    }

    #[test]
    fn bad_names_are_refused_as_elasticsearch_words_it() {
        for (name, reason) in [
            ("golden-UPPER", "Invalid index name [golden-UPPER], must be lowercase"),
            ("_data_stream", "Invalid index name [_data_stream], must not start with '_'."),
        ] {
            assert_eq!(check_name(name).unwrap_err().reason(), reason);
        }
        for name in ["..", "a/b", "a b", "", "-a", "a\0b", "\u{1f600}/.."] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("logs-2026.03.01").unwrap();
    }
}
