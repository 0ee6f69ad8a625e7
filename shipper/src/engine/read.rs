//! One block of one file: read, checked against what stood before, split, written out, sent.

use std::io;
use std::sync::Arc;

use elkfk_wire::source_id::SourceId;
use tracing::warn;

use crate::compressed::{Codec, Stream};
use crate::config::PartitionChoice;
use crate::disk::Disk;
use crate::event::{Draft, Written};
use crate::harvester::encoding::Encoding;
use crate::harvester::{Counts, Event, Harvester, Input, Output, Outputs};
use crate::identity::{GUARD_BYTES, Guard, HEAD_BYTES, Head};
use crate::metrics;
use crate::registry::Journal;

use super::copies::Resemblance;
use super::source::{Source, Stood, Why};
use super::{
    BLOCK_BYTES, EVENT_OVERHEAD_BYTES, Engine, Now, RETRY_INTERVAL, Record, Sender, Ticket,
};

/// How much of a file is looked at to tell text from binary.
const SAMPLE_BYTES: usize = 4096;
/// A compressed file that breaks off may still be being written for so long.
const COMPRESSION_PATIENCE_MS: u64 = 60_000;

/// How long it must have been left alone before it is looked at.
const COMPRESSION_REST_MS: u64 = 1000;

/// What came of looking at a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more.
    Progress,
    /// Nothing until it changes.
    Idle,
    /// Nothing until something is acknowledged or Kafka answers.
    Blocked,
}

