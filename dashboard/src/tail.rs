//! Follow: lines that match a query, as they become searchable.
//!
//! Each look counts the lines of a window of time that ends now. What the count grew by was either found
//! and shown, or is said to be skipped, so that the page never loses a line without a word.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::elastic::ElasticError;
use crate::search::{self, Ask};
use crate::stream::{EVENTS_WAITING_MAX, event};
use crate::{Shared, now_ms};

const EVERY: Duration = Duration::from_millis(500);
/// Waits between looks at an index that does not answer grow up to this.
const EVERY_MAX: Duration = Duration::from_secs(5);
/// Lines of one request; the first one asks for more, to know what is there already.
const PAGE: usize = 200;
const FIRST_PAGE: usize = 1000;
/// Requests of one look: lines that came late or all at once lie deeper than one page.
const PAGES_MAX: usize = 5;
/// Lines a second that a person can look at, and how many may come at once; more are skipped and said to be.
const LINES_PER_SECOND: f64 = 200.0;
const LINES_AT_ONCE: f64 = (PAGE * PAGES_MAX) as f64;
/// Lines may become searchable this much out of the order of their times.
const OVERLAP_MS: i64 = 60_000;
/// The window is cut back to the overlap once it is this long, so that counting it stays cheap.
const WINDOW_MS: i64 = 2 * OVERLAP_MS;
/// Names of lines remembered so that none is sent twice; some 100 bytes each.
const IDS_MAX: usize = 20_000;

/// What a page already knows, so that it is sent what follows: of all lines from `floor_ms` on, `known`.
///
/// Travels as the id of each event, which the browser sends back when it connects again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Start of the window; `None`: there is none.
    floor_ms: Option<i64>,
    /// `None`: not known exactly.
    known: Option<u64>,
}

impl Place {
    /// From the result of a search: its start and its total.
    pub(crate) fn new(floor_ms: Option<i64>, known: Option<u64>) -> Self {
        Self { floor_ms, known }
    }

    /// Reads what [`Place::id`] wrote; anything else is no place.
    pub(crate) fn from_id(id: &str) -> Option<Self> {
        let (floor, known) = id.split_once('/')?;
        Some(Self { floor_ms: Some(floor.parse().ok()?), known: Some(known.parse().ok()?) })
    }

    /// `None` where there is no place to go on from.
    fn id(self) -> Option<String> {
        Some(format!("{}/{}", self.floor_ms?, self.known?))
    }
}

/// Lines for the page, and how many it is not shown.
#[derive(Debug, Default, PartialEq)]
struct News {
    /// Newest first.
    lines: Vec<Value>,
    skipped: u64,
    /// The lines are all of the newest ones, among them some that the page has.
    is_first: bool,
}

/// One look at the index, in parts: [`Look::page`] for each answer until it wants no more.
#[derive(Debug, Default)]
struct Look {
    fresh: Vec<Value>,
    pages: usize,
    /// Lines in the window, from the first answer; `None` where that is not exact.
    total: Option<u64>,
}

/// What has been sent, so that each line is sent once and each that is not is counted.
#[derive(Debug)]
struct Follow {
    place: Place,
    ids: HashSet<String>,
    order: VecDeque<String>,
    newest_ms: Option<i64>,
    /// Lines up to this time were there before and are not remembered one by one.
    horizon_ms: Option<i64>,
    /// Whether what the page holds was never seen here, because it has just connected.
    is_first: bool,
    /// Lines that may still be sent at this moment.
    allowance: f64,
    allowed_at: Instant,
}

impl Follow {
    fn new(place: Place, now: Instant) -> Self {
        Self {
            place,
            ids: HashSet::new(),
            order: VecDeque::new(),
            newest_ms: None,
            horizon_ms: None,
            is_first: true,
            allowance: LINES_AT_ONCE,
            allowed_at: now,
        }
    }

    /// How many more lines there are in the window than were accounted for.
    fn wanted(&self, look: &Look) -> Option<u64> {
        Some(look.total?.saturating_sub(self.place.known?))
    }

    /// How many lines the next request should ask for.
    fn page_size(&self) -> usize {
        if self.is_first { FIRST_PAGE } else { PAGE }
    }

