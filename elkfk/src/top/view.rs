//! How `top` looks.

use elkfk_broker_client::lag::{Drain, Figures, State};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState};

use super::app::App;
use crate::lag::duration;

const PLOT_LINES: u16 = 4;
/// From so many columns on durations and counts are said as elsewhere; below, as short as they can be, so
/// that in 80 columns names still have room.
const WIDE: u16 = 120;
/// Of partitions, state, lag, behind, in/s, out/s, drained in; committed offsets have a width of their own.
const WIDTHS: [u16; 7] = [10, 12, 12, 14, 9, 9, 14];
const NARROW: [u16; 7] = [5, 11, 7, 7, 6, 6, 7];
const COMMITTED: u16 = 12;
const COLUMNS: u16 = 9;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let [head, flow, plot, topics, partitions, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(PLOT_LINES + 1),
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(self::head(app), head);
    let line = match &app.trouble {
        Some(why) => Line::styled(format!(" {why}"), Style::new().fg(Color::Red)),
        None => self::flow(app),
    };
    frame.render_widget(Paragraph::new(line), flow);
    draw_lists(frame, app, plot, topics, partitions);
    let keys = " ↑↓ move   Tab topics/partitions   s sort   p pause   q end";
    frame.render_widget(Paragraph::new(keys).style(dim()), foot);
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn head(app: &App) -> Paragraph<'static> {
    let mut spans =
        vec![Span::styled(" elkfk top ", Style::new().add_modifier(Modifier::REVERSED))];
    if app.is_paused {
        spans.push(Span::styled(" PAUSED", Style::new().add_modifier(Modifier::BOLD)));
    }
    let sort = app.sort.name();
    match (&app.snapshot, &app.trouble) {
        (_, Some(_)) => {
            let text = " the cluster does not answer, figures are old";
            spans.push(Span::styled(text, Style::new().fg(Color::Red)));
        }
        (None, None) => spans.push(" asking…".into()),
        (Some(snapshot), None) => {
            let at = jiff::Timestamp::from_millisecond(snapshot.now_ms).unwrap_or_default();
            let groups = match snapshot.groups.len() {
                1 => "1 group".to_owned(),
                count => format!("{count} groups"),
            };
            spans.push(format!(" {at:.0}  {groups}, by {sort}").into());
        }
    }
    // Last, for it may be a list of many.
    spans.push(format!("  {}", app.cluster).into());
    Paragraph::new(Line::from(spans))
}

/// All groups together; what a topic receives counts once for each group that reads it.
fn flow(app: &App) -> Line<'static> {
    let Some(snapshot) = &app.snapshot else { return Line::default() };
    let sum = |of: fn(&Figures) -> Option<f64>| {
        snapshot.groups.iter().filter_map(|group| of(&group.figures)).sum::<f64>()
    };
    let lag: i64 = snapshot.groups.iter().filter_map(|group| group.figures.lag).sum();
    let behind = snapshot.groups.iter().filter_map(|group| group.figures.lag_seconds);
    let behind = behind.fold(0.0, f64::max);
    Line::from(format!(
        " written {}/s → read {}/s   lag {}   behind by {} at most",
        short(sum(|figures| figures.in_rate)),
        short(sum(|figures| figures.out_rate)),
        short(lag as f64),
        duration(behind)
    ))
}