impl<D, S, J> Engine<D, S, J>
where
    D: Disk + Clone + Send + 'static,
    D::File: Send + Sync + 'static,
    S: Sender,
    J: Journal,
{
    pub(super) fn read_block(&mut self, now: Now, slot: usize) -> Step {
        let Some(source) = &self.sources[slot] else { return Step::Idle };
        if !source.is_readable() {
            return Step::Idle;
        }
        if source.file.is_none() {
            self.hold(now, slot);
            if self.sources[slot].as_ref().is_none_or(|source| source.file.is_none()) {
                return Step::Idle;
            }
        }
        if self.sources[slot].as_ref().is_some_and(|source| !source.is_resolved)
            && !self.resolve(now, slot)
        {
            return Step::Idle;
        }
        if !self.has_partition(now, slot) {
            return Step::Blocked;
        }
        let Some(source) = &self.sources[slot] else { return Step::Idle };
        if !self.has_room(source.state.partition) {
            return Step::Blocked;
        }
        match self.start(now, slot) {
            Ok(true) => {}
            Ok(false) => return Step::Idle,
            Err(error) => return self.on_read_error(now, slot, &error),
        }
        let Some(source) = &self.sources[slot] else { return Step::Idle };
        if source.stream.is_some() {
            self.read_stream(now, slot)
        } else {
            self.read_plain(now, slot)
        }
    }

    fn on_read_error(&mut self, now: Now, slot: usize, error: &io::Error) -> Step {
        if let Some(source) = &mut self.sources[slot] {
            if self.read_failures.is_due(now.instant) {
                warn!(path = %source.path.display(), %error, "read failed; it will be tried again");
            }
            source.last_error = Some(error.to_string());
            source.retry_at = Some(now.instant + RETRY_INTERVAL);
        }
        Step::Idle
    }

    /// Finds out what a file that was met for the first time is. False when it is not to be read now.
    pub(super) fn resolve(&mut self, now: Now, slot: usize) -> bool {
        let Some(source) = &self.sources[slot] else { return false };
        let Some(file) = source.file.clone() else { return false };
        let modified_ns =
            self.disk.stat_open(&file).map_or(source.modified_ns, |stat| stat.modified_ns);
        let (input, age_ms) = (source.input, now.unix_ms.saturating_sub(modified_ns / 1_000_000));
        let mut sample = vec![0; SAMPLE_BYTES];
        let length = match self.disk.read_at(&file, 0, &mut sample) {
            Ok(length) => length,
            Err(error) => {
                self.on_read_error(now, slot, &error);
                return false;
            }
        };
        sample.truncate(length);
        if sample.is_empty() {
            return false;
        }
        if Codec::of(&sample).is_some() {
            if !self.inputs[input].config.decompress {
                self.skip_file(slot, Why::Compressed, "compressed", "compressed file left alone");
                return false;
            }
            // Half of it would look like a new file: only the whole shows what it is a copy of. It is
            // looked at when its writer rests, not after each of its writes.
            if age_ms < COMPRESSION_REST_MS
                || age_ms < COMPRESSION_PATIENCE_MS && !Stream::is_whole(&self.disk, file.clone())
            {
                if let Some(source) = &mut self.sources[slot] {
                    source.retry_at = Some(now.instant + RETRY_INTERVAL);
                }
                return false;
            }
            match Stream::head(&self.disk, file, HEAD_BYTES) {
                Ok(Some(head)) if head.is_empty() => return false,
                Ok(Some(head)) => sample = head,
                // Still being written, most likely.
                _ if age_ms < COMPRESSION_PATIENCE_MS => return false,
                _ => {
                    self.skip_file(slot, Why::Damaged, "damaged", "compressed file is damaged");
                    return false;
                }
            }
            if let Some(source) = &mut self.sources[slot] {
                source.state.compressed = true;
            }
        } else {
            match self.looks_binary(&file, input, sample.clone()) {
                Ok(Some(false)) => {}
                Ok(Some(true)) => {
                    let message =
                        "binary file left alone; name it in exclude_files to silence this";
                    self.skip_file(slot, Why::Binary, "binary", message);
                    return false;
                }
                Ok(None) => return false,
                Err(error) => {
                    self.on_read_error(now, slot, &error);
                    return false;
                }
            }
        }
        sample.truncate(HEAD_BYTES);
        self.see_to_originals(now, slot);
        match self.resemblance(now, slot, &sample) {
            Resemblance::New => {
                // Without its head in the registry, a file written anew while we were away would
                // pass for this one.
                let filled = sample.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                sample.truncate(filled);
                if let Some(source) = &mut self.sources[slot] {
                    source.is_resolved = true;
                    source.state.head = Head::of(&sample);
                    source.head = sample;
                }
                self.index_head(slot);
                self.enrol(slot);
                true
            }
            Resemblance::Continues(other) => {
                self.continue_with(now, slot, other);
                false
            }
            Resemblance::Shadows(other) => {
                self.shadow(now, slot, other);
                false
            }
            Resemblance::Unclear => {
                self.wants_rescan = true;
                if let Some(source) = &mut self.sources[slot] {
                    source.retry_at = Some(now.instant + RETRY_INTERVAL);
                }
                false
            }
        }
    }

    /// Whether a file holds anything but text; none while it holds nothing but a hole.
    fn looks_binary(
        &self,
        file: &Arc<D::File>,
        input: usize,
        mut sample: Vec<u8>,
    ) -> io::Result<Option<bool>> {
        let is_wide = self.inputs[input].lines.encoding.is_utf16()
            || Encoding::of_byte_order_mark(&sample)
                .is_some_and(|(encoding, _)| encoding.is_utf16());
        if is_wide {
            return Ok(Some(false));
        }
        if sample.iter().all(|byte| *byte == 0) {
            let Some(at) = self.end_of_hole(file, 0)? else { return Ok(None) };
            sample.resize(SAMPLE_BYTES, 0);
            let length = self.disk.read_at(file, at, &mut sample)?;
            sample.truncate(length);
        }
        let filled = sample.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let begun = sample.iter().position(|byte| *byte != 0).unwrap_or(0);
        let mut text = sample[begun..filled.max(begun)].to_vec();
        skip_hole(&mut text);
        let controls = text
            .iter()
            .filter(|byte| {
                **byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | 0x0c | 0x08)
            })
            .count();
        // What compresses well looks random: half of it is no UTF-8, and a tenth are control characters, more or
        // less. Text in an older encoding has the former alone.
        let invalid: usize = text.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
        let is_random = controls * 50 > text.len() && invalid * 4 > text.len();
        Ok(Some(is_random || controls * 10 > text.len()))
    }

    /// Where the first byte that is not NUL stands, from `at` on.
    fn end_of_hole(&self, file: &Arc<D::File>, mut at: u64) -> io::Result<Option<u64>> {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let Some(next) = self.disk.next_data(file, at)? else { return Ok(None) };
            let length = self.disk.read_at(file, next, &mut block)?;
            if length == 0 {
                return Ok(None);
            }
            if let Some(found) = block[..length].iter().position(|byte| *byte != 0) {
                return Ok(Some(next + found as u64));
            }
            at = next + length as u64;
        }
    }

    /// Whether the source knows where its events go.
    fn has_partition(&mut self, now: Now, slot: usize) -> bool {
        let Some(source) = &mut self.sources[slot] else { return false };
        let Some(topic) = &self.inputs[source.input].fixed_topic else { return true };
        let Some(count) = self.sender.partitions(topic) else { return false };
        if self.choice != PartitionChoice::File
            && !matches!(self.choice, PartitionChoice::Hash { .. })
        {
            return true;
        }
        let table = self.tables.entry(topic.clone()).or_default();
        table.resize(count, now.instant);
        let lacking = source.state.partition.filter(|partition| !table.has(*partition));
        if let Some(partition) = lacking {
            if self.choice == PartitionChoice::File && !table.is_settled(now.instant) {
                return false;
            }
            let path = source.path.display();
            warn!(%path, topic, partition, count, "the topic was made anew with fewer partitions; the file goes on in another");
        }
        if !source.is_assigned || source.state.partition.is_none() || lacking.is_some() {
            source.state.partition = Some(table.assign(source.state.partition));
            source.is_assigned = true;
            source.is_dirty = true;
        }
        true
    }

    /// Gives the source a harvester where it has none. False when its file holds something else.
    fn start(&mut self, now: Now, slot: usize) -> io::Result<bool> {
        let Some(source) = &mut self.sources[slot] else { return Ok(false) };
        let Some(file) = source.file.clone() else { return Ok(false) };
        if source.harvester.is_some() && (source.stream.is_some() || !source.state.compressed) {
            return Ok(true);
        }
        let lines = self.inputs[source.input].lines.clone();
        if source.state.compressed && source.state.stream_end == Some(source.resume) {
            // All of it was read, in an earlier run perhaps.
            return Ok(false);
        }
        if source.state.compressed {
            let Some(mut stream) = Stream::open(&self.disk, file.clone())? else {
                return Ok(false);
            };
            let mut head = vec![0; 4];
            let length = stream.read(&mut head)?;
            head.truncate(length);
            if source.resume < stream.position() {
                let Some(again) = Stream::open(&self.disk, file)? else { return Ok(false) };
                stream = again;
            }
            if !stream.skip_to(source.resume)? {
                // All of it was read before it was compressed.
                return Ok(false);
            }
            source.harvester =
                Some(Harvester::new(lines, source.resume, &head, &source.state.cuts));
            source.stream = Some(stream);
            source.tail.clear();
            return Ok(true);
        }
        let mut head = vec![0; HEAD_BYTES];
        let length = self.disk.read_at(&file, 0, &mut head)?;
        head.truncate(length);
        let resume = source.resume;
        let mut is_same = source.state.head.matches(&head);
        if let Some(guard) = source.state.guard.filter(|_| is_same) {
            let mut bytes = vec![0; usize::from(guard.bytes)];
            let length = self.disk.read_at(&file, guard.start(), &mut bytes)?;
            is_same = guard.matches(&bytes[..length]);
        }
        let mut tail = vec![0; resume.min(GUARD_BYTES as u64) as usize];
        let length = self.disk.read_at(&file, resume - tail.len() as u64, &mut tail)?;
        is_same &= length == tail.len();
        // A tail from before the file was closed must still stand there.
        is_same &= source.tail.is_empty() || source.harvester.is_some() || {
            tail.ends_with(&source.tail[source.tail.len().saturating_sub(tail.len())..])
                || source.state.position != resume
        };
        if !is_same {
            self.on_replaced(now, slot);
            return Ok(false);
        }
        let known = usize::from(source.state.head.bytes).min(head.len());
        source.head = if known < HEAD_BYTES { head[..known].to_vec() } else { Vec::new() };
        source.tail = tail;
        // What is here now may have been sent by the run that was killed; what comes later was not.
        if source.sent_to.is_none() {
            source.sent_to = Some(self.disk.stat_open(&file)?.size);
        }
        source.harvester = Some(Harvester::new(lines, resume, &head, &source.state.cuts));
        source.last_growth = now.instant;
        Ok(true)
    }

    fn read_plain(&mut self, now: Now, slot: usize) -> Step {
        let Some(source) = &self.sources[slot] else { return Step::Idle };
        let (Some(file), Some(harvester)) = (source.file.clone(), &source.harvester) else {
            return Step::Idle;
        };
        let position = harvester.position();
        let overlap = source.tail.len();
        let (end, modified_ns) = match self.disk.stat_open(&file) {
            Ok(stat) => (stat.size, stat.modified_ns),
            Err(error) => return self.on_read_error(now, slot, &error),
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.disk.read_at(
            &file,
            position - overlap as u64,
            &mut buffer[..overlap + BLOCK_BYTES],
        );
        let step = match read {
            Err(error) => self.on_read_error(now, slot, &error),
            // The bytes read last must still stand before the new ones; where those are few, what the file
            // began with must as well.
            Ok(length)
                if length < overlap
                    || buffer[..overlap] != source.tail[..]
                    || position <= GUARD_BYTES as u64
                        && !source.state.head.matches(&buffer[..length]) =>
            {
                self.on_replaced(now, slot);
                Step::Idle
            }
            Ok(length) if length == overlap => Step::Idle,
            Ok(length) => {
                let step = self.on_bytes(now, slot, &file, &buffer[overlap..length]);
                let lines = self.outputs.counts.lines;
                if let Some(source) = &mut self.sources[slot] {
                    let end = Stood::new(end, modified_ns);
                    let waited_ms = source.stood.waited_ms(position, end, now.unix_ms);
                    metrics::FILE_WAIT_MS.inc_by(lines.saturating_mul(waited_ms));
                }
                step
            }
        };
        self.buffer = buffer;
        if let Some(source) = &mut self.sources[slot] {
            source.looked_up_to = end;
        }
        step
    }

    fn on_bytes(&mut self, now: Now, slot: usize, file: &Arc<D::File>, bytes: &[u8]) -> Step {
        let is_whole_block = bytes.len() == BLOCK_BYTES;
        let consumed = self.step(now, slot, Input::Read(bytes));
        if consumed > 0 {
            return if is_whole_block || consumed < bytes.len() {
                Step::Progress
            } else {
                Step::Idle
            };
        }
        if bytes.iter().any(|byte| *byte != 0) {
            // Half a character.
            return Step::Idle;
        }
        let Some(position) = self.sources[slot].as_ref().map(super::Source::position) else {
            return Step::Idle;
        };
        match self.end_of_hole(file, position) {
            Ok(Some(to)) => {
                self.step(now, slot, Input::Hole(to));
                Step::Progress
            }
            Ok(None) => Step::Idle,
            Err(error) => self.on_read_error(now, slot, &error),
        }
    }

    fn read_stream(&mut self, now: Now, slot: usize) -> Step {
        let mut buffer = std::mem::take(&mut self.buffer);
        let step = self.read_stream_into(now, slot, &mut buffer);
        self.buffer = buffer;
        step
    }

    fn read_stream_into(&mut self, now: Now, slot: usize, buffer: &mut [u8]) -> Step {
        let Some(source) = &mut self.sources[slot] else { return Step::Idle };
        let Some(stream) = &mut source.stream else { return Step::Idle };
        match stream.read(&mut buffer[..BLOCK_BYTES]) {
            Ok(length) if length > 0 => {
                let consumed = self.step(now, slot, Input::Read(&buffer[..length]));
                if consumed < length
                    && self.sources[slot].as_ref().is_some_and(|s| s.harvester.is_some())
                {
                    // NULs at the end of the block: to a stream they are no hole but bytes to skip.
                    let position = self.sources[slot].as_ref().map_or(0, super::Source::position);
                    let skipped = (length - consumed) as u64;
                    self.step(now, slot, Input::Hole(position + skipped));
                }
                return Step::Progress;
            }
            Ok(_) => {}
            Err(error) => {
                let age_ms = now.unix_ms.saturating_sub(source.modified_ns / 1_000_000);
                if age_ms < COMPRESSION_PATIENCE_MS {
                    let resume = source.in_flight.rewind();
                    source.drop_harvester(resume);
                    return self.on_read_error(now, slot, &error);
                }
                warn!(path = %source.path.display(), %error, "compressed file is damaged; what came before was read");
                metrics::SKIPPED_FILES.with_label_values(&["damaged"]).inc();
            }
        }
        // The whole of it was read; it will not grow.
        let end = source.position();
        source.state.stream_end = Some(end);
        source.is_dirty = true;
        self.step(now, slot, Input::Finish);
        self.close(slot);
        Step::Idle
    }

    /// Hands `input` to the source's harvester and performs what it asks for. Returns how many bytes
    /// of it were consumed.
    pub(super) fn step(&mut self, now: Now, slot: usize, input: Input<'_>) -> usize {
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.clear();
        let Some(source) = &mut self.sources[slot] else { return 0 };
        let Some(harvester) = &mut source.harvester else { return 0 };
        let before = harvester.position();
        let bytes = match &input {
            Input::Read(bytes) => *bytes,
            _ => &[],
        };
        harvester.step(now.instant, input, &mut outputs);
        let after = harvester.position();
        let consumed = ((after - before) as usize).min(bytes.len());
        if after > before {
            source.last_growth = now.instant;
            source.size = source.size.max(if source.state.compressed { 0 } else { after });
            source.last_error = None;
            if consumed > 0 {
                source.note_tail(&bytes[..consumed]);
            } else {
                // NULs of a hole are what stands before the position now.
                source.note_tail(&vec![0; ((after - before).min(GUARD_BYTES as u64)) as usize]);
            }
            self.grow_head(slot, before, &bytes[..consumed]);
        }
        self.perform(now, slot, &mut outputs);
        if after > before
            && let Some(source) = &mut self.sources[slot]
            && source.harvester.is_some()
        {
            source.in_flight.guard(Guard::of(&source.tail, after));
        }
        count(&outputs);
        if let Some(source) = &mut self.sources[slot] {
            report(source, &outputs.counts);
        }
        self.outputs = outputs;
        consumed
    }

    /// Adds what `bytes`, which stand at `at`, have beyond the head, while that is not whole.
    pub(super) fn grow_head(&mut self, slot: usize, at: u64, bytes: &[u8]) {
        let Some(source) = &self.sources[slot] else { return };
        let known = source.head.len() as u64;
        if source.has_whole_head() || known < at || known >= at + bytes.len() as u64 {
            return;
        }
        self.unindex_head(slot);
        let Some(source) = &mut self.sources[slot] else { return };
        let more = &bytes[(known - at) as usize..];
        source.head.extend_from_slice(&more[..more.len().min(HEAD_BYTES - known as usize)]);
        source.state.head = Head::of(&source.head);
        source.is_dirty = true;
        // The next record must not be sent before a restart would know the file by this head.
        source.durable_with = u64::MAX;
        self.index_head(slot);
    }

    fn perform(&mut self, now: Now, slot: usize, outputs: &mut Outputs) {
        if outputs.list.is_empty() {
            return;
        }
        if let Err(error) = self.make_durable(now, slot, outputs) {
            if self.read_failures.is_due(now.instant) {
                warn!(%error, "the registry cannot be written; nothing is sent until it can");
            }
            self.rewind(now, slot);
            return;
        }
        for output in &outputs.list {
            match output {
                Output::Covered(end) => {
                    if let Some(source) = &mut self.sources[slot] {
                        source.in_flight.cover(*end);
                        source.is_dirty = true;
                    }
                }
                Output::Event(event) => {
                    if let Err(error) = self.send(now, slot, event, outputs.text_of(event)) {
                        if self.read_failures.is_due(now.instant) {
                            warn!(error, "an event was not taken; it will be read and sent again");
                        }
                        metrics::SEND_FAILURES.inc();
                        self.rewind(now, slot);
                        return;
                    }
                }
            }
        }
    }

    /// The generation, and every end that time decided, must be durable before a record tells of them.
    fn make_durable(&mut self, now: Now, slot: usize, outputs: &Outputs) -> io::Result<()> {
        let Some(source) = &mut self.sources[slot] else { return Ok(()) };
        let cuts = outputs.list.iter().filter_map(|output| match output {
            Output::Event(event) if event.is_cut => Some(event.end),
            _ => None,
        });
        let known = source.state.cuts.len();
        source.state.cuts.extend(cuts);
        if source.state.cuts.len() > known {
            // Should the sync fail, they are kept, and the next attempt must not take them for durable.
            source.durable_with = u64::MAX;
            source.state.cuts.sort_unstable();
            source.state.cuts.dedup();
        }
        for output in &outputs.list {
            if let Output::Event(event) = output
                && source.mark_day(event.start, now.unix_ms)
            {
                source.durable_with = u64::MAX;
            }
        }
        if source.durable_with <= self.synced {
            return Ok(());
        }
        self.enrol(slot);
        self.journal.sync()?;
        metrics::REGISTRY_SYNCS.inc();
        self.synced = self.appended;
        Ok(())
    }

    fn send(&mut self, now: Now, slot: usize, event: &Event, text: &[u8]) -> Result<(), String> {
        let Some(source) = &mut self.sources[slot] else { return Ok(()) };
        let input = &self.inputs[source.input];
        let id = SourceId { generation: source.state.generation, position: event.start };
        let event_ms = source.time_ms(event.start, now.unix_ms) as i64;
        let draft = Draft {
            id,
            text,
            flags: event.flags,
            origin: event.origin.as_deref(),
            read_ms: event_ms,
        };
        let written = self.writer.write(
            &mut self.json,
            &input.template,
            &source.text,
            &draft,
            self.limits.message_bytes.min(source.message_bytes),
        );
        match written {
            Written::Dropped => {
                metrics::DROPPED.with_label_values(&["processor"]).inc();
                source.in_flight.cover(event.end);
                source.is_dirty = true;
                return Ok(());
            }
            Written::Event { dropped_bytes: 0 } => {}
            Written::Event { dropped_bytes } => {
                report_cut(source);
                metrics::TRUNCATED.inc();
                metrics::TRUNCATED_BYTES.inc_by(dropped_bytes);
            }
        }
        let tree = if input.template.is_plain && draft.origin.is_none() {
            &input.template.fields
        } else {
            &self.writer.tree
        };
        let time_ms = draft.time_ms();
        let rendered;
        let topic = match &input.fixed_topic {
            Some(topic) => topic.as_str(),
            None => {
                rendered = input
                    .topic
                    .render(tree, time_ms)
                    .ok_or("the topic names a field the event lacks")?;
                &rendered
            }
        };
        let key = input.key.as_ref().and_then(|key| key.render(tree, time_ms));
        let partition = match (&self.choice, source.state.partition, &input.fixed_topic) {
            (PartitionChoice::File, Some(partition), Some(_)) => partition,
            _ => {
                let count =
                    self.sender.partitions(topic).ok_or("the topic is not known yet")?.max(1);
                match &self.choice {
                    PartitionChoice::RoundRobin { events } | PartitionChoice::Random { events } => {
                        let turn = self.round / events;
                        self.round += 1;
                        let is_random = matches!(self.choice, PartitionChoice::Random { .. });
                        (if is_random { mix(turn) } else { turn } % count as u64) as i32
                    }
                    PartitionChoice::Hash { fields } if !fields.is_empty() || key.is_some() => {
                        let lookup = |name: &String| crate::event::format::lookup(tree, name);
                        let values: Vec<String> = match fields.is_empty() {
                            true => key.iter().cloned().collect(),
                            false => fields.iter().filter_map(lookup).collect(),
                        };
                        fnv1a(&values) as i32 % count
                    }
                    // Of a topic that varies, a file has the same share of each.
                    _ => (source.state.generation.0[11] as i32) % count,
                }
            }
        };
        let bytes = self.json.len() as u64;
        let number = source.in_flight.push(event.end, now.unix_ms);
        let record = Record {
            topic,
            partition,
            key: key.as_deref().map(str::as_bytes),
            value: &self.json,
            source: id,
            time_ms: event_ms,
            ticket: Ticket::new(slot, number),
        };
        self.sender.send(record)?;
        source.sent_to = source.sent_to.map(|sent_to| sent_to.max(event.start + 1));
        let cost = bytes + EVENT_OVERHEAD_BYTES;
        self.in_flight_bytes += cost;
        *self.in_flight_by_partition.entry(partition).or_default() += cost;
        if let Some(table) = self.tables.get_mut(topic) {
            table.sent(partition, bytes);
        }
        metrics::SENT.inc();
        metrics::SENT_BYTES.inc_by(bytes);
        Ok(())
    }
}