    /// Takes one answer in. Returns the sort values to go on after, if lines are still to be found.
    fn page(&mut self, look: &mut Look, lines: Vec<Value>, total: Option<u64>) -> Option<Value> {
        if look.pages == 0 {
            look.total = total;
        }
        look.pages += 1;
        let is_full = lines.len() == self.page_size();
        let last = lines.last().map(|line| line["sort"].clone()).filter(Value::is_array);
        let last_ms = last.as_ref().and_then(|sort| sort[0].as_i64());
        look.fresh.extend(lines.into_iter().filter(|line| self.is_new(line)));
        if self.is_first {
            self.horizon_ms = last_ms.filter(|_| is_full);
            return None;
        }
        // More than may be sent need not be found to be counted.
        let found = look.fresh.len() as u64;
        let is_found = found >= self.allowance as u64
            || self.wanted(look).is_none_or(|wanted| found >= wanted)
            || self.horizon_ms.is_some_and(|horizon| last_ms.is_none_or(|ms| ms <= horizon));
        (is_full && look.pages < PAGES_MAX && !is_found).then_some(last).flatten()
    }

    /// Ends a look at `now`.
    fn news(&mut self, look: Look, now: Instant) -> News {
        let wanted = self.wanted(&look);
        let elapsed = now.saturating_duration_since(self.allowed_at).as_secs_f64();
        self.allowed_at = now;
        self.allowance = (self.allowance + elapsed * LINES_PER_SECOND).min(LINES_AT_ONCE);
        let mut lines = look.fresh;
        if self.is_first && wanted == Some(0) {
            // All of it is on the page.
            lines.clear();
        }
        let found = lines.len() as u64;
        lines.truncate(self.allowance as usize);
        let sent = lines.len() as u64;
        self.allowance -= lines.len() as f64;
        // Found and not sent, or counted and not found. Among the first ones found are those before.
        let is_first = std::mem::take(&mut self.is_first);
        let new = if is_first { wanted.unwrap_or(0) } else { wanted.unwrap_or(0).max(found) };
        let skipped = new.saturating_sub(sent);
        self.place.known = match look.total {
            Some(total) => Some(total),
            None => self.place.known.map(|known| known + found),
        };
        while self.order.len() > IDS_MAX {
            if let Some(id) = self.order.pop_front() {
                self.ids.remove(&id);
            }
        }
        News { lines, skipped, is_first }
    }

    /// Where the window should begin instead, once it has grown long. The lines before that are to be
    /// counted and given to [`Follow::cut`].
    fn next_floor(&self, now_ms: i64) -> Option<i64> {
        self.place.known?;
        // A line of the future must not end the window before the present.
        let newest_ms = self.newest_ms?.min(now_ms);
        let is_long = self.place.floor_ms.is_none_or(|floor| newest_ms - floor > WINDOW_MS);
        is_long.then_some(newest_ms - OVERLAP_MS)
    }

    fn cut(&mut self, floor_ms: i64, lines_before: u64) {
        let known = self.place.known.map(|known| known.saturating_sub(lines_before));
        self.place = Place { floor_ms: Some(floor_ms), known };
    }

    fn is_new(&mut self, line: &Value) -> bool {
        if let Some(ms) = line["sort"][0].as_i64() {
            self.newest_ms = Some(self.newest_ms.map_or(ms, |newest| newest.max(ms)));
            if self.horizon_ms.is_some_and(|horizon| ms <= horizon) {
                return false;
            }
        }
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let id = text("index") + "/" + &text("id");
        let is_new = self.ids.insert(id.clone());
        if is_new {
            self.order.push_back(id);
        }
        is_new
    }
}

