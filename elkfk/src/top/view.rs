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
    frame.render_widget(Paragraph::new(self::flow(app)), flow);
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
    spans.push(format!(" {}  ", app.cluster).into());
    match (&app.snapshot, &app.trouble) {
        (_, Some(why)) => {
            let text = format!("the cluster does not answer, figures are old: {why}");
            spans.push(Span::styled(text, Style::new().fg(Color::Red)));
        }
        (None, None) => spans.push("asking…".into()),
        (Some(snapshot), None) => {
            let at = jiff::Timestamp::from_millisecond(snapshot.now_ms).unwrap_or_default();
            let paused = if app.is_paused { "  PAUSED" } else { "" };
            let groups = match snapshot.groups.len() {
                1 => "1 group".to_owned(),
                count => format!("{count} groups"),
            };
            spans.push(format!("{at:.0}  {groups}, by {}{paused}", app.sort.name()).into());
        }
    }
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
        " written {:.0}/s → read {:.0}/s   lag {lag}   behind by {} at most",
        sum(|figures| figures.in_rate),
        sum(|figures| figures.out_rate),
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

    let head =
        ["group", "topic", "partitions", "state", "lag", "behind", "in/s", "out/s", "drained in"];
    let rows = topics.iter().map(|(group, topic)| {
        let mut cells = vec![
            Cell::new((*group).to_owned()),
            Cell::new(topic.topic.clone()),
            Cell::new(format!("{:>10}", topic.partitions.len())),
        ];
        cells.extend(figures(&topic.figures));
        Row::new(cells)
    });
    let mut state = TableState::new().with_selected(Some(at));
    frame.render_stateful_widget(
        table(
            rows.collect(),
            &head,
            [Constraint::Fill(2), Constraint::Fill(2), Constraint::Length(10)],
            "",
            !app.is_in_partitions,
        ),
        above,
        &mut state,
    );

    let partitions = app.partitions(topic);
    let chosen = app.partition.min(partitions.len().saturating_sub(1));
    let head = [
        "partition",
        "member",
        "committed",
        "state",
        "lag",
        "behind",
        "in/s",
        "out/s",
        "drained in",
    ];
    let rows = partitions.iter().map(|partition| {
        let member = partition.why.clone().or_else(|| partition.member.clone());
        let committed = partition.committed.map_or_else(|| "-".into(), |at| at.to_string());
        let mut cells = vec![
            Cell::new(format!("{:>9}", partition.partition)),
            Cell::new(member.unwrap_or_else(|| "-".into())),
            Cell::new(format!("{committed:>12}")),
        ];
        cells.extend(figures(&partition.figures));
        Row::new(cells)
    });
    let title = format!(" partitions of {} ", topic.topic);
    let mut state = TableState::new().with_selected(Some(chosen));
    let widths = [Constraint::Length(9), Constraint::Fill(2), Constraint::Length(12)];
    frame.render_stateful_widget(
        table(rows.collect(), &head, widths, &title, app.is_in_partitions),
        below,
        &mut state,
    );
}

fn table<'a>(
    rows: Vec<Row<'a>>,
    head: &[&'static str],
    first: [Constraint; 3],
    title: &str,
    has_focus: bool,
) -> Table<'a> {
    let figures = [12, 12, 14, 9, 9, 14].map(Constraint::Length);
    let chosen = match has_focus {
        true => Style::new().add_modifier(Modifier::REVERSED),
        false => Style::new().add_modifier(Modifier::BOLD),
    };
    let head = head.iter().enumerate().map(|(n, name)| match n {
        0..4 => (*name).to_owned(),
        _ => format!("{name:>0$}", [12, 14, 9, 9, 14][n - 4]),
    });
    Table::new(rows, first.into_iter().chain(figures))
        .header(Row::new(head).style(dim()))
        .row_highlight_style(chosen)
        .block(Block::new().title(title.to_owned()))
}

fn figures(figures: &Figures) -> [Cell<'static>; 6] {
    let right = |text: Option<String>, width: usize| {
        Cell::new(format!("{:>width$}", text.unwrap_or_else(|| "-".into())))
    };
    let colour = match figures.state {
        State::Ok => Color::Green,
        State::Behind | State::Uncommitted | State::Unknown => Color::Yellow,
        State::Rewound | State::Stalled | State::Stopped => Color::Red,
    };
    let drain = figures.drain.map(|drain| match drain {
        Drain::Never => "never".to_owned(),
        Drain::Seconds(seconds) => duration(seconds),
    });
    [
        Cell::new(figures.state.name()).style(Style::new().fg(colour)),
        right(figures.lag.map(|lag| lag.to_string()), 12),
        right(figures.lag_seconds.map(duration), 14),
        right(figures.in_rate.map(|rate| format!("{rate:.0}")), 9),
        right(figures.out_rate.map(|rate| format!("{rate:.0}")), 9),
        right(drain, 14),
    ]
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
        let mut terminal = Terminal::new(TestBackend::new(110, 24)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..110).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..24).map(|y| line(y) + "\n").collect()
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
        assert!(screen(&app).contains("figures are old: connection refused"));
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
        assert!(!shown.contains("       0 -"), "{shown}");
    }
}