/// Takes out the NULs that a loss of power leaves in the middle of a log: one long run of them. Records
/// of fixed length have many.
fn skip_hole(text: &mut Vec<u8>) {
    let Some(from) = text.iter().position(|byte| *byte == 0) else { return };
    let length = text[from..].iter().position(|byte| *byte != 0).unwrap_or(text.len() - from);
    if !text[from + length..].contains(&0) {
        text.drain(from..from + length);
    }
}

/// Says once of a file what its events only carry as a flag.
fn report<F>(source: &mut Source<F>, counts: &Counts) {
    if counts.truncated_events > 0 {
        report_cut(source);
    }
    if counts.invalid_events > 0 && !source.was_encoding_reported {
        source.was_encoding_reported = true;
        let path = source.path.display();
        warn!(%path, "bytes that are no text were replaced; set encoding if the file has another");
    }
}

fn report_cut<F>(source: &mut Source<F>) {
    if !source.was_cut_reported {
        source.was_cut_reported = true;
        let path = source.path.display();
        warn!(%path, "lines were cut to the limit; raise message_max_bytes and max_message_bytes to keep more");
    }
}

fn count(outputs: &Outputs) {
    let counts = &outputs.counts;
    metrics::LINES.inc_by(counts.lines);
    metrics::BYTES.inc_by(counts.bytes);
    metrics::TRUNCATED.inc_by(counts.truncated_events);
    metrics::TRUNCATED_BYTES.inc_by(counts.truncated_bytes);
    metrics::INVALID.inc_by(counts.invalid_events);
    metrics::HOLE_BYTES.inc_by(counts.hole_bytes);
    if counts.empty_lines > 0 {
        metrics::DROPPED.with_label_values(&["empty"]).inc_by(counts.empty_lines);
    }
    if counts.filtered_events > 0 {
        metrics::DROPPED.with_label_values(&["filtered"]).inc_by(counts.filtered_events);
    }
}

/// As Filebeat hashes: FNV-1a of 32 bits over the fields, made positive.
fn fnv1a(values: &[String]) -> u32 {
    let bytes = values.iter().flat_map(|value| value.bytes());
    bytes.fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) >> 1
}

/// A permutation without pattern.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ number >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 11
}