/// Looks for new lines twice a second while the page listens.
pub(crate) fn follow(shared: Arc<Shared>, ask: Ask, place: Place) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let tasks = shared.tasks.clone();
    tasks.spawn("follow lines", async move {
        let mut follow = Follow::new(place, Instant::now());
        let mut wait = EVERY;
        loop {
            let looked = tokio::select! {
                () = shared.tasks.stopping() => return,
                () = sender.closed() => return,
                looked = look(&shared, &ask.query, &mut follow) => looked,
            };
            let id = follow.place.id();
            let message = match looked {
                Ok(news) => {
                    let is_worth_it = !news.lines.is_empty() || news.skipped > 0;
                    let is_back = std::mem::replace(&mut wait, EVERY) != EVERY;
                    let body = json!({
                        "lines": news.lines, "skipped": news.skipped, "first": news.is_first,
                    });
                    let body = body.to_string();
                    // The first one tells the page where to go on after a lost connection.
                    (is_worth_it || is_back || news.is_first)
                        .then(|| event("lines", id.as_deref(), &body))
                }
                Err(error) => {
                    let text = event("trouble", None, &format!("follow: {error}"));
                    if matches!(error, ElasticError::Refused { status: 400..500, .. }) {
                        // It will be refused for ever; closing would make the browser ask for ever.
                        let _ = sender.send(text).await;
                        tokio::select! {
                            () = shared.tasks.stopping() => {}
                            () = sender.closed() => {}
                        }
                        return;
                    }
                    wait = (wait * 2).min(EVERY_MAX);
                    Some(text)
                }
            };
            if let Some(message) = message
                && sender.send(message).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = shared.tasks.stopping() => return,
                () = sender.closed() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    });
    receiver
}