fn draw_lists(frame: &mut Frame<'_>, app: &App, plot: Rect, above: Rect, below: Rect) {
    let topics = app.topics();
    let at = app.selected(&topics);
    let Some((group, topic)) = topics.get(at).copied() else {
        let text = "No group has members or committed offsets yet.";
        let is_known = app.snapshot.is_some();
        return frame.render_widget(Paragraph::new(if is_known { text } else { "" }), above);
    };
    let points: Vec<u64> = app.plot(group, &topic.topic).collect();
    let shown = points.len().saturating_sub(plot.width.into());
    let title = format!(
        " lag of {group} on {}, the most is {} ",
        topic.topic,
        points[shown..].iter().max().unwrap_or(&0)
    );
    let line = Sparkline::default()
        .block(Block::new().title(title))
        .style(Style::new().fg(Color::Cyan))
        .data(points[shown..].iter().copied());
    frame.render_widget(line, plot);

    let widths = Widths::of(above.width);
    let (of_group, of_topic) = (widths.names() / 2, widths.names() - widths.names() / 2);
    let rows = topics.iter().map(|(group, topic)| {
        let mut cells = vec![
            Cell::new(cut(group, of_group)),
            Cell::new(cut(&topic.topic, of_topic)),
            widths.right(topic.partitions.len().to_string(), 0),
        ];
        cells.extend(widths.figures(&topic.figures));
        Row::new(cells)
    });
    let mut state = TableState::new().with_selected(Some(at));
    frame.render_stateful_widget(
        widths.table(
            rows.collect(),
            [("group", of_group), ("topic", of_topic), (widths.partitions(), widths.of[0])],
            "",
            !app.is_in_partitions,
        ),
        above,
        &mut state,
    );

    let partitions = app.partitions(topic);
    let chosen = app.partition.min(partitions.len().saturating_sub(1));
    // Beside the names there is room for an offset, whatever its length.
    let of_member = widths.names() - COMMITTED;
    let rows = partitions.iter().map(|partition| {
        let member = partition.why.as_deref().or(partition.member.as_deref()).unwrap_or("-");
        let committed = partition.committed.map_or_else(|| "-".into(), |at| at.to_string());
        let mut cells = vec![
            widths.right(partition.partition.to_string(), 0),
            Cell::new(cut(member, of_member)),
            Cell::new(format!("{committed:>0$}", COMMITTED.into())),
        ];
        cells.extend(widths.figures(&partition.figures));
        Row::new(cells)
    });
    let title = format!(" partitions of {} ", topic.topic);
    let mut state = TableState::new().with_selected(Some(chosen));
    let first = [("part", widths.of[0]), ("member", of_member), ("committed", COMMITTED)];
    frame.render_stateful_widget(
        widths.table(rows.collect(), first, &title, app.is_in_partitions),
        below,
        &mut state,
    );
}

/// How wide each column is, and how its figures are said thereby.
struct Widths {
    total: u16,
    of: [u16; 7],
    is_wide: bool,
}

impl Widths {
    fn of(total: u16) -> Self {
        let is_wide = total >= WIDE;
        Self { total, of: if is_wide { WIDTHS } else { NARROW }, is_wide }
    }

    /// What two columns of names have together: never nothing, for then the figures go over the edge.
    fn names(&self) -> u16 {
        let figures = self.of.iter().sum::<u16>() + COLUMNS - 1;
        self.total.saturating_sub(figures).max(COMMITTED + 8)
    }

    fn partitions(&self) -> &'static str {
        if self.is_wide { "partitions" } else { "parts" }
    }

    fn right(&self, text: String, column: usize) -> Cell<'static> {
        Cell::new(format!("{text:>0$}", self.of[column].into()))
    }

    fn table<'a>(
        &self,
        rows: Vec<Row<'a>>,
        first: [(&'static str, u16); 3],
        title: &str,
        has_focus: bool,
    ) -> Table<'a> {
        let chosen = match has_focus {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new().add_modifier(Modifier::BOLD),
        };
        let drained = if self.is_wide { "drained in" } else { "drained" };
        let figures = ["state", "lag", "behind", "in/s", "out/s", drained];
        let columns =
            first.into_iter().chain(figures.into_iter().zip(self.of[1..].iter().copied()));
        let (names, widths): (Vec<_>, Vec<_>) = columns.unzip();
        let is_text = |name: &str| matches!(name, "group" | "topic" | "member" | "state");
        let head = names.into_iter().zip(&widths).map(|(name, width)| match is_text(name) {
            true => name.to_owned(),
            false => format!("{name:>0$}", usize::from(*width)),
        });
        Table::new(rows, widths.iter().copied().map(Constraint::Length))
            .header(Row::new(head.collect::<Vec<_>>()).style(dim()))
            .row_highlight_style(chosen)
            .block(Block::new().title(title.to_owned()))
    }

    fn figures(&self, figures: &Figures) -> [Cell<'static>; 6] {
        let right = |text: Option<String>, column: usize| {
            self.right(text.unwrap_or_else(|| "-".into()), column)
        };
        let colour = match figures.state {
            State::Ok => Color::Green,
            State::Behind | State::Uncommitted | State::Unknown => Color::Yellow,
            State::Rewound | State::Stalled | State::Stopped => Color::Red,
        };
        let duration = if self.is_wide { duration } else { short_duration };
        let drain = figures.drain.map(|drain| match drain {
            Drain::Never => "never".to_owned(),
            Drain::Seconds(seconds) => duration(seconds),
        });
        let lag = figures.lag.map(|lag| match self.is_wide {
            true => lag.to_string(),
            false => short(lag as f64),
        });
        [
            Cell::new(figures.state.name()).style(Style::new().fg(colour)),
            right(lag, 2),
            right(figures.lag_seconds.map(duration), 3),
            right(figures.in_rate.map(short), 4),
            right(figures.out_rate.map(short), 5),
            right(drain, 6),
        ]
    }
}

