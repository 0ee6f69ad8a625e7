//! What `top` shows and what keys do to it; neither terminal nor cluster.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use elkfk_broker_client::lag::{Figures, PartitionLag, Snapshot, TopicLag};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Points of each small plot.
const POINTS_MAX: usize = 300;
/// Topics of groups that are plotted.
const PLOTS_MAX: usize = 2_000;
const PAGE: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Behind,
    Lag,
    Name,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Lag => "lag",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Behind => Self::Lag,
            Self::Lag => Self::Name,
            Self::Name => Self::Behind,
        }
    }

    fn order(self, a: &Figures, b: &Figures) -> Ordering {
        match self {
            Self::Behind => {
                let seconds = |figures: &Figures| figures.lag_seconds.unwrap_or(-1.0);
                seconds(b).total_cmp(&seconds(a)).then(b.lag.cmp(&a.lag))
            }
            Self::Lag => b.lag.cmp(&a.lag),
            Self::Name => Ordering::Equal,
        }
    }
}

/// A topic as a group reads it.
type Place = (String, String);

#[derive(Debug)]
pub(super) struct App {
    pub(super) cluster: String,
    pub(super) snapshot: Option<Snapshot>,
    /// Why the figures are old.
    pub(super) trouble: Option<String>,
    pub(super) sort: Sort,
    pub(super) is_paused: bool,
    /// Keys move through the partitions, not through the topics.
    pub(super) is_in_partitions: bool,
    pub(super) partition: usize,
    selected: Option<Place>,
    plots: BTreeMap<Place, VecDeque<u64>>,
}

impl App {
    pub(super) fn new(cluster: String) -> Self {
        Self {
            cluster,
            snapshot: None,
            trouble: None,
            sort: Sort::default(),
            is_paused: false,
            is_in_partitions: false,
            partition: 0,
            selected: None,
            plots: BTreeMap::new(),
        }
    }

    pub(super) fn on_measured(&mut self, measured: Result<Snapshot, String>) {
        let snapshot = match measured {
            Ok(snapshot) => snapshot,
            Err(why) => {
                self.trouble = Some(why);
                return;
            }
        };
        self.trouble = None;
        let mut before = std::mem::take(&mut self.plots);
        for group in &snapshot.groups {
            for topic in group.topics.iter().filter(|topic| topic.figures.lag.is_some()) {
                let place = (group.group.clone(), topic.topic.clone());
                if self.plots.len() < PLOTS_MAX {
                    let mut plot = before.remove(&place).unwrap_or_default();
                    if plot.len() == POINTS_MAX {
                        plot.pop_front();
                    }
                    plot.push_back(topic.figures.lag.map_or(0, |lag| lag.max(0) as u64));
                    self.plots.insert(place, plot);
                }
            }
        }
        if !self.is_paused {
            self.snapshot = Some(snapshot);
        }
    }

    /// Each topic of each group, in the order asked for.
    pub(super) fn topics(&self) -> Vec<(&str, &TopicLag)> {
        let groups = self.snapshot.iter().flat_map(|snapshot| &snapshot.groups);
        let mut topics: Vec<_> = groups
            .flat_map(|group| group.topics.iter().map(|topic| (group.group.as_str(), topic)))
            .collect();
        topics.sort_by(|a, b| self.sort.order(&a.1.figures, &b.1.figures));
        topics
    }

    /// Of the list, the one whose partitions are shown: the first where none was chosen.
    pub(super) fn selected(&self, topics: &[(&str, &TopicLag)]) -> usize {
        let is_it = |(group, topic): &(&str, &TopicLag)| {
            self.selected.as_ref().is_some_and(|(g, t)| g == group && *t == topic.topic)
        };
        topics.iter().position(is_it).unwrap_or(0)
    }

    /// In the order asked for.
    pub(super) fn partitions<'a>(&self, topic: &'a TopicLag) -> Vec<&'a PartitionLag> {
        let mut partitions: Vec<_> = topic.partitions.iter().collect();
        partitions.sort_by(|a, b| self.sort.order(&a.figures, &b.figures));
        partitions
    }

    /// The lag of a topic, oldest first.
    pub(super) fn plot(&self, group: &str, topic: &str) -> impl Iterator<Item = u64> {
        let plot = self.plots.get(&(group.to_owned(), topic.to_owned()));
        plot.into_iter().flatten().copied()
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> Then {
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Then::End;
            }
            KeyCode::Char('q') | KeyCode::Esc => return Then::End,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Tab => self.is_in_partitions = !self.is_in_partitions,
            KeyCode::Down | KeyCode::Char('j') => self.step(1, true),
            KeyCode::Up | KeyCode::Char('k') => self.step(1, false),
            KeyCode::PageDown => self.step(PAGE, true),
            KeyCode::PageUp => self.step(PAGE, false),
            KeyCode::Home | KeyCode::Char('g') => self.step(usize::MAX, false),
            KeyCode::End | KeyCode::Char('G') => self.step(usize::MAX, true),
            _ => {}
        }
        Then::GoOn
    }

    fn step(&mut self, by: usize, is_down: bool) {
        let topics = self.topics();
        let at = self.selected(&topics);
        let go = |from: usize, count: usize| match is_down {
            true => from.saturating_add(by).min(count.saturating_sub(1)),
            false => from.saturating_sub(by),
        };
        if self.is_in_partitions {
            let count = topics.get(at).map_or(0, |(_, topic)| topic.partitions.len());
            self.partition = go(self.partition.min(count.saturating_sub(1)), count);
        } else if let Some((group, topic)) = topics.get(go(at, topics.len())) {
            self.selected = Some(((*group).to_owned(), topic.topic.clone()));
            self.partition = 0;
        }
    }
}