/// One look at the index.
async fn look(shared: &Shared, query: &str, follow: &mut Follow) -> Result<News, ElasticError> {
    let path = shared.search_path();
    let mut look = Look::default();
    let mut ask = Ask {
        query: query.to_owned(),
        from_ms: follow.place.floor_ms,
        size: follow.page_size(),
        ..Ask::default()
    };
    loop {
        let answer = match shared.elastic.post(&path, &ask.newest()).await {
            Ok(answer) => answer,
            // What was found so far is sent; the next look meets the error again, if it is one that stays.
            Err(_) if look.pages > 0 => break,
            Err(error) => return Err(error),
        };
        let total = search::total(&answer).exact();
        match follow.page(&mut look, search::lines(&answer), total) {
            Some(after) => ask.after = Some(after),
            None => break,
        }
    }
    let news = follow.news(look, Instant::now());
    if let Some(floor_ms) = follow.next_floor(now_ms()) {
        let before = Ask {
            query: query.to_owned(),
            from_ms: follow.place.floor_ms,
            to_ms: Some(floor_ms),
            ..Ask::default()
        };
        // Where this fails the window stays as it is, and is cut at a later look.
        if let Ok(answer) = shared.elastic.post(&path, &before.newest()).await
            && let Some(lines) = search::total(&answer).exact()
        {
            follow.cut(floor_ms, lines);
        }
    }
    Ok(news)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index as the follower sees it: times in the order in which they became searchable.
    fn look_at(follow: &mut Follow, index: &[i64], now: Instant) -> News {
        let mut lines: Vec<_> = index
            .iter()
            .enumerate()
            .filter(|(_, ms)| follow.place.floor_ms.is_none_or(|floor| **ms >= floor))
            .map(|(n, ms)| (*ms, n))
            .collect();
        lines.sort_unstable();
        lines.reverse();
        let mut look = Look::default();
        for page in lines.chunks(follow.page_size()).chain([&[][..]]) {
            let page = page
                .iter()
                .map(|(ms, n)| json!({"index": "logs", "id": n.to_string(), "sort": [ms, n]}))
                .collect();
            if follow.page(&mut look, page, Some(lines.len() as u64)).is_none() {
                break;
            }
        }
        let news = follow.news(look, now);
        if let Some(floor) = follow.next_floor(i64::MAX) {
            let counted = lines.iter().filter(|(ms, _)| *ms < floor).count();
            follow.cut(floor, counted as u64);
        }
        news
    }

    fn ids(news: &News) -> Vec<usize> {
        let mut ids: Vec<_> =
            news.lines.iter().map(|line| line["id"].as_str().unwrap().parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn lines_between_the_search_and_the_first_look_are_sent() {
        let now = Instant::now();
        // The page has seen 300 lines; three came since, one of them late.
        let mut index: Vec<i64> = (0..300).map(|n| n * 10).collect();
        index.extend([3000, 2985, 3001]);
        let mut follow = Follow::new(Place::new(None, Some(300)), now);
        let news = look_at(&mut follow, &index, now);
        // With them those around, which the page knows.
        assert!(ids(&news).ends_with(&[300, 301, 302]), "{:?}", ids(&news));
        assert_eq!((news.skipped, news.is_first), (0, true));
        assert_eq!(look_at(&mut follow, &index, now), News::default());
    }

    #[test]
    fn nothing_is_sent_to_a_page_that_knows_it_all() {
        let now = Instant::now();
        let mut follow = Follow::new(Place::new(Some(100), Some(9)), now);
        let index: Vec<i64> = (91..109).collect();
        let news = look_at(&mut follow, &index, now);
        assert_eq!((news.lines.len(), news.skipped), (0, 0));
    }

    #[test]
    fn late_lines_are_found_below_many_newer_ones() {
        let now = Instant::now();
        let mut index: Vec<i64> = (0..900).map(|n| n * 10).collect();
        let mut follow = Follow::new(Place::new(None, Some(900)), now);
        look_at(&mut follow, &index, now);
        // Beyond the first page of the newest, and in it.
        index.extend([2_005, 8_999]);
        let found = look_at(&mut follow, &index, now);
        assert_eq!((ids(&found), found.skipped), (vec![900, 901], 0));
    }

    #[test]
    fn what_cannot_be_told_from_older_lines_is_counted_as_skipped() {
        let now = Instant::now();
        let mut index: Vec<i64> = (0..3000).map(|n| n * 10).collect();
        let mut follow = Follow::new(Place::new(None, Some(3000)), now);
        look_at(&mut follow, &index, now);
        index.extend([5, 29_995]);
        let found = look_at(&mut follow, &index, now);
        assert_eq!((ids(&found), found.skipped), (vec![3001], 1));
    }

    #[test]
    fn what_comes_too_fast_is_skipped_and_counted() {
        let begun = Instant::now();
        let mut follow = Follow::new(Place::new(None, Some(0)), begun);
        look_at(&mut follow, &[], begun);
        let mut index = Vec::new();
        let (mut sent, mut skipped) = (0, 0);
        for look in 1..=20_u64 {
            index.extend((0..500).map(|n| look as i64 * 500 + n));
            let news = look_at(&mut follow, &index, begun + EVERY * look as u32);
            sent += news.lines.len() as u64;
            skipped += news.skipped;
            assert_eq!(sent + skipped, look * 500);
        }
        // 1000 at once and 200 a second for ten seconds.
        assert!((2_900..=3_000).contains(&sent), "{sent}");
    }

    #[test]
    fn every_line_is_sent_once_over_hours_in_a_short_window_and_bounded_memory() {
        let begun = Instant::now();
        let mut follow = Follow::new(Place::new(None, Some(0)), begun);
        let (mut index, mut seen) = (Vec::new(), HashSet::new());
        for look in 0..1_000_i64 {
            // Ten lines each half second, each up to half a minute late.
            index.extend((0..10).map(|n| look * 500 - (look * 7919 + n * 104_729) % 30_000));
            let news = look_at(&mut follow, &index, begun + EVERY * look as u32);
            assert_eq!(news.skipped, 0, "look {look}");
            for id in ids(&news) {
                assert!(seen.insert(id), "line {id} twice");
            }
            assert!(follow.ids.len() <= IDS_MAX);
        }
        assert_eq!(seen.len(), index.len());
        assert!(follow.place.known.unwrap() <= 2 * 2 * WINDOW_MS as u64 / 100);
    }

    #[test]
    fn a_place_survives_the_way_to_the_browser_and_back() {
        let place = Place::new(Some(-5), Some(7));
        assert_eq!(Place::from_id(&place.id().unwrap()), Some(place));
        for wrong in ["", "/", "1", "1/", "a/1", "1/-1", "1/1/1"] {
            assert_eq!(Place::from_id(wrong), None, "{wrong}");
        }
        assert_eq!(Place::new(None, Some(1)).id(), None);
    }
}