/// What does not fit ends with an ellipsis.
fn cut(text: &str, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A count in five characters.
fn short(count: f64) -> String {
    match count {
        ..99_999.5 => format!("{count:.0}"),
        ..999_500.0 => format!("{:.0}k", count / 1e3),
        ..9_995_000.0 => format!("{:.2}M", count / 1e6),
        ..999_500_000.0 => format!("{:.0}M", count / 1e6),
        ..9_995_000_000.0 => format!("{:.2}G", count / 1e9),
        _ => format!("{:.0}G", count / 1e9),
    }
}

/// Seconds in six characters, up to some 270 years.
fn short_duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0 if seconds > 0.05 => format!("{seconds:.1}s"),
        0..100 => format!("{whole}s"),
        100..6_000 => format!("{}m{:02}s", whole / 60, whole % 60),
        6_000..360_000 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{GroupSample, PartitionSample, Sample, Tracker};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};

    use super::super::app::Then;
    use super::*;

    fn sample(second: i64, partitions: i32) -> Sample {
        let partition = |topic: &str, partition: i32| PartitionSample {
            topic: topic.into(),
            partition,
            committed: Some(second * 10 * i64::from(partition)),
            ends: Some((0, 1000 + second * 20)),
            committed_record_ms: Some(0),
            ..PartitionSample::default()
        };
        let partitions =
            (0..partitions).map(|n| partition("logs", n)).chain([partition("other", 0)]).collect();
        let group = GroupSample {
            group: "sink".into(),
            state: "Stable".into(),
            members: 1,
            partitions,
            why_unknown: None,
        };
        Sample { now_ms: second * 1000, groups: vec![group] }
    }

    fn screen(app: &App) -> String {
        screen_of(app, 110)
    }

    fn screen_of(app: &App, columns: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, 24)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..24).map(|y| line(y).trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn eighty_columns_are_enough_for_every_figure() {
        let mut app = App::new("kafka-1.shop.example:9092,kafka-2.shop.example:9092".into());
        let mut tracker = Tracker::default();
        for second in [0, 10] {
            let mut sample = sample(second, 2);
            sample.now_ms = second * 1000 + 4_000_000;
            let group = &mut sample.groups[0];
            group.group = "a-group-with-a-long-name".into();
            for partition in &mut group.partitions {
                partition.member = Some("elkfk-sink-0 @ 10.0.0.1".into());
                partition.committed = partition.committed.map(|at| at + 1_000_000_000);
                partition.ends = Some((0, 1_000_150_000 + second * 1_000));
            }
            app.on_measured(Ok(tracker.step(sample)));
        }
        let expected = "
 elkfk top  1970-01-01T01:06:50Z  1 group, by behind  kafka-1.shop.example:9092,
 written 3000/s → read 10/s   lag 480k   behind by 1 h 6 min at most
 lag of a-group-with-a-long-name on logs, the most is 319900
";
        let head: String =
            screen_of(&app, 80).lines().take(3).map(|l| l.to_owned() + "\n").collect();
        assert_eq!(head, expected.trim_start_matches('\n'));
        let expected = "
group       topic        parts state           lag  behind   in/s  out/s drained
a-group-wi… logs             2 behind         320k  66m50s   2000     10   never
a-group-wi… other            1 behind         160k  66m50s   1000      0   never
";
        let shown = screen_of(&app, 80);
        assert!(shown.contains(expected), "{shown}");
        let expected = "
 part member         committed state           lag  behind   in/s  out/s drained
    0 elkfk-sink…   1000000000 behind         160k  66m50s   1000      0   never
    1 elkfk-sink…   1000000100 behind         160k  66m50s   1000     10   never
";
        assert!(shown.contains(expected), "{shown}");
        let wide = screen_of(&app, 160);
        assert!(wide.contains("a-group-with-a-long-name") && wide.contains("1 h 6 min"), "{wide}");
        // Smaller still is no reason to break.
        for columns in [1, 20, 40, 79] {
            screen_of(&app, columns);
        }
    }

    #[test]
    fn figures_are_as_short_as_their_columns() {
        let counts = [0.0, 4.4, 99_999.0, 99_999.6, 999_499.0, 1e6, 9.99e6, 1e7, 9.99e8, 1e9, 5e11];
        let said = counts.map(short);
        assert_eq!(
            said,
            ["0", "4", "99999", "100k", "999k", "1.00M", "9.99M", "10M", "999M", "1.00G", "500G"]
        );
        let seconds = [0.0, 0.4, 59.4, 99.0, 100.0, 5_999.0, 6_000.0, 359_999.0, 360_000.0, 8e9];
        let said = seconds.map(short_duration);
        assert_eq!(
            said,
            ["0s", "0.4s", "59s", "99s", "1m40s", "99m59s", "1h40m", "99h59m", "4d", "92592d"]
        );
        assert!(said.iter().all(|text| text.len() <= 6));
    }

    #[test]
    fn flow_lag_and_partitions_are_shown_and_keys_move_through_them() {
        let mut app = App::new("127.0.0.1:9092".into());
        assert!(screen(&app).contains("asking…"));
        let mut tracker = Tracker::default();
        for second in 0..=10 {
            app.on_measured(Ok(tracker.step(sample(second, 3))));
        }
        let shown = screen(&app);
        assert!(
            shown.contains("written 80/s → read 30/s   lag 4500   behind by 10 s at most"),
            "{shown}"
        );
        assert!(shown.contains("lag of sink on logs"), "{shown}");
        assert!(shown.contains("partitions of logs"), "{shown}");
        app.on_key(KeyEvent::from(KeyCode::Down));
        assert!(screen(&app).contains("partitions of other"));
        app.on_key(KeyEvent::from(KeyCode::Char('p')));
        app.on_measured(Ok(tracker.step(sample(11, 3))));
        let shown = screen(&app);
        assert!(shown.contains("PAUSED") && shown.contains("lag 4500"), "{shown}");
        app.on_measured(Err("connection refused".into()));
        let shown = screen(&app);
        assert!(
            shown.contains("figures are old") && shown.contains("connection refused"),
            "{shown}"
        );
        assert_eq!(app.on_key(KeyEvent::from(KeyCode::Char('q'))), Then::End);
    }

    #[test]
    fn a_list_longer_than_the_screen_follows_the_selection() {
        let mut app = App::new("127.0.0.1:9092".into());
        let mut tracker = Tracker::default();
        app.on_measured(Ok(tracker.step(sample(1, 200))));
        for key in [KeyCode::Char('s'), KeyCode::Char('s'), KeyCode::Tab, KeyCode::End] {
            app.on_key(KeyEvent::from(key));
        }
        let shown = screen(&app);
        assert!(shown.contains(" 199 "), "{shown}");
        assert!(!shown.contains("    0 -"), "{shown}");
    }
}
